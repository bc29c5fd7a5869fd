//! What a process may do: an exec no more than the container, and nobody what is refused by default. CVE-2022-24769,
//! CVE-2022-0492, CVE-2022-0185, and all that begins with a rarely used system call.

use std::path::Path;

use serde_json::json;

use crate::bundle::{Bundle, text};
use crate::canary::{exec, say, wharf};
use crate::kit::Daemon;
use crate::program::{Abi, Arg, Call, call, once};

/// What differs between any two processes.
const OF_ITS_OWN: &[&str] = &[
    "Name",
    "FDSize",
    "State",
    "Tgid",
    "Ngid",
    "Pid",
    "PPid",
    "NStgid",
    "NSpid",
    "NSpgid",
    "NSsid",
    "VmPeak",
    "VmSize",
    "VmHWM",
    "VmRSS",
    "VmData",
    "VmStk",
    "VmExe",
    "VmLib",
    "VmPTE",
    "VmSwap",
    "RssAnon",
    "RssFile",
    "RssShmem",
    "SigQ",
    "SigCgt",
    "SigPnd",
    "ShdPnd",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
];

/// All that says what a process is and may: by its files in `/proc`.
fn look(process: &str) -> String {
    let own = OF_ITS_OWN.join("|");
    format!(
        "grep -vE '^({own}):' /proc/{process}/status; cat /proc/{process}/mountinfo /proc/{process}/limits \
         /proc/{process}/cgroup /proc/{process}/oom_score_adj /proc/{process}/uid_map /proc/{process}/gid_map \
         /proc/{process}/setgroups /proc/{process}/personality /proc/{process}/coredump_filter; \
         for ns in cgroup ipc mnt net pid time user uts; do readlink /proc/{process}/ns/$ns; done; \
         readlink /proc/{process}/root; readlink /proc/{process}/cwd"
    )
}

#[test]
fn an_exec_is_as_confined_as_the_container() {
    let Some(d) = Daemon::start() else { return };
    for (number, options) in [
        &[][..],
        &["-u", "web", "--group-add", "50"],
        &["--oom-score-adj", "500", "--ulimit", "nofile=100:200", "-w", "/tmp"],
        &["--security-opt", "no-new-privileges", "--cap-drop", "ALL", "--cap-add", "CHOWN"],
        &["--privileged"],
        &["--read-only", "--network", "host", "--ipc", "host", "--uts", "host"],
        &["--pid", "host", "--cgroupns", "host"],
        &["--security-opt", "seccomp=unconfined", "--init"],
        &["--userns", "auto"],
        &["--userns", "auto", "-u", "web", "--network", "none"],
        &["--userns", "auto", "--init", "--oom-score-adj", "300"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("c{number}");
        wharf(&d, &[&["run", "-d", "--name", &name], options, &["busybox", "sleep", "1000"]].concat()).ok();
        let has = |option: &str| options.contains(&option);
        let first = match (has("--pid"), has("--init")) {
            (true, _) => d.docker(&format!("inspect -f {{{{.State.Pid}}}} {name}")).ok(),
            (_, true) => "2".to_owned(),
            _ => "1".to_owned(),
        };
        // As root with all capabilities, for who is not may not look at another's namespaces.
        let container = say(&d, &["exec", "--privileged", "-u", "0", "-w", "/", &name, "sh", "-c", &look(&first)]).ok();
        // One that stays, and is looked at in the same way.
        say(&d, &["exec", "-d", &name, "sleep", "2000"]).ok();
        let find = "for p in /proc/[0-9]*; do grep -qz 2000 $p/cmdline && grep -qz '^sleep' $p/cmdline && echo ${p#/proc/}; done";
        let mut pid = String::new();
        d.eventually("the exec runs", || {
            !say(&d, &["exec", "--privileged", "-u", "0", "-w", "/", &name, "sh", "-c", find]).out.trim().is_empty()
        });
        pid.push_str(say(&d, &["exec", "--privileged", "-u", "0", "-w", "/", &name, "sh", "-c", find]).out.trim());
        let pid = pid.lines().next_back().unwrap_or_default().to_owned();
        let further = say(&d, &["exec", "--privileged", "-u", "0", "-w", "/", &name, "sh", "-c", &look(&pid)]).ok();
        assert_eq!(further, container, "{options:?}");
        d.docker(&format!("rm -f {name}")).ok();
    }
}

/// By `wharf oci`, with all that a configuration can ask for.
#[test]
fn an_exec_of_the_runtime_alone_is_as_confined() {
    for userns in [false, true] {
        let Some(bundle) = Bundle::sleeper(&format!("same{userns}"), |config| {
            let process = &mut config["process"];
            process["user"] = json!({ "uid": 4, "gid": 5, "additionalGids": [6, 7], "umask": 0o027 });
            process["oomScoreAdj"] = json!(400);
            process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
                                        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
            process["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
            process["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
            for set in ["ambient", "inheritable"] {
                process["capabilities"][set] = json!(["CAP_KILL"]);
            }
            config["linux"]["personality"] = json!({ "domain": "LINUX32" });
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.push(json!({ "type": "time" }));
            if userns {
                namespaces.push(json!({ "type": "user" }));
                let map = json!([{ "containerID": 0, "hostID": 700_000, "size": 1_000 }]);
                config["linux"]["uidMappings"] = map.clone();
                config["linux"]["gidMappings"] = map;
            }
        }) else {
            return;
        };
        if userns {
            let give =
                std::process::Command::new("chown").args(["-R", "700000:700000"]).arg(bundle.path("rootfs")).status();
            assert!(give.unwrap().success());
            std::fs::set_permissions(bundle.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        bundle.create();
        bundle.start();
        let stat = |process: &str| {
            let number = if process == "self" { "$$" } else { process };
            format!(
                "{}; head -c 0 /dev/null; busybox cut -d' ' -f19,41 /proc/{process}/stat; busybox ionice -p {number}",
                look(process)
            )
        };
        let container = bundle.output(&["exec", &bundle.id, "sh", "-c", &stat("1")]);
        let exec = bundle.output(&["exec", &bundle.id, "sh", "-c", &stat("self")]);
        let (container, exec) = (text(&container.stdout), text(&exec.stdout));
        assert_eq!(container, exec, "with a user namespace: {userns}");
        for want in [
            "Umask:\t0027",
            "Groups:\t6 7",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "CapAmb:\t0000000000000020",
            "SigIgn:\t0000000000000000",
            "\n400\n",
            "best-effort: prio 6",
        ] {
            assert!(exec.contains(want), "{want}: {exec}");
        }
    }
}

#[test]
fn nobody_inherits_capabilities() {
    let Some(d) = Daemon::start() else { return };
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    let script = "grep -E 'CapInh|CapAmb' /proc/self/status";
    for words in [
        &["run", "--rm", "busybox"][..],
        &["run", "--rm", "-u", "web", "busybox"],
        &["run", "--rm", "--cap-add", "ALL", "busybox"],
        &["run", "--rm", "--privileged", "busybox"],
        &["run", "--rm", "--init", "busybox"],
        &["exec", "idle"],
        &["exec", "--privileged", "idle"],
        &["exec", "-u", "web", "--privileged", "idle"],
    ] {
        let said = say(&d, &[words, &["sh", "-c", script]].concat()).ok();
        assert_eq!(said, "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000", "{words:?}");
    }
}

/// Groups are the user's alone: none of ours, and the primary one with them (CVE-2022-36109).
#[test]
fn groups_are_the_user_s_own() {
    let Some(d) = Daemon::start() else { return };
    say(&d, &["run", "-d", "--name", "idle", "-u", "web", "--group-add", "77", "busybox", "sleep", "1000"]).ok();
    for (words, groups) in [
        (&["run", "--rm", "busybox"][..], "0"),
        (&["run", "--rm", "-u", "web", "busybox"], "33"),
        (&["run", "--rm", "-u", "5:6", "busybox"], "6"),
        (&["run", "--rm", "-u", "5", "--group-add", "7", "busybox"], "0 7"),
        (&["exec", "idle"], "33 77"),
        (&["exec", "-u", "5:6", "idle"], "6 77"),
    ] {
        let said = say(&d, &[words, &["grep", "Groups", "/proc/self/status"]].concat()).ok();
        assert_eq!(said.trim_start_matches("Groups:").trim(), groups, "{words:?}");
    }
}

const EPERM: i32 = -1;
const ENOSYS: i32 = -38;

fn native<'a>(name: &'static str, number: u64, arguments: &[Arg<'a>]) -> (&'static str, Call<'a>) {
    (name, call(number, arguments))
}

fn old<'a>(name: &'static str, number: u64, arguments: &[Arg<'a>]) -> (&'static str, Call<'a>) {
    (name, Call { abi: Abi::I386, number, arguments: arguments.to_vec() })
}

/// Numbers of x86-64's table; the arguments are such that the kernel itself would answer otherwise.
fn refused() -> Vec<(&'static str, Call<'static>)> {
    use Arg::{Bytes, Number};
    const STREAM: Arg<'_> = Number(1);
    let new = |flag: u64| Number(flag);
    vec![
        native("socket of AF_ALG", 41, &[Number(38), Number(5), Number(0)]),
        native("socket of AF_VSOCK", 41, &[Number(40), STREAM, Number(0)]),
        native("unshare of the user namespace", 272, &[new(0x1000_0000)]),
        native("unshare of the mount namespace", 272, &[new(0x2_0000)]),
        native("unshare of the cgroup namespace", 272, &[new(0x200_0000)]),
        native("clone with a user namespace", 56, &[Number(0x1000_0000 | 17), Number(0)]),
        native("clone3", 435, &[Bytes(b""), Number(88)]),
        native("setns", 308, &[Number(0), Number(0)]),
        native("mount", 165, &[Bytes(b"none"), Bytes(b"/tmp"), Bytes(b"tmpfs"), Number(0), Number(0)]),
        native("umount2", 166, &[Bytes(b"/proc"), Number(2)]),
        native("fsopen", 430, &[Bytes(b"tmpfs"), Number(0)]),
        native("fsconfig", 431, &[Number(0), Number(6), Number(0), Number(0), Number(0)]),
        native("open_tree", 428, &[Number(0), Bytes(b"/"), Number(1)]),
        native("move_mount", 429, &[Number(0), Bytes(b""), Number(0), Bytes(b"/tmp"), Number(4)]),
        native("mount_setattr", 442, &[Number(0), Bytes(b""), Number(0x1000), Bytes(b""), Number(32)]),
        native("pivot_root", 155, &[Bytes(b"/"), Bytes(b"/")]),
        native("bpf", 321, &[Number(0), Bytes(b""), Number(72)]),
        native("perf_event_open", 298, &[Bytes(b""), Number(0), Number(0), Number(0), Number(0)]),
        native("keyctl", 250, &[Number(0), Number(0xffff_fffd), Number(0)]),
        native("add_key", 248, &[Bytes(b"user"), Bytes(b"x"), Bytes(b"x"), Number(1), Number(0xffff_fffd)]),
        native("request_key", 249, &[Bytes(b"user"), Bytes(b"x"), Number(0), Number(0)]),
        native("io_uring_setup", 425, &[Number(4), Bytes(b"")]),
        native("io_uring_enter", 426, &[Number(0), Number(0), Number(0), Number(0), Number(0), Number(0)]),
        native("io_uring_register", 427, &[Number(0), Number(0), Number(0), Number(0)]),
        native("userfaultfd", 323, &[Number(0)]),
        native("kexec_load", 246, &[Number(0), Number(0), Number(0), Number(0)]),
        native("kexec_file_load", 320, &[Number(0), Number(0), Number(0), Number(0), Number(0)]),
        native("init_module", 175, &[Bytes(b""), Number(0), Bytes(b"")]),
        native("finit_module", 313, &[Number(0), Bytes(b""), Number(0)]),
        native("delete_module", 176, &[Bytes(b"x"), Number(0)]),
        native("open_by_handle_at", 304, &[Number(0), Bytes(b"\x08\0\0\0\x01\0\0\0\x02\0\0\0"), Number(0)]),
        native("reboot", 169, &[Number(0xfee1_dead), Number(672_274_793), Number(0), Number(0)]),
        native("swapon", 167, &[Bytes(b"/x"), Number(0)]),
        native("acct", 163, &[Number(0)]),
        native("settimeofday", 164, &[Number(0), Number(0)]),
        native("clock_settime", 227, &[Number(0), Bytes(b"")]),
        native("iopl", 172, &[Number(3)]),
        native("ioperm", 173, &[Number(0), Number(1), Number(1)]),
        native("syslog", 103, &[Number(10), Number(0), Number(0)]),
        native("quotactl", 179, &[Number(0x8000_0100), Number(0), Number(0), Number(0)]),
        native("fanotify_init", 300, &[Number(0), Number(0)]),
        native("sethostname", 170, &[Bytes(b"x"), Number(1)]),
        native("vhangup", 153, &[]),
        native("personality without randomisation", 135, &[Number(0x4_0000)]),
        native("uselib", 134, &[Bytes(b"/x")]),
    ]
}

/// By numbers of the other ABIs of this processor, which the default filter does not speak of: whoever makes such a call
/// ends.
fn of_other_abis() -> Vec<(&'static str, Call<'static>)> {
    use Arg::{Bytes, Number};
    const STREAM: Arg<'_> = Number(1);
    // Two words, for socketcall(2): the family, the type, the protocol.
    const VSOCK: &[u8] = &[40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    const ALG: &[u8] = &[38, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    let new = |flag: u64| Number(flag);
    vec![
        native("x32's io_uring_setup", 0x4000_0000 | 425, &[Number(4), Bytes(b"")]),
        native("x32's unshare", 0x4000_0000 | 272, &[new(0x1000_0000)]),
        old("socketcall for AF_VSOCK", 102, &[Number(1), Bytes(VSOCK)]),
        old("socketcall for AF_ALG", 102, &[Number(1), Bytes(ALG)]),
        old("32-bit socket of AF_VSOCK", 359, &[Number(40), STREAM, Number(0)]),
        old("32-bit unshare", 310, &[new(0x1000_0000)]),
        old("32-bit mount", 21, &[Bytes(b"none"), Bytes(b"/tmp"), Bytes(b"tmpfs"), Number(0), Number(0)]),
        old("32-bit keyctl", 288, &[Number(0), Number(0xffff_fffd), Number(0)]),
        old("32-bit open_by_handle_at", 342, &[Number(0), Bytes(b"\x08\0\0\0\x01\0\0\0"), Number(0)]),
    ]
}

fn answers(said: &str) -> Vec<i32> {
    said.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn rarely_used_system_calls_are_refused() {
    let Some(d) = Daemon::start() else { return };
    let calls = refused();
    let program = d.path().join("calls");
    let list: Vec<Call<'_>> = calls.iter().map(|(_, call)| call.clone()).collect();
    once(&program, &list);
    let bind = format!("{}:/calls:ro", program.display());
    say(&d, &["run", "-d", "--name", "idle", "-v", &bind, "busybox", "sleep", "1000"]).ok();
    let run = |words: &[&str]| {
        let all = [words, &["sh", "-c", "/calls > /tmp/answers; od -An -v -td4 /tmp/answers"]].concat();
        answers(&say(&d, &all).ok())
    };
    let by_default = run(&["run", "--rm", "-v", &bind, "busybox"]);
    assert_eq!(by_default.len(), calls.len());
    for ((name, _), answer) in calls.iter().zip(&by_default) {
        assert!([EPERM, ENOSYS].contains(answer), "{name}: {answer}");
    }
    // For an exec the same, also where it has all capabilities: the filter is the container's.
    assert_eq!(run(&["exec", "idle"]), by_default);
    assert_eq!(run(&["exec", "-u", "web", "idle"]), by_default);
    let privileged = run(&["exec", "--privileged", "idle"]);
    assert_eq!(privileged, by_default);
    // Calls of other ABIs end the program (128 and SIGSYS).
    let foreign = of_other_abis();
    let others = d.path().join("others");
    std::fs::create_dir(&others).unwrap();
    for (index, (_, call)) in foreign.iter().enumerate() {
        once(&others.join(format!("{index:02}")), std::slice::from_ref(call));
    }
    let bind_others = format!("{}:/others:ro", others.display());
    let script = "for call in /others/*; do $call >/dev/null 2>&1; echo $?; done";
    let words = ["-v", &bind_others, "busybox"];
    say(&d, &[&["run", "-d", "--name", "others"], &words[..], &["sleep", "1000"]].concat()).ok();
    let run_others = |all: &[&str]| answers(&say(&d, &[all, &["sh", "-c", script]].concat()).ok());
    let ended = vec![159; foreign.len()];
    assert_eq!(run_others(&[&["run", "--rm"], &words[..]].concat()), ended);
    assert_eq!(run_others(&["exec", "others"]), ended);
    assert_eq!(run_others(&["exec", "--privileged", "others"]), ended);
    // And for a step of a build.
    let context = d.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::copy(&program, context.join("calls")).unwrap();
    let step = "FROM busybox\nCOPY calls /calls\nRUN /calls > /answers; echo answers: $(od -An -v -td4 /answers)\n";
    std::fs::write(context.join("Dockerfile"), step).unwrap();
    let built = say(&d, &["build", &context.to_string_lossy()]).ok();
    let line = built.lines().find_map(|line| line.strip_prefix("answers: ")).unwrap();
    assert_eq!(answers(line), by_default);
}

/// The keys of whoever started the daemon are not the container's, nor those of one process another's.
#[test]
#[cfg(target_arch = "x86_64")]
fn session_keyrings_are_not_the_host_s() {
    let Some(d) = Daemon::start() else { return };
    let program = d.path().join("keys");
    // KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING, without making one.
    once(&program, &[call(250, &[Arg::Number(0), Arg::Number(0xffff_fffd), Arg::Number(0)])]);
    let own = std::process::Command::new(&program).output().unwrap();
    let own = i32::from_ne_bytes(own.stdout.try_into().unwrap());
    let bind = format!("{}:/keys:ro", program.display());
    let words = ["--security-opt", "seccomp=unconfined", "-v", &bind];
    say(&d, &[&["run", "-d", "--name", "idle"], &words[..], &["busybox", "sleep", "1000"]].concat()).ok();
    let run =
        |all: &[&str]| answers(&say(&d, &[all, &["sh", "-c", "/keys > /tmp/k; od -An -td4 /tmp/k"]].concat()).ok())[0];
    let first = run(&[&["run", "--rm"], &words[..], &["busybox"]].concat());
    let exec = run(&["exec", "idle"]);
    for key in [first, exec] {
        assert!(key > 0 && key != own, "{key} beside the host's {own}");
    }
    assert_ne!(first, exec);
}

#[test]
fn control_groups_and_devices_are_not_the_container_s_to_change() {
    let Some(d) = Daemon::start() else { return };
    let tries = "for f in $(find /sys/fs/cgroup -name release_agent -o -name devices.allow -o -name notify_on_release \
                 -o -name cgroup.procs -o -name memory.limit_in_bytes -o -name pids.max -o -name memory.max); do \
                     { echo 1 > $f; } 2>/dev/null && echo written $f; \
                 done; \
                 mkdir /sys/fs/cgroup/new /sys/fs/cgroup/*/new 2>/dev/null && echo made; \
                 grep -v ' /\\(sys/fs/cgroup\\)' /proc/self/mountinfo >/dev/null; \
                 grep ' /sys/fs/cgroup' /proc/self/mountinfo | grep -v ' ro,' ; \
                 mkdir /tmp/m; mount -t cgroup -o memory x /tmp/m 2>/dev/null && echo mounted; \
                 mount -t cgroup2 x /tmp/m 2>/dev/null && echo mounted; \
                 grep -v ':/$' /proc/self/cgroup; true";
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    for words in [&["run", "--rm", "busybox"][..], &["run", "--rm", "-m", "64m", "busybox"], &["exec", "idle"]] {
        assert_eq!(say(&d, &[words, &["sh", "-c", tries]].concat()).ok(), "", "{words:?}");
    }
    let own = wharf(&d, &["run", "--rm", "--userns", "auto", "busybox", "sh", "-c", tries]);
    assert_eq!(own.ok(), "");
}

/// A node is made, as Docker lets it be; what it stands for does not open.
#[test]
fn devices_of_the_host_do_not_open() {
    let Some(d) = Daemon::start() else { return };
    let disks = std::fs::read_dir("/sys/class/block").unwrap().map(|entry| entry.unwrap().path().join("dev"));
    let mut numbers: Vec<(char, String)> = disks
        .filter_map(|path| Some(('b', std::fs::read_to_string(path).ok()?.trim().replace(':', " "))))
        .take(8)
        .collect();
    // mem, kmem, port, kmsg, tty0, uinput, fuse, tun, kvm, loop-control.
    for number in ["1 1", "1 2", "1 4", "1 11", "4 0", "10 223", "10 229", "10 200", "10 232", "10 237"] {
        numbers.push(('c', number.to_owned()));
    }
    numbers.push(('b', "7 0".to_owned()));
    let mut script = String::from("cd /tmp; ");
    for (kind, number) in &numbers {
        script += &format!(
            "mknod n {kind} {number} && {{ {{ head -c 1 n >/dev/null || ( true > n ); }} 2>/tmp/e && echo opened {kind} {number}; \
             grep -q 'not permitted' /tmp/e || cat /tmp/e; rm n; }}; "
        );
    }
    script += "true";
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    for words in [
        &["run", "--rm", "busybox"][..],
        &["run", "--rm", "--cap-add", "ALL", "busybox"],
        &["exec", "idle"],
        &["exec", "--privileged", "idle"],
    ] {
        assert_eq!(say(&d, &[words, &["sh", "-c", &script]].concat()).ok(), "", "{words:?}");
    }
    // One that is on a volume, or in an image, is no other.
    let dir = d.path().join("nodes");
    std::fs::create_dir(&dir).unwrap();
    let made = std::process::Command::new("mknod").arg(dir.join("mem")).args(["c", "1", "1"]).status().unwrap();
    assert!(made.success());
    let said =
        say(&d, &["run", "--rm", "-v", &format!("{}:/n", dir.display()), "busybox", "head", "-c", "1", "/n/mem"]);
    assert!(said.err.contains("not permitted"), "{}", said.err);
}

/// An exec in a container that another process watches: not even with the right to trace is there more to get.
#[test]
fn time_is_not_the_container_s_to_set() {
    let Some(d) = Daemon::start() else { return };
    say(&d, &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"]).ok();
    let own = std::fs::read_link("/proc/self/ns/time");
    let inside = exec(&d, "idle", "readlink /proc/self/ns/time; readlink /proc/1/ns/time").ok();
    if let Ok(own) = own {
        let own = own.to_string_lossy().into_owned();
        let all: Vec<&str> = inside.lines().collect();
        assert!(all.len() == 2 && all[0] == all[1] && all[0] != own, "{inside}");
    }
    for capability in [&[][..], &["--cap-add", "SYS_TIME", "--cap-drop", "MKNOD"]] {
        let said = say(
            &d,
            &[
                &["run", "--rm"],
                capability,
                &["busybox", "sh", "-c", "echo 'monotonic 5 0' > /proc/self/timens_offsets"],
            ]
            .concat(),
        );
        assert_ne!(said.code, 0);
    }
    assert!(Path::new("/proc/self").exists());
}
