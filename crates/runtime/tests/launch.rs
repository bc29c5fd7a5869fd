//! Containers on this kernel: each case launches a busybox and looks at what it saw.
//!
//! Has its own `main`, since the runtime wants a caller with one thread.

#[path = "launch/fixture.rs"]
mod fixture;
#[path = "launch/images.rs"]
mod images;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use oci_spec::runtime::Spec;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::json;
use wharf_cgroup::{Group, Hierarchies};
use wharf_runtime::{Exec, Launch, Lower, Rootfs, RuntimeError, Stdio, create};

use crate::fixture::{Image, Outcome, config, finish, launch, pipe, shell};

fn namespaces_are_its_own(image: &Image) {
    let host: Vec<PathBuf> = ["mnt", "pid", "uts", "ipc", "net"]
        .iter()
        .map(|n| fs::read_link(format!("/proc/self/ns/{n}")).expect("a link"))
        .collect();
    let outcome =
        shell(image, "ns", "echo $$; hostname; for n in mnt pid uts ipc net; do ls -l /proc/self/ns/$n; done");
    let lines: Vec<&str> = outcome.output.lines().collect();
    assert_eq!((lines[0], lines[1]), ("1", "inside"), "{}", outcome.output);
    for link in host {
        assert!(!outcome.output.contains(&*link.to_string_lossy()), "shared {}", link.display());
        let kind = link.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
        assert!(outcome.output.contains(&format!("{kind}:[")), "{}", outcome.output);
    }
}

fn exit_codes_come_through(image: &Image) {
    assert_eq!(shell(image, "exit", "exit 42").status, 42);
    assert_eq!(shell(image, "kill", "kill -9 $$; kill -15 1; exit 7").status, 7, "init ignores signals from inside");
    let missing = launch(image.rootfs("missing"), config(&["nothing-there"])).err().expect("must fail");
    assert_eq!(missing.exit_code(), 127, "{missing}");
    let text = launch(image.rootfs("text"), config(&["/etc/not-a-program"])).err().expect("must fail");
    assert_eq!(text.exit_code(), 126, "{text}");
    let plain = launch(image.rootfs("plain"), config(&["plain"])).err().expect("must fail");
    assert_eq!(plain.exit_code(), 127, "not found by a search: {plain}");
}

fn what_is_written_lands_in_the_upper_directory_alone(image: &Image) {
    let outcome = shell(image, "write", "echo mine > /tmp/file && cat /tmp/file");
    assert_eq!(outcome.output, "mine\n");
    assert_eq!(fs::read_to_string(image.upper("write").join("tmp/file")).expect("is there"), "mine\n");
    assert!(!image.dir.path().join("layer/tmp/file").exists());
    let mut readonly = config(&["touch", "/tmp/x"]);
    readonly["root"]["readonly"] = json!(true);
    assert_ne!(launch(image.rootfs("ro"), readonly).expect("launches").status, 0);
}

fn masked_and_read_only_paths(image: &Image) {
    let outcome = shell(
        image,
        "mask",
        "stat -c %t:%T /proc/keys; ls /sys/firmware | wc -l; touch /proc/sys/kernel/hostname 2>&1; \
         echo x > /proc/sys/kernel/hostname; cat /proc/1/mounts",
    );
    assert!(outcome.output.starts_with("1:3\n0\n"), "{}", outcome.output);
    assert!(outcome.output.contains("Read-only file system"), "{}", outcome.output);
    assert!(!outcome.output.contains("/layer "), "the host's mounts are gone: {}", outcome.output);
    for source in ["overlay / overlay", "proc /proc proc", "shm /dev/shm tmpfs", "devpts /dev/pts devpts"] {
        assert!(outcome.output.contains(&format!("\n{source} ")), "{source}: {}", outcome.output);
    }
}

fn capabilities_and_devices(image: &Image) {
    let outcome = shell(
        image,
        "caps",
        "cat /proc/self/status | while read k v; do case $k in Cap*|NoNewPrivs:|Seccomp:) echo $k $v;; esac; done; \
         echo x > /dev/null && cat /dev/full >/dev/null & ls /proc/self/fd; mount -t tmpfs x /tmp",
    );
    for line in
        ["CapBnd: 0000000000000021", "CapEff: 0000000000000021", "CapInh: 0000000000000000", "CapAmb: 0000000000000000"]
    {
        assert!(outcome.output.contains(line), "{line} is not in\n{}", outcome.output);
    }
    assert!(
        outcome.output.contains("permission denied") || outcome.output.contains("Operation not permitted"),
        "{}",
        outcome.output
    );
    assert_ne!(outcome.status, 0);
}

fn no_fd_of_the_host_leaks(image: &Image) {
    let held = fs::File::open("/").expect("opens");
    rustix::io::fcntl_setfd(&held, rustix::io::FdFlags::empty()).expect("inheritable on purpose");
    let outcome = shell(image, "fds", "ls /proc/self/fd");
    drop(held);
    let fds: Vec<&str> = outcome.output.split_whitespace().collect();
    assert_eq!(fds, ["0", "1", "2", "3"], "3 is the directory that ls itself reads");
}

fn a_seccomp_filter_holds(image: &Image) {
    let mut refused = config(&["sh", "-c", "mkdir /tmp/d 2>&1 || /bin/busybox mkdir /tmp/d"]);
    refused["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }]
    });
    let outcome = launch(image.rootfs("seccomp"), refused).expect("launches");
    assert!(outcome.output.contains("Operation not permitted"), "{}", outcome.output);
    assert_ne!(outcome.status, 0);
}

fn a_terminal_is_the_controlling_one(image: &Image) {
    let mut config = config(&["sh", "-c", "tty; stty size; test -t 0 && echo terminal; exit 3"]);
    config["process"]["terminal"] = json!(true);
    config["process"]["consoleSize"] = json!({ "height": 24, "width": 80 });
    let spec: Spec = serde_json::from_value(config).expect("a configuration");
    let launch = Launch {
        spec: &spec,
        rootfs: image.rootfs("tty"),
        layers: &[],
        binds: &[],
        stdio: Stdio::Terminal,
        netns: None,
        group: None,
        default_filter: None,
        lifecycle: wharf_runtime::Lifecycle::default(),
    };
    let created = create(launch).expect("creates");
    let (_, pidfd, master) = created.start().expect("starts");
    let outcome = finish(fs::File::from(master.expect("a master")), &pidfd);
    assert!(outcome.output.contains("terminal\r\n") && outcome.output.contains("24 80"), "{}", outcome.output);
    assert_eq!(outcome.status, 3);
}

fn a_user_namespace_maps_owners_and_leaves_the_layers_alone(image: &Image) {
    let mut config = config(&[
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox; touch /tmp/made && stat -c %u /tmp/made",
    ]);
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.push(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    let outcome = launch(image.rootfs("userns"), config).expect("launches");
    let lines: Vec<&str> = outcome.output.lines().collect();
    assert_eq!(lines[0], "0", "{}", outcome.output);
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(&lines[2..], ["0", "0"]);
    assert_eq!(fs::metadata(image.upper("userns").join("tmp/made")).expect("is there").uid(), 100_000);
    let layer = image.dir.path().join("layer/bin/busybox");
    assert_eq!(fs::metadata(layer).expect("is there").uid(), 0, "the layer stays as it was");
}

fn binds_and_their_options(image: &Image) {
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("file"), "from the host").expect("writes");
    let mut config = config(&["sh", "-c", "cat /data/file /single; touch /data/x"]);
    let mounts = config["mounts"].as_array_mut().expect("a list");
    mounts
        .push(json!({ "destination": "/data", "type": "bind", "source": outside.path(), "options": ["rbind", "ro"] }));
    mounts.push(
        json!({ "destination": "/single", "type": "bind", "source": outside.path().join("file"), "options": ["bind"] }),
    );
    let outcome = launch(image.rootfs("bind"), config).expect("launches");
    assert!(outcome.output.starts_with("from the hostfrom the host"), "{}", outcome.output);
    assert!(outcome.output.contains("Read-only"), "{}", outcome.output);
}

/// An image whose `/dev`, `/proc` and mount targets are links to the host (CVE-2019-19921, CVE-2026-41579).
fn links_in_the_image_reach_nothing(image: &Image) {
    let canary = tempfile::tempdir().expect("a directory");
    let evil = image.dir.path().join("evil");
    fs::create_dir_all(&evil).expect("makes");
    for name in ["data", "etc-link"] {
        symlink(canary.path(), evil.join(name)).expect("links");
    }
    let mut config = config(&["true"]);
    let mounts = config["mounts"].as_array_mut().expect("a list");
    mounts.push(json!({ "destination": "/data/inner", "type": "tmpfs", "source": "tmpfs", "options": [] }));
    let rootfs = match image.rootfs("evil") {
        Rootfs::Overlay { mut lowers, .. } => {
            lowers.insert(0, Lower::Directory(evil));
            let (upper, work) = (image.dir.path().join("e/upper"), image.dir.path().join("e/work"));
            fs::create_dir_all(&upper).expect("makes");
            fs::create_dir_all(&work).expect("makes");
            Rootfs::Overlay { lowers, upper: Some(upper), work: Some(work) }
        }
        other => other,
    };
    let _ = launch(rootfs, config.clone());
    // Not over what the kernel tells, whatever a link says.
    let inside = image.dir.path().join("inside");
    fs::create_dir_all(&inside).expect("makes");
    symlink("/proc/sys", inside.join("x")).expect("links");
    let mounts = config["mounts"].as_array_mut().expect("a list");
    let bind = json!({ "destination": "/x", "type": "bind", "source": canary.path(), "options": ["bind"] });
    *mounts.last_mut().expect("one") = bind;
    if let Rootfs::Overlay { mut lowers, upper, work } = image.rootfs("inside-upper") {
        lowers.insert(0, Lower::Directory(inside));
        let refused = launch(Rootfs::Overlay { lowers, upper, work }, config).err().expect("must be refused");
        assert!(refused.to_string().contains("procfs or inside of it"), "{refused}");
    }
    assert_eq!(fs::read_dir(canary.path()).expect("reads").count(), 0, "something came out of the image");
}

fn bad_configurations_leave_nothing(image: &Image) {
    let before = mounts();
    let mut no_command = config(&["true"]);
    no_command["process"]["args"] = json!([]);
    let mut unknown = config(&["true"]);
    unknown["mounts"].as_array_mut().expect("a list").push(json!({ "destination": "/x", "type": "nosuchfs" }));
    let mut missing = config(&["true"]);
    missing["mounts"]
        .as_array_mut()
        .expect("a list")
        .push(json!({ "destination": "/x", "type": "bind", "source": "/does/not/exist", "options": ["bind"] }));
    let mut joined = config(&["true"]);
    joined["linux"]["namespaces"][1]["path"] = json!("/proc/1/ns/net");
    let mut scheduled = config(&["true"]);
    scheduled["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 99 });
    let mut shared = config(&["true"]);
    shared["linux"]["rootfsPropagation"] = json!("sheared");
    for bad in [no_command, unknown, missing, joined, scheduled, shared] {
        let error = launch(image.rootfs("bad"), bad).err().expect("must be refused");
        assert_eq!(error.exit_code(), 125, "{error}");
    }
    assert_eq!(mounts(), before);
}

fn limits_of_its_group_hold(image: &Image) {
    let hierarchies = match Hierarchies::detect() {
        Ok(found) => found,
        Err(error) => return println!("    skipped: {error}"),
    };
    let path = format!("/wharf-launch-{}", std::process::id());
    let group = match Group::create(&hierarchies, &path) {
        Ok(group) => group,
        Err(error) => return println!("    skipped: {error}"),
    };
    let mut config = config(&[
        "sh",
        "-c",
        "exec 2>&1; cat /proc/self/cgroup; (sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 &) ; exit 0",
    ]);
    config["linux"]["resources"] = json!({ "pids": { "limit": 3 } });
    config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "cgroup" }));
    let spec: Spec = serde_json::from_value(config).expect("a configuration");
    let (read, write) = pipe();
    let second = write.try_clone().expect("duplicates");
    let stdin = OwnedFd::from(fs::File::open("/dev/null").expect("/dev/null"));
    let stdio = Stdio::Fds { stdin, stdout: write, stderr: second };
    let launch = Launch {
        spec: &spec,
        rootfs: image.rootfs("group"),
        layers: &[],
        binds: &[],
        stdio,
        netns: None,
        group: Some(&group),
        default_filter: None,
        lifecycle: wharf_runtime::Lifecycle::default(),
    };
    let (_, pidfd, _) = create(launch).expect("creates").start().expect("starts");
    let outcome = finish(fs::File::from(read), &pidfd);
    assert!(outcome.output.contains("can't fork"), "{}", outcome.output);
    let own = outcome.output.lines().filter(|line| line.matches(':').count() >= 2 && !line.starts_with("sh:"));
    assert!(own.clone().count() > 0 && own.clone().all(|line| line.ends_with(":/")), "{}", outcome.output);
    group.remove().expect("removes the group");
}

fn an_exec_sees_and_may_what_the_container_does(image: &Image) {
    for userns in [false, true] {
        let mut base = config(&["sleep", "30"]);
        if userns {
            base["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            base["linux"]["uidMappings"] = map.clone();
            base["linux"]["gidMappings"] = map;
        }
        let spec: Spec = serde_json::from_value(base.clone()).expect("a configuration");
        let null = || OwnedFd::from(fs::File::options().read(true).write(true).open("/dev/null").expect("/dev/null"));
        let stdio = Stdio::Fds { stdin: null(), stdout: null(), stderr: null() };
        let rootfs = image.rootfs(if userns { "exec-userns" } else { "exec" });
        let created = create(Launch {
            spec: &spec,
            rootfs,
            layers: &[],
            binds: &[],
            stdio,
            netns: None,
            group: None,
            default_filter: None,
            lifecycle: wharf_runtime::Lifecycle::default(),
        })
        .expect("creates");
        let (pid, pidfd, _) = created.start().expect("starts");

        let run = |args: &[&str]| -> Result<Outcome, RuntimeError> {
            let mut process = base["process"].clone();
            process["args"] = json!(args);
            let process = serde_json::from_value(process).expect("a process");
            let (read, write) = pipe();
            let second = write.try_clone().expect("duplicates");
            let stdio = Stdio::Fds { stdin: null(), stdout: write, stderr: second };
            let exec = Exec {
                pid,
                pidfd: pidfd.as_fd(),
                process: &process,
                seccomp: None,
                default_filter: None,
                stdio,
                group: None,
                only_there: false,
                personality: None,
                memory_policy: None,
                state: None,
                inheritance: wharf_runtime::Inheritance::default(),
                sight: None,
            };
            let created = wharf_runtime::exec(exec)?;
            has_nothing_of_the_host(created.pid);
            let (_, own, _) = created.start()?;
            Ok(finish(fs::File::from(read), &own))
        };
        let script = "hostname; cat /proc/1/cmdline; cat /proc/self/status; ls /proc/self/fd | wc -l; exit 6";
        let outcome = run(&["sh", "-c", script]).expect("runs");
        assert_eq!(outcome.status, 6, "{}", outcome.output);
        assert!(outcome.output.starts_with("inside\nsleep"), "{}", outcome.output);
        assert!(outcome.output.contains("CapBnd:\t0000000000000021"), "{}", outcome.output);
        assert!(outcome.output.trim_end().ends_with("\n4"), "an fd of the host leaked: {}", outcome.output);
        assert_eq!(run(&["nothing-there"]).err().expect("must fail").exit_code(), 127);

        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("kills");
        let ended = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("waits");
        assert!(ended.is_some());
        assert!(run(&["true"]).is_err(), "a container that has ended takes no exec");
    }
    // This process is where it was: its next child is in its own PID namespace.
    assert_eq!(shell(image, "after-exec", "exit 4").status, 4);
}

/// Whoever has enough of an exec leaves no process behind, at whatever point that is.
fn a_dropped_exec_leaves_no_child(image: &Image) {
    let base = config(&["sleep", "30"]);
    let spec: Spec = serde_json::from_value(base.clone()).expect("a configuration");
    let null = || OwnedFd::from(fs::File::options().read(true).write(true).open("/dev/null").expect("/dev/null"));
    let stdio = || Stdio::Fds { stdin: null(), stdout: null(), stderr: null() };
    let created = create(Launch {
        spec: &spec,
        rootfs: image.rootfs("dropped"),
        layers: &[],
        binds: &[],
        stdio: stdio(),
        netns: None,
        group: None,
        default_filter: None,
        lifecycle: wharf_runtime::Lifecycle::default(),
    })
    .expect("creates");
    let (pid, pidfd, _) = created.start().expect("starts");
    let process = serde_json::from_value(base["process"].clone()).expect("a process");
    for wait in [true, false].repeat(10) {
        let exec = Exec {
            pid,
            pidfd: pidfd.as_fd(),
            process: &process,
            seccomp: None,
            default_filter: None,
            stdio: stdio(),
            group: None,
            only_there: false,
            personality: None,
            memory_policy: None,
            state: None,
            inheritance: wharf_runtime::Inheritance::default(),
            sight: None,
        };
        let entering = wharf_runtime::begin_exec(exec).expect("begins");
        if wait {
            // The process has been made, and nobody here has heard of it.
            let fds = &mut [rustix::event::PollFd::new(&entering, rustix::event::PollFlags::IN)];
            rustix::event::poll(fds, None).expect("waits");
        }
        drop(entering);
        let children = fs::read_to_string("/proc/thread-self/children").expect("this process's children");
        assert_eq!(children.trim(), pid.to_string(), "after a wait: {wait}");
    }
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("kills");
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("waits");
}

/// A process that waits to become the program: all that it has open is its streams and its connection to us,
/// whatever who can look into it.
fn has_nothing_of_the_host(pid: rustix::process::Pid) {
    let pid = pid.as_raw_nonzero();
    for fd in fs::read_dir(format!("/proc/{pid}/fd")).expect("lists") {
        let target = fs::read_link(fd.expect("an entry").path()).expect("a link");
        let target = target.to_string_lossy();
        let known = ["pipe:", "socket:", "/dev/null"];
        assert!(known.iter().any(|known| target.starts_with(known)), "it holds {target}");
    }
    let own = fs::read_link("/proc/self/ns/mnt").expect("a link");
    assert_ne!(fs::read_link(format!("/proc/{pid}/ns/mnt")).expect("a link"), own);
}

/// Not a check on time, which no test makes: printed so that a slip is seen.
fn the_time_of_a_launch(image: &Image) {
    let mut times: Vec<u128> = (0..40)
        .map(|_| {
            let start = Instant::now();
            let outcome = launch(image.rootfs("time"), config(&["true"])).expect("launches");
            assert_eq!(outcome.status, 0);
            start.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    println!("    median {} µs, fastest {} µs", times[times.len() / 2], times[0]);
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").expect("reads").lines().count()
}

/// A named check; it panics when it fails.
type Case = fn(&Image);

fn main() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("1 skipped: containers need root and busybox-static");
        return;
    }
    let image = Image::new();
    let before = mounts();
    let cases: &[(&str, Case)] = &[
        ("namespaces_are_its_own", namespaces_are_its_own),
        ("exit_codes_come_through", exit_codes_come_through),
        ("what_is_written_lands_in_the_upper_directory_alone", what_is_written_lands_in_the_upper_directory_alone),
        ("masked_and_read_only_paths", masked_and_read_only_paths),
        ("capabilities_and_devices", capabilities_and_devices),
        ("no_fd_of_the_host_leaks", no_fd_of_the_host_leaks),
        ("a_seccomp_filter_holds", a_seccomp_filter_holds),
        ("a_terminal_is_the_controlling_one", a_terminal_is_the_controlling_one),
        ("a_user_namespace_maps_owners", a_user_namespace_maps_owners_and_leaves_the_layers_alone),
        ("binds_and_their_options", binds_and_their_options),
        ("links_in_the_image_reach_nothing", links_in_the_image_reach_nothing),
        ("bad_configurations_leave_nothing", bad_configurations_leave_nothing),
        ("limits_of_its_group_hold", limits_of_its_group_hold),
        ("an_exec_sees_and_may_what_the_container_does", an_exec_sees_and_may_what_the_container_does),
        ("a_dropped_exec_leaves_no_child", a_dropped_exec_leaves_no_child),
        ("layers_can_be_images", images::layers_can_be_images),
        ("the_time_of_a_launch", the_time_of_a_launch),
    ];
    let mut failed = 0;
    for (name, case) in cases {
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&image))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    assert_eq!(mounts(), before, "a mount was left on the host");
    println!("{} passed, {failed} failed", cases.len() - failed);
    if failed > 0 {
        std::process::exit(1);
    }
}
