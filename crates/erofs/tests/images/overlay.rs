//! Images as layers of overlayfs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen,
};
use wharf_erofs::Writer;

use crate::kernel;
use crate::single::{file, plain};

/// As a container's root is mounted: the topmost layer first.
fn stack(lowers: &[&OwnedFd], writable: Option<(&Path, &Path)>) -> Option<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).expect("overlayfs");
    for lower in lowers {
        match fsconfig_set_fd(&fs, "lowerdir+", lower.as_fd()) {
            // Before Linux 6.13 overlayfs takes no fds.
            Err(errno @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => {
                eprintln!("skipped: overlayfs takes no fds here: {errno}");
                return None;
            }
            set => set.expect("a layer"),
        }
    }
    for (key, path) in writable.into_iter().flat_map(|(upper, work)| [("upperdir", upper), ("workdir", work)]) {
        let dir = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        fsconfig_set_fd(&fs, key, &dir).expect("a directory");
    }
    for (key, value) in [("metacopy", "off"), ("redirect_dir", "nofollow"), ("index", "off"), ("xino", "off")] {
        fsconfig_set_string(&fs, key, value).expect("an option");
    }
    fsconfig_create(&fs).expect("an overlay of images, which leaves no room for another one above");
    Some(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).expect("a mount"))
}

fn image(path: &Path, uuid: u8, write: impl FnOnce(&mut Writer)) -> Option<OwnedFd> {
    let mut writer = Writer::new(File::create_new(path).unwrap()).unwrap();
    write(&mut writer);
    writer.finish([uuid; 16]).unwrap();
    kernel::fsck(path);
    kernel::mount(path)
}

fn names(root: &OwnedFd) -> Vec<String> {
    let tree = kernel::tree(root);
    tree.keys().filter(|path| !path.is_empty()).map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    let dir = kernel::scratch();
    let low = image(&dir.path().join("low"), 1, |writer| {
        for path in ["keep", "gone", "dir/x", "dir/y", "sub/inner", "sub/other", "tree/a/b", "again/old", "file"] {
            file(writer, path, path.as_bytes());
        }
    });
    let Some(low) = low else { return };
    let high = image(&dir.path().join("high"), 2, |writer| {
        writer.whiteout(b"gone").unwrap();
        file(writer, "dir/z", b"z");
        writer.opaque(b"dir").unwrap();
        writer.whiteout(b"sub/inner").unwrap();
        writer.whiteout(b"tree").unwrap();
        // Taken away and made anew, in either order of the entries.
        writer.whiteout(b"again").unwrap();
        writer.directory(b"again", &plain()).unwrap();
        file(writer, "again/new", b"new");
        file(writer, "file/is/now/a/directory", b"");
    });
    let high = high.expect("a second image");
    let Some(root) = stack(&[&high, &low], None) else { return };
    let expected = [
        "again",
        "again/new",
        "dir",
        "dir/z",
        "file",
        "file/is",
        "file/is/now",
        "file/is/now/a",
        "file/is/now/a/directory",
        "keep",
        "sub",
        "sub/other",
    ];
    assert_eq!(names(&root), expected);

    let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let root = stack(&[&high, &low], Some((&upper, &work))).unwrap();
    let flags = OFlags::WRONLY | OFlags::APPEND;
    let mut keep = File::from(openat(&root, "keep", flags, Mode::empty()).unwrap());
    keep.write_all(b" and more").unwrap();
    unlinkat(&root, "sub/other", AtFlags::empty()).unwrap();
    let mut content = String::new();
    let keep = openat(&root, "keep", OFlags::RDONLY, Mode::empty()).unwrap();
    File::from(keep).read_to_string(&mut content).unwrap();
    assert_eq!(content, "keep and more");
    assert_eq!(fs::read_to_string(upper.join("keep")).unwrap(), "keep and more");
    assert!(!names(&root).contains(&"sub/other".to_owned()));
}
