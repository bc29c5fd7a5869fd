//! A first process in a PID namespace of others, which it comes to only when it is set up.

use std::fs;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::kit::{Bundle, text};
use crate::{seccomp, terminal};

/// Two bundles; the second is in the first one's PID namespace.
fn pair(name: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> Option<(Bundle, Bundle)> {
    let first = Bundle::sleeper(&format!("{name}-first"), |_| {})?;
    first.create();
    first.start();
    let path = format!("/proc/{}/ns/pid", first.state()["pid"]);
    let second = Bundle::new(name, args, |config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "pid" {
                namespace["path"] = json!(path);
            }
        }
        change(config);
    })?;
    Some((first, second))
}

const STATUS: &str = "cd /proc/self && grep -E '^(Groups|Umask|Seccomp|CapEff|NoNewPrivs):' status; pwd; \
    grep 'open files' limits; head -c 5 /proc/1/cmdline; echo; cut -d' ' -f5,6 stat; cat oom_score_adj";

#[test]
fn it_is_what_the_configuration_says() {
    for privileges in [true, false] {
        let Some((_first, second)) = pair("asked", &["sh", "-c", STATUS], |config| {
            config["process"]["noNewPrivileges"] = json!(privileges);
            config["process"]["user"] = json!({ "uid": 4, "gid": 5, "additionalGids": [6, 7], "umask": 0o027 });
            config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 33, "hard": 44 }]);
            config["process"]["oomScoreAdj"] = json!(77);
            config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 3 });
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
        }) else {
            return;
        };
        let output = second.run();
        let seen = text(&output.stdout);
        let lines: Vec<&str> = seen.lines().collect();
        for want in ["Umask:\t0027", "Groups:\t6 7 ", "Seccomp:\t2", "CapEff:\t0000000000000000", "sleep", "77"] {
            assert!(lines.contains(&want), "{want}: {seen}{}", text(&output.stderr));
        }
        assert!(lines.contains(&&*format!("NoNewPrivs:\t{}", u8::from(privileges))), "{seen}");
        assert!(seen.contains("33                   44"), "{seen}");
        // It leads a session of its own.
        let ids = lines.iter().find_map(|line| line.split_once(' ').filter(|(a, _)| a.parse::<u32>().is_ok()));
        assert!(ids.is_some_and(|(group, session)| group == session && session != "0"), "{seen}");
    }
}

#[test]
fn hooks_have_their_places() {
    let Some((_first, second)) = pair("hooked", &["cat", "/log"], |_| {}) else { return };
    let log = second.path("log");
    second.configure(|config| {
        let note = |point: &str, log: &str, shell: &str| {
            let script = format!("echo {point} $(cat) >> {log}");
            let args =
                if shell == "/bin/sh" { json!(["sh", "-c", script]) } else { json!(["busybox", "sh", "-c", script]) };
            json!([{ "path": shell, "args": args }])
        };
        let log = log.to_string_lossy().into_owned();
        for point in ["prestart", "createRuntime", "createContainer"] {
            config["hooks"][point] = note(point, &log, "/bin/busybox");
        }
        config["hooks"]["startContainer"] = note("startContainer", "/log", "/bin/sh");
    });
    second.create();
    let pid = second.state()["pid"].as_i64().unwrap();
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
    second.start();
    second.wait_for_status("stopped");
    assert!(second.shown().starts_with("startContainer {"), "{}", second.shown());
    let noted = fs::read_to_string(&log).unwrap();
    let points: Vec<&str> = noted.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(points, ["prestart", "createRuntime", "createContainer"]);
    second.ok(&["delete", &second.id]);
    second.assert_nothing_is_left();
}

#[test]
fn its_terminal_and_its_listener_are_given_away() {
    let script = "tty; read x; busybox mkdir /m; echo got $x";
    let Some((_first, second)) = pair("given", &["sh", "-c", script], |config| {
        config["process"]["terminal"] = json!(true);
    }) else {
        return;
    };
    let (console, agent) = (second.path("console"), second.path("agent"));
    let (masters, decisions) = (UnixListener::bind(&console).unwrap(), UnixListener::bind(&agent).unwrap());
    second.configure(|config| seccomp::notify(config, &agent));
    let mut command = second.wharf(&["create", "--console-socket"]);
    let status = command.arg(&console).arg("--bundle").arg(second.dir.path()).arg(&second.id).status().unwrap();
    assert!(status.success());
    let mut master = terminal::receive(&masters);
    let (told, fds) = std::thread::scope(|scope| {
        let told = scope.spawn(|| seccomp::receive(&decisions));
        second.start();
        told.join().unwrap()
    });
    assert_eq!((&told["pid"], &told["state"]["status"]), (&second.state()["pid"], &json!("creating")));
    assert_eq!(told["state"]["pid"], told["pid"]);
    terminal::read_until(&mut master, "/dev/pts/");
    // With nobody to decide the call fails, and the program goes on.
    drop(fds);
    std::io::Write::write_all(&mut master, b"it\n").unwrap();
    terminal::read_until(&mut master, "got it");
    second.wait_for_status("stopped");
}

#[test]
fn what_is_wrong_with_it_is_told_by_create() {
    type Change = fn(&mut Value);
    let wrong: [(Change, &str); 3] = [
        (|c| c["process"]["args"] = json!(["/no/such"]), "no such file"),
        (|c| c["process"]["cwd"] = json!("/bin/busybox"), "working directory"),
        (|c| c["hooks"]["createContainer"] = json!([{ "path": "/bin/busybox", "args": ["busybox", "false"] }]), "hook"),
    ];
    let Some((_first, second)) = pair("wrong", &["true"], |_| {}) else { return };
    let as_it_was = fs::read(second.path("config.json")).unwrap();
    for (change, want) in wrong {
        second.configure(change);
        let (_, errors) = second.fails(&["create", "--bundle", &second.dir.path().to_string_lossy(), &second.id]);
        assert!(errors.to_lowercase().contains(want), "{want}: {errors}");
        second.assert_nothing_is_left();
        fs::write(second.path("config.json"), &as_it_was).unwrap();
    }
}

/// The go-between is one more until the process is there.
#[test]
fn one_process_is_enough_and_the_only_one() {
    for limit in [0, 1] {
        let Some((_first, second)) = pair("lone", &["sh", "-c", "echo alone; ls / && echo two"], |config| {
            config["ociVersion"] = json!("1.3.0");
            config["linux"]["resources"]["pids"] = json!({ "limit": limit });
        }) else {
            return;
        };
        let output = second.run();
        assert_eq!(text(&output.stdout), "alone\n", "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("can't fork"), "{}", text(&output.stderr));
    }
}
