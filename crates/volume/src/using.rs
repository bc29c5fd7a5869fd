//! From a volume's first user to its last: it is mounted that long, if it is no directory of its own.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::mounting::{self, Wanted};
use crate::{Result, Volume, VolumeError, Volumes};

/// A volume that containers use now.
#[derive(Debug, Default)]
pub(crate) struct Used {
    pub(crate) users: HashSet<String>,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Something has to be done when nobody uses it any more.
    mounted: bool,
}

impl Volumes {
    /// Makes the volume ready for `user` and says where it is: mounts what it is, if it is no directory of its own and nobody
    /// has mounted it yet, or has its plugin do so. It stays until the last `user` has said [`Self::release`].
    ///
    /// # Errors
    /// `NotFound`, `Mount` with the kernel's words, `Plugin` with the plugin's.
    pub fn mount(&self, name: &str, user: &str) -> Result<PathBuf> {
        self.mount_or_keep(name, user, None)
    }

    /// After a start of the daemon: `user` has the volume at `path`, and goes on using it.
    ///
    /// # Errors
    /// As [`Self::mount`].
    pub fn keep(&self, name: &str, user: &str, path: &Path) -> Result<()> {
        self.mount_or_keep(name, user, Some(path)).map(drop)
    }

    fn mount_or_keep(&self, name: &str, user: &str, kept: Option<&Path>) -> Result<PathBuf> {
        self.locked(name, || self.mount_held(&self.get(name)?, user, kept))
    }

    /// The caller has the volume's lock.
    pub(crate) fn mount_held(&self, volume: &Volume, user: &str, kept: Option<&Path>) -> Result<PathBuf> {
        let path = if !volume.is_local() {
            match kept {
                Some(path) => path.to_owned(),
                None => self.mount_by_plugin(volume, user)?,
            }
        } else {
            if let Some(wanted) = Wanted::of(&volume.options) {
                // After a crash of the daemon it is mounted already.
                if !mounting::is_mounted(&volume.mountpoint) {
                    wanted.at_address(&volume.mountpoint, self.lookup())?.mount(&volume.mountpoint)?;
                }
            }
            if volume.limit.is_some_and(|limit| limit.project.is_none()) && !mounting::is_mounted(&volume.mountpoint) {
                crate::limit::mount_disk(&self.dir().join(&volume.name))?;
            }
            volume.mountpoint.clone()
        };
        let mut users = self.users();
        let used = users.entry(volume.name.clone()).or_default();
        used.users.insert(user.to_owned());
        used.path.clone_from(&path);
        used.mounted = !volume.is_plain();
        Ok(path)
    }

    /// `user` does not use the volume any more.
    ///
    /// # Errors
    /// When it cannot be unmounted.
    pub fn release(&self, name: &str, user: &str) -> Result<()> {
        self.locked(name, || self.release_held(name, user))
    }

    /// The caller has the volume's lock.
    pub(crate) fn release_held(&self, name: &str, user: &str) -> Result<()> {
        let (mounted, left) = {
            let mut users = self.users();
            let Some(used) = users.get_mut(name) else { return Ok(()) };
            if !used.users.remove(user) {
                return Ok(());
            }
            let (mounted, left) = (used.mounted, used.users.len());
            if left == 0 {
                users.remove(name);
            }
            (mounted, left)
        };
        if !mounted {
            return Ok(());
        }
        match self.find(name)? {
            Some(volume) if !volume.is_local() => self.unmount_by_plugin(&volume, user),
            _ if left == 0 => self.unmount(name),
            _ => Ok(()),
        }
    }

    /// Unmounts what nobody uses: the daemon was killed, and those who used it have ended since.
    pub fn unmount_unused(&self) {
        for volume in self.list().unwrap_or_default() {
            let unused = self.locked(&volume.name, || {
                let used = volume.is_plain() || !volume.is_local() || self.users().contains_key(&volume.name);
                if used { Ok(()) } else { self.unmount(&volume.name) }
            });
            if let Err(error) = unused {
                tracing::warn!(?error, "a volume that nobody uses stays mounted");
            }
        }
        self.unmount_unused_by_plugins();
    }

    pub(crate) fn unmount(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        if !mounting::is_mounted(&path) {
            return Ok(());
        }
        mounting::unmount(&path).map_err(VolumeError::file("unmount", path))
    }
}
