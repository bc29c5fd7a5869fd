//! Filters, and who is told of them.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

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

/// What an agent is sent: the state, and the descriptors with it.
pub(crate) fn receive(listener: &UnixListener) -> (Value, Vec<OwnedFd>) {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0u8; 4096];
    let got = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            fds.extend(sent);
        }
    }
    (serde_json::from_slice(&bytes[..got.bytes]).unwrap(), fds)
}

pub(crate) fn notify(config: &mut Value, agent: &Path) {
    config["annotations"] = json!({ "of": "mine" });
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": agent, "listenerMetadata": "mine",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }]
    });
}

/// As runtime-spec has it in config-linux, "The Container Process State".
#[test]
fn who_listens_is_told_of_the_container_and_gets_the_fd() {
    let Some(bundle) = Bundle::sleeper("notify", |_| {}) else { return };
    let agent = bundle.path("agent");
    let listener = UnixListener::bind(&agent).unwrap();
    bundle.configure(|config| notify(config, &agent));
    bundle.create();
    let told = std::thread::scope(|scope| {
        let told = scope.spawn(|| receive(&listener));
        bundle.start();
        told.join().unwrap()
    });
    let (process, fds) = told;
    let state = bundle.state();
    let (version, pid) = (&state["ociVersion"], &state["pid"]);
    let want = json!({
        "ociVersion": version, "fds": ["seccompFd"], "pid": pid, "metadata": "mine",
        "state": { "ociVersion": version, "id": bundle.id, "status": "creating", "pid": pid, "bundle": state["bundle"],
            "annotations": { "of": "mine" } },
    });
    assert_eq!(process, want);
    assert_eq!(fds.len(), 1);
}

#[test]
fn an_exec_s_listener_is_told_of_both_processes_and_who_hangs_up_decides_nothing() {
    let Some(bundle) = Bundle::sleeper("notify-exec", |_| {}) else { return };
    let agent = bundle.path("agent");
    let listener = UnixListener::bind(&agent).unwrap();
    bundle.configure(|config| notify(config, &agent));
    bundle.create();
    let (first, second, output) = std::thread::scope(|scope| {
        let told = scope.spawn(|| {
            let first = receive(&listener);
            let second = receive(&listener);
            // Nobody is there any more to decide: the calls fail with ENOSYS (seccomp_unotify(2)).
            (first.0, second.0)
        });
        bundle.start();
        let output = bundle.output(&["exec", &bundle.id, "sh", "-c", "busybox mkdir /m; echo $?"]);
        let (first, second) = told.join().unwrap();
        (first, second, output)
    });
    assert_eq!(second["state"]["pid"], first["pid"], "{second}");
    assert_ne!(second["pid"], first["pid"], "{second}");
    assert_eq!((&second["state"]["status"], &second["fds"]), (&json!("running"), &json!(["seccompFd"])));
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(said.contains("Function not implemented"), "{said}");
}

/// As `runtime::filter` has it: what an exec's process calls under a filter that was there before it.
const LEFT: &[&str] = &[
    "capget",
    "capset",
    "prctl",
    "clone",
    "sendmsg",
    "sendto",
    "recvmsg",
    "recvfrom",
    "exit_group",
    "setsid",
    "ioctl",
    "newfstatat",
    "statx",
    "fstat",
    "chdir",
    "getcwd",
    "prlimit64",
    "openat2",
    "openat",
    "read",
    "lseek",
    "close",
    "rt_sigaction",
    "rt_sigprocmask",
    "close_range",
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "execve",
];
/// What a static busybox calls besides.
const BUSYBOX: &[&str] = &[
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "mprotect",
    "getrandom",
    "readlink",
    "readlinkat",
    "uname",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "setuid",
    "setgid",
    "write",
    "getpid",
    "getppid",
    "fcntl",
    "poll",
    "sendfile",
    "fadvise64",
];

#[test]
fn an_exec_makes_no_call_under_its_filter_but_those_that_were_looked_for() {
    let Some(bundle) = Bundle::sleeper("left", |_| {}) else { return };
    bundle.create();
    bundle.start();
    for (privileges, user) in [(true, "0:0"), (false, "0:0"), (true, "1000:1000"), (false, "1000:1000")] {
        for terminal in [false, true] {
            // The filter of an exec is the container's: changed in what was kept of it.
            let state = bundle.root().join(&bundle.id).join("state.json");
            let mut kept: Value = serde_json::from_slice(&std::fs::read(&state).unwrap()).unwrap();
            kept["spec"]["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_KILL_PROCESS",
                "syscalls": [{ "names": ([LEFT, BUSYBOX].concat()), "action": "SCMP_ACT_ALLOW" }]
            });
            std::fs::write(&state, kept.to_string()).unwrap();
            let forbid = if privileges { "--no-new-privs=false" } else { "--no-new-privs" };
            let words = ["exec", forbid, "-u", user, "--cwd", "/proc/self", &bundle.id, "grep", "Seccomp:", "status"];
            let shown = if terminal {
                let words = words.map(|word| if word == "exec" { "exec --tty" } else { word });
                let line = format!("{} oci --root {} {}", crate::kit::WHARF, bundle.root().display(), words.join(" "));
                text(&crate::kit::on_terminal(&line).stdout).replace('\r', "")
            } else {
                bundle.ok(&words)
            };
            assert_eq!(shown, "Seccomp:\t2\n", "{words:?}, a terminal: {terminal}");
        }
    }
}

/// A filter that judges a call that is still to be made comes later, and judges the program alone.
#[test]
fn a_filter_that_refuses_what_the_runtime_needs_does_not_refuse_the_exec() {
    for privileges in [true, false] {
        let Some(bundle) = Bundle::sleeper("late", |config| {
            config["process"]["noNewPrivileges"] = json!(privileges);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["setsid", "clone", "clone3", "recvmsg"], "action": "SCMP_ACT_KILL_PROCESS" }]
            });
        }) else {
            return;
        };
        bundle.create();
        bundle.start();
        let shown = bundle.ok(&["exec", &bundle.id, "grep", "-e", "Seccomp:", "-e", "CapPrm", "/proc/self/status"]);
        assert!(shown.contains("Seccomp:\t2\n") && !shown.contains("ffffffff"), "{shown}");
    }
}

#[test]
fn a_run_tells_its_listener_and_needs_one_that_is_there() {
    let Some(bundle) = Bundle::new("notify-run", &["sh", "-c", "busybox mkdir /m"], |_| {}) else { return };
    let agent = bundle.path("agent");
    bundle.configure(|config| notify(config, &agent));
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("seccomp agent") && said.contains("agent`"), "{said}");
    let listener = UnixListener::bind(&agent).unwrap();
    let (told, output) = std::thread::scope(|scope| {
        let told = scope.spawn(|| receive(&listener).0);
        let output = bundle.run();
        (told.join().unwrap(), output)
    });
    assert_eq!((&told["state"]["id"], &told["state"]["pid"]), (&json!(bundle.id), &told["pid"]));
    assert!(text(&output.stderr).contains("Function not implemented"), "{}", text(&output.stderr));
}

#[cfg(target_arch = "x86_64")]
/// A static program for x86_64 that makes one call of another ABI, and exits with its errno.
fn foreign(bundle: &Bundle, name: &str, call: &str) -> bool {
    let source = format!(
        "void _start(void) {{ long r; {call}
         long code = r > 0 ? 0 : -r;
         __asm__ volatile(\"syscall\" :: \"a\"(60L), \"D\"(code)); }}"
    );
    let file = bundle.path("foreign.c");
    std::fs::write(&file, source).unwrap();
    let program = bundle.path("rootfs/bin").join(name);
    let mut cc = Command::new("cc");
    let status = cc.args(["-nostdlib", "-static", "-O1", "-o"]).arg(&program).arg(&file).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_abis_are_filtered_as_they_are_named() {
    // getpid(2) of x86, and that of x32.
    let x86 = r#"__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");"#;
    let x32 = r#"__asm__ volatile("syscall" : "=a"(r) : "a"(0x40000027L) : "memory", "rcx", "r11");"#;
    for (name, call, arch) in [("x86", x86, "SCMP_ARCH_X86"), ("x32", x32, "SCMP_ARCH_X32")] {
        for (archs, want) in [
            // SIGSYS, as with runc.
            (json!(["SCMP_ARCH_X86_64"]), 128 + 31),
            (json!(["SCMP_ARCH_X86_64", arch, "SCMP_ARCH_S390X"]), 95),
        ] {
            let Some(bundle) = Bundle::new("abi", &[name], |config| {
                config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": archs,
                    "syscalls": [{ "names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }] });
            }) else {
                return;
            };
            if !foreign(&bundle, name, call) {
                eprintln!("skipped: no C compiler");
                return;
            }
            let output = bundle.run();
            assert_eq!(output.status.code(), Some(want), "{name} with {archs}: {}", text(&output.stderr));
        }
    }
}
