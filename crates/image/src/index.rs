//! Images of several platforms under one name: the index that it has in its registry or archive, and which of the images
//! that it lists are here.
//!
//! A name leads to one image all the same, that of this host's platform if it is here: whoever wants no other needs to
//! know of no index. What a name leads to beside it is in tables of their own. An index is there as long as it has names.

use serde::{Deserialize, Serialize};
use wharf_distribution::{Descriptor, Index, MAX_MANIFEST, Manifest, Platform};
use wharf_reference::{Digest, Reference};
use wharf_store::{Table, WriteTx};

use crate::images::{ImageRecord, Images};
use crate::rows::{IMAGES, Row, change, key, point_image, unpoint_image};
use crate::{ImageError, Result};

/// Indexes by their digests; each is a blob, too.
pub(crate) const INDEXES: Table = Table::new("image-index");
/// Which index is behind a name, by the keys of `NAMES`.
pub(crate) const INDEX_NAMES: Table = Table::new("image-index-name");
/// Indexes, and manifests of images, that something has ceased to name; until it is known whether anything else does.
pub(crate) const MANIFESTS_LEFT: Table = Table::new("image-index-left");

/// What marks a manifest in an index as one about another, which is no image.
pub(crate) const ATTESTATION: &str = "vnd.docker.reference.type";
pub(crate) const ATTESTED: &str = "vnd.docker.reference.digest";
/// Farther away than any other variant of the same architecture (`Platform::distance`).
const OTHER_ARCHITECTURE: u32 = 100;

/// An index as it is persisted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct IndexRow {
    pub(crate) media_type: String,
    /// Its keys in the tables of names, sorted.
    pub(crate) names: Vec<String>,
    /// The images of it that are here; what came last is last.
    pub(crate) members: Vec<Member>,
    /// Blobs of attestations about these: manifests and statements.
    #[serde(default)]
    pub(crate) attestations: Vec<Digest>,
}

/// An image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Of the manifest, as the index names it.
    pub(crate) manifest: Digest,
    pub(crate) image: Digest,
    /// As its configuration says.
    pub(crate) platform: Platform,
}

/// The index that an image came with.
#[derive(Clone, Debug)]
pub(crate) struct Within {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: String,
    /// The image's manifest, as the index names it.
    pub(crate) manifest: Digest,
    /// Attestations about the image: manifests and statements.
    pub(crate) attestations: Vec<Vec<u8>>,
}

/// An image of several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageIndex {
    pub digest: Digest,
    pub media_type: String,
    /// The index itself.
    pub bytes: Vec<u8>,
    /// As it lists them.
    pub manifests: Vec<IndexEntry>,
}

/// One manifest of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub descriptor: Descriptor,
    /// The image, if it is here.
    pub image: Option<Digest>,
    /// The manifest that this one is about: it is no image.
    pub about: Option<Digest>,
}

impl IndexRow {
    /// The image that a name of the index leads to.
    pub(crate) fn primary(&self) -> Option<&Digest> {
        let host = Platform::host();
        let fitting = self.members.iter().filter_map(|member| Some((host.distance(&member.platform)?, member)));
        let best = fitting.min_by_key(|(distance, _)| *distance).map(|(_, member)| member);
        best.or(self.members.last()).map(|member| &member.image)
    }

    pub(crate) fn has(&self, image: &Digest) -> bool {
        self.members.iter().any(|member| member.image == *image)
    }

    /// The member for a platform that was asked for: another variant will do, another architecture will not.
    pub(crate) fn select(&self, platform: &Platform) -> Option<&Member> {
        let fitting = self.members.iter().filter_map(|member| Some((distance(platform, &member.platform)?, member)));
        fitting.min_by_key(|(distance, _)| *distance).map(|(_, member)| member)
    }
}

/// Whether an image for `offered` is what somebody means who asks for `asked`.
pub(crate) fn fits(asked: &Platform, offered: &Platform) -> bool {
    distance(asked, offered).is_some()
}

fn distance(asked: &Platform, offered: &Platform) -> Option<u32> {
    asked.distance(offered).filter(|distance| *distance < OTHER_ARCHITECTURE)
}

/// What the configuration of an image says of its platform.
pub(crate) fn platform_of(config: &crate::ImageConfig) -> Platform {
    let os = if config.os.is_empty() { "linux".to_owned() } else { config.os.clone() };
    Platform { os, architecture: config.architecture.clone(), variant: config.variant.clone(), ..Platform::default() }
}

/// Notes that an image is one of an index, and makes names lead to the index.
pub(crate) fn join(
    tx: &WriteTx,
    digest: &Digest,
    media_type: &str,
    member: Member,
    attestations: &[Digest],
    names: &[&String],
) -> Result<()> {
    let mut row: IndexRow = tx.get(INDEXES, digest.as_str())?.unwrap_or_default();
    row.attestations.extend_from_slice(attestations);
    row.attestations.sort();
    row.attestations.dedup();
    media_type.clone_into(&mut row.media_type);
    // Two manifests may be of one image: its layers in two forms.
    let replaced = |other: &&Member| other.manifest == member.manifest;
    row.members.iter().filter(replaced).try_for_each(|other| note(tx, &other.image, digest, false))?;
    row.members.retain(|other| !replaced(&other));
    note(tx, &member.image, digest, true)?;
    row.members.push(member);
    tx.put(INDEXES, digest.as_str(), &row)?;
    names.iter().try_for_each(|name| lead(tx, name, digest))?;
    // Names that it had before may lead to another of its images now.
    settle(tx, digest)
}

/// Notes with an image whether an index has it.
fn note(tx: &WriteTx, image: &Digest, index: &Digest, has: bool) -> Result<()> {
    change(tx, image, |row| {
        row.indexes.retain(|own| own != index);
        row.indexes.extend(has.then(|| index.clone()));
    })
    .map(drop)
}

/// Makes a name lead to an index that has images.
pub(crate) fn lead(tx: &WriteTx, name: &str, digest: &Digest) -> Result<()> {
    let before: Option<Digest> = tx.get(INDEX_NAMES, name)?;
    if before.as_ref() != Some(digest) {
        leave(tx, name)?;
        let mut row: IndexRow =
            tx.get(INDEXES, digest.as_str())?.ok_or_else(|| ImageError::NotFound(digest.to_string()))?;
        row.names.push(name.to_owned());
        row.names.sort();
        tx.put(INDEXES, digest.as_str(), &row)?;
        tx.put(INDEX_NAMES, name, digest)?;
    }
    settle(tx, digest)
}

/// A name leads to no index any more. The last one takes the index with it.
pub(crate) fn leave(tx: &WriteTx, name: &str) -> Result<()> {
    let index: Option<Digest> = tx.get(INDEX_NAMES, name)?;
    let Some(digest) = index else { return Ok(()) };
    tx.delete(INDEX_NAMES, name)?;
    let row: Option<IndexRow> = tx.get(INDEXES, digest.as_str())?;
    let Some(mut row) = row else { return Ok(()) };
    row.names.retain(|own| own != name);
    put_or_end(tx, &digest, &row)
}

/// An image is none of this index any more. What its names lead to then is the next; without one they are nobody's, and for
/// the caller.
pub(crate) fn part(tx: &WriteTx, digest: &Digest, image: &Digest) -> Result<()> {
    let row: Option<IndexRow> = tx.get(INDEXES, digest.as_str())?;
    let Some(mut row) = row.filter(|row| row.has(image)) else { return Ok(()) };
    let gone = row.members.extract_if(.., |member| member.image == *image);
    gone.into_iter().try_for_each(|member| manifest_left(tx, &member.manifest))?;
    note(tx, image, digest, false)?;
    put_or_end(tx, digest, &row)?;
    settle(tx, digest)
}

fn put_or_end(tx: &WriteTx, digest: &Digest, row: &IndexRow) -> Result<()> {
    if !row.names.is_empty() && !row.members.is_empty() {
        return Ok(tx.put(INDEXES, digest.as_str(), row)?);
    }
    end(tx, digest, row)
}

/// An index is none any more; its names go on leading to the image that they lead to.
pub(crate) fn end(tx: &WriteTx, digest: &Digest, row: &IndexRow) -> Result<()> {
    row.names.iter().try_for_each(|name| tx.delete(INDEX_NAMES, name).map(drop))?;
    row.members.iter().try_for_each(|member| note(tx, &member.image, digest, false))?;
    tx.delete(INDEXES, digest.as_str())?;
    let members = row.members.iter().map(|member| &member.manifest);
    members.chain(&row.attestations).try_for_each(|manifest| manifest_left(tx, manifest))?;
    manifest_left(tx, digest)
}

/// Makes the names of an index lead to its image for this host.
fn settle(tx: &WriteTx, digest: &Digest) -> Result<()> {
    let row: Option<IndexRow> = tx.get(INDEXES, digest.as_str())?;
    let Some(mut row) = row else { return Ok(()) };
    // One that is listed and not here is for a check of the store to find.
    let mut here = Vec::new();
    for member in row.members {
        let image: Option<Row> = tx.get(IMAGES, member.image.as_str())?;
        here.extend(image.map(|_| member));
    }
    row.members = here;
    let Some(primary) = row.primary() else { return Ok(()) };
    row.names.iter().try_for_each(|name| point_image(tx, name, primary))
}

impl Images {
    pub(crate) fn index_rows(&self) -> Result<Vec<(Digest, IndexRow)>> {
        let rows: Vec<(String, IndexRow)> = self.store().read(|tx| tx.list(INDEXES))?;
        Ok(rows.into_iter().filter_map(|(digest, row)| Some((Digest::parse(&digest).ok()?, row))).collect())
    }

    /// The index behind a text, if that is a name with one.
    pub(crate) fn index_row(&self, text: &str) -> Result<Option<(Digest, IndexRow)>> {
        match self.name_of(text)? {
            Some(name) => self.index_of_name(&name),
            None => Ok(None),
        }
    }

    pub(crate) fn index_of_name(&self, name: &str) -> Result<Option<(Digest, IndexRow)>> {
        Ok(self.store().read(|tx| {
            let digest: Option<Digest> = tx.get(INDEX_NAMES, name)?;
            let Some(digest) = digest else { return Ok(None) };
            let row: Option<IndexRow> = tx.get(INDEXES, digest.as_str())?;
            Ok::<_, wharf_store::StoreError>(row.map(|row| (digest, row)))
        })?)
    }

    /// The key of the name that a text is, unless it is an ID.
    pub(crate) fn name_of(&self, text: &str) -> Result<Option<String>> {
        let Ok(reference) = Reference::parse(text) else { return Ok(None) };
        Ok(self.by_name(&reference)?.map(|_| key(&reference)))
    }

    /// The image that a text means, for a platform if one is asked for (as `linux/arm64`).
    ///
    /// # Errors
    /// `NotFound`, also when it is here for other platforms only; and that it is no platform.
    pub fn resolve_for(&self, text: &str, platform: Option<&str>) -> Result<ImageRecord> {
        let Some(asked) = platform.filter(|text| !text.is_empty()) else { return self.resolve(text) };
        let asked = parse_platform(asked)?;
        if let Some((_, row)) = self.index_row(text)? {
            let not_here = || ImageError::NotForPlatform { name: text.to_owned(), platform: asked.to_string() };
            return self.get(&row.select(&asked).ok_or_else(not_here)?.image);
        }
        let image = self.resolve(text)?;
        let actual = platform_of(&image.config);
        match fits(&asked, &actual) {
            true => Ok(image),
            false => Err(ImageError::OtherPlatform {
                name: text.to_owned(),
                wanted: asked.to_string(),
                actual: actual.to_string(),
            }),
        }
    }

    /// Whether a name means an image, for whichever platform.
    pub fn means(&self, text: &str, id: &Digest) -> bool {
        let primary = self.find(text).is_ok_and(|found| found == *id);
        primary || self.index_row(text).is_ok_and(|index| index.is_some_and(|(_, row)| row.has(id)))
    }

    /// The index behind a text.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn index(&self, text: &str) -> Result<Option<ImageIndex>> {
        self.index_row(text)?.map(|(digest, row)| self.whole_index(digest, &row)).transpose()
    }

    /// The index of this digest.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn index_by_digest(&self, digest: &Digest) -> Result<Option<ImageIndex>> {
        let row: Option<IndexRow> = self.store().read(|tx| tx.get(INDEXES, digest.as_str()))?;
        row.map(|row| self.whole_index(digest.clone(), &row)).transpose()
    }

    /// An index with all that it lists.
    pub(crate) fn whole_index(&self, digest: Digest, row: &IndexRow) -> Result<ImageIndex> {
        let (bytes, index) = self.read_index(&digest, row)?;
        let entry = |descriptor: Descriptor| {
            let member = row.members.iter().find(|member| member.manifest == descriptor.digest);
            let about = descriptor.annotations.get(ATTESTED).and_then(|text| Digest::parse(text).ok());
            let about = about.filter(|_| is_attestation(&descriptor));
            IndexEntry { image: member.map(|member| member.image.clone()), about, descriptor }
        };
        let manifests = index.manifests.into_iter().map(entry).collect();
        Ok(ImageIndex { digest, media_type: row.media_type.clone(), bytes, manifests })
    }

    pub(crate) fn read_index(&self, digest: &Digest, row: &IndexRow) -> Result<(Vec<u8>, Index)> {
        let bytes = self.store().blobs().read(digest, MAX_MANIFEST)?;
        match Manifest::parse(&bytes, &row.media_type)? {
            Manifest::Index(index) => Ok((bytes, index)),
            Manifest::Image(_) => Err(ImageError::Invalid(format!("{digest} is no index"))),
        }
    }

    /// The names of an image of another platform than its indexes' names lead to: those, beside digests of its own. A tag
    /// of its own makes it one by itself.
    pub(crate) fn names_as_part(&self, image: &Row) -> Result<Option<Vec<String>>> {
        if image.tags().next().is_some() || image.indexes.is_empty() {
            return Ok(None);
        }
        let mut names = self.names_by_index(image)?;
        if names.iter().all(|name| image.names.contains(name)) {
            return Ok(None);
        }
        names.extend(image.names.iter().cloned());
        names.sort();
        names.dedup();
        Ok(Some(names))
    }

    /// The names of the indexes of an image.
    fn names_by_index(&self, image: &Row) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for index in &image.indexes {
            let row: Option<IndexRow> = self.store().read(|tx| tx.get(INDEXES, index.as_str()))?;
            names.extend(row.unwrap_or_default().names);
        }
        names.sort();
        Ok(names)
    }

    /// The images that share an index with this one, without it.
    pub(crate) fn siblings(&self, row: &Row, id: &Digest) -> Result<Vec<Digest>> {
        let mut all = Vec::new();
        for index in &row.indexes {
            let row: Option<IndexRow> = self.store().read(|tx| tx.get(INDEXES, index.as_str()))?;
            all.extend(row.unwrap_or_default().members.into_iter().map(|member| member.image));
        }
        all.retain(|image| image != id);
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// Whether a manifest in an index is about another one, and no image.
pub(crate) fn is_attestation(descriptor: &Descriptor) -> bool {
    descriptor.annotations.contains_key(ATTESTATION)
}

pub(crate) fn parse_platform(text: &str) -> Result<Platform> {
    Platform::parse(text).map_err(|e| ImageError::Invalid(e.to_string()))
}

/// Something does not name this manifest any more: the next collection finds out whether anything does.
pub(crate) fn manifest_left(tx: &WriteTx, digest: &Digest) -> Result<()> {
    Ok(tx.put(MANIFESTS_LEFT, digest.as_str(), &())?)
}

/// A name leads to an image alone.
pub(crate) fn point(tx: &WriteTx, name: &str, id: &Digest) -> Result<()> {
    leave(tx, name)?;
    point_image(tx, name, id)
}

/// Takes a name from the image and the index that have it.
pub(crate) fn unpoint(tx: &WriteTx, name: &str) -> Result<()> {
    leave(tx, name)?;
    unpoint_image(tx, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(text: &str) -> Member {
        let platform = Platform::parse(text).unwrap();
        Member {
            manifest: Digest::sha256(text.as_bytes()),
            image: Digest::sha256(&[text.as_bytes(), b"i"].concat()),
            platform,
        }
    }

    #[test]
    fn a_name_leads_to_the_host_s_image_and_else_to_the_last() {
        let host = Platform::host().to_string();
        let other = if host == "linux/s390x" { "linux/ppc64le" } else { "linux/s390x" };
        let mut row = IndexRow::default();
        assert_eq!(row.primary(), None);
        for text in ["linux/mips64le", other] {
            row.members.push(member(text));
            assert_eq!(row.primary(), Some(&member(text).image));
        }
        row.members.insert(0, member(&host));
        assert_eq!(row.primary(), Some(&member(&host).image));
        assert_eq!(row.select(&Platform::parse(other).unwrap()), Some(&member(other)));
        assert_eq!(row.select(&Platform::parse("linux/riscv64").unwrap()), None);
    }

    #[test]
    fn who_asks_for_a_platform_gets_no_other_architecture() {
        let row = IndexRow { members: vec![member("linux/arm/v7"), member("linux/arm/v6")], ..IndexRow::default() };
        assert_eq!(row.select(&Platform::parse("linux/arm64").unwrap()), None);
        assert_eq!(row.select(&Platform::parse("linux/arm").unwrap()), Some(&member("linux/arm/v7")));
        assert_eq!(row.select(&Platform::parse("linux/arm/v6").unwrap()), Some(&member("linux/arm/v6")));
    }
}
