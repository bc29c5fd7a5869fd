//! Time namespaces where there may be no more of them. The limit is that of a user namespace of the test's own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use wharf_monitor::LaunchError;

use crate::Case;
use crate::fixture::{Fixture, change_linux, log_text, wait_for_exit};

pub(crate) const CASES: &[Case] =
    &[("without_more_time_namespaces_only_offsets_are_missed", without_more_time_namespaces_only_offsets_are_missed)];

/// A user namespace in which there may be no time namespace.
struct Poor(Child);

impl Poor {
    fn new() -> Option<Self> {
        let script = "echo 0 >/proc/sys/user/max_time_namespaces && echo ready; read wait";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "/bin/busybox", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line);
        let poor = Self(child);
        (read.is_ok() && line == "ready\n").then_some(poor)
    }
}

impl Drop for Poor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn without_more_time_namespaces_only_offsets_are_missed(fixture: &Fixture) {
    let own = match std::fs::read_link("/proc/self/ns/time") {
        Ok(own) => own,
        Err(error) => return println!("    skipped: no time namespaces: {error}"),
    };
    let Some(poor) = Poor::new() else { return println!("    skipped: no user namespaces") };
    let mut launch = fixture.shell("readlink /proc/self/ns/time");
    change_linux(&mut launch, |linux| {
        let all = linux["namespaces"].as_array_mut().expect("a list");
        all.push(json!({ "type": "user", "path": format!("/proc/{}/ns/user", poor.0.id()) }));
        all.push(json!({ "type": "time" }));
    });
    fixture.launch(&launch).expect("launches");
    wait_for_exit(&launch);
    assert_eq!(log_text(&launch), format!("{}\n", own.display()));

    change_linux(&mut launch, |linux| linux["timeOffsets"] = json!({ "boottime": { "secs": 1 } }));
    let refused = fixture.launch(&launch).expect_err("must be refused");
    assert!(matches!(&refused, LaunchError::Failed { message, .. } if message.contains("no space left")), "{refused}");
}
