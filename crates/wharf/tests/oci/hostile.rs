//! Classes of past escapes, over the command line.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::kit::{Bundle, text, wait_until};

/// CVE-2024-21626: a working directory by way of an fd that the runtime left open.
#[test]
fn the_working_directory_cannot_be_an_fd_of_the_runtime_s() {
    for number in 3..20 {
        let Some(bundle) = Bundle::new("cwd", &["pwd"], |config| {
            config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        }) else {
            return;
        };
        let output = bundle.run();
        assert!(!output.status.success(), "{number}: {}", text(&output.stdout));
    }
    let Some(bundle) = Bundle::sleeper("execcwd", |_| {}) else { return };
    bundle.create();
    bundle.start();
    for number in 3..20 {
        let cwd = format!("/proc/self/fd/{number}");
        assert_eq!(bundle.fails(&["exec", "--cwd", &cwd, &bundle.id, "pwd"]).0, 255, "{number}");
    }
}

/// CVE-2019-5736 and CVE-2016-9962: what waits, or is on its way in, shows nothing of the host to who is inside.
#[test]
fn the_waiting_process_shows_nothing_to_the_container() {
    let all = json!(["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    let Some(bundle) = Bundle::sleeper("waiting", |config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = all.clone();
        }
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    }) else {
        return;
    };
    bundle.create();
    let seen = bundle.output(&["exec", "-u", "1000:1000", &bundle.id, "sh", "-c", "readlink /proc/1/exe /proc/1/cwd"]);
    assert_eq!(text(&seen.stdout), "");
    let fds = bundle.ok(&[
        "exec",
        "-u",
        "0:0",
        &bundle.id,
        "sh",
        "-c",
        "readlink /proc/1/fd/* | grep -v -e socket: -e out$ -e null$; true",
    ]);
    assert_eq!(fds, "", "an fd of the host's is open in the waiting process");
}

/// CVE-2021-30465 and its kin: destinations that are links.
#[test]
fn mount_destinations_that_are_links_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    let Some(bundle) = Bundle::new("links", &["ls", "/"], |config| {
        config["mounts"].as_array_mut().unwrap().push(
            json!({ "destination": "/data/inner", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
        );
    }) else {
        return;
    };
    symlink(outside.path(), bundle.path("rootfs/data")).unwrap();
    let _ = bundle.run();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "something came out of the root");
}

/// A `/dev` or `/proc` that is a link of the image's (CVE-2026-41579, CVE-2019-19921).
#[test]
fn links_in_place_of_the_kernel_s_directories_stay_inside() {
    let outside = tempfile::tempdir().unwrap();
    for name in ["dev", "proc", "sys"] {
        let Some(bundle) = Bundle::new("kernel", &["true"], |_| {}) else { return };
        symlink(outside.path(), bundle.path("rootfs").join(name)).unwrap();
        let output = bundle.run();
        assert!(text(&output.stderr).contains("must be mounted on ordinary directory"), "{}", text(&output.stderr));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{name}");
    }
}

/// The gate is the runtime's: what is inside has no way to it, and a visitor without a word changes nothing.
#[test]
fn a_visitor_at_the_gate_who_says_nothing_does_not_start_it() {
    let Some(bundle) = Bundle::new("gate", &["sh", "-c", "echo started; sleep 600"], |_| {}) else { return };
    bundle.create();
    let gate = bundle.root().join(&bundle.id).join("start.sock");
    for words in [&b""[..], b"\x00\x00\x00\x01X", b"\xff\xff\xff\xff"] {
        use std::io::Write;
        let mut visitor = std::os::unix::net::UnixStream::connect(&gate).unwrap();
        visitor.write_all(words).unwrap();
    }
    let stays = std::os::unix::net::UnixStream::connect(&gate).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!((bundle.status().as_str(), bundle.shown().as_str()), ("created", ""));
    bundle.start();
    wait_until("its output", || bundle.shown() == "started\n");
    drop(stays);
}

/// What is written to `/proc` and what masks hide is in procfs (CVE-2019-16884): nothing else goes on its place.
#[test]
fn nothing_is_mounted_in_place_of_procfs() {
    let Some(bundle) = Bundle::new("fake-proc", &["ls", "/proc"], |_| {}) else { return };
    fs::create_dir(bundle.path("fake")).unwrap();
    symlink("proc", bundle.path("rootfs/other")).unwrap();
    for (destination, kind) in [("/proc", "bind"), ("/proc/", "bind"), ("/other", "bind"), ("/proc", "tmpfs")] {
        bundle.configure(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["type"] != "bind" && mount["destination"] != "/proc");
            let options = if kind == "bind" { json!(["bind"]) } else { json!([]) };
            mounts.insert(
                0,
                json!({
                    "destination": destination, "type": kind, "source": bundle.path("fake"), "options": options
                }),
            );
        });
        let output = bundle.run();
        assert!(text(&output.stderr).contains("which is procfs or inside of it"), "{destination} {kind}: {output:?}");
    }
    bundle.configure(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.remove(0);
        for (kind, at, source) in [("proc", "/proc", json!("proc")), ("bind", "/proc/foo", json!(bundle.path("fake")))]
        {
            let options = if kind == "bind" { json!(["bind"]) } else { json!([]) };
            mounts.push(json!({ "destination": at, "type": kind, "source": source, "options": options }));
        }
    });
    let output = bundle.run();
    assert!(text(&output.stderr).contains("which is procfs or inside of it"), "{output:?}");
    bundle.configure(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.truncate(mounts.len() - 2);
        mounts.insert(0, json!({}));
    });
    // The host's own is procfs.
    bundle.configure(|config| {
        let mount = json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
        config["mounts"].as_array_mut().unwrap()[0] = mount;
        config["process"]["args"] = json!(["true"]);
    });
    let output = bundle.run();
    assert!(output.status.success(), "{}", text(&output.stderr));
}
