//! The kernel's and erofs-utils' view of an image.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, lgetxattr, llistxattr, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use tempfile::TempDir;

use crate::seen::{DIRECTORY, FILE, SYMLINK, Seen, TYPE, Tree, join};

/// A directory for images, on a disk if it can be: the kernel mounts no file of a tmpfs, which `/tmp` often is.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// Fails if `fsck.erofs` finds something wrong.
pub(crate) fn fsck(image: &Path) {
    let output = match Command::new("fsck.erofs").arg("--extract").arg(image).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return eprintln!("skipped: fsck.erofs is not installed (erofs-utils)");
        }
        output => output.expect("fsck.erofs runs"),
    };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // Warnings of what it cannot do are none of errors.
    assert!(output.status.success() && !said.contains("<E>"), "fsck.erofs: {said}");
}

/// The image's root, mounted in no mount table; `None`, with the reason printed, where the kernel cannot.
pub(crate) fn mount(image: &Path) -> Option<OwnedFd> {
    let mounted = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|fs| {
        fsconfig_set_string(&fs, "source", image)?;
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
    });
    match mounted {
        // Not root; no EROFS; before Linux 6.12, which mounts block devices only, or a file of a tmpfs.
        Err(errno @ (Errno::PERM | Errno::NODEV | Errno::NOTBLK)) => {
            eprintln!("skipped: the kernel mounts no EROFS image from a file here: {errno}");
            None
        }
        mounted => Some(mounted.expect("the kernel mounts the image")),
    }
}

/// All that is in a mounted tree.
pub(crate) fn tree(root: impl AsFd) -> Tree {
    let mut tree = Tree::new();
    let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut left = vec![Vec::new()];
    while let Some(path) = left.pop() {
        let here = if path.is_empty() { b".".as_slice() } else { &path };
        let dir = openat(&root, here, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        let dir = dir.unwrap_or_else(|errno| panic!("{:?}: {errno}", String::from_utf8_lossy(&path)));
        let itself = look(dir.as_fd(), b".");
        tree.insert(path.clone(), Seen { first: path.clone(), ..itself.1 });
        for (name, kind) in names(&dir) {
            let below = join(&path, &name);
            let (inode, seen) = look(dir.as_fd(), &name);
            assert_eq!(FileType::from_raw_mode(seen.mode), kind, "type of {name:?}");
            if seen.mode & TYPE == DIRECTORY {
                left.push(below);
            } else {
                let known = first.entry(inode).or_insert_with(|| below.clone());
                *known = known.clone().min(below.clone());
                tree.insert(below, Seen { first: inode.to_le_bytes().to_vec(), ..seen });
            }
        }
    }
    for (path, seen) in &mut tree {
        seen.first = match <[u8; 8]>::try_from(seen.first.as_slice()) {
            Ok(inode) if seen.mode & TYPE != DIRECTORY => first[&u64::from_le_bytes(inode)].clone(),
            _ => path.clone(),
        };
    }
    tree
}

/// Names in a directory but its own and its parent's.
pub(crate) fn names(dir: impl AsFd) -> Vec<(Vec<u8>, FileType)> {
    let entries = Dir::read_from(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let named = entries.map(|entry| (entry.file_name().to_bytes().to_vec(), entry.file_type()));
    named.filter(|(name, _)| name != b"." && name != b"..").collect()
}

/// The inode's number, and all that a name in a directory tells.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> (u64, Seen) {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).expect("stat");
    let kind = stat.st_mode & TYPE;
    let content = match kind {
        FILE => {
            let file = openat(dir, name, OFlags::RDONLY, Mode::empty()).expect("open");
            let mut content = Vec::new();
            File::from(file).read_to_end(&mut content).expect("read");
            content
        }
        SYMLINK => readlinkat(dir, name, Vec::new()).expect("readlink").into_bytes(),
        _ => Vec::new(),
    };
    // Attributes have no call by a directory and a name (before Linux 6.13), and links cannot be opened for it.
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    let path = Path::new(OsStr::from_bytes(&path));
    let mut list = Vec::with_capacity(64 << 10);
    llistxattr(path, spare_capacity(&mut list)).expect("listxattr");
    let keys = list.split(|byte| *byte == 0).filter(|key| !key.is_empty());
    let value = |key: &[u8]| {
        let mut value = Vec::with_capacity(64 << 10);
        lgetxattr(path, key, spare_capacity(&mut value)).expect("getxattr");
        (key.to_vec(), value)
    };
    let is_device = matches!(kind, 0o2_0000 | 0o6_0000);
    let device = if is_device { (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) } else { (0, 0) };
    let seen = Seen {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        links: stat.st_nlink as u32,
        device,
        size: if kind == DIRECTORY { 0 } else { stat.st_size as u64 },
        xattrs: keys.map(value).collect(),
        content,
        first: Vec::new(),
    };
    (stat.st_ino, seen)
}
