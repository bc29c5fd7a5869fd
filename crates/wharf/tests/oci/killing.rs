//! Ends of containers whose processes do not end with the first one.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::kit::{Bundle, wait_until};

fn has_ended(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn without_a_pid_namespace_a_kill_reaches_who_outlived_the_first_process() {
    let Some(bundle) = Bundle::sleeper("outlived", |config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    }) else {
        return;
    };
    bundle.create();
    bundle.start();
    let first = i32::try_from(bundle.state()["pid"].as_i64().unwrap()).unwrap();
    let others: Vec<i32> = ["one", "two"]
        .iter()
        .map(|name| {
            let file = bundle.path(name);
            let pid_file = file.to_string_lossy();
            let mut exec = bundle.wharf(&["exec", "-d", "--pid-file", &pid_file, &bundle.id, "sleep", "600"]);
            assert!(exec.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
            fs::read_to_string(file).unwrap().parse().unwrap()
        })
        .collect();
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    bundle.wait_for_status("stopped");
    assert!(others.iter().all(|pid| !has_ended(*pid)));
    assert!(bundle.fails(&["kill", &bundle.id, "TERM"]).1.contains("container not running"));
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    wait_until("the others' end", || others.iter().all(|pid| has_ended(*pid)));
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_is_left();
}

/// Somebody's own group of v1's freezer.
struct Freezer(PathBuf);

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn who_was_put_into_another_freezer_can_be_deleted() {
    if !fs::exists("/sys/fs/cgroup/freezer").unwrap() {
        return eprintln!("skipped: cgroup2 freezes by the group that a process is in anyway");
    }
    let Some(bundle) = Bundle::sleeper("other-freezer", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let freezer = Freezer(PathBuf::from(format!("/sys/fs/cgroup/freezer/wharf-ice-{}", std::process::id())));
    fs::create_dir(&freezer.0).unwrap();
    fs::write(freezer.0.join("cgroup.procs"), bundle.state()["pid"].to_string()).unwrap();
    fs::write(freezer.0.join("freezer.state"), "FROZEN").unwrap();
    assert_eq!(bundle.ok(&["delete", "--force", &bundle.id]), "");
    fs::remove_dir(&freezer.0).unwrap();
    bundle.assert_nothing_is_left();
}
