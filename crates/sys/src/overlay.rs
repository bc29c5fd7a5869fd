//! Overlays of detached mounts on kernels that do not know them.
//!
//! Linux 6.14 takes layers by fd, also when they are mounts in nobody's table. Before, overlayfs takes paths only, to
//! mounts of the caller's own mount namespace, and before 6.5 all of them in a string of 255 bytes through fsconfig(2).
//! So a child attaches the layers in a mount namespace of its own ([`crate::apart`]), mounts them there by mount(2), and
//! hands out a detached copy. Nothing of it is ever seen elsewhere.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsmount,
    fsopen, mount, move_mount, open_tree,
};

use crate::Result;
use crate::apart::in_own_table;

/// What is written, both in one detached mount: overlayfs wants them on the same one.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'a> {
    pub tree: BorrowedFd<'a>,
    /// Names of directories in it.
    pub upper: &'a CStr,
    pub work: &'a CStr,
}

/// Options of every overlay of layers, with EROFS images among them or without. A layer's own attributes may not redirect
/// us elsewhere (CVE class "overlay xattrs in a layer"). Images are file systems of their own each: their files have the
/// overlay's device number only if the numbers of their inodes tell the images apart, and what compares devices
/// (`tar --one-file-system`, `du -x`) would leave them out.
pub const fn options(images: bool) -> [(&'static str, &'static str); 4] {
    let xino = if images { "on" } else { "off" };
    [("metacopy", "off"), ("redirect_dir", "nofollow"), ("index", "off"), ("xino", xino)]
}

/// Where the layers are while they are put together.
const TOGETHER: &CStr = c"m";
const WRITABLE: &CStr = c"w";

/// Mounts an overlay of detached mounts (`layers`, the topmost first), itself detached. `options` are overlayfs's
/// further ones, separated by commas.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` for more than 500 layers or an option that the kernel does not know, and
/// whatever mount(2) says of an overlay.
pub fn mount_apart(layers: &[BorrowedFd<'_>], writable: Option<Writable<'_>>, options: &str) -> Result<OwnedFd> {
    let table = table()?;
    let mut names = Vec::new();
    for number in 0..layers.len() {
        let name = CString::new(number.to_string()).map_err(|_| Errno::INVAL)?;
        mkdirat(&table, name.as_c_str(), Mode::RWXU)?;
        names.push(name);
    }
    for name in [TOGETHER, WRITABLE] {
        mkdirat(&table, name, Mode::RWXU)?;
    }
    let options = all_options(layers.len(), writable, options)?;
    in_own_table(|| {
        attach(table.as_fd(), CWD, c"/")?;
        for (layer, name) in layers.iter().zip(&names) {
            attach(*layer, table.as_fd(), name)?;
        }
        if let Some(writable) = writable {
            attach(writable.tree, table.as_fd(), WRITABLE)?;
        }
        rustix::process::fchdir(&table)?;
        mount(c"overlay", TOGETHER, c"overlay", MountFlags::empty(), options.as_c_str())?;
        open_tree(CWD, TOGETHER, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
    })
}

/// A directory to attach them in, that exists nowhere else.
fn table() -> Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn attach(tree: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    move_mount(tree, c"", dir, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn all_options(layers: usize, writable: Option<Writable<'_>>, further: &str) -> Result<CString> {
    let lowers: Vec<String> = (0..layers).map(|number| number.to_string()).collect();
    let mut all = format!("lowerdir={}", lowers.join(":")).into_bytes();
    for (key, name) in writable.into_iter().flat_map(|w| [("upperdir", w.upper), ("workdir", w.work)]) {
        all.extend(format!(",{key}={}/", WRITABLE.to_string_lossy()).bytes());
        for byte in name.to_bytes() {
            if matches!(byte, b',' | b'\\' | b':') {
                all.push(b'\\');
            }
            all.push(*byte);
        }
    }
    if !further.is_empty() {
        all.push(b',');
        all.extend(further.bytes());
    }
    CString::new(all).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{OFlags, open};

    use super::*;

    #[test]
    fn names_that_would_be_read_as_separators_are_escaped() {
        let tree = open("/", OFlags::PATH, Mode::empty()).unwrap();
        let writable = Writable { tree: tree.as_fd(), upper: c"a,b", work: c"c:d\\e" };
        let options = all_options(3, Some(writable), "xino=off").unwrap();
        assert_eq!(options.to_str().unwrap(), r"lowerdir=0:1:2,upperdir=w/a\,b,workdir=w/c\:d\\e,xino=off");
    }

    #[test]
    fn layers_without_a_place_are_put_together() {
        let tree = || {
            let table = table();
            if matches!(table, Err(Errno::PERM)) {
                eprintln!("skipped: no right to mount");
            }
            table.ok()
        };
        let (Some(high), Some(low), Some(own)) = (tree(), tree(), tree()) else { return };
        let make = |dir: &OwnedFd, name: &str| {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::RUSR)
        };
        make(&low, "low").unwrap();
        make(&high, "high").unwrap();
        for name in ["up", "work"] {
            mkdirat(&own, name, Mode::RWXU).unwrap();
        }
        let writable = Writable { tree: own.as_fd(), upper: c"up", work: c"work" };
        let made = mount_apart(&[high.as_fd(), low.as_fd()], Some(writable), "index=off").unwrap();
        let there =
            |name: &str| rustix::fs::accessat(&made, name, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty());
        assert_eq!((there("low"), there("high"), there("new")), (Ok(()), Ok(()), Err(Errno::NOENT)));
        make(&made, "new").unwrap();
        assert!(rustix::fs::statat(&own, "up/new", rustix::fs::AtFlags::empty()).is_ok());
        assert_eq!(mount_apart(&[low.as_fd()], None, "frob=1").unwrap_err(), Errno::INVAL);
        assert!(there("low").is_ok());
    }
}
