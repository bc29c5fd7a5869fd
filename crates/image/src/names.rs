//! What images are called.

use wharf_reference::{Digest, Reference, is_id_prefix};

use crate::images::{DIGESTS, IMAGES, ImageRecord, Images, Row, TAGS};
use crate::{ImageError, Result};

impl Images {
    /// The image that a text means: an ID or a prefix of one, `name[:tag]`, or `name@digest`.
    ///
    /// # Errors
    /// `NotFound` with Docker's words, `Ambiguous`, or that it is no reference.
    pub fn resolve(&self, text: &str) -> Result<ImageRecord> {
        self.get(&self.find(text)?)
    }

    pub(crate) fn find(&self, text: &str) -> Result<Digest> {
        if let Ok(digest) = Digest::parse(text) {
            return self.by_prefix(digest.hex()).map_err(|error| match error {
                ImageError::NotFound(_) => ImageError::NotFound(text.into()),
                other => other,
            });
        }
        let named = match Reference::parse(text) {
            Ok(reference) => self.by_name(&reference)?,
            // Sixty-four hex digits are an ID, and no name.
            Err(_) if is_id_prefix(text) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(id) = named {
            return Ok(id);
        }
        let shown = match Reference::parse(text) {
            Ok(reference) if reference.digest().is_none() => reference.tag_or_latest().familiar(),
            _ => text.into(),
        };
        if is_id_prefix(text) {
            return self.by_prefix(text).map_err(|error| match error {
                ImageError::NotFound(_) => ImageError::NotFound(shown),
                other => other,
            });
        }
        Err(ImageError::NotFound(shown))
    }

    /// The image of a name, if there is one.
    pub(crate) fn by_name(&self, reference: &Reference) -> Result<Option<Digest>> {
        let (table, key) = match reference.digest() {
            Some(digest) => (DIGESTS, format!("{}@{digest}", reference.name())),
            None => (TAGS, tag_key(reference)),
        };
        Ok(self.store().read(|tx| tx.get(table, &key))?)
    }

    fn by_prefix(&self, hex: &str) -> Result<Digest> {
        let prefix = format!("sha256:{hex}");
        let rows: Vec<(String, Row)> = self.store().read(|tx| tx.list_prefix(IMAGES, &prefix))?;
        match rows.as_slice() {
            [] => Err(ImageError::NotFound(hex.into())),
            [(id, _)] => Digest::parse(id).map_err(|_| ImageError::NotFound(hex.into())),
            _ => Err(ImageError::Ambiguous(hex.into())),
        }
    }

    /// Gives the image `source` the further name `target`.
    ///
    /// # Errors
    /// `NotFound`, or that `target` is no name that an image can have.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let id = self.find(source)?;
        let target = Reference::parse(target)?;
        if target.digest().is_some() {
            return Err(ImageError::Invalid("refusing to create a tag with a digest reference".into()));
        }
        self.set_tag(&target, &id)
    }

    /// Makes a name mean an image; the image that had it keeps its others.
    pub(crate) fn set_tag(&self, target: &Reference, id: &Digest) -> Result<()> {
        let key = tag_key(target);
        self.store().write(|tx| {
            let mut row: Row = tx.get(IMAGES, id.as_str())?.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
            row.tagged = Some(now());
            tx.put(IMAGES, id.as_str(), &row)?;
            tx.put(TAGS, &key, id)?;
            Ok(())
        })
    }

    /// Notes under which digest a repository has the image.
    pub(crate) fn set_digest(&self, reference: &Reference, digest: &Digest, id: &Digest) -> Result<()> {
        let key = format!("{}@{digest}", reference.name());
        Ok(self.store().write(|tx| tx.put(DIGESTS, &key, id))?)
    }
}

/// `DOMAIN/PATH:TAG`.
pub(crate) fn tag_key(reference: &Reference) -> String {
    format!("{}:{}", reference.name(), reference.tag().unwrap_or(wharf_reference::DEFAULT_TAG))
}

pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}
