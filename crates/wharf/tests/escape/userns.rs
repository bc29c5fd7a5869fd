//! User namespaces: ranges that nobody else has, files that belong to whom they should, nothing given away.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use serde_json::json;

use crate::bundle::{Bundle, text};
use crate::canary::{exec, say, wharf};
use crate::kit::Daemon;

/// The first of the host's IDs, and how many.
fn range(d: &Daemon, container: &str) -> (u64, u64) {
    let line = exec(d, container, "cat /proc/self/uid_map").ok();
    let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    (numbers[1], numbers[2])
}

fn start(d: &Daemon, name: &str) {
    wharf(d, &["run", "-d", "--name", name, "--userns", "auto", "--network", "none", "busybox", "sleep", "1000"]).ok();
}

fn assert_disjoint(d: &Daemon, names: &[&str]) {
    let ranges: Vec<(u64, u64)> = names.iter().map(|name| range(d, name)).collect();
    for (at, (first, count)) in ranges.iter().enumerate() {
        assert!(*first > 100_000 && *count >= 65_536, "{ranges:?}");
        for (other, size) in &ranges[at + 1..] {
            assert!(first + count <= *other || other + size <= *first, "two containers have the same IDs: {ranges:?}");
        }
    }
}

#[test]
fn ranges_never_overlap() {
    let Some(mut d) = Daemon::start() else { return };
    // All at the same moment.
    let names = ["a0", "a1", "a2", "a3", "a4", "a5"];
    std::thread::scope(|scope| {
        for name in names {
            let d = &d;
            scope.spawn(move || start(d, name));
        }
    });
    assert_disjoint(&d, &names);
    // A daemon that was killed while others were started.
    std::thread::scope(|scope| {
        let d = &d;
        for name in ["b0", "b1", "b2"] {
            scope.spawn(move || {
                wharf(
                    d,
                    &["run", "-d", "--name", name, "--userns", "auto", "--network", "none", "busybox", "sleep", "1000"],
                )
            });
        }
        scope.spawn(move || {
            d.eventually("the first is there", || !d.docker("ps -aq --filter name=b").out.is_empty());
            let pid = rustix::process::Pid::from_raw(d.pid().cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
    });
    d.kill();
    d.launch();
    for name in ["c0", "c1", "c2", "c3"] {
        start(&d, name);
    }
    let running = d.docker("ps --format {{.Names}}").ok();
    assert_disjoint(&d, &running.lines().collect::<Vec<_>>());
    // One that ends and comes again has its own; one that was removed leaves them to others.
    let before = range(&d, "a0");
    d.docker("restart -t 0 a0").ok();
    assert_eq!(range(&d, "a0"), before);
    // Another daemon's are not taken either.
    let Some(other) = Daemon::start() else { return };
    start(&other, "other");
    let theirs = range(&other, "other");
    let ours: BTreeSet<(u64, u64)> = running.lines().map(|name| range(&d, name)).collect();
    assert!(
        ours.iter().all(|(first, count)| first + count <= theirs.0 || theirs.0 + theirs.1 <= *first),
        "{theirs:?} {ours:?}"
    );
}

#[test]
fn nothing_is_given_away_on_the_disk() {
    let Some(d) = Daemon::start() else { return };
    let owners = || -> BTreeSet<(String, u32, u32)> {
        let mut all = BTreeSet::new();
        let mut left = vec![d.data().join("layers")];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let found = entry.metadata().unwrap();
                all.insert((entry.path().to_string_lossy().into_owned(), found.uid(), found.gid()));
                if found.is_dir() {
                    left.push(entry.path());
                }
            }
        }
        all
    };
    let before = owners();
    start(&d, "own");
    let look = "stat -c '%u %g' / /etc/passwd /bin/busybox /dev/null /sys/kernel /proc/1 | tr '\\n' ','; \
                touch /new /tmp/new && chown web /new && stat -c %u /new && ! chown 70000 /new 2>/dev/null && echo bounded";
    let seen = exec(&d, "own", look).ok();
    assert_eq!(seen, "0 0,0 0,0 0,65534 65534,65534 65534,0 0,33\nbounded");
    assert_eq!(owners(), before, "a layer's owners were changed");
    let (first, _) = range(&d, "own");
    let id = d.docker("inspect -f {{.Id}} own").ok();
    let new = d.data().join("containers").join(id).join("upper/new");
    assert_eq!(u64::from(fs::metadata(new).unwrap().uid()), first + 33);
    // What is the host's root's, the container's root may not touch.
    let dir = d.path().join("host");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("private"), "x").unwrap();
    fs::set_permissions(dir.join("private"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let bind = format!("{}:/host", dir.display());
    let said = wharf(
        &d,
        &["run", "--rm", "--userns", "auto", "-v", &bind, "busybox", "sh", "-c", "cat /host/private; touch /host/new"],
    );
    assert!(said.code != 0 && said.err.matches("Permission denied").count() == 2, "{} {}", said.out, said.err);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

/// What the container sees of the host's `/sys`: its own network, and nothing that is mounted below the host's.
#[test]
fn sysfs_is_the_container_s_own() {
    let Some(d) = Daemon::start() else { return };
    for network in ["bridge", "none", "host"] {
        let script = "grep -c ' /sys/fs/cgroup/unified ' /proc/self/mountinfo; grep ' /sys' /proc/self/mountinfo | grep -vc ' ro,'; \
                      ls /sys/class/net; touch /sys/x 2>/dev/null || echo refused";
        let said =
            wharf(&d, &["run", "--rm", "--userns", "auto", "--network", network, "busybox", "sh", "-c", script]).ok();
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].parse::<u32>().unwrap() <= 1 && lines[1] == "0", "{network}: {said}");
        assert_eq!(lines.last(), Some(&"refused"), "{network}: {said}");
        match network {
            "bridge" => assert!(said.contains("eth0") && said.contains("lo"), "{said}"),
            "none" => assert!(said.contains("lo") && !said.contains("eth"), "{said}"),
            _ => {}
        }
    }
}

#[test]
fn files_that_are_written_through_a_mapped_bind_belong_to_the_right_user() {
    for (option, root) in [("idmap", true), ("ridmap", true), ("idmap", false)] {
        let script = "stat -c %u:%g /v/f; touch /v/new /v/sub/new; mkdir /v/dir; stat -c %u:%g /v/new";
        let Some(bundle) = Bundle::new("mapped", &["sh", "-c", script], |config| {
            if !root {
                config["process"]["user"] = json!({ "uid": 5, "gid": 5 });
            }
        }) else {
            return;
        };
        let source = bundle.path("source");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("f"), "").unwrap();
        for path in [source.clone(), source.join("sub"), source.join("f")] {
            chown(path, Some(1_000), Some(1_001)).unwrap();
        }
        let inside = if root { 0 } else { 5 };
        let uids = json!([{ "containerID": 1_000, "hostID": inside, "size": 1 }]);
        let gids = json!([{ "containerID": 1_001, "hostID": inside, "size": 1 }]);
        bundle.configure(|config| {
            config["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "destination": "/v", "type": "bind", "source": source,
                "options": ["rbind", option], "uidMappings": uids, "gidMappings": gids }));
        });
        let output = bundle.run();
        if text(&output.stderr).contains("map the owners of") {
            return eprintln!("skipped: this file system has no id-mapped mounts");
        }
        assert_eq!(text(&output.stdout), format!("{inside}:{inside}\n{inside}:{inside}\n"), "{}", text(&output.stderr));
        for name in ["new", "sub/new", "dir", "f"] {
            let found = fs::metadata(source.join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (1_000, 1_001), "{option} {root}: {name}");
        }
    }
}

/// Volumes, and binds that ask for it, have the owners that they have on the disk: for every container the same, whatever
/// its range.
#[test]
fn volumes_and_mapped_binds_are_for_every_range() {
    let Some(d) = Daemon::start() else { return };
    let dir = d.path().join("host");
    fs::create_dir(&dir).unwrap();
    chown(&dir, Some(33), Some(33)).unwrap();
    let bind = format!("{}:/host:idmap", dir.display());
    let run = |user: &str, script: &str| {
        let words =
            ["run", "--rm", "--userns", "auto", "-u", user, "-v", "kept:/kept", "-v", &bind, "busybox", "sh", "-c"];
        wharf(&d, &[&words[..], &[script]].concat())
    };
    start(&d, "holds-the-first-range");
    run("0", "touch /kept/root; echo x > /kept/web; chown web:web /kept/web").ok();
    run("web", "touch /host/web; mkdir /host/dir; echo y >> /kept/web").ok();
    assert_eq!(
        run("web", "stat -c %u:%g /kept /kept/root /kept/web /host /host/web /host/dir | tr '\\n' ' '").ok().trim(),
        "0:0 0:0 33:33 33:33 33:33 33:33"
    );
    assert_ne!(run("web", "touch /kept/root").code, 0);
    for (path, uid) in [(dir.join("web"), 33), (dir.join("dir"), 33), (d.data().join("volumes/kept/_data/root"), 0)] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (uid, uid), "{}", path.display());
    }
    // The files of ours are its root's to change, as everywhere.
    run("0", "echo 1.2.3.4 added >> /etc/hosts").ok();
    // Others share the volume, and there is nothing to map where there is no user namespace.
    assert_eq!(say(&d, &["run", "--rm", "-v", "kept:/kept", "busybox", "stat", "-c", "%u", "/kept/web"]).ok(), "33");
    let said = say(&d, &["run", "--rm", "-v", &bind, "busybox", "true"]);
    assert!(said.code != 0 && said.err.contains("idmap needs a user namespace"), "{}", said.err);
    let said = wharf(&d, &["run", "--rm", "--userns", "auto", "-v", &format!("{bind}=uids=0-1-1"), "busybox", "true"]);
    assert!(said.code != 0 && said.err.contains("invalid mode: idmap=uids=0-1-1"), "{}", said.err);
    // The same by `--mount`.
    let mount = |more: &str| format!("type=bind,src={},dst=/host,{more}", dir.display());
    let with = |mode: &str, more: &str| {
        let bind = mount(more);
        wharf(&d, &["run", "--rm", "--userns", mode, "--mount", &bind, "busybox", "stat", "-c", "%u", "/host/web"])
    };
    assert_eq!(with("auto", "idmap").ok(), "33");
    assert_ne!(with("auto", "idmap=false").ok(), "33");
    let said = with("host", "idmap");
    assert!(said.code != 0 && said.err.contains("IDMap needs a user namespace"), "{}", said.err);
    d.docker("volume rm kept").ok();
}

/// Modes that are others' are refused by name.
#[test]
fn modes_that_are_not_ours_are_named() {
    let Some(d) = Daemon::start() else { return };
    for mode in
        ["private", "keep-id", "nomap", "container:x", "ns:/proc/1/ns/user", "auto:size=1", "remap", "1000:1000"]
    {
        let said = wharf(&d, &["create", "--userns", mode, "busybox"]);
        assert!(said.code != 0 && said.err.contains("--userns: invalid USER mode"), "{mode}: {}", said.err);
        let body = format!(r#"{{"Image":"busybox","HostConfig":{{"UsernsMode":"{mode}"}}}}"#);
        let (status, answer) = d.post("/containers/create", &body, true).unwrap();
        assert!(status == 400 && answer.contains(&format!("invalid user namespace mode: {mode}")), "{status} {answer}");
    }
    for options in [&["--privileged"][..], &["--pid", "host"]] {
        let said = wharf(&d, &[&["run", "--rm", "--userns", "auto"], options, &["busybox", "id", "-u"]].concat());
        assert!(said.code != 0 || said.out.trim() == "0", "{options:?}: {} {}", said.out, said.err);
    }
    assert_eq!(say(&d, &["run", "--rm", "--userns", "host", "busybox", "id", "-u"]).ok(), "0");
    assert!(Path::new("/proc/self/ns/user").exists());
}
