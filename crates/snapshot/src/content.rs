//! A layer's content as a stream: the exact tar, and compressed for a registry.

use std::io::{self, Write};

use flate2::{Compression, GzBuilder};
use wharf_archive::decompressed;
use wharf_reference::Digest;

use crate::hashed::HashedWriter;
use crate::layers::{Layer, LayerBlob, Layers};
use crate::recipe::{self, RecipeError};
use crate::{Result, SnapshotError};

/// OCI image-spec, "Media Types".
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The level that most tools would take, 6, costs twice the time for a few percent.
const LEVEL: u32 = 4;
/// zstd's own default; smaller than gzip's best, and several times as fast.
const ZSTD_LEVEL: i32 = 3;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Gzip,
    Zstd,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => GZIP,
            Self::Zstd => ZSTD,
        }
    }

    fn is_of(self, blob: &LayerBlob) -> bool {
        blob.media_type.ends_with(if self == Self::Gzip { "gzip" } else { "zstd" })
    }
}

impl Layers {
    /// Writes a layer's tar stream, the very bytes of its diff ID.
    ///
    /// # Errors
    /// `NotFound`; `Damaged` or `WrongDiffId` when neither the files nor a blob give them any more: the output has
    /// been written to by then, and must not be used.
    pub fn write_tar(&self, diff_id: &Digest, output: &mut dyn Write) -> Result<()> {
        let layer = self.require(diff_id)?;
        match self.stored(&layer) {
            // From the files, which costs no decompression; a blob is the way out when the recipe is lost.
            Some(blob) if !self.place(diff_id).join("recipe").exists() => self.write_blob(diff_id, blob, output),
            _ => self.write_files(&layer, output),
        }
    }

    /// Reads a layer whole, and tells whether it is still what it was.
    ///
    /// # Errors
    /// As [`Self::write_tar`].
    pub fn verify(&self, diff_id: &Digest) -> Result<()> {
        self.write_files(&self.require(diff_id)?, &mut io::sink())
    }

    fn write_files(&self, layer: &Layer, output: &mut dyn Write) -> Result<()> {
        let diff_id = &layer.diff_id;
        let mut hashed = HashedWriter::new(output);
        recipe::write(&self.place(diff_id), layer.form, &mut hashed).map_err(|error| match error {
            RecipeError::Damaged(why) => SnapshotError::Damaged { diff_id: diff_id.clone(), why },
            RecipeError::Read(error) => SnapshotError::file("read", self.place(diff_id))(error),
            RecipeError::Output(error) => SnapshotError::Output(error),
        })?;
        check(Some(diff_id), &hashed.finish())
    }

    fn write_blob(&self, diff_id: &Digest, blob: &LayerBlob, output: &mut dyn Write) -> Result<()> {
        let file = io::BufReader::with_capacity(1 << 18, self.store().blobs().reader(&blob.digest)?);
        let mut hashed = HashedWriter::new(output);
        let mut tar = decompressed(file).map_err(SnapshotError::Input)?;
        io::copy(&mut tar, &mut hashed).map_err(SnapshotError::Output)?;
        check(Some(diff_id), &hashed.finish())
    }

    /// A compressed form that is here.
    fn stored<'a>(&self, layer: &'a Layer) -> Option<&'a LayerBlob> {
        layer.blobs.iter().find(|blob| self.store().blobs().contains(&blob.digest))
    }

    /// The layer as a compressed blob: one that is there, else made now. The same layer gives the same bytes. Whoever
    /// wants a certain form gets that.
    ///
    /// # Errors
    /// `NotFound`, and for what the disk refuses.
    pub fn compressed(&self, diff_id: &Digest, form: Option<Form>) -> Result<LayerBlob> {
        let layer = self.require(diff_id)?;
        let here = |blob: &&LayerBlob| self.store().blobs().contains(&blob.digest);
        let wanted = |blob: &&LayerBlob| form.is_none_or(|form| form.is_of(blob));
        if let Some(blob) = layer.blobs.iter().filter(wanted).find(here) {
            return Ok(blob.clone());
        }
        loop {
            let blob = self.compress(diff_id, form.unwrap_or(Form::Gzip))?;
            // A blob without an owner may be taken away; it has one under the lock that it would go under.
            let _placing = self.placing();
            if self.store().blobs().contains(&blob.digest) {
                self.note_blob(diff_id, blob.clone())?;
                return Ok(blob);
            }
        }
    }

    fn compress(&self, diff_id: &Digest, form: Form) -> Result<LayerBlob> {
        let writer = io::BufWriter::with_capacity(1 << 18, self.store().blobs().writer(None)?);
        let writer = match form {
            Form::Gzip => {
                // Without name and time, which would be in the bytes.
                let mut gzip = GzBuilder::new().mtime(0).write(writer, Compression::new(LEVEL));
                self.write_tar(diff_id, &mut gzip)?;
                gzip.finish().map_err(SnapshotError::Output)?
            }
            Form::Zstd => {
                let mut zstd = zstd::Encoder::new(writer, ZSTD_LEVEL).map_err(SnapshotError::Output)?;
                zstd.include_checksum(true).map_err(SnapshotError::Output)?;
                self.write_tar(diff_id, &mut zstd)?;
                zstd.finish().map_err(SnapshotError::Output)?
            }
        };
        let writer = writer.into_inner().map_err(|error| SnapshotError::Output(error.into_error()))?;
        let (digest, size) = writer.finish()?;
        Ok(LayerBlob { digest, size, media_type: form.media_type().into() })
    }
}

pub(crate) fn check(expected: Option<&Digest>, found: &Digest) -> Result<()> {
    match expected {
        Some(expected) if expected != found => {
            Err(SnapshotError::WrongDiffId { expected: expected.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
}
