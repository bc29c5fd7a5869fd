//! Mounts that a container moves under the runtime's hands: CVE-2021-30465, CVE-2025-31133, CVE-2025-52565,
//! CVE-2024-45310, CVE-2022-23648, and set-user-ID programs on what is mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use serde_json::json;

use crate::bundle::{Bundle, text};
use crate::canary::{Canary, SECRET, exec, say, wharf};
use crate::kit::Daemon;
use crate::program::{call, once};
use crate::{image, swapper};

/// Each round a container is made whose mount lies below what another one swaps for a link all the time.
const ROUNDS: usize = 25;

#[test]
fn a_mount_whose_place_is_swapped_for_a_link_stays_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let secret = format!("cat /canary/file; cat /vol/place/file; ls -A /vol/place; cat {}", canary.file().display());
    for target in [canary.dir().parent().unwrap(), Path::new("/")] {
        let swapping = swapper::start(&d, "vol", target);
        for round in 0..ROUNDS {
            let (place, name) = (format!("mine:/vol/place/in{}", round % 3), "vol:/vol");
            let said = say(
                &d,
                &["run", "--rm", "--network", "none", "-v", name, "-v", &place, "busybox", "sh", "-c", &secret],
            );
            assert!(!said.out.contains(SECRET), "{}", said.out);
            // It is mounted, or the place was not there at that moment.
            assert!(said.code != 125 || said.err.contains("mount"), "{}", said.err);
        }
        drop(swapping);
        assert!(!Path::new("/in0").exists() && !Path::new("/in1").exists(), "a place was made on the host");
    }
    canary.assert_untouched();
    assert!(!d.path().join("in0").exists());
}

/// A part of a volume that is swapped for a link while it is mounted, and filled from the image.
#[test]
fn a_part_of_a_volume_that_is_swapped_for_a_link_stays_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let own = |root: &Path| {
        fs::create_dir(root.join("data")).unwrap();
        fs::write(root.join("data/own"), "the image's").unwrap();
    };
    crate::image::load(&d, "filled", own, |_| {}).ok();
    let swapping = swapper::start(&d, "vol", canary.dir());
    let mut mounted = 0;
    for _ in 0..ROUNDS {
        let mount = "type=volume,src=vol,dst=/data,volume-subpath=place";
        let script = "cat /data/file; ls -A /data; rm -rf /data/own; touch /data/mine && rm /data/mine && echo mounted";
        let said = wharf(&d, &["run", "--rm", "--network", "none", "--mount", mount, "filled", "sh", "-c", script]);
        assert!(!said.out.contains(SECRET) && !said.out.contains("sub"), "{}", said.out);
        assert!(said.code == 0 || said.code == 125, "{}", said.err);
        mounted += usize::from(said.out.contains("mounted"));
    }
    drop(swapping);
    assert!(mounted > 0, "it was never a directory");
    canary.assert_untouched();
}

/// Files of the image in the places that masks and terminals are taken from.
#[test]
fn what_masks_are_made_of_is_not_the_image_s() {
    let dir = tempfile::tempdir().unwrap();
    let canary = Canary::new(dir.path());
    let put: [fn(&Path, &Path); 4] = [
        |null, canary| symlink(canary, null).unwrap(),
        |null, _| fs::write(null, "mine").unwrap(),
        |null, _| fs::create_dir(null).unwrap(),
        |null, _| symlink("/proc/self/fd/0", null).unwrap(),
    ];
    for (number, put) in put.iter().enumerate() {
        // Without a /dev of the runtime's own there is only the image's.
        let Some(bundle) = Bundle::new(&format!("null{number}"), &["cat", "/proc/keys"], |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
            config["linux"]["maskedPaths"] = json!(["/proc/keys", "/proc/kcore"]);
        }) else {
            return;
        };
        fs::create_dir(bundle.path("rootfs/dev")).unwrap();
        put(&bundle.path("rootfs/dev/null"), &canary.file());
        let output = bundle.run();
        assert!(!output.status.success() && output.stdout.is_empty(), "{number}: {}", text(&output.stdout));
        assert!(text(&output.stderr).contains("/dev/null"), "{number}: {}", text(&output.stderr));
        canary.assert_untouched();
    }
}

#[test]
fn a_terminal_is_no_file_of_the_image_s() {
    let dir = tempfile::tempdir().unwrap();
    let canary = Canary::new(dir.path());
    let Some(d) = Daemon::start() else { return };
    let tree = |root: &Path| {
        fs::create_dir_all(root.join("dev/pts")).unwrap();
        for name in ["dev/console", "dev/ptmx", "dev/pts/0", "dev/pts/ptmx", "dev/tty"] {
            image::link(root, name, &canary.file());
        }
    };
    image::load(&d, "terminal", tree, |_| {}).ok();
    let said =
        say(&d, &["run", "--rm", "-t", "terminal", "sh", "-c", "tty; echo > /dev/console; stat -c %t:%T /dev/console"]);
    let shown = said.ok();
    assert!(shown.starts_with("/dev/pts/0") || shown.starts_with("/dev/console"), "{shown}");
    assert!(shown.ends_with("88:0"), "a terminal's number, 136: {shown}");
    canary.assert_untouched();
}

#[test]
fn the_image_s_links_lead_no_mount_and_no_file_of_ours_out() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let tree = |root: &Path| {
        image::link(root, "etc/hosts", &canary.file());
        image::link(root, "etc/hostname", &canary.dir().join("new"));
        image::link(root, "etc/resolv.conf", Path::new(&format!("../../../../../../{}", canary.file().display())));
        image::link(root, "data", canary.dir());
        image::link(root, "deep", Path::new("/proc/self/root/../../.."));
    };
    image::load(&d, "links", tree, |_| {}).ok();
    say(&d, &["run", "--rm", "links", "true"]).ok();
    for target in ["/data", "/data/sub", "/data/new", "/deep/x"] {
        for option in [["--tmpfs", target], ["-v", &format!("named:{target}")], ["-w", target]] {
            let _ = say(&d, &["run", "--rm", option[0], option[1], "links", "sh", "-c", "touch /data/touched"]);
            canary.assert_untouched();
        }
    }
    let device = ["--device", "/dev/null:/data/node"];
    let _ = say(&d, &["run", "--rm", device[0], device[1], "links", "true"]);
    canary.assert_untouched();
}

/// The whole of `/etc` as a link: the three files of ours, and who the user is.
#[test]
fn a_link_in_place_of_etc_stays_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    fs::write(d.path().join("passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:0:0::/:/bin/sh\n").unwrap();
    for target in [canary.dir().to_owned(), d.path().to_owned(), "/etc".into(), "/proc/self/root/etc".into()] {
        let name = format!("etc{}", target.components().count());
        image::load(&d, &name, |root| image::link(root, "etc", &target), |_| {}).ok();
        let said = say(&d, &["run", "--rm", &name, "cat", &canary.file().to_string_lossy()]);
        assert!(said.code != 0 && !said.out.contains(SECRET), "{}", said.out);
        let said = say(&d, &["run", "--rm", "-u", "web", &name, "id", "-u"]);
        assert!(said.code != 0, "a user of the host's passwd: {}", said.out);
        canary.assert_untouched();
    }
}

/// `VOLUME` of an image, and what a volume begins with.
#[test]
fn an_image_s_volumes_are_filled_from_inside() {
    let Some(d) = Daemon::start() else { return };
    let canary = Canary::new(d.path());
    let tree = |root: &Path| {
        image::link(root, "data", canary.dir());
        image::link(root, "up", Path::new("../../../../../../../../../../tmp"));
        fs::create_dir(root.join("mixed")).unwrap();
        image::link(root, "mixed/dir", canary.dir());
        image::link(root, "mixed/file", &canary.file());
    };
    for (name, volume) in
        [("one", "/data"), ("two", "/data/sub"), ("three", "/up"), ("four", "/mixed"), ("five", "/mixed/dir")]
    {
        image::load(&d, name, tree, |config| config["config"]["Volumes"] = json!({ volume: {} })).ok();
        let look = format!("cat {volume}/file {volume}/sub/file; ls -A {volume}; echo x > {volume}/file; true");
        let said = say(&d, &["run", "--rm", name, "sh", "-c", &look]);
        assert!(!said.out.contains(SECRET), "{volume}: {}", said.out);
        canary.assert_untouched();
    }
    for volume in ["../../../x", "../../../../../../../../etc", "/../../../etc/../x", "relative", "/", "/proc/x", ""] {
        let name = "odd";
        let loaded = image::load(&d, name, |_| {}, |config| config["config"]["Volumes"] = json!({ volume: {} }));
        if loaded.code != 0 {
            continue;
        }
        let said = say(&d, &["run", "--rm", name, "sh", "-c", "ls -A /x /etc; true"]);
        assert!(
            said.code == 0 || said.err.contains("mount") || said.err.contains("destination"),
            "{volume:?}: {}",
            said.err
        );
        assert!(!said.out.contains("shadow"), "{volume:?}: the host's /etc: {}", said.out);
    }
    assert_eq!(say(&d, &["ps", "-aq"]).ok(), "");
}

/// geteuid(2).
const GETEUID: u64 = 107;

#[test]
fn a_set_user_id_program_on_a_tmpfs_sets_no_user_id() {
    let Some(d) = Daemon::start() else { return };
    let program = d.path().join("who");
    once(&program, &[call(GETEUID, &[])]);
    let bind = format!("{}:/who:ro", program.display());
    let mount = ["-v", bind.as_str()];
    let whole = |dir: &str| {
        let put = format!("cp /who {dir}/who && chmod 4755 {dir}/who && chmod 755 {dir}");
        format!("{put}; chmod 777 /tmp; su web -s /bin/sh -c '{dir}/who > /tmp/uid'; od -An -td4 /tmp/uid")
    };
    // Where nothing is executed nothing is written; where something is it says whose it is.
    for (options, dir, runs) in
        [(&["--tmpfs", "/t"][..], "/t", false), (&["--tmpfs", "/t:exec"], "/t", true), (&[], "/dev/shm", false)]
    {
        let script = whole(dir);
        let said = say(&d, &[&["run", "--rm"], &mount[..], options, &["busybox", "sh", "-c", &script]].concat());
        assert_eq!(said.out.trim(), if runs { "33" } else { "" }, "{options:?}: {}", said.err);
        assert_eq!(said.err.contains("Permission denied"), !runs, "{options:?}: {}", said.err);
    }
    // Elsewhere it does, as with Docker; not with the option that forbids it.
    let words = |more: &[&str]| {
        say(&d, &[&["run", "--rm"], &mount[..], more, &["busybox", "sh", "-c", &whole("/root")]].concat())
    };
    assert_eq!(words(&[]).ok().trim(), "0");
    assert_eq!(words(&["--security-opt", "no-new-privileges"]).ok().trim(), "33");
}

/// Nothing that a container mounts, or that is mounted for it, shows on the host.
#[test]
fn mounts_do_not_reach_the_host() {
    let Some(d) = Daemon::start() else { return };
    let dir = d.path().join("shared");
    fs::create_dir(&dir).unwrap();
    let before = fs::metadata(&dir).unwrap().dev();
    let script =
        "mount -t tmpfs inner /m && touch /m/inner; mount --make-rshared / ; mount -t tmpfs inner /m; sleep 1000";
    let bind = format!("{}:/m", dir.display());
    say(&d, &["run", "-d", "--name", "mounts", "--privileged", "-v", &bind, "busybox", "sh", "-c", script]).ok();
    d.eventually("it has mounted", || exec(&d, "mounts", "grep -c inner /proc/mounts").out.trim() == "2");
    assert_eq!(fs::metadata(&dir).unwrap().dev(), before);
    assert!(fs::read_dir(&dir).unwrap().next().is_none());
}
