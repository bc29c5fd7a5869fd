//! Further processes in a container.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use crate::kit::{Bundle, text, wait_until};

#[test]
fn an_exec_has_the_container_s_view_and_its_own_exit_code() {
    let Some(bundle) = Bundle::sleeper("exec", |config| config["hostname"] = json!("inside")) else { return };
    bundle.create();
    assert_eq!(bundle.ok(&["exec", &bundle.id, "hostname"]), "inside\n", "before the start too");
    bundle.start();
    assert_eq!(bundle.output(&["exec", &bundle.id, "sh", "-c", "exit 4"]).status.code(), Some(4));
    assert_eq!(bundle.output(&["exec", &bundle.id, "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    let (code, message) = bundle.fails(&["exec", &bundle.id, "nope"]);
    assert_eq!(code, 255);
    assert!(message.contains("exec failed: unable to start container process"), "{message}");
    assert!(bundle.fails(&["exec", &bundle.id]).1.contains("process args cannot be empty"));
    let words =
        ["exec", "-u", "7:8", "-g", "9", "-e", "A=b", "--cwd", "/bin", &bundle.id, "sh", "-c", "id; pwd; echo $A"];
    assert_eq!(bundle.ok(&words), "uid=7 gid=8 groups=9\n/bin\nb\n");
    assert_eq!(bundle.fails(&["exec", "-u", "root", &bundle.id, "id"]).0, 255);
}

#[test]
fn capabilities_and_privileges_are_the_container_s_or_what_is_added() {
    let Some(bundle) = Bundle::sleeper("caps", |config| config["process"]["noNewPrivileges"] = json!(false)) else {
        return;
    };
    bundle.create();
    bundle.start();
    let status = |words: &[&str]| {
        let all =
            [&["exec"], words, &[&bundle.id, "grep", "-E", "CapEff|CapInh|NoNewPrivs", "/proc/self/status"]].concat();
        bundle.ok(&all)
    };
    let plain = status(&[]);
    assert!(plain.contains("CapEff:\t0000000020000420") && plain.contains("NoNewPrivs:\t0"), "{plain}");
    let more = status(&["--cap", "CAP_CHOWN", "--no-new-privs"]);
    assert!(more.contains("CapEff:\t0000000020000421") && more.contains("NoNewPrivs:\t1"), "{more}");
    assert!(more.contains("CapInh:\t0000000000000000"), "{more}");
}

#[test]
fn a_detached_exec_of_a_file_runs_on() {
    let Some(bundle) = Bundle::sleeper("file", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let (process, pid_file) = (bundle.path("process.json"), bundle.path("pid"));
    fs::write(&process, json!({ "cwd": "/", "args": ["sleep", "601"], "env": ["PATH=/bin"] }).to_string()).unwrap();
    let mut command = bundle.wharf(&["exec", "--detach", "--process"]);
    command.arg(&process).arg("--pid-file").arg(&pid_file).arg(&bundle.id).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    let pid = fs::read_to_string(pid_file).unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap(), "sleep\x00601\0");
    let all = bundle.ok(&["ps", "--format", "json", &bundle.id]);
    assert!(all.contains(&pid), "{all}");
    let table = bundle.ok(&["ps", &bundle.id]);
    assert!(table.starts_with("UID") && table.lines().count() == 3, "{table}");
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_for_status("stopped");
    wait_until("its end", || !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(false));
}

#[test]
fn in_a_paused_container_nothing_runs_unless_asked() {
    let Some(bundle) = Bundle::sleeper("paused", |_| {}) else { return };
    bundle.create();
    bundle.start();
    bundle.ok(&["pause", &bundle.id]);
    assert_eq!(bundle.status(), "paused");
    assert!(bundle.fails(&["exec", &bundle.id, "true"]).1.contains("cannot exec in a paused container"));
    assert!(bundle.fails(&["pause", &bundle.id]).1.contains("container not running"));
    bundle.ok(&["resume", &bundle.id]);
    assert_eq!(bundle.status(), "running");
    assert!(bundle.fails(&["resume", &bundle.id]).1.contains("container not paused"));
    bundle.ok(&["exec", &bundle.id, "true"]);
    bundle.ok(&["pause", &bundle.id]);
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_is_left();
}

#[test]
fn an_exec_of_a_paused_container_waits_and_says_so_who_asks() {
    use std::io::{BufRead, BufReader, Read};
    let Some(bundle) = Bundle::sleeper("ignore-paused", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let exec = || {
        bundle.ok(&["pause", &bundle.id]);
        let words = ["--debug", "exec", "--ignore-paused", &bundle.id, "echo", "there"];
        let mut exec = bundle.wharf(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(exec.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("the container is paused")));
        // Its other end stays open.
        (exec, lines)
    };
    let (mut waiting, _errors) = exec();
    bundle.ok(&["resume", &bundle.id]);
    let mut shown = String::new();
    waiting.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!((waiting.wait().unwrap().code(), shown.as_str()), (Some(0), "there\n"));
    // Who has enough of it ends it.
    let (mut waiting, _errors) = exec();
    rustix::process::kill_process(rustix::process::Pid::from_child(&waiting), rustix::process::Signal::TERM).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(255));
    // Nobody hears of it else.
    let words = ["exec", "--ignore-paused", &bundle.id, "echo", "ok"];
    let waiting = bundle.wharf(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("its process", || bundle.ok(&["ps", "--format", "json", &bundle.id]).contains(','));
    bundle.ok(&["resume", &bundle.id]);
    let output = waiting.wait_with_output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("ok\n", ""));
}

#[test]
fn streams_of_an_ordinary_user_s_exec_can_be_opened_again() {
    let Some(bundle) = Bundle::sleeper("streams", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let output = bundle.output(&["exec", "-u", "1000:1000", &bundle.id, "sh", "-c", "echo again > /dev/stdout"]);
    assert_eq!(text(&output.stdout), "again\n", "{}", text(&output.stderr));
}

/// As systemd does in a container: its processes go into a group of their own, and the one above has controllers then.
#[test]
fn an_exec_goes_where_the_first_process_is_when_its_group_is_full_of_groups() {
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return eprintln!("skipped: only cgroup2 keeps processes out of groups with controllers below");
    }
    let script = "mkdir /sys/fs/cgroup/own; echo 1 > /sys/fs/cgroup/own/cgroup.procs; \
        echo +memory > /sys/fs/cgroup/cgroup.subtree_control; touch /done; exec sleep 600";
    let Some(bundle) = Bundle::new("beside", &["sh", "-c", script], |config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/sys/fs/cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime"]);
            }
        }
    }) else {
        return;
    };
    bundle.create();
    bundle.start();
    crate::kit::wait_until("its groups", || bundle.path("rootfs/done").exists());
    assert_eq!(bundle.ok(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]), "0::/own\n", "{}", bundle.shown());
    assert_eq!(bundle.ok(&["exec", "--cgroup", "own", &bundle.id, "cat", "/proc/self/cgroup"]), "0::/own\n");
    assert!(bundle.fails(&["exec", "--cgroup", "/", &bundle.id, "true"]).1.to_lowercase().contains("busy"));
}

#[test]
fn groups_below_the_container_s_can_be_chosen() {
    let Some(bundle) = Bundle::sleeper("subgroup", |_| {}) else { return };
    bundle.create();
    bundle.start();
    let own = std::path::PathBuf::from(format!("/sys/fs/cgroup/pids/{}", bundle.id));
    if !own.exists() {
        return eprintln!("skipped: no v1 pids controller");
    }
    fs::create_dir(own.join("sub")).unwrap();
    let seen = bundle.ok(&["exec", "--cgroup", "pids:sub", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert!(seen.contains(&format!(":pids:/{}/sub\n", bundle.id)), "{seen}");
    assert!(seen.contains(&format!(":memory:/{}\n", bundle.id)), "{seen}");
    for (word, why) in [("..", "bad sub cgroup path"), ("frob:/", "unknown controller"), ("nowhere", "no such file")] {
        assert!(bundle.fails(&["exec", "--cgroup", word, &bundle.id, "true"]).1.to_lowercase().contains(why), "{word}");
    }
    let home = bundle.ok(&["exec", "-u", "7", &bundle.id, "sh", "-c", "echo $HOME"]);
    // One without a value is as good as none; one without a name is none.
    assert_eq!(bundle.ok(&["exec", "-u", "7", "-e", "HOME=", &bundle.id, "sh", "-c", "echo $HOME"]), home);
    assert!(bundle.fails(&["exec", "-e", "HOME", &bundle.id, "true"]).1.contains("missing '='"));
    assert_eq!(home, "/\n");
}
