//! Getting an image from a registry: manifest, configuration, and the layers that are not here.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use wharf_distribution::{
    Client, Credentials, Descriptor, FetchedManifest, ImageManifest, Manifest, Platform, Repository,
};
use wharf_distribution::{distinct, media_type};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::Hold;

use crate::attestations::{self, MAX_ATTESTED, Room};
use crate::config::ImageConfig;
use crate::create::{self, With};
use crate::fetch::Fetch;
use crate::images::{ImageRecord, Images, MAX_CONFIG};
use crate::index::Within;
use crate::progress::{Progress, ProgressSender};
use crate::rows::key;
use crate::{ImageError, Result};

/// Indexes that name indexes: deeper ones are a loop.
const MAX_DEPTH: u32 = 4;
/// So long a pull waits for attestations, which it can do without: the layers are here.
const ATTESTED_PATIENCE: Duration = Duration::from_secs(20);

/// Layers that are unpacked. Those that registries do not keep (`…nondistributable…`, `…foreign…`) are not: their
/// content comes from wherever the image says, and may not be given on.
const LAYER_TYPES: &[&str] = &[
    media_type::OCI_LAYER,
    media_type::OCI_LAYER_GZIP,
    media_type::OCI_LAYER_ZSTD,
    media_type::DOCKER_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

impl Images {
    /// Pulls `reference` for a platform (the host's, when none is given).
    ///
    /// What is here is neither fetched nor stored again. What a broken pull has fetched of a layer is there for the
    /// next.
    ///
    /// # Errors
    /// What the registry answers; `NoPlatform`; content that is not what its name says.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        auth: Option<Credentials>,
        registry: &Client,
        progress: ProgressSender,
    ) -> Result<ImageRecord> {
        let reference = reference.clone().tag_or_latest();
        let asked = match platform.filter(|text| !text.is_empty()) {
            Some(text) => Some(Platform::parse(text).map_err(|e| ImageError::Invalid(e.to_string()))?),
            None => None,
        };
        let wanted =
            reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), Digest::to_string);
        let say = |id: &str, status: String| drop(progress.send(Progress::new(id, status)));
        let repository = registry.repository(&reference, auth);
        let top = repository.manifest(&wanted).await?;
        say(&wanted, format!("Pulling from {}", reference.path()));
        let platform = asked.clone().unwrap_or_else(Platform::host);
        let (fetched, manifest) = image_manifest(&repository, top.clone(), &platform).await?;
        check_manifest(&reference, &manifest)?;
        let config_bytes = self.config_of(&repository, &manifest.config).await?;
        let config: ImageConfig = serde_json::from_slice(&config_bytes).map_err(ImageError::Config)?;
        create::check_config(&config_bytes, &config)?;
        check_config(&reference, &manifest, &config, asked.as_ref())?;

        let mut counted = config.rootfs.diff_ids.clone();
        counted.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
        let images = self.clone();
        let held = Arc::new(blocking(move || Ok(images.hold(&counted))).await?);
        let before = self.means(&reference.to_string(), &manifest.config.digest);
        if !self.is_whole(&manifest.config.digest) {
            self.layers_of(&repository, &manifest, &config, &progress, &held).await?;
        }
        let images = self.clone();
        let (tags, digest) = match reference.digest() {
            Some(_) => (Vec::new(), key(&reference)),
            None => (vec![key(&reference)], key(&reference.with_digest(top.digest.clone()))),
        };
        let top_digest = top.digest.clone();
        let attestations = attested(self, &repository, &top, &fetched.digest).await;
        let image = blocking(move || {
            let index = within(&top, &fetched, attestations);
            let manifest = Some((fetched.bytes.to_vec(), fetched.media_type));
            images.store_image(&config_bytes, With { tags, digest: Some(digest), manifest, index, ..With::default() })
        })
        .await?;
        say("", format!("Digest: {top_digest}"));
        let news = if before { "Image is up to date" } else { "Downloaded newer image" };
        say("", format!("Status: {news} for {}", reference.familiar()));
        Ok(image)
    }

    /// Whether an image is here with all its layers.
    fn is_whole(&self, id: &Digest) -> bool {
        self.row(id).is_ok_and(|row| row.diff_ids.iter().all(|diff_id| self.layers().contains(diff_id)))
    }

    async fn config_of(&self, repository: &Repository, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let images = self.clone();
        let id = descriptor.digest.clone();
        match blocking(move || images.config_bytes(&id)).await {
            Ok(bytes) => Ok(bytes),
            Err(_) => Ok(repository.blob_bytes(descriptor, MAX_CONFIG).await?.into()),
        }
    }

    /// Asks for the bytes of the layers that are not here before the first of them comes. Answers with how many that are,
    /// and how many the disk has left.
    async fn make_room(&self, manifest: &ImageManifest, config: &ImageConfig) -> Result<(u64, u64)> {
        let pairs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
        let missing = pairs.filter(|(_, diff_id)| !self.layers().contains(diff_id)).map(|(layer, _)| layer.size);
        // What a registry says of sizes is anything.
        let (bytes, store) = (missing.fold(0u64, u64::saturating_add), self.store().clone());
        blocking(move || {
            store.budget().require(bytes)?;
            Ok((bytes, store.free()))
        })
        .await
    }

    async fn layers_of(
        &self,
        repository: &Repository,
        manifest: &ImageManifest,
        config: &ImageConfig,
        progress: &ProgressSender,
        held: &Arc<Hold>,
    ) -> Result<()> {
        let (needed, free) = self.make_room(manifest, config).await?;
        let mut fetching = JoinSet::new();
        // The same layer may be there twice.
        for descriptor in distinct(&manifest.layers) {
            let mut pairs = manifest.layers.iter().zip(&config.rootfs.diff_ids);
            let Some((_, diff_id)) = pairs.find(|(layer, _)| layer.digest == descriptor.digest) else { continue };
            let id = descriptor.digest.short();
            if self.layers().contains(diff_id) {
                let _ = progress.send(Progress::new(id, "Already exists"));
                continue;
            }
            let _ = progress.send(Progress::new(id, "Pulling fs layer"));
            let fetch = Fetch {
                images: self.clone(),
                repository: repository.clone(),
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                progress: progress.clone(),
                held: Arc::clone(held),
            };
            fetching.spawn(fetch.run());
        }
        // The first failure ends the others: dropping the set cancels them, and what they have stays for the next
        // pull.
        while let Some(done) = fetching.join_next().await {
            done?.map_err(|error| error.with_missing(self.store(), needed, free))?;
        }
        Ok(())
    }
}

/// The index at the top, if it lists the image's manifest itself.
fn within(top: &FetchedManifest, image: &FetchedManifest, attestations: Vec<Vec<u8>>) -> Option<Within> {
    match top.parse() {
        Ok(Manifest::Index(index)) if index.manifests.iter().any(|entry| entry.digest == image.digest) => {
            Some(Within {
                bytes: top.bytes.to_vec(),
                media_type: top.media_type.clone(),
                manifest: image.digest.clone(),
                attestations,
            })
        }
        _ => None,
    }
}

/// What the index says of the image beside it. An image runs without, so what cannot be had, or not soon, is left out.
async fn attested(images: &Images, repository: &Repository, top: &FetchedManifest, image: &Digest) -> Vec<Vec<u8>> {
    let Ok(Manifest::Index(index)) = top.parse() else { return Vec::new() };
    let (mut all, mut room) = (Vec::new(), Room::default());
    let gathered = tokio::time::timeout(ATTESTED_PATIENCE, async {
        for entry in attestations::about(&index, image) {
            let own = attested_blob(images, repository, entry, true, &mut room).await?;
            for part in own.iter().flat_map(|own| attestations::parts(own, &entry.media_type)) {
                all.extend(attested_blob(images, repository, &part, false, &mut room).await?);
            }
            all.extend(own);
        }
        Ok::<_, ImageError>(())
    });
    match gathered.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("attestations of {image} cannot be had: {error}"),
        Err(_) => tracing::warn!("attestations of {image} are left out: the registry takes too long"),
    }
    all
}

/// One blob of them, which may be here.
async fn attested_blob(
    images: &Images,
    repository: &Repository,
    descriptor: &Descriptor,
    is_manifest: bool,
    room: &mut Room,
) -> Result<Option<Vec<u8>>> {
    if !room.has(descriptor) {
        return Ok(None);
    }
    let (images, own) = (images.clone(), descriptor.clone());
    let here = blocking(move || Ok(images.store().blobs().read(&own.digest, own.size).ok())).await?;
    let bytes = match here {
        Some(bytes) => bytes,
        None if is_manifest => repository.manifest(descriptor.digest.as_str()).await?.bytes.to_vec(),
        None => repository.blob_bytes(descriptor, MAX_ATTESTED).await?.to_vec(),
    };
    room.take(&bytes);
    Ok(Some(bytes))
}

/// The manifest of the platform's image, through indexes.
async fn image_manifest(
    repository: &Repository,
    mut fetched: FetchedManifest,
    platform: &Platform,
) -> Result<(FetchedManifest, ImageManifest)> {
    for _ in 0..MAX_DEPTH {
        match fetched.parse()? {
            Manifest::Image(manifest) => return Ok((fetched, manifest)),
            Manifest::Index(index) => {
                let chosen = index.select(platform).ok_or_else(|| ImageError::NoPlatform(platform.to_string()))?;
                fetched = repository.manifest(chosen.digest.as_str()).await?;
            }
        }
    }
    Err(ImageError::Invalid("the image's indexes are nested too deeply".into()))
}

/// Before anything of it is fetched: whether it is an image that can be had.
fn check_manifest(reference: &Reference, manifest: &ImageManifest) -> Result<()> {
    if !manifest.is_image() {
        return Err(ImageError::Artifact { what: reference.familiar(), kind: artifact_type(manifest) });
    }
    let unknown = manifest.layers.iter().find(|layer| !LAYER_TYPES.contains(&layer.media_type.as_str()));
    match unknown {
        None => Ok(()),
        Some(layer) => Err(ImageError::Invalid(format!(
            "layer {} has the type {}, which this engine does not unpack",
            layer.digest, layer.media_type
        ))),
    }
}

/// What an artifact says that it is (OCI image-spec, "Guidelines for Artifact Usage").
pub(crate) fn artifact_type(manifest: &ImageManifest) -> String {
    let own = manifest.artifact_type.clone().filter(|own| !own.is_empty());
    own.unwrap_or_else(|| manifest.config.media_type.clone()).chars().take(160).collect()
}

fn check_config(
    reference: &Reference,
    manifest: &ImageManifest,
    config: &ImageConfig,
    asked: Option<&Platform>,
) -> Result<()> {
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(ImageError::Invalid("the image's configuration and its manifest differ in their layers".into()));
    }
    let actual = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        ..Platform::default()
    };
    match asked {
        // An index has chosen by platform already; a single image is taken as it is unless the user insists.
        Some(asked) if asked.distance(&actual).is_none() => Err(ImageError::OtherPlatform {
            name: reference.familiar(),
            wanted: asked.to_string(),
            actual: actual.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Runs what waits for the disk beside the connections.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f).await?
}
