//! Runtimes that are killed in the middle of their work, and containers that others delete meanwhile.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kit::{Bundle, text, wait_until};

/// A hook of the shell's; its parent is the runtime.
fn hook(config: &mut Value, point: &str, script: &str) {
    config["hooks"] = json!({ point: [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
}

fn in_background(bundle: &Bundle, words: &[&str]) -> Child {
    let mut command = bundle.wharf(words);
    command.current_dir(bundle.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn is_there(pid: &Value) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_creation_whose_runtime_is_killed_is_seen_and_deleted_whole() {
    let Some(bundle) = Bundle::sleeper("killed-create", |config| hook(config, "createRuntime", "kill -9 $PPID")) else {
        return;
    };
    let mut create = in_background(&bundle, &["create", &bundle.id]);
    assert!(!create.wait().unwrap().success());
    let state = bundle.state();
    assert!(["creating", "stopped"].contains(&state["status"].as_str().unwrap()), "{state}");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_is_left();
}

/// Killed when the first process waits at its gate already: that one does not end with its maker.
#[test]
fn a_first_process_whose_maker_was_killed_ends_with_the_container() {
    let Some(bundle) = Bundle::sleeper("killed-late", |_| {}) else { return };
    bundle.create();
    let path = bundle.root().join(&bundle.id).join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(record["creating"].is_null(), "{record}");
    // What was written when it was born.
    record["creating"] = json!(true);
    fs::write(&path, record.to_string()).unwrap();
    let state = bundle.state();
    assert_eq!(state["status"], "creating");
    assert!(is_there(&state["pid"]));
    assert!(bundle.fails(&["start", &bundle.id]).1.contains("cannot start a container in the creating state"));
    bundle.ok(&["delete", &bundle.id]);
    assert!(!is_there(&state["pid"]));
    bundle.assert_nothing_is_left();
}

#[test]
fn a_container_that_went_on_without_its_starter_runs() {
    let Some(bundle) = Bundle::sleeper("killed-start", |_| {}) else { return };
    bundle.create();
    bundle.start();
    // Who was killed between the word and the end of its work leaves the gate, at which nobody is.
    let gate = bundle.root().join(&bundle.id).join("start.sock");
    let short = Path::new("/proc/self/fd");
    let dir = fs::File::open(gate.parent().unwrap()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&dir).to_string();
    drop(UnixListener::bind(short.join(number).join("start.sock")).unwrap());
    assert!(gate.exists());
    assert_eq!(bundle.status(), "running");
    assert!(bundle.fails(&["delete", &bundle.id]).1.contains("that is not stopped: running"));
    assert_eq!(bundle.ok(&["exec", &bundle.id, "echo", "in"]), "in\n");
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_is_left();
}

#[test]
fn a_deletion_by_force_waits_for_no_hook() {
    for point in ["createRuntime", "poststart", "startContainer"] {
        let Some(bundle) = Bundle::sleeper("hooked", |_| {}) else { return };
        let begun = bundle.path("rootfs/begun");
        // In the container the root is the bundle's.
        let (shell, mark) = match point {
            "startContainer" => ("/bin/sh", "/begun".to_owned()),
            _ => ("/bin/sh", begun.display().to_string()),
        };
        bundle.configure(|config| {
            let script = format!("echo > {mark}; exec /bin/sleep 300");
            config["hooks"] = json!({ point: [{ "path": shell, "args": ["sh", "-c", script] }] });
        });
        let mut doing = match point {
            "createRuntime" => in_background(&bundle, &["create", &bundle.id]),
            _ => {
                bundle.create();
                in_background(&bundle, &["start", &bundle.id])
            }
        };
        wait_until("the hook", || begun.exists());
        assert_eq!(bundle.ok(&["delete", "--force", &bundle.id]), "", "{point}");
        assert!(!bundle.root().join(&bundle.id).exists(), "{point}");
        if point == "poststart" {
            // That hook is the host's own, and goes on.
            kill_children(&doing);
        }
        let code = doing.wait().unwrap();
        // A start is over when the first process goes on.
        assert!(point == "startContainer" || !code.success(), "{point}");
        bundle.assert_nothing_is_left();
    }
}

fn kill_children(of: &Child) {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", of.id())).unwrap();
    for pid in children.split_whitespace() {
        kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
}

#[test]
fn who_has_come_into_the_group_does_not_end_with_the_container() {
    let Some(bundle) = Bundle::sleeper("bystander", |_| {}) else { return };
    let Some(group) = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().find(|dir| Path::new(dir).is_dir()) else {
        return;
    };
    bundle.create();
    bundle.start();
    let below = Path::new(group).join(&bundle.id).join("below");
    fs::create_dir(&below).unwrap();
    let mut other = std::process::Command::new("sleep").arg("300").spawn().unwrap();
    fs::write(below.join("cgroup.procs"), other.id().to_string()).unwrap();
    let output = bundle.output(&["delete", "--force", &bundle.id]);
    let alive = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    fs::remove_dir(&below).unwrap();
    fs::remove_dir(below.parent().unwrap()).unwrap();
    assert!(alive, "{}", text(&output.stderr));
    assert!(output.status.success() && text(&output.stderr).contains("stays: "), "{}", text(&output.stderr));
    bundle.assert_nothing_is_left();
}

#[test]
fn a_pid_file_is_written_to_no_link_of_somebody_else_s() {
    let Some(bundle) = Bundle::sleeper("pid-link", |_| {}) else { return };
    let (file, victim) = (bundle.path("pid"), bundle.path("victim"));
    fs::write(&victim, "precious").unwrap();
    let mut create = bundle.wharf(&["create", "--pid-file", &file.to_string_lossy(), &bundle.id]);
    std::os::unix::fs::symlink(&victim, bundle.path(".pid")).unwrap();
    std::os::unix::fs::symlink(&victim, &file).unwrap();
    let mut create = create.current_dir(bundle.dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Its name while it is written; it may be there by now.
    let _ = std::os::unix::fs::symlink(&victim, bundle.path(&format!(".pid.{}", create.id())));
    assert!(create.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::read_to_string(&file).unwrap(), bundle.state()["pid"].to_string());
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    bundle.ok(&["delete", "--force", &bundle.id]);
}

/// Everybody makes and deletes the same one: what is left can be deleted, and no process stays without its state.
#[test]
fn a_name_that_many_make_and_delete_at_once_is_nobody_s_in_the_end() {
    let Some(bundle) = Bundle::sleeper("storm", |_| {}) else { return };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..15 {
                    let mut create = in_background(&bundle, &["create", &bundle.id]);
                    create.wait().unwrap();
                }
            });
            scope.spawn(|| (0..40).for_each(|_| drop(bundle.output(&["delete", "--force", &bundle.id]))));
        }
    });
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_is_left();
    bundle.create();
    bundle.start();
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_is_left();
}
