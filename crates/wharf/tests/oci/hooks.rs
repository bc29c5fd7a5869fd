//! Hooks of all kinds, at their places.

use std::fs;

use serde_json::{Value, json};

use crate::kit::{Bundle, text};

const POINTS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook for each point that notes its name and the state that it is told. The one that runs in the container can
/// write only there.
fn note_all(config: &mut Value, log: &str) {
    for point in POINTS {
        let log = if point == "startContainer" { "/log" } else { log };
        let script = format!("echo {point} $MARK $1 $(cat) >> {log}");
        let shell = if point == "startContainer" { "/bin/sh" } else { "/bin/busybox" };
        let args = if point == "startContainer" {
            json!(["sh", "-c", script, "sh", "word"])
        } else {
            json!(["busybox", "sh", "-c", script, "sh", "word"])
        };
        config["hooks"][point] = json!([{ "path": shell, "args": args, "env": ["MARK=m", "PATH=/bin:/usr/bin"] }]);
    }
}

fn noted(text: &str) -> Vec<(String, Value)> {
    let line = |line: &str| {
        let (point, rest) = line.split_once(" m word ").unwrap();
        (point.to_owned(), serde_json::from_str(rest).unwrap())
    };
    text.lines().map(line).collect()
}

#[test]
fn each_point_s_hooks_run_in_order_and_are_told_the_state() {
    let Some(bundle) = Bundle::sleeper("hooks", |_| {}) else { return };
    let log = bundle.path("log");
    bundle.configure(|config| {
        note_all(config, &log.to_string_lossy());
        config["annotations"] = json!({ "a": "b" });
    });
    bundle.create();
    let pid = bundle.state()["pid"].clone();
    let created = noted(&fs::read_to_string(&log).unwrap());
    assert_eq!(created.iter().map(|(point, _)| point.as_str()).collect::<Vec<_>>(), POINTS[..3]);
    for (point, state) in &created {
        assert_eq!(state["status"], "creating", "{point}");
        assert_eq!((&state["id"], &state["annotations"]["a"]), (&json!(bundle.id), &json!("b")));
        // In the container's own count it is the first.
        assert_eq!(state["pid"], if point == "createContainer" { json!(1) } else { pid.clone() }, "{point}");
    }
    let inside = bundle.path("rootfs/log");
    assert!(!inside.exists());
    bundle.start();
    assert_eq!(noted(&fs::read_to_string(&inside).unwrap())[0].1["status"], "created");
    let last = noted(&fs::read_to_string(&log).unwrap()).pop().unwrap();
    assert_eq!((last.0.as_str(), &last.1["status"], &last.1["pid"]), ("poststart", &json!("running"), &pid));
    bundle.ok(&["delete", "--force", &bundle.id]);
    let last = noted(&fs::read_to_string(&log).unwrap()).pop().unwrap();
    assert_eq!((last.0.as_str(), &last.1["status"], &last.1["pid"]), ("poststop", &json!("stopped"), &Value::Null));
    bundle.assert_nothing_is_left();
}

#[test]
fn a_failing_hook_ends_the_creation_or_the_start_and_later_ones_do_not() {
    let failing = json!([{ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", "echo because >&2; exit 7"] }]);
    for point in POINTS {
        let Some(bundle) = Bundle::sleeper(&format!("fail-{point}"), |config| {
            config["hooks"][point] = failing.clone();
        }) else {
            return;
        };
        let stopped = bundle.path("stopped");
        bundle.configure(|config| {
            let note = json!({ "path": "/bin/busybox", "args": ["busybox", "touch", stopped] });
            let stop = config["hooks"].as_object_mut().unwrap().entry("poststop").or_insert(json!([]));
            stop.as_array_mut().unwrap().push(note);
        });
        // A file: the container, if it runs on, holds it open.
        let errors = fs::File::create(bundle.path("errors")).unwrap();
        let mut command = bundle.run_command();
        command.arg("--detach").stdout(errors.try_clone().unwrap()).stderr(errors);
        let status = command.status().unwrap();
        let errors = fs::read_to_string(bundle.path("errors")).unwrap();
        assert!(errors.contains(point) && errors.contains("because") || point == "poststop", "{point}: {errors}");
        if point == "poststop" {
            assert!(status.success(), "{point}");
            assert_eq!(bundle.status(), "running", "{point}");
            let deleted = bundle.output(&["delete", "--force", &bundle.id]);
            assert!(deleted.status.success());
            assert!(text(&deleted.stderr).contains("because"));
        } else {
            assert_eq!(status.code(), Some(1), "{point}");
        }
        assert!(stopped.exists(), "{point}: the hooks for the end have run");
        bundle.assert_nothing_is_left();
    }
}

#[test]
fn a_start_whose_poststart_hook_fails_leaves_no_container() {
    let Some(bundle) = Bundle::sleeper("poststart", |_| {}) else { return };
    let (first, second, stopped) = (bundle.path("first"), bundle.path("second"), bundle.path("stopped"));
    bundle.configure(|config| {
        let shell = |script: String| json!({ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", script] });
        let note = |path: &std::path::Path| shell(format!("cat > {}", path.display()));
        config["hooks"] = json!({
            "poststart": [note(&first), shell("echo because >&2; exit 7".into()), note(&second)],
            "poststop": [note(&stopped)],
        });
    });
    bundle.create();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let (code, errors) = bundle.fails(&["start", &bundle.id]);
    assert_eq!(code, 1);
    assert!(errors.contains("error running poststart hook #1:") && errors.contains("because"), "{errors}");
    // It ran by then, and the hook after the one that failed did not.
    let seen: Value = serde_json::from_slice(&fs::read(first).unwrap()).unwrap();
    assert_eq!((&seen["status"], &seen["pid"]), (&json!("running"), &json!(pid)));
    assert!(!second.exists());
    let seen: Value = serde_json::from_slice(&fs::read(stopped).unwrap()).unwrap();
    assert_eq!(seen["status"], "stopped");
    assert!(bundle.fails(&["state", &bundle.id]).1.contains("does not exist"));
    bundle.assert_nothing_is_left();
}

#[test]
fn a_hook_that_hangs_is_ended() {
    let Some(bundle) = Bundle::sleeper("hang", |config| {
        config["hooks"]["createRuntime"] =
            json!([{ "path": "/bin/busybox", "args": ["busybox", "sleep", "100"], "timeout": 1 }]);
    }) else {
        return;
    };
    let output = bundle.run();
    assert!(text(&output.stderr).contains("within 1 s"), "{}", text(&output.stderr));
}

#[test]
fn hooks_of_the_host_run_in_the_bundle() {
    let Some(bundle) = Bundle::new("hookcwd", &["true"], |_| {}) else { return };
    let log = bundle.path("where").to_string_lossy().into_owned();
    let points = ["prestart", "createRuntime", "poststart", "poststop"];
    bundle.configure(|config| {
        for point in points {
            let script = format!("echo {point} $(pwd) >> {log}");
            config["hooks"][point] = json!([{ "path": "/bin/busybox", "args": ["busybox", "sh", "-c", script] }]);
        }
    });
    assert!(bundle.run_command().current_dir("/").status().unwrap().success());
    let dir = bundle.dir.path().canonicalize().unwrap();
    let want: String = points.iter().map(|point| format!("{point} {}\n", dir.display())).collect();
    assert_eq!(fs::read_to_string(log).unwrap(), want);
}
