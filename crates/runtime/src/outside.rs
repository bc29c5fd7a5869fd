//! A container's files while it does not run, as it would see them itself: its root with what is mounted there.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Mount};
use rustix::fs::FileType;
use rustix::io::Errno;
use wharf_rooted_path::{RootDir, follow};
use wharf_sys::apart::mount_on;
use wharf_sys::mount::{Attributes, Change, Propagation, set_attributes};

use crate::bind_source::{BindSource, BindSources};
use crate::mapping;
use crate::mount_options::Options;
use crate::mounts::bind;
use crate::plan::MountSource;
use crate::rootfs::Rootfs;
use crate::{Result, RuntimeError};

/// Mounts a root (`layers` are mounts of images among its layers) with `binds` on it (`sources` are as in
/// [`crate::Launch`]), detached, in nobody's mount table. What their places lack is made, as a start does.
/// `ids` are the mappings of the container's user namespace, if it has one of its own. Programs and devices in it cannot be
/// used.
///
/// # Errors
/// When a source is not there, a place cannot be made, or the host refuses a mount.
pub fn mount_outside(
    rootfs: &Rootfs,
    layers: &[BorrowedFd<'_>],
    binds: &[Mount],
    sources: &[BindSource],
    ids: &[LinuxIdMapping],
) -> Result<OwnedFd> {
    let root_ids = ids.first().map_or((0, 0), |first| (first.host_id(), first.host_id()));
    let namespace = if ids.is_empty() { None } else { Some(mapping::namespace(ids, ids)?) };
    let root = rootfs.mount(namespace.as_ref().map(|namespace| (namespace.as_fd(), root_ids)), layers)?;
    let mut trees: Vec<(Place, OwnedFd)> = Vec::new();
    let root = Place { at: PathBuf::from("/"), dir: RootDir::from_fd(root) };
    for mount in binds {
        let destination = mount.destination();
        let options = Options::parse(mount.options().iter().flatten().map(String::as_str));
        let map = match (&namespace, options.id_map) {
            (Some(namespace), Some(recursive)) => {
                let copy = namespace.try_clone().map_err(|e| RuntimeError::Setup {
                    step: "hold a user namespace".into(),
                    errno: Errno::from_io_error(&e).unwrap_or(Errno::IO),
                })?;
                Some((copy, recursive))
            }
            _ => None,
        };
        let MountSource::Tree { tree, directory } =
            bind(mount, &options, map.as_ref(), namespace.is_some(), BindSources { all: sources, layers })?
        else {
            continue;
        };
        let fail = |errno| RuntimeError::host("mount on", destination, errno);
        // Or what is mounted on it would be mounted on its source too.
        let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
        set_attributes(tree.as_fd(), true, private).map_err(fail)?;
        // As at a start, links count as they are in what is mounted by now.
        let read_link = |link: &Path| {
            let (place, inside) = lowest(&root, &trees, link);
            place.dir.read_link(inside).ok()
        };
        let at = follow(destination, read_link);
        let (below, inside) = lowest(&root, &trees, &at);
        let place = below.dir.mount_point(inside, directory).map_err(|error| fail(error.errno))?;
        let found = rustix::fs::fstat(&place).map_err(fail)?;
        if (FileType::from_raw_mode(found.st_mode) == FileType::Directory) != directory {
            return Err(fail(Errno::NOTDIR));
        }
        let dir = RootDir::from_fd(tree.try_clone().map_err(|e| fail(Errno::from_io_error(&e).unwrap_or(Errno::IO)))?);
        trees.push((Place { at, dir }, tree));
    }
    let names = trees.iter().map(|(place, _)| CString::new(place.at.as_os_str().as_bytes()));
    let names = names.collect::<std::result::Result<Vec<_>, _>>();
    let names = names.map_err(|_| RuntimeError::Invalid("a mount on a path with a NUL".into()))?;
    let pairs: Vec<_> = trees.iter().zip(&names).map(|((_, tree), name)| (tree.as_fd(), name.as_c_str())).collect();
    let fail = |errno| RuntimeError::host("put the mounts on", "/", errno);
    let all = mount_on(root.dir.as_fd(), &pairs).map_err(fail)?;
    let set = Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    set_attributes(all.as_fd(), true, Change { set, ..Change::default() }).map_err(fail)?;
    Ok(all)
}

/// Where mounts can be put: on the root, or on one of those before.
struct Place {
    /// In the root, without links.
    at: PathBuf,
    dir: RootDir,
}

/// The mount that `path`, without links, is on, and where it is in that.
fn lowest<'a, 'b>(root: &'a Place, trees: &'a [(Place, OwnedFd)], path: &'b Path) -> (&'a Place, &'b Path) {
    let over = trees.iter().rev().map(|(place, _)| place).filter(|place| path.starts_with(&place.at));
    // Of two on one place the later one is on top.
    let place = over.reduce(|top, place| if place.at.starts_with(&top.at) && place.at != top.at { place } else { top });
    let place = place.unwrap_or(root);
    (place, path.strip_prefix(&place.at).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_on_each_other_and_leave_their_sources_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["low", "upper", "work", "data", "deep", "low/old"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("low/hidden"), "x").unwrap();
        std::fs::write(path("deep/file"), "deep").unwrap();
        std::fs::write(path("single"), "one file").unwrap();
        std::os::unix::fs::symlink("/old", path("low/link")).unwrap();
        let rootfs = Rootfs::Overlay {
            lowers: vec![crate::Lower::Directory(path("low"))],
            upper: Some(path("upper")),
            work: Some(path("work")),
        };
        let mount = |source: &str, destination: &str, mode: &str| -> Mount {
            let json = serde_json::json!({ "source": path(source), "destination": destination, "type": "bind",
                                           "options": ["rbind", "rprivate", mode] });
            serde_json::from_value(json).unwrap()
        };
        let binds = [mount("data", "/link", "rw"), mount("single", "/etc/one", "ro"), mount("deep", "/link/sub", "ro")];
        let root = match mount_outside(&rootfs, &[], &binds, &[], &[]) {
            Err(RuntimeError::Host { errno: Errno::PERM, .. }) => return eprintln!("skipped: no right to mount"),
            root => RootDir::from_fd(root.unwrap()),
        };
        assert_eq!(root.read_small("link/sub/file", 9).unwrap(), b"deep");
        assert_eq!(root.read_small("old/sub/file", 9).unwrap(), b"deep");
        assert_eq!(root.read_small("etc/one", 9).unwrap(), b"one file");
        assert_eq!(root.create_file("old/sub/new", 0o644).unwrap_err().errno, Errno::ROFS);
        root.create_file("old/new", 0o644).unwrap();
        assert!(path("data/new").exists() && path("data/sub").exists() && path("upper/etc/one").exists());
        assert_eq!(std::fs::read_dir(path("data/sub")).unwrap().count(), 0, "it is mounted on the host too");
        assert_eq!(std::fs::read_dir(path("low/old")).unwrap().count(), 0);

        // A link in what is mounted, and a place that is on another mount by a link only.
        std::os::unix::fs::symlink("/link/inner", path("data/there")).unwrap();
        let binds =
            [mount("data", "/old", "rw"), mount("deep", "/link/there/x", "ro"), mount("single", "/old/there/y", "ro")];
        let root = RootDir::from_fd(mount_outside(&rootfs, &[], &binds, &[], &[]).unwrap());
        assert_eq!(root.read_small("old/inner/x/file", 9).unwrap(), b"deep");
        assert_eq!(root.read_small("link/inner/y", 9).unwrap(), b"one file");
        assert!(path("data/inner/x").is_dir() && path("data/inner/y").is_file());
        assert_eq!(std::fs::read_dir(path("low/old")).unwrap().count(), 0);
        let gone = mount_outside(&rootfs, &[], &[mount("gone", "/gone", "rw")], &[], &[]).unwrap_err();
        assert!(gone.to_string().contains("gone"), "{gone}");
    }
}
