//! Attestations: what an index says of one of its images, in manifests of their own whose layers are in-toto statements.
//!
//! The form is BuildKit's ("Image Attestation Storage"). They come with the index, by a pull or in an archive, and are
//! blobs that its row owns; nothing of them is run or unpacked.

use std::collections::BTreeMap;

use wharf_distribution::{Descriptor, Index, Manifest};
use wharf_reference::Digest;

use crate::images::Images;
use crate::index::{ATTESTED, IndexRow, is_attestation};
use crate::{ImageError, Result};

/// An in-toto statement about an image.
#[derive(Clone, Debug)]
pub struct Statement {
    pub descriptor: Descriptor,
    /// A URI that says what kind of statement it is.
    pub predicate_type: String,
}

/// The media type of the one kind that there is.
pub(crate) const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Where a statement's descriptor says what it states.
pub(crate) const PREDICATE: &str = "in-toto.io/predicate-type";
/// All that is kept with one image: a list of a large image's software takes some MiB.
pub(crate) const MAX_ATTESTED: u64 = 64 << 20;
/// More statements about one image are of no use to anybody; each is a file that is synced.
const MAX_STATEMENTS: usize = 64;

/// What may still be kept with an image.
pub(crate) struct Room {
    bytes: u64,
    blobs: usize,
}

impl Default for Room {
    fn default() -> Self {
        // A manifest and a configuration for each.
        Self { bytes: MAX_ATTESTED, blobs: MAX_STATEMENTS * 3 }
    }
}

impl Room {
    /// Whether there is room for this, as its descriptor says; what comes must be as large.
    pub(crate) fn has(&self, descriptor: &Descriptor) -> bool {
        let so = self.blobs > 0 && descriptor.size <= self.bytes;
        if !so {
            tracing::warn!("the attestation {} is too large or one too many to be kept", descriptor.digest);
        }
        so
    }

    /// Takes room for what has come.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_sub(bytes.len() as u64);
        self.blobs = self.blobs.saturating_sub(1);
    }
}

/// The attestations of an index about one of its manifests.
pub(crate) fn about<'a>(index: &'a Index, manifest: &'a Digest) -> impl Iterator<Item = &'a Descriptor> {
    let about = |entry: &Descriptor| entry.annotations.get(ATTESTED).and_then(|text| Digest::parse(text).ok());
    let about = move |entry: &&Descriptor| is_attestation(entry) && about(entry).as_ref() == Some(manifest);
    index.manifests.iter().filter(about).take(MAX_STATEMENTS)
}

/// The statements that an attestation's manifest lists.
pub(crate) fn statements(bytes: &[u8], media_type: &str) -> Vec<Statement> {
    // What is none says nothing.
    let Ok(Manifest::Image(manifest)) = Manifest::parse(bytes, media_type) else { return Vec::new() };
    let known = manifest.layers.into_iter().filter(|layer| layer.media_type == IN_TOTO).take(MAX_STATEMENTS);
    let statement = |descriptor: Descriptor| {
        let predicate_type = descriptor.annotations.get(PREDICATE).cloned().unwrap_or_default();
        Statement { descriptor, predicate_type }
    };
    known.map(statement).collect()
}

/// What has to be there with an attestation's manifest: its statements, and its configuration, which says nothing.
pub(crate) fn parts(bytes: &[u8], media_type: &str) -> Vec<Descriptor> {
    let statements = statements(bytes, media_type).into_iter().map(|statement| statement.descriptor);
    let config = match Manifest::parse(bytes, media_type) {
        Ok(Manifest::Image(manifest)) => Some(manifest.config),
        _ => None,
    };
    statements.chain(config).collect()
}

/// An attestation with all that its manifest names.
pub(crate) struct Whole {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
    pub(crate) blobs: Vec<Descriptor>,
}

/// Collects the attestations about an image, by whatever gives blobs; `None` for one that is not to be had. What is
/// too large is left out.
pub(crate) fn collect(
    index: &Index,
    manifest: &Digest,
    blob: &mut dyn FnMut(&Descriptor) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<Vec<u8>>> {
    let (mut all, mut room) = (BTreeMap::new(), Room::default());
    for entry in about(index, manifest) {
        let Some(bytes) = take(entry, &mut room, blob)? else { continue };
        for part in parts(&bytes, &entry.media_type) {
            if let Some(bytes) = take(&part, &mut room, blob)? {
                all.insert(part.digest, bytes);
            }
        }
        all.insert(entry.digest.clone(), bytes);
    }
    Ok(all.into_values().collect())
}

fn take(
    descriptor: &Descriptor,
    room: &mut Room,
    blob: &mut dyn FnMut(&Descriptor) -> Result<Option<Vec<u8>>>,
) -> Result<Option<Vec<u8>>> {
    if !room.has(descriptor) {
        return Ok(None);
    }
    let as_said = |bytes: &Vec<u8>| {
        bytes.len() as u64 == descriptor.size && Digest::of(descriptor.digest.algorithm(), bytes) == descriptor.digest
    };
    let bytes = blob(descriptor)?.filter(as_said);
    if let Some(bytes) = &bytes {
        room.take(bytes);
    }
    Ok(bytes)
}

impl Images {
    /// The statements that came with an image, in the order of its index. An image that came without an index has none.
    ///
    /// # Errors
    /// `NotFound`, also for a platform that the image is not here for.
    pub fn attestations(&self, text: &str, platform: Option<&str>) -> Result<Vec<Statement>> {
        let image = self.resolve_for(text, platform)?;
        let Some((digest, row)) = self.index_of(text, &image.id)? else { return Ok(Vec::new()) };
        self.attested(&digest, &row, &image.id)
    }

    /// What an index has about one of its images.
    pub(crate) fn attested(&self, index: &Digest, row: &IndexRow, image: &Digest) -> Result<Vec<Statement>> {
        let (_, index) = self.read_index(index, row)?;
        let Some(member) = row.members.iter().find(|member| member.image == *image) else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for entry in about(&index, &member.manifest) {
            // One that did not come is known by its name alone, and says nothing.
            let Ok(bytes) = self.store().blobs().read(&entry.digest, MAX_ATTESTED) else { continue };
            all.extend(statements(&bytes, &entry.media_type));
        }
        Ok(all)
    }

    /// An attestation that an index lists, if all of it came.
    pub(crate) fn whole_attestation(&self, descriptor: &Descriptor) -> Option<Whole> {
        let blobs = self.store().blobs();
        let bytes = blobs.read(&descriptor.digest, MAX_ATTESTED).ok()?;
        let Ok(Manifest::Image(manifest)) = Manifest::parse(&bytes, &descriptor.media_type) else { return None };
        let named: Vec<Descriptor> = manifest.layers.into_iter().chain([manifest.config]).collect();
        let here = named.iter().all(|blob| blobs.size(&blob.digest) == Some(blob.size));
        here.then(|| Whole { descriptor: descriptor.clone(), bytes, blobs: named })
    }

    /// The statement itself.
    ///
    /// # Errors
    /// `NotFound` when it did not come with its image.
    pub fn statement(&self, statement: &Statement) -> Result<Vec<u8>> {
        let digest = &statement.descriptor.digest;
        if !self.store().blobs().contains(digest) {
            return Err(ImageError::NotFound(digest.to_string()));
        }
        Ok(self.store().blobs().read(digest, MAX_ATTESTED)?)
    }

    fn index_of(&self, text: &str, image: &Digest) -> Result<Option<(Digest, IndexRow)>> {
        if let Some(found) = self.index_row(text)? {
            return Ok(Some(found));
        }
        Ok(self.index_rows()?.into_iter().find(|(_, row)| row.has(image)))
    }
}
