//! Getting an image from a registry: manifest, configuration, layers; layers side by side, each unpacked while it comes.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use wharf_distribution::{
    Client, Credentials, Descriptor, FetchedManifest, ImageManifest, Manifest, Platform, Repository,
};
use wharf_distribution::{distinct, media_type};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::LayerBlob;

use crate::config::ImageConfig;
use crate::images::{ImageRecord, Images, MAX_CONFIG, StoredManifest};
use crate::progress::{Progress, ProgressSender};
use crate::{ImageError, Result};

/// Layers that come at once; Docker's number.
const AT_ONCE: usize = 3;
/// Indexes that name indexes: deeper ones are a loop.
const MAX_DEPTH: u32 = 4;
/// Chunks between the connection, the disk and the unpacking: enough that none of them waits for a hiccup.
const CHUNKS: usize = 64;
/// A progress message for each so many bytes.
const STEP: u64 = 512 << 10;

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
        let reference =
            if reference.digest().is_some() { reference.clone() } else { reference.clone().tag_or_latest() };
        let platform = match platform.filter(|text| !text.is_empty()) {
            Some(text) => Platform::parse(text).map_err(|e| ImageError::Invalid(e.to_string()))?,
            None => Platform::host(),
        };
        let wanted =
            reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), Digest::to_string);
        let say = |id: &str, status: String| drop(progress.send(Progress::new(id, status)));
        let repository = registry.repository(&reference, auth);
        let top = repository.manifest(&wanted).await?;
        say(&wanted, format!("Pulling from {}", reference.path()));
        let (fetched, manifest) = image_manifest(&repository, top.clone(), &platform).await?;
        if !manifest.is_image() {
            return Err(ImageError::Invalid(format!(
                "{reference} is no image but an artifact of type {}",
                manifest.config.media_type
            )));
        }
        let config_bytes = repository.blob_bytes(&manifest.config, MAX_CONFIG).await?;
        let config: ImageConfig = serde_json::from_slice(&config_bytes).map_err(ImageError::Config)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::Invalid(
                "the image's configuration and its manifest differ in their layers".into(),
            ));
        }
        self.layers_of(&repository, &manifest, &config, &progress).await?;

        let images = self.clone();
        let before = self.by_name(&reference)?;
        let target = reference.clone();
        let (image, digest) = spawn(move || {
            let manifest = images.store().blobs().put(&fetched.bytes)?;
            let stored = StoredManifest { digest: manifest, media_type: fetched.media_type };
            let tags: Vec<Reference> = if target.digest().is_none() { vec![target.clone()] } else { Vec::new() };
            let image = images.create_raw(&config_bytes, None, &tags, Some(stored))?;
            images.set_digest(&target, &top.digest, &image.id)?;
            Ok((images.get(&image.id)?, top.digest))
        })
        .await?;
        say("", format!("Digest: {digest}"));
        let news = if before.as_ref() == Some(&image.id) { "Image is up to date" } else { "Downloaded newer image" };
        say("", format!("Status: {news} for {}", reference.familiar()));
        Ok(image)
    }

    async fn layers_of(
        &self,
        repository: &Repository,
        manifest: &ImageManifest,
        config: &ImageConfig,
        progress: &ProgressSender,
    ) -> Result<()> {
        let pairs: Vec<(&Descriptor, &Digest)> = manifest.layers.iter().zip(&config.rootfs.diff_ids).collect();
        // The same layer may be there twice.
        let once = distinct(&manifest.layers);
        let mut fetching = JoinSet::new();
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        for descriptor in once {
            let Some((_, diff_id)) = pairs.iter().find(|(d, _)| d.digest == descriptor.digest) else { continue };
            let id = descriptor.digest.short();
            if self.layers().contains(diff_id) {
                let _ = progress.send(Progress::new(id, "Already exists"));
                continue;
            }
            check_layer(descriptor)?;
            let _ = progress.send(Progress::new(id, "Pulling fs layer"));
            let task = Fetch {
                images: self.clone(),
                repository: repository.clone(),
                descriptor: descriptor.clone(),
                diff_id: (*diff_id).clone(),
                progress: progress.clone(),
            };
            let slots = Arc::clone(&slots);
            fetching.spawn(async move {
                let _slot = slots.acquire_owned().await;
                task.run().await
            });
        }
        // The first failure ends the others: dropping the set cancels them, and what they have stays for the next pull.
        while let Some(done) = fetching.join_next().await {
            done.map_err(|e| ImageError::Invalid(format!("a layer's task failed: {e}")))??;
        }
        Ok(())
    }
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

fn check_layer(descriptor: &Descriptor) -> Result<()> {
    let known = [
        media_type::OCI_LAYER,
        media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    if known.contains(&descriptor.media_type.as_str()) {
        return Ok(());
    }
    Err(ImageError::Invalid(format!(
        "layer {} has the type {}, which this engine does not unpack",
        descriptor.digest, descriptor.media_type
    )))
}

/// One layer on its way.
struct Fetch {
    images: Images,
    repository: Repository,
    descriptor: Descriptor,
    diff_id: Digest,
    progress: ProgressSender,
}

impl Fetch {
    fn say(&self, status: &str) {
        let _ = self.progress.send(Progress::new(self.descriptor.digest.short(), status));
    }

    async fn run(self) -> Result<()> {
        let (images, digest) = (self.images.clone(), self.descriptor.digest.clone());
        if self.images.store().blobs().contains(&digest) {
            // Fetched whole before, and not unpacked.
            self.say("Download complete");
            let (diff_id, media_type) = (self.diff_id.clone(), self.descriptor.media_type.clone());
            spawn(move || {
                let file = images.store().blobs().reader(&digest)?;
                unpack(&images, file, &media_type, &diff_id)
            })
            .await?;
        } else {
            self.fetch().await?;
        }
        let blob = LayerBlob {
            digest: self.descriptor.digest.clone(),
            size: self.descriptor.size,
            media_type: self.descriptor.media_type.clone(),
        };
        let (images, diff_id) = (self.images.clone(), self.diff_id.clone());
        spawn(move || Ok(images.layers().note_blob(&diff_id, blob)?)).await?;
        self.say("Pull complete");
        Ok(())
    }

    /// Fetches, stores and unpacks in one pass: the connection feeds a thread that writes and hashes, which feeds one
    /// that decompresses, unpacks and hashes again.
    async fn fetch(&self) -> Result<()> {
        let (images, digest) = (self.images.clone(), self.descriptor.digest.clone());
        let mut writer = spawn(move || Ok(images.store().blobs().resume(&digest)?)).await?;
        let offset = writer.offset();
        let mut stream = self.repository.blob(&self.descriptor, offset).await?;
        let (to_disk, mut chunks) = mpsc::channel::<Bytes>(CHUNKS);
        let (to_unpack, unpacking): (SyncSender<Bytes>, Receiver<Bytes>) = sync_channel(CHUNKS);
        let path = writer.path().to_owned();
        let storing = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                writer.append(&chunk)?;
                // An unpacking that has failed says so itself; the blob is worth keeping all the same.
                let _ = to_unpack.send(chunk);
            }
            Ok::<_, ImageError>(writer)
        });
        let (images, media_type, diff_id) =
            (self.images.clone(), self.descriptor.media_type.clone(), self.diff_id.clone());
        let unpacked = tokio::task::spawn_blocking(move || {
            let before: Box<dyn Read> = match offset {
                0 => Box::new(io::empty()),
                some => {
                    let file =
                        std::fs::File::open(&path).map_err(|e| ImageError::Io("cannot go on with a layer", e))?;
                    Box::new(file.take(some))
                }
            };
            unpack(&images, before.chain(Chunks { chunks: unpacking, current: Bytes::new() }), &media_type, &diff_id)
        });
        let (id, total) = (self.descriptor.digest.short().to_owned(), self.descriptor.size);
        let mut have = offset;
        let mut told = offset;
        let received = loop {
            match stream.chunk().await {
                Ok(Some(chunk)) => {
                    have += chunk.len() as u64;
                    if to_disk.send(chunk).await.is_err() {
                        break Ok(());
                    }
                    if have - told >= STEP {
                        told = have;
                        let _ = self.progress.send(Progress::bytes(&id, "Downloading", have, total));
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        drop(to_disk);
        let joined = |e: tokio::task::JoinError| ImageError::Invalid(format!("a layer's task failed: {e}"));
        let writer = storing.await.map_err(joined)??;
        let finished = match received {
            Ok(()) => spawn(move || Ok(writer.finish()?)).await.map(drop),
            // What has come is kept for the next pull.
            Err(error) => Err(error.into()),
        };
        if finished.is_ok() {
            self.say("Download complete");
            let _ = self.progress.send(Progress::bytes(&id, "Extracting", total, total));
        }
        // Whatever became of the blob: nothing of this pull may still be at work when its error is told.
        let unpacked = unpacked.await.map_err(joined)?;
        finished?;
        unpacked
    }
}

fn unpack(images: &Images, input: impl Read, media_type: &str, diff_id: &Digest) -> Result<()> {
    let input = io::BufReader::with_capacity(1 << 18, input);
    let fail = |e| ImageError::Io("the layer cannot be decompressed", e);
    let mut tar: Box<dyn Read> = if media_type.ends_with("gzip") {
        Box::new(flate2::bufread::MultiGzDecoder::new(input))
    } else if media_type.ends_with("zstd") {
        Box::new(zstd::Decoder::with_buffer(input).map_err(fail)?)
    } else {
        Box::new(input)
    };
    images.layers().import(&mut tar, Some(diff_id))?;
    Ok(())
}

/// Chunks as a stream to read; it ends when the sender has gone.
struct Chunks {
    chunks: Receiver<Bytes>,
    current: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.recv() {
                Ok(chunk) => self.current = chunk,
                Err(_) => return Ok(0),
            }
        }
        let count = bytes.len().min(self.current.len());
        bytes[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

/// Runs what waits for the disk beside the connections.
pub(crate) async fn spawn<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done,
        Err(error) => Err(ImageError::Invalid(format!("a task failed: {error}"))),
    }
}
