//! What is said of images that were built here, beside their configurations: annotations in manifests and indexes, and
//! attestations, in the form in which BuildKit stores them ("Image Attestation Storage").
//!
//! A manifest names layers in a compressed form. Where nothing is said about it by its digest, that form is made when
//! somebody pushes it, and only then; what the manifest says beside goes along.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wharf_distribution::{Descriptor, Manifest, Platform, media_type};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::Form;

use crate::attestations::{IN_TOTO, PREDICATE};
use crate::images::Images;
use crate::index::{ATTESTATION, ATTESTED, Member, join, manifest_left, platform_of, point};
use crate::names::tag_of;
use crate::passing::is_passing;
use crate::rows::{IMAGES, Row, StoredManifest, change, key};
use crate::save::index_of;
use crate::{ImageError, Result};

const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";
/// More is said of no image.
const MAX_MANIFEST: u64 = 4 << 20;

/// One image, and what is said of it.
#[derive(Clone, Debug)]
pub struct Part {
    pub image: Digest,
    /// In its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Where the index lists it.
    pub descriptor: BTreeMap<String, String>,
    /// What is stated about it: the kind, by a URI, and the statement's predicate.
    pub predicates: Vec<(String, Value)>,
}

/// What sealed images are called.
#[derive(Clone, Copy, Debug, Default)]
pub struct SealNames<'a> {
    /// Tags that lead to the index from now on.
    pub tags: &'a [String],
    /// Where it gets a name by its digest alone.
    pub repositories: &'a [Reference],
    /// Names that it has in archives, and not here: what is stated is about these, too.
    pub elsewhere: &'a [Reference],
}

impl Images {
    /// Says this of images that are here. With `indexed` they get an index, with annotations of its own, that the tags lead
    /// to from now on; its digest is the value. Without tags there is none, as an index is there as long as it has names.
    /// In repositories it gets a name by that digest alone; without an index, one image gets it by that of its manifest, which
    /// is the value then. Manifests that are made name layers in `form`, if one is given, and are pushed so.
    ///
    /// # Errors
    /// `NotFound` for an image that has gone, and what the store refuses.
    pub fn seal(
        &self,
        parts: &[Part],
        annotations: &BTreeMap<String, String>,
        indexed: bool,
        names: SealNames<'_>,
        form: Option<Form>,
    ) -> Result<Option<Digest>> {
        let SealNames { tags, repositories, elsewhere } = names;
        let tags = tags.iter().map(|tag| tag_of(tag)).collect::<Result<Vec<Reference>>>()?;
        if !indexed || (tags.is_empty() && repositories.is_empty()) {
            parts.iter().try_for_each(|part| self.annotate(&part.image, &part.annotations))?;
            let mut named = None;
            for part in parts.iter().filter(|_| form.is_some() || !repositories.is_empty()) {
                named = Some(self.make_manifest(&part.image, form, repositories)?);
            }
            return Ok(named.filter(|_| !repositories.is_empty()));
        }
        let public = tags.iter().chain(repositories).filter(|name| !is_passing(&key(name)));
        let mut subjects: Vec<Reference> = public.cloned().collect();
        for name in elsewhere.iter().cloned().map(Reference::tag_or_latest) {
            if !subjects.contains(&name) {
                subjects.push(name);
            }
        }
        let (mut entries, mut about, mut members, mut blobs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut held = self.hold(&[]);
        for part in parts {
            let image = self.get(&part.image)?;
            self.annotate(&part.image, &part.annotations)?;
            let plan = self.plan(&image, None, form)?;
            held.add(std::slice::from_ref(&plan.stored.digest));
            let platform = platform_of(&image.config);
            let mut entry =
                Descriptor::new(&plan.stored.media_type, plan.stored.digest.clone(), plan.bytes.len() as u64);
            entry.annotations.clone_from(&part.descriptor);
            entry.platform = Some(platform.clone());
            entries.push(entry);
            if !part.predicates.is_empty() {
                let (descriptor, new) = attestation(&plan.stored.digest, &platform, &subjects, &part.predicates)?;
                about.push(descriptor);
                blobs.extend(new);
            }
            let manifest = plan.stored.digest.clone();
            members.push((plan, Member { manifest, image: image.id, platform }));
        }
        entries.extend(about);
        let mut index = index_of(&entries);
        if !annotations.is_empty() {
            index["annotations"] = json!(annotations);
        }
        let digests: Vec<Digest> = blobs.iter().map(|bytes| Digest::sha256(bytes)).collect();
        held.add(&digests);
        for bytes in &blobs {
            self.store().blobs().put(bytes)?;
        }
        let _gate = self.gate();
        // The blobs before the rows that name them.
        let index = self.store().blobs().put(index.to_string().as_bytes())?;
        self.store().write(|tx| {
            for (plan, member) in &members {
                let mut before = None;
                let found = change(tx, &member.image, |row| before = row.manifest.replace(plan.stored.clone()))?;
                if !found {
                    return Err(ImageError::NotFound(member.image.to_string()));
                }
                if let Some(old) = before.filter(|old| *old != plan.stored) {
                    manifest_left(tx, &old.digest)?;
                }
            }
            let by_digest = repositories.iter().map(|repository| repository.with_digest(index.clone()));
            let names: Vec<String> = tags.iter().cloned().chain(by_digest).map(|name| key(&name)).collect();
            let names: Vec<&String> = names.iter().collect();
            for (_, member) in &members {
                join(tx, &index, media_type::OCI_INDEX, member.clone(), &digests, &names)?;
            }
            Ok(())
        })?;
        Ok(Some(index))
    }

    /// Makes an image's manifest, which names its layers in this form, and gives the image a name in repositories by its digest.
    fn make_manifest(&self, id: &Digest, form: Option<Form>, repositories: &[Reference]) -> Result<Digest> {
        let plan = self.plan(&self.get(id)?, None, form)?;
        let _gate = self.gate();
        self.store().write(|tx| {
            let mut before = None;
            let found = change(tx, id, |row| before = row.manifest.replace(plan.stored.clone()))?;
            if !found {
                return Err(ImageError::NotFound(id.to_string()));
            }
            if let Some(old) = before.filter(|old| *old != plan.stored) {
                manifest_left(tx, &old.digest)?;
            }
            repositories
                .iter()
                .try_for_each(|repository| point(tx, &key(&repository.with_digest(plan.stored.digest.clone())), id))
        })?;
        Ok(plan.stored.digest.clone())
    }

    /// Makes an image's manifest say this, and nothing else. One that came from elsewhere, or has gone there, stays as it is
    /// when nothing is to be said.
    fn annotate(&self, id: &Digest, annotations: &BTreeMap<String, String>) -> Result<()> {
        let row: Row = self.row(id)?;
        let before = row.manifest.as_ref().map(|stored| self.annotations_of(stored)).unwrap_or_default();
        if before == *annotations || (annotations.is_empty() && row.digests().next().is_some()) {
            return Ok(());
        }
        if annotations.is_empty() {
            return self.put_manifest(id, None);
        }
        let mut manifest = self.plain_manifest(&self.get(id)?)?;
        manifest["annotations"] = json!(annotations);
        let bytes = serde_json::to_vec(&manifest).map_err(ImageError::Config)?;
        let _held = self.hold(&[Digest::sha256(&bytes)]);
        self.put_manifest(id, Some(bytes))
    }

    fn put_manifest(&self, id: &Digest, bytes: Option<Vec<u8>>) -> Result<()> {
        let _gate = self.gate();
        let stored = match bytes {
            Some(bytes) => Some(StoredManifest {
                digest: self.store().blobs().put(&bytes)?,
                media_type: media_type::OCI_MANIFEST.into(),
            }),
            None => None,
        };
        self.store().write(|tx| {
            let row: Option<Row> = tx.get(IMAGES, id.as_str())?;
            let mut row = row.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
            let old = std::mem::replace(&mut row.manifest, stored.clone());
            tx.put(IMAGES, id.as_str(), &row)?;
            old.filter(|old| Some(old) != stored.as_ref()).iter().try_for_each(|old| manifest_left(tx, &old.digest))
        })
    }

    /// What a manifest says beside what it names; nothing of one that is not here.
    pub(crate) fn annotations_of(&self, stored: &StoredManifest) -> BTreeMap<String, String> {
        let bytes = self.store().blobs().read(&stored.digest, MAX_MANIFEST).unwrap_or_default();
        match Manifest::parse(&bytes, &stored.media_type) {
            Ok(Manifest::Image(manifest)) => manifest.annotations,
            _ => BTreeMap::new(),
        }
    }
}

/// The manifest of statements about another one, with what it names.
fn attestation(
    manifest: &Digest,
    platform: &Platform,
    tags: &[Reference],
    predicates: &[(String, Value)],
) -> Result<(Descriptor, Vec<Vec<u8>>)> {
    let digest = Map::from_iter([(manifest.algorithm().to_string(), Value::from(manifest.hex()))]);
    let subject = |name: String| json!({ "name": name, "digest": digest });
    let mut subjects: Vec<Value> = tags.iter().map(|tag| subject(package_url(tag, &platform.to_string()))).collect();
    if subjects.is_empty() {
        // As BuildKit calls what has no name.
        subjects.push(subject("_".into()));
    }
    let (mut layers, mut diff_ids, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, predicate) in predicates {
        let statement =
            json!({ "_type": STATEMENT, "predicateType": kind, "subject": subjects, "predicate": predicate });
        let bytes = serde_json::to_vec(&statement).map_err(ImageError::Config)?;
        let mut layer = Descriptor::new(IN_TOTO, Digest::sha256(&bytes), bytes.len() as u64);
        layer.annotations.insert(PREDICATE.into(), kind.clone());
        diff_ids.push(layer.digest.clone());
        layers.push(layer);
        blobs.push(bytes);
    }
    let config = json!({
        "architecture": "unknown",
        "os": "unknown",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = serde_json::to_vec(&config).map_err(ImageError::Config)?;
    let described = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(&config), config.len() as u64);
    blobs.push(config);
    let bytes = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": described,
        "layers": layers,
    }));
    let bytes = bytes.map_err(ImageError::Config)?;
    let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(&bytes), bytes.len() as u64);
    descriptor.annotations.insert(ATTESTATION.into(), "attestation-manifest".into());
    descriptor.annotations.insert(ATTESTED.into(), manifest.to_string());
    let unknown = "unknown".to_owned();
    descriptor.platform = Some(Platform { os: unknown.clone(), architecture: unknown, ..Platform::default() });
    blobs.push(bytes);
    Ok((descriptor, blobs))
}

/// An image as a package URL (purl-spec, "docker").
pub fn package_url(reference: &Reference, platform: &str) -> String {
    let name = reference.clone().tag_or_latest();
    let platform = platform.replace('/', "%2F");
    let familiar = name.familiar_name();
    match (name.tag(), name.digest()) {
        (Some(tag), _) => format!("pkg:docker/{familiar}@{tag}?platform={platform}"),
        (None, Some(digest)) => format!("pkg:docker/{familiar}?digest={digest}&platform={platform}"),
        (None, None) => format!("pkg:docker/{familiar}?platform={platform}"),
    }
}
