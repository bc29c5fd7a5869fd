//! Images from an archive: Docker's of every age, or an OCI layout; plain or compressed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde::Deserialize;
use wharf_distribution::{Descriptor, ImageManifest, Index, MAX_LAYERS, Manifest, Platform, media_type};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::{LayerBlob, SnapshotError};

use crate::attestations;
use crate::config::ImageConfig;
use crate::create::{With, check_config};
use crate::images::Images;
use crate::index::{Within, fits, is_attestation, parse_platform, platform_of};
use crate::intake::Intake;
use crate::load_old;
use crate::names::tag_of;
use crate::progress::Progress;
use crate::pull::artifact_type;
use crate::rows::key;
use crate::{ImageError, Result, decompressed};

/// Indexes that name indexes: deeper ones are a loop.
const MAX_DEPTH: u32 = 4;
/// Layers that were put aside and are unpacked at once: each needs a processor, and memory of its decompressor.
const AT_ONCE: usize = 4;
/// More manifests are no archive of anybody's: an index can list the same ones again and again.
const MAX_MANIFESTS: usize = 10_000;

/// One image of a Docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    /// The ID of another one of them, which this was made from.
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An image in an archive.
struct Found<'a> {
    config: Vec<u8>,
    /// Where its layers are, base first.
    layers: Vec<String>,
    tags: Vec<String>,
    /// The manifest that names it, and its bytes, where there is one.
    manifest: Option<(&'a ImageManifest, &'a Descriptor, &'a [u8])>,
    /// The index that lists it among other platforms.
    index: Option<Within>,
}

/// An archive that is being loaded.
pub(crate) struct Loading<'a> {
    pub(crate) images: &'a Images,
    pub(crate) intake: Intake<'a>,
    pub(crate) progress: &'a dyn Fn(Progress),
    /// What is wanted of images of several platforms; all, if nothing is.
    platforms: &'a [Platform],
    pub(crate) lines: Vec<String>,
    /// How many images have come, and how many manifests were looked at for them.
    pub(crate) count: usize,
    looked: usize,
    /// Which images say that they were made from which.
    parents: Vec<(Digest, Digest)>,
    /// What else is in the archive.
    artifact: Option<String>,
}

impl Images {
    /// Loads all images of an archive, and answers with a line for each name, as Docker has it. Layers that are here
    /// are not stored again. Of images of several platforms all come that are in the archive, or with `platforms` (as
    /// `linux/arm64`) those.
    ///
    /// # Errors
    /// For an archive that is none, hostile or damaged, and when it has no image for the platforms. Images that were
    /// complete before stay.
    pub fn load(&self, input: impl Read, platforms: &[String], progress: &dyn Fn(Progress)) -> Result<Vec<String>> {
        let platforms: Vec<Platform> = platforms.iter().map(|text| parse_platform(text)).collect::<Result<_>>()?;
        let intake = Intake::read(self, decompressed(input)?, progress)?;
        let mut loading = Loading {
            images: self,
            intake,
            progress,
            platforms: &platforms,
            lines: Vec::new(),
            count: 0,
            looked: 0,
            parents: Vec::new(),
            artifact: None,
        };
        match loading.all().and_then(|()| loading.check_some()) {
            Ok(()) => {
                loading.intake.end()?;
                Ok(loading.lines)
            }
            Err(error) => {
                loading.intake.undo()?;
                Err(error)
            }
        }
    }
}

impl Loading<'_> {
    fn all(&mut self) -> Result<()> {
        let docker = self.intake.small("manifest.json")?;
        let oci = self.intake.small("index.json")?;
        let index = match &oci {
            // Of other forms than an OCI index it is none of ours where the archive is one of Docker's.
            Some(bytes) => match Manifest::parse(bytes, media_type::OCI_INDEX) {
                Ok(Manifest::Index(index)) => Some(index),
                _ if docker.is_some() => None,
                Ok(Manifest::Image(_)) => {
                    return Err(ImageError::Invalid("the archive's index.json is no OCI index".into()));
                }
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        match (docker, index) {
            // Docker's own list knows no platforms.
            (_, Some(index)) if index.manifests.iter().any(|entry| media_type::is_index(&entry.media_type)) => {
                self.top(&index)
            }
            (Some(bytes), _) => {
                let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes)
                    .map_err(|e| ImageError::Invalid(format!("the archive's manifest.json is damaged: {e}")))?;
                if entries.len() > MAX_MANIFESTS {
                    return Err(too_many());
                }
                let manifests = self.manifests_by_config()?;
                entries.into_iter().try_for_each(|entry| self.docker(entry, &manifests))?;
                self.images.note_parents(&self.parents)
            }
            (None, Some(index)) => self.top(&index),
            (None, None) if self.intake.has(load_old::NAMES) => self.old(),
            (None, None) => {
                let text = "invalid archive: does not contain a manifest.json or an index.json";
                Err(ImageError::Invalid(text.into()))
            }
        }
    }

    /// What was asked for and is not there is an error.
    fn check_some(&self) -> Result<()> {
        if self.count > 0 {
            return Ok(());
        }
        if let Some(kind) = self.artifact.clone() {
            return Err(ImageError::Artifact { what: "what is in the archive".into(), kind });
        }
        if self.platforms.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self.platforms.iter().map(ToString::to_string).collect();
        Err(ImageError::NotInArchive(names.join(", ")))
    }

    /// Whether an image of this platform is wanted.
    fn wants(&self, platform: &Platform) -> bool {
        self.platforms.is_empty() || self.platforms.iter().any(|asked| fits(asked, platform))
    }

    fn docker(&mut self, entry: DockerEntry, manifests: &BTreeMap<Digest, Descriptor>) -> Result<()> {
        let config = self.intake.small(&entry.config)?;
        let missing = || ImageError::Invalid(format!("the archive has no configuration {}", entry.config));
        let config = config.ok_or_else(missing)?;
        let (layers, tags) = (entry.layers.unwrap_or_default(), entry.repo_tags.unwrap_or_default());
        // The archive may be an OCI layout too, with the manifest that the image came with.
        let named = match manifests.get(&Digest::sha256(&config)) {
            Some(descriptor) => self.manifest(descriptor)?.map(|(manifest, bytes)| (manifest, descriptor, bytes)),
            None => None,
        };
        let manifest = match &named {
            Some((Manifest::Image(manifest), descriptor, bytes)) => Some((manifest, *descriptor, bytes.as_slice())),
            _ => None,
        };
        let (id, before) = (Digest::sha256(&config), self.count);
        self.image(Found { config, layers, tags, manifest, index: None })?;
        let parent = entry.parent.as_deref().and_then(|text| Digest::parse(text).ok());
        self.parents.extend(parent.filter(|_| self.count > before).map(|parent| (id, parent)));
        Ok(())
    }

    /// The manifests that `index.json` names, by their configurations. Of other forms than an OCI index it is none of ours.
    fn manifests_by_config(&self) -> Result<BTreeMap<Digest, Descriptor>> {
        let (mut all, mut seen) = (BTreeMap::new(), BTreeSet::new());
        let Some(bytes) = self.intake.small("index.json")? else { return Ok(all) };
        let Ok(Manifest::Index(index)) = Manifest::parse(&bytes, media_type::OCI_INDEX) else { return Ok(all) };
        for descriptor in index.manifests {
            if !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            let Some(bytes) = self.intake.small(&blob(&descriptor.digest))? else { continue };
            if let Ok(Manifest::Image(manifest)) = Manifest::parse(&bytes, &descriptor.media_type) {
                all.entry(manifest.config.digest).or_insert(descriptor);
            }
        }
        Ok(all)
    }

    /// The entries of `index.json`: each is an image.
    fn top(&mut self, index: &Index) -> Result<()> {
        for descriptor in index.manifests.iter().filter(|entry| !is_attestation(entry)) {
            let annotation = |key: &str| descriptor.annotations.get(key).map(String::as_str);
            // The second is a tag alone, by the specification; tools that write a whole name mean it.
            let name = annotation("io.containerd.image.name")
                .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|text| text.contains([':', '/'])));
            match self.manifest(descriptor)? {
                Some((Manifest::Index(below), bytes)) => self.platforms_of(&below, descriptor, &bytes, name)?,
                Some((Manifest::Image(manifest), bytes)) => {
                    self.oci(&manifest, descriptor, &bytes, name, None)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    fn manifest(&mut self, descriptor: &Descriptor) -> Result<Option<(Manifest, Vec<u8>)>> {
        self.looked += 1;
        if self.looked > MAX_MANIFESTS {
            return Err(too_many());
        }
        // Other platforms of an image may be left out.
        let Some(bytes) = self.intake.small(&blob(&descriptor.digest))? else { return Ok(None) };
        verify(&bytes, &descriptor.digest)?;
        Ok(Some((Manifest::parse(&bytes, &descriptor.media_type)?, bytes)))
    }

    /// One image of several platforms: those that the archive has.
    fn platforms_of(&mut self, index: &Index, top: &Descriptor, bytes: &[u8], name: Option<&str>) -> Result<()> {
        let (mut here, mut other) = (0, None);
        for entry in index.manifests.iter().filter(|entry| !is_attestation(entry)) {
            // What another system's image is for is known before it is looked at.
            if entry.platform.as_ref().is_some_and(|platform| !platform.os.is_empty() && platform.os != "linux") {
                other = entry.platform.clone();
                continue;
            }
            match self.manifest(entry)? {
                Some((Manifest::Image(manifest), own)) if self.is_whole(&manifest) => {
                    let within = Within {
                        bytes: bytes.to_vec(),
                        media_type: top.media_type.clone(),
                        manifest: entry.digest.clone(),
                        attestations: attestations::collect(index, &entry.digest, &mut |descriptor| {
                            let is_small = descriptor.size <= crate::images::MAX_CONFIG;
                            if is_small { self.intake.small(&blob(&descriptor.digest)) } else { Ok(None) }
                        })?,
                    };
                    here += usize::from(self.oci(&manifest, entry, &own, name, Some(within))?);
                }
                // An index in an index is the image of a platform only by its own choice.
                Some((Manifest::Index(below), _)) => here += self.nested(&below, name, 2)?,
                Some((Manifest::Image(_), _)) | None => {}
            }
        }
        match other {
            _ if here > 0 || !self.platforms.is_empty() => Ok(()),
            Some(platform) => Err(ImageError::Invalid(format!(
                "image operating system {:?} cannot be used on this platform",
                platform.os
            ))),
            None => Err(ImageError::Invalid(format!("the archive has no image of the index {}", top.digest))),
        }
    }

    /// The image for this host of an index deep down.
    fn nested(&mut self, index: &Index, name: Option<&str>, depth: u32) -> Result<usize> {
        if depth >= MAX_DEPTH {
            return Err(ImageError::Invalid("the archive's indexes are nested too deeply".into()));
        }
        let Some(descriptor) = index.select(&Platform::host()) else { return Ok(0) };
        match self.manifest(descriptor)? {
            Some((Manifest::Index(below), _)) => self.nested(&below, name, depth + 1),
            Some((Manifest::Image(manifest), bytes)) => {
                Ok(usize::from(self.oci(&manifest, descriptor, &bytes, name, None)?))
            }
            None => Ok(0),
        }
    }

    /// Whether the archive has all that a manifest names, or we have.
    fn is_whole(&self, manifest: &ImageManifest) -> bool {
        let has = |digest: &Digest| self.intake.has(&blob(digest));
        has(&manifest.config.digest) && manifest.layers.iter().all(|layer| has(&layer.digest))
    }

    /// Takes an image in, if it is one and is wanted, and tells which.
    fn oci(
        &mut self,
        manifest: &ImageManifest,
        descriptor: &Descriptor,
        bytes: &[u8],
        name: Option<&str>,
        index: Option<Within>,
    ) -> Result<bool> {
        if !manifest.is_image() {
            self.artifact = Some(artifact_type(manifest));
            return Ok(false);
        }
        let config = self.intake.small(&blob(&manifest.config.digest))?;
        let config = config.ok_or_else(|| ImageError::Invalid("the archive has no configuration".into()))?;
        verify(&config, &manifest.config.digest)?;
        let found = Found {
            config,
            layers: manifest.layers.iter().map(|layer| blob(&layer.digest)).collect(),
            tags: name.map(str::to_owned).into_iter().collect(),
            manifest: Some((manifest, descriptor, bytes)),
            index,
        };
        let before = self.count;
        self.image(found)?;
        Ok(self.count > before)
    }

    fn image(&mut self, found: Found<'_>) -> Result<()> {
        let config: ImageConfig = serde_json::from_slice(&found.config).map_err(ImageError::Config)?;
        check_config(&found.config, &config)?;
        if !self.wants(&platform_of(&config)) {
            return Ok(());
        }
        self.count += 1;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != found.layers.len() {
            return Err(ImageError::Invalid("invalid manifest, layers length mismatch".into()));
        }
        if diff_ids.len() > MAX_LAYERS {
            return Err(ImageError::Invalid(format!("the image has more than {MAX_LAYERS} layers")));
        }
        let tags = found.tags.iter().map(|tag| tag_of(tag)).collect::<Result<Vec<Reference>>>()?;
        let _held = self.images.hold(diff_ids);
        self.layers(diff_ids, &found.layers)?;
        let mut with = With { tags: tags.iter().map(key).collect(), ..With::default() };
        let blobs: Vec<Digest> = found
            .manifest
            .iter()
            .flat_map(|(manifest, ..)| &manifest.layers)
            .map(|layer| layer.digest.clone())
            .collect();
        let _held_blobs = self.images.hold(&blobs);
        // `manifest.json` may name other files as the layers: then the manifest's blobs are not what was unpacked.
        let same = |manifest: &ImageManifest| manifest.layers.iter().map(|layer| blob(&layer.digest)).eq(found.layers);
        if let Some((manifest, descriptor, bytes)) = found.manifest
            && same(manifest)
        {
            with.manifest = self.keep_compressed(manifest, descriptor, bytes, diff_ids)?;
        }
        let id = Digest::sha256(&found.config);
        let is_platform = found.index.is_some();
        with.index = found.index;
        for tag in &tags {
            // Another platform of the same index keeps its name.
            let shared = self.images.index_of_name(&key(tag))?.map(|(digest, _)| digest);
            let shared = shared.is_some() && shared == with.index.as_ref().map(|index| Digest::sha256(&index.bytes));
            if !shared {
                self.tell_renamed(tag, &id)?;
            }
        }
        self.images.store_image(&found.config, with)?;
        if tags.is_empty() {
            self.lines.push(format!("Loaded image ID: {id}"));
        }
        for line in tags.iter().map(|tag| format!("Loaded image: {}", tag.familiar())) {
            // Once for all of its platforms.
            if !is_platform || !self.lines.contains(&line) {
                self.lines.push(line);
            }
        }
        Ok(())
    }

    /// Says of a name that it meant another image.
    pub(crate) fn tell_renamed(&mut self, tag: &Reference, id: &Digest) -> Result<()> {
        if let Some(before) = self.images.by_name(tag)?.filter(|before| before != id) {
            let name = tag.familiar();
            self.lines.push(format!(
                "The image {name} already exists, renaming the old one with ID {before} to empty string"
            ));
        }
        Ok(())
    }

    /// Makes what was put aside layers, beside each other.
    fn layers(&mut self, diff_ids: &[Digest], paths: &[String]) -> Result<()> {
        let layers = self.images.layers().clone();
        let mut aside: Vec<(&Digest, &String)> = Vec::new();
        for (diff_id, path) in diff_ids.iter().zip(paths) {
            match self.intake.layer_at(path)? {
                Some(found) if found != *diff_id => {
                    return Err(SnapshotError::WrongDiffId { expected: diff_id.clone(), found }.into());
                }
                // As Docker: not a word of what is here.
                _ if layers.contains(diff_id) || aside.iter().any(|(known, _)| *known == diff_id) => {}
                _ => aside.push((diff_id, path)),
            }
        }
        aside.iter().for_each(|(diff_id, _)| self.intake.note_new(diff_id));
        let tell = |diff_id: &Digest, have, size| {
            (self.progress)(Progress::bytes(diff_id.short(), "Loading layer", have, size));
        };
        for some in aside.chunks(AT_ONCE) {
            let files = some.iter().map(|(diff_id, path)| {
                let file = self.intake.open(path)?;
                let size = file.metadata().map_or(0, |found| found.len());
                tell(diff_id, 0, size);
                Ok((*diff_id, file, size))
            });
            let files: Vec<_> = files.collect::<Result<_>>()?;
            std::thread::scope(|scope| {
                let making: Vec<_> = files
                    .into_iter()
                    .map(|(diff_id, file, size)| {
                        let layers = &layers;
                        let import = move || -> Result<()> {
                            let mut tar = decompressed(file)?;
                            layers.import(&mut tar, Some(diff_id)).map(drop).map_err(ImageError::from)
                        };
                        (diff_id, size, scope.spawn(import))
                    })
                    .collect();
                let early = || ImageError::Invalid("a layer's thread has ended too early".into());
                for (diff_id, size, made) in making {
                    made.join().map_err(|_| early())??;
                    tell(diff_id, size, size);
                }
                Ok::<_, ImageError>(())
            })?;
        }
        Ok(())
    }

    /// Keeps a manifest with the compressed layers that it names, so that a push gives it on as it came. With plain
    /// layers there is nothing to keep: the next push compresses them.
    fn keep_compressed(
        &self,
        manifest: &ImageManifest,
        descriptor: &Descriptor,
        bytes: &[u8],
        diff_ids: &[Digest],
    ) -> Result<Option<(Vec<u8>, String)>> {
        let compressed = |layer: &Descriptor| layer.media_type.ends_with("gzip") || layer.media_type.ends_with("zstd");
        if !manifest.layers.iter().all(compressed) {
            return Ok(None);
        }
        let blobs = self.images.store().blobs();
        for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
            if !blobs.contains(&layer.digest) {
                let mut writer = blobs.writer(Some(&layer.digest))?;
                let copied = io::copy(&mut self.intake.open(&blob(&layer.digest))?, &mut writer);
                copied.map_err(|e| ImageError::Io("cannot store a layer", e))?;
                writer.finish()?;
            }
            let (digest, media_type) = (layer.digest.clone(), layer.media_type.clone());
            self.images.layers().note_blob(diff_id, LayerBlob { digest, size: layer.size, media_type })?;
        }
        Ok(Some((bytes.to_vec(), descriptor.media_type.clone())))
    }
}

fn too_many() -> ImageError {
    ImageError::Invalid(format!("the archive lists more than {MAX_MANIFESTS} manifests"))
}

/// Where an OCI layout has a blob.
fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn verify(bytes: &[u8], expected: &Digest) -> Result<()> {
    if Digest::of(expected.algorithm(), bytes) == *expected {
        return Ok(());
    }
    Err(ImageError::Invalid(format!("blob {expected} of the archive is damaged")))
}
