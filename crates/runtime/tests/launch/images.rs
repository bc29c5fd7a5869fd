//! EROFS images as layers: from their files, from mounts that others have too, id-mapped.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;
use serde_json::json;
use wharf_erofs::{Attributes, Writer};
use wharf_runtime::{Lower, Rootfs};

use crate::fixture::{Image, config, launch_with};

const SCRIPT: &str = "stat -c %u /bin/sh /etc/own; stat -c %d / /etc/own | uniq | wc -l; cat /etc/own; \
    echo new >/etc/own && cat /etc/own; stat -c %u /etc/own";

/// Writes busybox and a file of the user 5.
fn write(path: &Path) {
    let mut writer = Writer::new(File::create_new(path).expect("makes")).expect("begins");
    for (name, uid, content) in
        [("bin/sh", 0, fs::read("/bin/busybox").expect("reads")), ("etc/own", 5, b"old\n".to_vec())]
    {
        let attributes = Attributes { mode: 0o777, uid, gid: uid, ..Attributes::default() };
        let mut file = writer.file(name.as_bytes(), &attributes, content.len() as u64).expect("begins");
        file.append(&content).expect("writes");
        file.finish().expect("ends");
    }
    for name in ["cat", "stat", "uniq", "wc"] {
        writer.symlink(format!("bin/{name}").as_bytes(), b"sh", &Attributes::default()).expect("links");
    }
    writer.finish([1; 16]).expect("ends");
}

pub(crate) fn layers_can_be_images(image: &Image) {
    let path = image.dir.path().join("image");
    write(&path);
    let mount = match wharf_sys::erofs::mount(&path) {
        Err(errno @ (Errno::NODEV | Errno::NOTBLK)) => return println!("skipped: no images from files here: {errno}"),
        mount => mount.expect("mounts"),
    };
    // Also by a path that is longer than what fsconfig(2) takes.
    let deep = image.dir.path().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).expect("makes");
    fs::copy(&path, deep.join("image")).expect("copies");
    wharf_sys::erofs::mount(&deep.join("image")).expect("mounts by a long path");
    let layers = [mount.as_fd()];
    for (name, userns, mount) in [("file", false, None), ("both", false, Some(0)), ("mapped", true, Some(0))] {
        let Rootfs::Overlay { upper, work, .. } = image.rootfs(&format!("image-{name}")) else { unreachable!() };
        let rootfs = Rootfs::Overlay { lowers: vec![Lower::Image { path: path.clone(), mount }], upper, work };
        let mut config = config(&["sh", "-c", SCRIPT]);
        if userns {
            config["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
            let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }
        let outcome = launch_with(rootfs, config, &layers).expect("launches");
        let lines: Vec<&str> = outcome.output.lines().collect();
        // One device number for all that is in it.
        assert_eq!(lines, ["0", "5", "1", "old", "new", "5"], "{name}");
    }
    // A mount outlives its file, which nobody finds any more.
    fs::remove_file(&path).expect("removes");
    let Rootfs::Overlay { upper, work, .. } = image.rootfs("image-gone") else { unreachable!() };
    let rootfs = Rootfs::Overlay { lowers: vec![Lower::Image { path: path.clone(), mount: Some(0) }], upper, work };
    let outcome = launch_with(rootfs, config(&["sh", "-c", "cat /etc/own"]), &layers);
    match outcome {
        Ok(outcome) => assert_eq!(outcome.output, "old\n"),
        // Before Linux 6.15 it is mounted anew.
        Err(error) => assert!(error.to_string().contains(path.to_str().expect("a name")), "{error}"),
    }
}
