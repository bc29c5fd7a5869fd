//! create, start, kill, delete, and what `state` says between them.

use std::fs;

use serde_json::{Value, json};

use crate::kit::{Bundle, text, wait_until};

#[test]
fn a_created_container_waits_for_its_start() {
    let Some(bundle) = Bundle::new("waits", &["sh", "-c", "echo started; sleep 600"], |_| {}) else { return };
    bundle.create();
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], json!(bundle.dir.path().canonicalize().unwrap()));
    let pid = state["pid"].as_i64().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(bundle.shown(), "");
    // Nothing of the host's is open in it but the streams and the gate.
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert_eq!(fds, 4);
    bundle.start();
    wait_until("the program's output", || bundle.shown() == "started\n");
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.state()["pid"].as_i64(), Some(pid));
    assert!(bundle.fails(&["start", &bundle.id]).1.contains("cannot start an already running container"));
    let (code, message) = bundle.fails(&["delete", &bundle.id]);
    assert_eq!(code, 1);
    assert!(message.contains("that is not stopped: running"), "{message}");
    bundle.ok(&["kill", &bundle.id, "SIGKILL"]);
    bundle.wait_for_status("stopped");
    assert_eq!(bundle.state()["pid"], 0);
    assert!(bundle.fails(&["kill", &bundle.id, "0"]).1.contains("container not running"));
    assert!(bundle.fails(&["start", &bundle.id]).1.contains("cannot start a container that has stopped"));
    bundle.ok(&["delete", &bundle.id]);
    assert!(bundle.fails(&["state", &bundle.id]).1.contains("container does not exist"));
    bundle.assert_nothing_is_left();
}

#[test]
fn what_waits_for_its_start_can_be_deleted() {
    let Some(bundle) = Bundle::sleeper("unstarted", |_| {}) else { return };
    bundle.create();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    bundle.ok(&["delete", &bundle.id]);
    let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    wait_until("the first process's end", gone);
    bundle.assert_nothing_is_left();
}

#[test]
fn one_id_is_one_container() {
    let Some(bundle) = Bundle::sleeper("twice", |_| {}) else { return };
    bundle.create();
    let dir = bundle.dir.path().to_string_lossy().into_owned();
    let (code, message) = bundle.fails(&["create", "--bundle", &dir, &bundle.id]);
    assert_eq!(code, 1);
    assert!(message.contains("container with given ID already exists"), "{message}");
    assert_eq!(bundle.status(), "created", "the first one is as it was");
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.ok(&["delete", "--force", &bundle.id]);
    assert!(bundle.fails(&["delete", &bundle.id]).1.contains("container does not exist"));
}

#[test]
fn a_failed_create_leaves_nothing_and_names_the_reason_in_the_log() {
    let Some(bundle) = Bundle::new("failed", &["/no/such"], |_| {}) else { return };
    let log = bundle.path("log");
    let mut command = bundle.wharf(&[]);
    command.arg("--log").arg(&log).args(["--log-format", "json", "create", "--bundle"]).arg(bundle.dir.path());
    let output = command.arg(&bundle.id).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let entry: Value = serde_json::from_str(fs::read_to_string(log).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(entry["level"], "error");
    let message = entry["msg"].as_str().unwrap();
    assert!(message.contains("exec: \"/no/such\": stat /no/such: no such file or directory"), "{message}");
    bundle.assert_nothing_is_left();
}

#[test]
fn a_recycled_process_id_is_not_the_container_s() {
    let Some(bundle) = Bundle::sleeper("recycled", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let path = bundle.root().join(&bundle.id).join("state.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let real = record["process"].clone();
    record["process"]["start"] = json!(1);
    fs::write(&path, record.to_string()).unwrap();
    assert_eq!(bundle.status(), "stopped");
    assert!(bundle.fails(&["kill", &bundle.id, "KILL"]).1.contains("container not running"));
    assert!(bundle.fails(&["exec", &bundle.id, "true"]).1.contains("cannot exec in a stopped container"));
    record["process"] = real;
    fs::write(&path, record.to_string()).unwrap();
    assert_eq!(bundle.status(), "running");
}

#[test]
fn signals_have_names_and_reach_the_first_process_or_all() {
    let script = "trap 'echo got; exit 3' USR1; echo ready; sleep 600 & while :; do sleep 0.1; done";
    let Some(bundle) = Bundle::new("signals", &["sh", "-c", script], |_| {}) else { return };
    bundle.create();
    bundle.start();
    wait_until("the trap", || bundle.shown().contains("ready"));
    assert!(bundle.fails(&["kill", &bundle.id, "NOPE"]).1.contains("unknown signal"));
    bundle.ok(&["kill", &bundle.id, "sigusr1"]);
    wait_until("the signal", || bundle.shown().contains("got"));
    bundle.wait_for_status("stopped");
    bundle.ok(&["kill", "--all", &bundle.id, "KILL"]);
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_is_left();
}

#[test]
fn without_a_pid_namespace_all_end_with_a_kill() {
    let shared = |config: &mut Value| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    };
    let Some(bundle) = Bundle::new("sharedpid", &["sh", "-c", "sleep 601 & sleep 602"], shared) else { return };
    bundle.create();
    bundle.start();
    let count = || bundle.ok(&["ps", "--format", "json", &bundle.id]).matches(',').count();
    wait_until("both processes", || count() >= 1);
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_for_status("stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_is_left();
}

#[test]
fn what_a_broken_off_creation_left_can_be_deleted() {
    let Some(bundle) = Bundle::sleeper("broken", |_| {}) else { return };
    fs::create_dir_all(bundle.root().join(&bundle.id)).unwrap();
    assert!(bundle.fails(&["state", &bundle.id]).1.contains("container does not exist"));
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.create();
    assert_eq!(text(bundle.output(&["list", "-q"]).stdout.as_slice()), format!("{}\n", bundle.id));
}

#[test]
fn a_container_without_a_process_is_created_and_not_started() {
    let Some(bundle) = Bundle::sleeper("nobody", |config| drop(config.as_object_mut().unwrap().remove("process")))
    else {
        return;
    };
    assert!(text(&bundle.run().stderr).contains("there is no process to be run"));
    bundle.create();
    assert_eq!(bundle.status(), "created");
    assert!(bundle.fails(&["start", &bundle.id]).1.contains("cannot start a container without a process"));
    assert_eq!(bundle.status(), "created");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_is_left();
}

#[test]
fn containers_are_deleted_by_an_expression() {
    let Some(bundle) = Bundle::sleeper("regex-a", |_| {}) else { return };
    let others: Vec<String> = ["b", "c"].map(|letter| bundle.id.replace("regex-a", &format!("regex-{letter}"))).into();
    bundle.create();
    let log = fs::File::create(bundle.path("others")).unwrap();
    for id in &others {
        let mut command = bundle.wharf(&["create", "--bundle"]);
        command.arg(bundle.dir.path()).arg(id).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
        assert!(command.status().unwrap().success());
    }
    bundle.ok(&["start", &others[0]]);
    assert!(bundle.fails(&["delete", "--regex", "("]).1.contains("invalid regular expression"));
    bundle.ok(&["delete", "--regex", "^regex-"]);
    let left = bundle.ok(&["list", "-q"]);
    assert_eq!(left.lines().count(), 3, "{left}");
    // One that runs is told, and keeps none of the others.
    let (code, told) = bundle.fails(&["delete", "--regex", "regex-[ab]$"]);
    assert!(code == 1 && told.contains(&others[0]) && told.contains("not stopped"), "{code} {told}");
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{}\n{}\n", others[0], others[1]));
    bundle.ok(&["delete", "--force", "--regex", "regex-"]);
    bundle.assert_nothing_is_left();
}
