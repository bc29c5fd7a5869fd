//! What images are called.

use wharf_reference::{Digest, Reference, is_id_prefix};

use crate::images::{ImageRecord, Images};
use crate::index::{lead, point};
use crate::rows::{IMAGES, NAMES, Row, change, key};
use crate::{ImageError, Result};

/// What a text may mean.
enum Meaning {
    /// A whole ID.
    Id(Digest),
    /// A name; if there is no such, perhaps the beginning of an ID.
    Name(Reference),
}

impl Meaning {
    fn of(text: &str) -> Result<Self> {
        if let Ok(digest) = Digest::parse(text) {
            return Ok(Self::Id(digest));
        }
        // Sixty-four hex digits are an ID, and no name.
        if text.len() == 64 && is_id_prefix(text) {
            let digest = Digest::parse(&format!("sha256:{text}"));
            return digest.map(Self::Id).map_err(|_| ImageError::NotFound(text.into()));
        }
        Ok(Self::Name(Reference::parse(text)?))
    }

    /// As Docker's messages have it.
    fn shown(&self) -> String {
        match self {
            Self::Id(digest) => digest.to_string(),
            Self::Name(reference) => reference.clone().tag_or_latest().familiar(),
        }
    }
}

impl Images {
    /// The image that a text means: an ID or a prefix of one, `name[:tag]`, or `name@digest`.
    ///
    /// # Errors
    /// `NotFound` with Docker's words, `Ambiguous`, or that it is no reference.
    pub fn resolve(&self, text: &str) -> Result<ImageRecord> {
        self.get(&self.find(text)?)
    }

    pub(crate) fn find(&self, text: &str) -> Result<Digest> {
        let meaning = Meaning::of(text)?;
        let not_found = || ImageError::NotFound(meaning.shown());
        match &meaning {
            Meaning::Id(digest) => {
                self.row(digest).map_err(|_| not_found())?;
                Ok(digest.clone())
            }
            Meaning::Name(reference) => {
                if let Some(id) = self.by_name(reference)? {
                    return Ok(id);
                }
                // `sha256:` with some of the digits has the form of a tag.
                let prefix = text.strip_prefix("sha256:").unwrap_or(text);
                if !is_id_prefix(prefix) {
                    return Err(not_found());
                }
                self.by_prefix(prefix)?.ok_or_else(not_found)
            }
        }
    }

    /// The image of a name, if there is one.
    pub(crate) fn by_name(&self, reference: &Reference) -> Result<Option<Digest>> {
        Ok(self.store().read(|tx| tx.get(NAMES, &key(reference)))?)
    }

    fn by_prefix(&self, hex: &str) -> Result<Option<Digest>> {
        let rows: Vec<(String, Row)> = self.store().read(|tx| tx.list_prefix(IMAGES, &format!("sha256:{hex}")))?;
        match rows.as_slice() {
            [] => Ok(None),
            [(id, _)] => Ok(Digest::parse(id).ok()),
            _ => Err(ImageError::Ambiguous(hex.into())),
        }
    }

    /// Gives the image `source` the further name `target`.
    ///
    /// # Errors
    /// `NotFound`, or that `target` is no name that an image can have.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let target = tag_of(target)?;
        // Whoever removes the image sees its new name, or it is not here any more.
        let _gate = self.gate();
        let id = self.find(source)?;
        // A name is given on with all of its platforms.
        let index = self.index_row(source)?;
        self.store().write(|tx| {
            match &index {
                Some((digest, _)) => lead(tx, &key(&target), digest)?,
                None => point(tx, &key(&target), &id)?,
            }
            change(tx, &id, |row| (row.tagged, row.used) = (Some(now()), seconds_now())).map(drop)
        })
    }
}

/// A text as a tag that an image can be given.
///
/// # Errors
/// `Reference`; `Invalid` when it has a digest.
pub(crate) fn tag_of(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text)?;
    if reference.digest().is_some() {
        return Err(ImageError::Invalid("refusing to create a tag with a digest reference".into()));
    }
    if reference.familiar().split(':').next() == Some("sha256") {
        return Err(ImageError::Invalid("refusing to create an ambiguous tag using digest algorithm as name".into()));
    }
    Ok(reference.tag_or_latest())
}

/// This moment as RFC 3339 with nanoseconds, as Go writes it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// What a configuration says of a time. Whatever it is written like, zones and fractions of seconds count; what is no
/// time is before all others.
pub(crate) fn moment(text: &str) -> jiff::Timestamp {
    text.parse().unwrap_or(jiff::Timestamp::MIN)
}

/// This moment in seconds since the epoch.
pub(crate) fn seconds_now() -> i64 {
    jiff::Timestamp::now().as_second()
}
