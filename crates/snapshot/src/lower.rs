//! One layer as overlayfs takes it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

/// A layer of a stack.
#[derive(Clone, Debug)]
pub enum Lower {
    Directory(PathBuf),
    Image(Image),
}

/// An EROFS image, mounted in nobody's table.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) path: PathBuf,
    pub(crate) mount: Arc<OwnedFd>,
}

impl Lower {
    /// The directory, or the image's file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Image(image) => &image.path,
        }
    }

    /// The mount of an image.
    pub fn mount(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Directory(_) => None,
            Self::Image(image) => Some(image.mount.as_fd()),
        }
    }

    pub fn into_parts(self) -> (PathBuf, Option<Arc<OwnedFd>>) {
        match self {
            Self::Directory(path) => (path, None),
            Self::Image(image) => (image.path, Some(image.mount)),
        }
    }
}

/// Mounts that are kept at most. Each is an fd and some kilobytes of the kernel's; what falls out is mounted again when
/// it is asked for, with pages of its own beside those of who has the old mount still.
const MOST: usize = 256;

/// Mounts of images, each made once: whoever has a copy of one shares what of it is in memory. A mount of the file for
/// each container would read the same programs again for each, and keep them as often.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// The one that was asked for last comes last.
    kept: Mutex<VecDeque<(PathBuf, Arc<OwnedFd>)>>,
}

impl Mounts {
    pub(crate) fn get(&self, path: &Path) -> Result<Arc<OwnedFd>, Errno> {
        // Under the lock, so that a mount of what goes away at the same moment is not kept.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(known, _)| known == path).and_then(|at| kept.remove(at));
        let (path, mount) = match known {
            Some(known) => known,
            None => (path.to_owned(), Arc::new(wharf_sys::erofs::mount(path)?)),
        };
        kept.push_back((path, Arc::clone(&mount)));
        if kept.len() > MOST {
            kept.pop_front();
        }
        Ok(mount)
    }

    /// Lets go of what has been taken away: its blocks on the disk are free when nobody has it mounted.
    pub(crate) fn forget(&self, path: &Path) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != path);
    }
}
