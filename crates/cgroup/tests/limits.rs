//! Limits that the kernel really holds, in groups of this test's own.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use oci_spec::runtime::LinuxResources;
use wharf_cgroup::{Group, Hierarchies};

/// A group that goes with its test, also when the test fails.
struct Mine(Group);

impl Mine {
    /// `None` where this process may not make groups.
    fn new(name: &str) -> Option<Self> {
        let hierarchies = Hierarchies::detect().ok()?;
        match Group::create(&hierarchies, &format!("/wharf-test-{}/{name}", std::process::id())) {
            Ok(group) => Some(Self(group)),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn limit(&self, json: &str) {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        self.0.limit(&resources).unwrap();
    }
}

impl Drop for Mine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.remove().unwrap();
        for dir in self.0.directories() {
            // The parent is shared by the tests of this process; the last one removes it.
            let _ = std::fs::remove_dir(dir.parent().unwrap());
        }
    }
}

#[test]
fn a_group_holds_the_number_of_processes() {
    let Some(mine) = Mine::new("pids") else { return };
    mine.limit(r#"{"pids":{"limit":4}}"#);
    let script = format!("{} ; n=0; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done 2>/dev/null; wait", join(&mine.0));
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success() || !output.stderr.is_empty(), "a ninth process must not come to be");
    assert_eq!(mine.0.usage().pids_limit, 4);
}

#[test]
fn a_child_never_gets_past_its_parent_s_limit() {
    let Some(parent) = Mine::new("parent") else { return };
    parent.limit(r#"{"memory":{"limit":33554432,"swap":33554432}}"#);
    let child = Mine::new("parent/child").unwrap();
    // It asks for eight times what its parent has.
    child.limit(r#"{"memory":{"limit":268435456,"swap":268435456}}"#);
    let script = format!("{} ; exec head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null", join(&child.0));
    let status = Command::new("bash").args(["-o", "pipefail", "-c", &script]).status().unwrap();
    assert!(!status.success(), "100 MB fitted into a parent of 32 MB");
    assert!(parent.0.usage().oom_kills + child.0.usage().oom_kills > 0);
}

#[test]
fn killing_a_group_ends_what_is_in_it() {
    let Some(mine) = Mine::new("kill") else { return };
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    mine.0.add(i32::try_from(sleeper.id()).unwrap(), true).unwrap();
    assert_eq!(mine.0.processes().unwrap(), [i32::try_from(sleeper.id()).unwrap()]);
    mine.0.freeze(true).unwrap();
    mine.0.freeze(false).unwrap();
    mine.0.kill().unwrap();
    assert!(!sleeper.wait().unwrap().success());
    if let Some(fd) = mine.0.birth_fd().unwrap() {
        assert!(fd.as_fd().try_clone_to_owned().is_ok());
    }
}

#[test]
fn paths_that_leave_the_hierarchy_are_refused() {
    let Ok(hierarchies) = Hierarchies::detect() else { return };
    for bad in ["", "/", "wharf", "/a/../../b", "/.."] {
        assert!(Group::open(&hierarchies, bad).is_err(), "{bad}");
    }
}

/// Shell words that put the shell itself into the group.
fn join(group: &Group) -> String {
    let files: Vec<String> =
        group.directories().iter().map(|dir| format!("echo $$ > {}", dir.join("cgroup.procs").display())).collect();
    files.join("; ")
}

#[test]
fn who_goes_in_by_itself_is_in_every_v1_group() {
    let Some(mine) = Mine::new("entrance") else { return };
    let entrance = mine.0.entrance(false).unwrap();
    // A thread of this test's own, which on v1 goes alone.
    let lines = std::thread::spawn(move || {
        entrance.enter().unwrap();
        std::fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let lines = lines.join().unwrap();
    let path = format!("/{}", mine.0.path().display());
    let v1: Vec<&str> = lines.lines().filter(|line| !line.starts_with("0::")).collect();
    assert!(v1.iter().all(|line| line.ends_with(&path)), "{lines}");
    assert_eq!(v1.is_empty(), mine.0.hierarchies().all_v1().next().is_none());
}

#[test]
fn an_empty_group_goes_at_once_and_a_full_one_not() {
    let Some(mine) = Mine::new("empty") else { return };
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    mine.0.add(i32::try_from(sleeper.id()).unwrap(), true).unwrap();
    assert!(!mine.0.remove_empty().unwrap());
    assert!(mine.0.is_made());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(mine.0.remove_empty().unwrap() && !mine.0.is_made());
    assert!(mine.0.remove_empty().unwrap());
}
