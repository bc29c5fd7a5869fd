//! A layer's files on their way in.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use wharf_archive::{OtherTimes, UnpackOptions, Unpacked, Whiteouts, unpack_image, unpack_recorded};
use wharf_erofs::Writer;
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;

use crate::import::MAX_TAR;
use crate::layers::TEMPORARY;
use crate::recipe::RecipeWriter;
use crate::storage::Storage;
use crate::{Result, SnapshotError};

/// Most entries of a layer: the largest of public images have some hundred thousand.
const MAX_ENTRIES: u64 = 10_000_000;

/// Files on their way in; removed unless they were kept.
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    pub(crate) form: Storage,
    pub(crate) kept: bool,
}

/// What an archive has become.
pub(crate) struct Content {
    pub(crate) unpacked: Unpacked,
    /// All of it but its end, which says which layer it is.
    pub(crate) image: Option<Writer>,
}

impl Temporary {
    pub(crate) fn new(layers: &Path, number: u64, form: Storage) -> Result<Self> {
        let path = layers.join(format!("{TEMPORARY}{number}"));
        let make = |dir: &Path| fs::create_dir(dir).map_err(SnapshotError::file("make", dir));
        make(&path)?;
        let temporary = Self { path, form, kept: false };
        if form == Storage::Dirs {
            let root = temporary.path.join("root");
            make(&root)?;
            // The root of a container, where no layer says otherwise.
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&root, mode).map_err(SnapshotError::file("make", &root))?;
        }
        Ok(temporary)
    }

    pub(crate) fn unpack(&self, tar: &mut dyn Read, times: Option<&OtherTimes<'_>>) -> Result<Content> {
        let options = UnpackOptions {
            whiteouts: Whiteouts::Overlay,
            max_entries: MAX_ENTRIES,
            // Of sparse files, whose holes are no bytes of the tar.
            max_bytes: MAX_TAR,
            ..UnpackOptions::default()
        };
        let fail = || SnapshotError::file("write", self.path.join("recipe"));
        let mut recipe = RecipeWriter::new(&self.path, self.form).map_err(fail())?;
        let (mut unpacked, image) = match self.form {
            Storage::Dirs => {
                let root = RootDir::open(self.path.join("root"))?;
                (unpack_recorded(&mut *tar, &root, &options, &mut recipe, times)?, None)
            }
            Storage::Erofs => {
                let path = self.path.join("image");
                let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
                let file = file.map_err(SnapshotError::file("make", &path))?;
                let mut image = Writer::new(file).map_err(|e| SnapshotError::file("write", &path)(e.into()))?;
                (unpack_image(&mut *tar, &mut image, &options, &mut recipe, times)?, Some(image))
            }
        };
        // What follows the end of the archive is part of the stream that is hashed, so of the recipe too; the reader
        // of the archive has read it all.
        unpacked.disk += recipe.finish().map_err(fail())?;
        Ok(Content { unpacked, image })
    }

    /// Ends an image and brings it to the disk with its recipe: two files to sync, however many are in it.
    pub(crate) fn settle(&self, image: Writer, diff_id: &Digest) -> Result<()> {
        let path = self.path.join("image");
        image.finish(uuid(diff_id)).map_err(|error| SnapshotError::file("write", &path)(error.into()))?;
        for name in ["image", "recipe"] {
            let path = self.path.join(name);
            let fail = || SnapshotError::file("write", &path);
            let file = File::open(&path).map_err(fail())?;
            if name == "image" {
                // Where the file system has it, the kernel finds out what the disk changes. Nowhere else is it missed:
                // a layer can be verified by its diff ID. (The recipe is compared with that whenever it is used.)
                match protect(file.as_fd()) {
                    Ok(()) | Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::EXIST) => {}
                    // Not with blocks of this size, or this hash; or somebody has had it open all the time.
                    Err(Errno::INVAL | Errno::NOPKG | Errno::TXTBSY) => {}
                    Err(errno) => return Err(fail()(errno.into())),
                }
            }
            file.sync_data().map_err(fail())?;
        }
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(SnapshotError::file("write", &self.path))
    }
}

/// A process that is just being made has what its parent had open, until it has its program.
fn protect(image: BorrowedFd<'_>) -> rustix::io::Result<()> {
    const TRIES: u32 = 20;
    for _ in 0..TRIES {
        match wharf_sys::verity::enable(image) {
            Err(Errno::TXTBSY) => std::thread::sleep(Duration::from_millis(1)),
            done => return done,
        }
    }
    wharf_sys::verity::enable(image)
}

/// Tells the image from others for overlayfs, which finds by it where a file was copied up from: the begin of the diff ID.
fn uuid(diff_id: &Digest) -> [u8; 16] {
    let mut uuid = [0; 16];
    for (byte, digits) in uuid.iter_mut().zip(diff_id.hex().as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        *byte = digit(digits[0]) << 4 | digit(digits[1]);
    }
    uuid
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is swept when the layers are opened.
            let _ = wharf_rooted_path::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_by_the_begin_of_its_diff_id() {
        let uuid = uuid(&Digest::sha256(b"").clone());
        assert_eq!(uuid[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        assert_eq!(uuid[15], 0x24);
    }
}
