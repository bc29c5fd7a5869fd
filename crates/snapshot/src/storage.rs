//! The form that layers get here: images where this kernel mounts them from this data root, else directories.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::lower::{Image, Lower};
use crate::view::View;
use crate::{Result, SnapshotError};

/// How a layer's files are kept. A data root can have both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// A tree of files, in the form that overlayfs has in an upper directory.
    #[default]
    Dirs,
    /// An EROFS image.
    Erofs,
}

/// What is in the image that is tried.
const NAME: &[u8] = b"file";

/// Whether images can be mounted from files in `dir`, and stacked by overlayfs: two of them are written and tried.
///
/// # Errors
/// Why not, in words for the user.
pub(crate) fn probe(dir: &Path) -> Result<(), String> {
    // Of one that was killed.
    let _ = wharf_rooted_path::remove_dir_all(dir);
    fs::create_dir(dir).map_err(|error| format!("{} cannot be made: {error}", dir.display()))?;
    let tried = try_in(dir);
    // What stays is swept when the layers are opened.
    let _ = wharf_rooted_path::remove_dir_all(dir);
    tried
}

fn try_in(dir: &Path) -> Result<(), String> {
    let mut lowers = Vec::new();
    for number in 0..2_u8 {
        let path = dir.join(number.to_string());
        let file = File::create_new(&path).map_err(|error| format!("no image can be written: {error}"))?;
        write(file, number).map_err(|error| format!("no image can be written: {error}"))?;
        let mount = wharf_sys::erofs::mount(&path).map_err(|errno| why(errno).to_owned())?;
        lowers.push(Lower::Image(Image { path, mount: Arc::new(mount) }));
    }
    // One on the other leaves no room for more where the data root itself is an overlay.
    let view = View::mount(&lowers, None).map_err(|error| match error {
        SnapshotError::Mount { errno, .. } => format!("overlayfs does not take images as layers here: {errno}"),
        error => error.to_string(),
    })?;
    match view.read_small("file", 1) {
        Ok(content) if content == [0] => Ok(()),
        Ok(_) => Err("an image has not in it what was written".into()),
        Err(error) => Err(format!("an image cannot be read: {error}")),
    }
}

fn write(file: File, number: u8) -> wharf_erofs::Result<()> {
    let mut writer = wharf_erofs::Writer::new(file)?;
    let mut content = writer.file(NAME, &wharf_erofs::Attributes { mode: 0o644, ..Default::default() }, 1)?;
    content.append(&[number])?;
    content.finish()?;
    writer.finish([number; 16]).map(drop)
}

fn why(errno: Errno) -> &'static str {
    match errno {
        Errno::NODEV => "the kernel has no EROFS",
        Errno::NOTBLK => "the kernel mounts EROFS images from files from Linux 6.12 on, and not on every file system",
        Errno::PERM => "there is no right to mount images",
        _ => "the kernel does not mount EROFS images from files of the data root's file system",
    }
}
