//! Images and their names, as they are persisted.

use serde::{Deserialize, Serialize};
use wharf_reference::{Digest, Reference};
use wharf_store::{Table, WriteTx};

use crate::index::manifest_left;
use crate::summary::Short;
use crate::{ImageError, Result};

/// Images by their IDs.
pub(crate) const IMAGES: Table = Table::new("image");
/// IDs by name: `DOMAIN/PATH:TAG`, or `DOMAIN/PATH@DIGEST` for what a registry has an image under.
pub(crate) const NAMES: Table = Table::new("image-name");
/// Layers that an image has left, until it is known whether anybody else needs them.
pub(crate) const LEFT: Table = Table::new("layer-left");

/// An image as it is persisted. Its configuration is a blob.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) size: u64,
    pub(crate) tagged: Option<String>,
    /// When it was made here (RFC 3339), where its configuration says how old what it was made of is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) made: Option<String>,
    pub(crate) parent: Option<Digest>,
    /// The manifest that it came with, or that was made for a push; a blob.
    pub(crate) manifest: Option<StoredManifest>,
    /// Its keys in the table of names, sorted.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// The indexes that it is a member of.
    #[serde(default)]
    pub(crate) indexes: Vec<Digest>,
    /// Neither pruned nor evicted.
    #[serde(default)]
    pub(crate) pinned: bool,
    /// When it was last used, in seconds since the epoch, to the hour.
    #[serde(default)]
    pub(crate) used: i64,
    /// What lists show of its configuration.
    #[serde(default)]
    pub(crate) short: Option<Short>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
}

impl Row {
    /// The names that are tags.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| !is_digest(name))
    }

    /// The names that are digests.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &String> {
        self.names.iter().filter(|name| is_digest(name))
    }
}

/// The key of a name. Neither tag nor digest means the usual tag.
pub(crate) fn key(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => format!("{}:{}", reference.name(), reference.tag().unwrap_or(wharf_reference::DEFAULT_TAG)),
    }
}

/// A name as users write it.
pub(crate) fn familiar(key: &str) -> String {
    Reference::parse(key).map_or_else(|_| key.to_owned(), |reference| reference.familiar())
}

pub(crate) fn is_digest(key: &str) -> bool {
    key.contains('@')
}

/// The manifest that a name by digest means.
pub(crate) fn named_manifest(key: &str) -> Option<Digest> {
    Digest::parse(key.split_once('@')?.1).ok()
}

/// The repository of a name.
pub(crate) fn repository(key: &str) -> &str {
    match key.split_once('@') {
        Some((name, _)) => name,
        None => key.rsplit_once(':').map_or(key, |(name, _)| name),
    }
}

/// Makes a name mean an image; the image that had it keeps its others. Of an index behind the name it knows nothing
/// ([`crate::index::point`]).
pub(crate) fn point_image(tx: &WriteTx, key: &str, id: &Digest) -> Result<()> {
    let before: Option<Digest> = tx.get(NAMES, key)?;
    if let Some(before) = before.filter(|before| before != id) {
        change(tx, &before, |row| row.names.retain(|name| name != key))?;
    }
    tx.put(NAMES, key, id)?;
    let found = change(tx, id, |row| {
        row.names.push(key.to_owned());
        row.names.sort();
        row.names.dedup();
    })?;
    if found { Ok(()) } else { Err(ImageError::NotFound(id.to_string())) }
}

/// Takes a name from the image that has it, as [`point_image`].
pub(crate) fn unpoint_image(tx: &WriteTx, key: &str) -> Result<()> {
    let id: Option<Digest> = tx.get(NAMES, key)?;
    tx.delete(NAMES, key)?;
    named_manifest(key).iter().try_for_each(|digest| manifest_left(tx, digest))?;
    if let Some(id) = id {
        change(tx, &id, |row| row.names.retain(|name| name != key))?;
    }
    Ok(())
}

/// Changes an image's row, and tells whether there is one.
pub(crate) fn change(tx: &WriteTx, id: &Digest, f: impl FnOnce(&mut Row)) -> Result<bool> {
    let row: Option<Row> = tx.get(IMAGES, id.as_str())?;
    let Some(mut row) = row else { return Ok(false) };
    f(&mut row);
    tx.put(IMAGES, id.as_str(), &row)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_repositories_and_kinds_apart() {
        let digest = Digest::sha256(b"");
        for (text, name) in [
            ("debian", "docker.io/library/debian"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b"),
            (&format!("localhost:5000/a:b@{digest}"), "localhost:5000/a"),
        ] {
            let key = key(&Reference::parse(text).unwrap());
            assert_eq!((repository(&key), is_digest(&key)), (name, text.contains('@')));
        }
        assert_eq!(familiar("docker.io/library/debian:12"), "debian:12");
    }
}
