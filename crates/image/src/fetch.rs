//! One layer on its way: fetched (`transfer`), stored (`landing`) and unpacked in one pass.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokio::sync::{OwnedMutexGuard, mpsc};
use wharf_archive::decompressed;
use wharf_distribution::{Descriptor, Repository};
use wharf_reference::Digest;
use wharf_snapshot::{Hold, LayerBlob, SnapshotError};

use crate::images::Images;
use crate::landing::{Chunks, Fate, Landing};
use crate::progress::{Progress, ProgressSender};
use crate::pull::blocking;
use crate::transfer::{Room, Transfer};
use crate::{ErrorKind, ImageError, Result};

/// Chunks between the connection and the disk, which are small where the net is what all wait for.
const CHUNKS: usize = 64;
/// Chunks between the disk and the unpacking, of up to some 400 KiB: each layer that is unpacked may have as many.
const UNPACKED: usize = 8;

/// Held by every thread that works on the layer: when a pull is broken off they end a moment later than it, and the
/// next one waits for them.
pub(crate) type Flight = Arc<OwnedMutexGuard<()>>;

pub(crate) struct Fetch {
    pub(crate) images: Images,
    pub(crate) repository: Repository,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) progress: ProgressSender,
    /// The pull's own hold on the blob.
    pub(crate) held: Arc<Hold>,
}

impl Fetch {
    fn say(&self, status: &str) {
        let _ = self.progress.send(Progress::new(self.descriptor.digest.short(), status));
    }

    pub(crate) async fn run(self) -> Result<()> {
        let digest = self.descriptor.digest.clone();
        let flight = Arc::new(self.images.flights().board(&digest).await);
        if self.images.layers().contains(&self.diff_id) {
            // Another pull has brought it meanwhile.
            self.say("Pull complete");
            return Ok(());
        }
        if self.images.store().blobs().size(&digest) == Some(self.descriptor.size) {
            self.unpack_stored(flight).await?;
        } else {
            self.fetch_and_again(&flight).await?;
        }
        self.say("Pull complete");
        Ok(())
    }

    /// A host that lost its power may have counted bytes that were never written: where some were here before and the
    /// whole is wrong, it is fetched once more from nothing. What a mirror gave and is wrong comes from the next host.
    /// What is what its name says and no layer all the same, no host has another of.
    async fn fetch_and_again(&self, flight: &Flight) -> Result<()> {
        let digest = &self.descriptor.digest;
        let mut damaged = false;
        loop {
            let mut attempt = Attempt::default();
            let error = match self.fetch(flight, &mut attempt).await {
                Ok(()) => return Ok(()),
                Err(error) if attempt.verified => return Err(error),
                Err(error) => error,
            };
            let wrong = error.kind() == ErrorKind::Invalid;
            if wrong && self.repository.refuse(digest) {
                continue;
            }
            if wrong && attempt.resumed && !damaged {
                damaged = true;
                tracing::warn!("what was here of blob {digest} was damaged: it is fetched again");
                continue;
            }
            return Err(match self.repository.refused(digest) {
                Some(mirrors) => ImageError::Mirrors { mirrors, digest: digest.clone(), source: Box::new(error) },
                None => error,
            });
        }
    }

    /// The blob was fetched whole before, and not unpacked.
    async fn unpack_stored(&self, flight: Flight) -> Result<()> {
        let digest = self.descriptor.digest.clone();
        self.say("Download complete");
        self.say("Extracting");
        let unpack = self.unpacking(flight, &Arc::default());
        let images = self.images.clone();
        blocking(move || unpack.run(images.store().blobs().reader(&digest)?)).await
    }

    fn unpacking(&self, flight: Flight, fate: &Arc<Fate>) -> Unpacking {
        Unpacking {
            images: self.images.clone(),
            blob: LayerBlob {
                digest: self.descriptor.digest.clone(),
                size: self.descriptor.size,
                media_type: self.descriptor.media_type.clone(),
            },
            diff_id: self.diff_id.clone(),
            fate: Arc::clone(fate),
            held: Arc::clone(&self.held),
            _flight: flight,
        }
    }

    /// The connections feed a thread that stores and hashes, which feeds one that decompresses, unpacks and hashes
    /// again.
    async fn fetch(&self, flight: &Flight, attempt: &mut Attempt) -> Result<()> {
        // Until all has come; the rest of the unpacking keeps nobody waiting.
        let slots = self.images.slots();
        let slot = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => Ok(slot),
            Err(_) => {
                self.say("Waiting");
                slots.acquire_owned().await
            }
        };
        // Not so that of hundreds of tiny layers that inflate to much all are unpacked at once.
        let _unpacking = self.images.unpackings().acquire_owned().await;
        let (images, descriptor, own) = (self.images.clone(), self.descriptor.clone(), Arc::clone(flight));
        let held = Arc::clone(&self.held);
        let landing = blocking(move || Landing::open(&images, &descriptor, held, own)).await?;
        attempt.resumed = landing.is_resumed();
        let fate = Arc::new(Fate::default());
        let (to_disk, pieces) = mpsc::channel(CHUNKS);
        let (to_unpack, stored) = sync_channel(UNPACKED);
        let transfer = Transfer {
            repository: self.repository.clone(),
            descriptor: self.descriptor.clone(),
            missing: landing.missing(),
            to_disk,
            progress: self.progress.clone(),
            spare: self.images.spare_connections(),
            room: Room::beside(self.images.coming()),
        };
        let own = Arc::clone(&fate);
        let storing = tokio::task::spawn_blocking(move || landing.store(pieces, &to_unpack, &own));
        let unpacking = self.unpacking(Arc::clone(flight), &fate);
        let chunks = Chunks::new(stored, Arc::clone(&fate));
        let unpacked = tokio::task::spawn_blocking(move || unpacking.run(chunks));
        let received = transfer.run().await;
        drop(slot);
        if received.is_ok() && !fate.is_hopeless() {
            self.say("Verifying Checksum");
        }
        let stored = storing.await.map_err(ImageError::from).and_then(|stored| stored);
        attempt.verified = matches!(stored, Ok(true));
        let fetched = stored.and(received);
        if fetched.is_ok() && !fate.is_hopeless() {
            self.say("Download complete");
            let (id, total) = (self.descriptor.digest.short(), self.descriptor.size);
            let _ = self.progress.send(Progress::bytes(id, "Extracting", total, total));
        }
        // Whatever became of the blob: nothing of this layer may still be at work when its error is told.
        let unpacked = unpacked.await?;
        // The cause first: what was not fetched cannot be unpacked either.
        fetched.and(unpacked)
    }
}

/// What is known of an attempt to fetch, whatever became of it.
#[derive(Default)]
struct Attempt {
    /// Some of the blob was here before.
    resumed: bool,
    /// All of it has come, and is what its name says.
    verified: bool,
}

/// A layer's blob on its way to being a layer.
struct Unpacking {
    images: Images,
    blob: LayerBlob,
    diff_id: Digest,
    fate: Arc<Fate>,
    held: Arc<Hold>,
    _flight: Flight,
}

impl Unpacking {
    fn run(self, input: impl Read) -> Result<()> {
        let done = self.unpack(input);
        if let Err(error) = &done {
            self.fate.learn(error);
            if self.fate.is_hopeless() {
                // It may be stored already; another layer may be made of it all the same, by who holds it.
                self.images.forget_hopeless(&self.blob.digest, &self.held)?;
            }
        }
        done
    }

    fn unpack(&self, input: impl Read) -> Result<()> {
        // By its own bytes and not by its media type, which some tools get wrong.
        let mut tar = decompressed(input).map_err(SnapshotError::Input)?;
        let layers = self.images.layers();
        let layer = layers.import(&mut tar, Some(&self.diff_id))?;
        Ok(layers.note_blob(&layer.diff_id, self.blob.clone())?)
    }
}
