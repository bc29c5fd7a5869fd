//! Filters, and who is told of them.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::kit::{Bundle, text};

#[test]
fn each_action_does_what_it_says() {
    for (action, want) in [
        (json!({ "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }), "not supported"),
        (json!({ "action": "SCMP_ACT_TRACE" }), "not implemented"),
        (json!({ "action": "SCMP_ACT_KILL_PROCESS" }), "Bad system call"),
        (json!({ "action": "SCMP_ACT_TRAP" }), "Bad system call"),
        (json!({ "action": "SCMP_ACT_LOG" }), "made"),
        (json!({ "action": "SCMP_ACT_ALLOW" }), "made"),
    ] {
        let mut rule = action.clone();
        rule["names"] = json!(["mkdir", "mkdirat", "no_such_call"]);
        for privileges in [true, false] {
            let Some(bundle) = Bundle::new("action", &["sh", "-c", "busybox mkdir /m && echo made; true"], |config| {
                config["process"]["noNewPrivileges"] = json!(privileges);
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule],
                    "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
                });
            }) else {
                return;
            };
            let output = bundle.run();
            let all = text(&output.stdout) + &text(&output.stderr);
            assert!(all.to_lowercase().contains(&want.to_lowercase()), "{action}: {all}");
        }
    }
}

#[test]
fn who_listens_is_told_of_the_container_and_gets_the_fd() {
    let Some(bundle) = Bundle::sleeper("notify", |_| {}) else { return };
    let path = bundle.path("agent");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.configure(|config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "mine",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
        });
    });
    bundle.create();
    let (stream, _) = listener.accept().unwrap();
    bundle.start();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0u8; 4096];
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let told: Value = serde_json::from_slice(&bytes[..got.bytes]).unwrap();
    assert_eq!((&told["fds"], &told["metadata"]), (&json!(["seccompFd"]), &json!("mine")));
    assert_eq!((&told["state"]["id"], &told["pid"]), (&json!(bundle.id), &bundle.state()["pid"]));
    let fds: usize = control
        .drain()
        .map(|message| if let RecvAncillaryMessage::ScmRights(fds) = message { fds.count() } else { 0 })
        .sum();
    assert_eq!(fds, 1);
}
