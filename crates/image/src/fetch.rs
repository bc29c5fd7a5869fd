//! One layer on its way: fetched, stored and unpacked in one pass.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedMutexGuard, mpsc};
use wharf_archive::decompressed;
use wharf_distribution::{BlobStream, Descriptor, Repository};
use wharf_reference::Digest;
use wharf_snapshot::{LayerBlob, SnapshotError};
use wharf_store::{BlobWriter, StoreError};

use crate::images::Images;
use crate::progress::{Progress, ProgressSender};
use crate::pull::blocking;
use crate::{ErrorKind, ImageError, Result};

/// Chunks between the connection, the disk and the unpacking: enough that none of them waits for a hiccup.
const CHUNKS: usize = 64;
/// A progress message for each so many bytes.
const STEP: u64 = 512 << 10;

/// Held by every thread that works on the layer: when a pull is broken off they end a moment later than it, and the
/// next one waits for them.
type Flight = Arc<OwnedMutexGuard<()>>;

pub(crate) struct Fetch {
    pub(crate) images: Images,
    pub(crate) repository: Repository,
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: Digest,
    pub(crate) progress: ProgressSender,
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
            self.fetch(&flight).await?;
        }
        self.say("Pull complete");
        Ok(())
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
            _flight: flight,
        }
    }

    /// The connection feeds a thread that stores and hashes, which feeds one that decompresses, unpacks and hashes
    /// again.
    async fn fetch(&self, flight: &Flight) -> Result<()> {
        // Until all has come; the rest of the unpacking keeps nobody waiting.
        let slots = self.images.slots();
        let slot = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => Ok(slot),
            Err(_) => {
                self.say("Waiting");
                slots.acquire_owned().await
            }
        };
        let (images, digest, own) = (self.images.clone(), self.descriptor.digest.clone(), Arc::clone(flight));
        let partial = blocking(move || Partial::open(&images, digest, own)).await?;
        let (offset, path) = (partial.offset(), partial.path.clone());
        let mut stream = self.repository.blob(&self.descriptor, offset).await?;
        let fate = Arc::new(Fate::default());
        let (to_disk, chunks) = mpsc::channel(CHUNKS);
        let (to_unpack, stored) = sync_channel(CHUNKS);
        let own = Arc::clone(&fate);
        let storing = tokio::task::spawn_blocking(move || partial.store(chunks, &to_unpack, &own));
        let unpacking = self.unpacking(Arc::clone(flight), &fate);
        let own = Arc::clone(&fate);
        let unpacked = tokio::task::spawn_blocking(move || {
            let rest = Chunks { chunks: stored, current: Bytes::new(), ended: false, fate: own };
            if offset == 0 {
                return unpacking.run(rest);
            }
            let before = File::open(&path).map_err(|e| ImageError::Io("cannot go on with a layer", e))?;
            unpacking.run(before.take(offset).chain(rest))
        });
        let received = self.receive(&mut stream, offset, &to_disk).await;
        drop(to_disk);
        drop(slot);
        if received.is_ok() && !fate.is_hopeless() {
            self.say("Verifying Checksum");
        }
        let stored = storing.await.map_err(ImageError::from).and_then(|stored| stored);
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

    /// Takes all that comes, and then says that it was all.
    async fn receive(&self, stream: &mut BlobStream, offset: u64, to_disk: &mpsc::Sender<Piece>) -> Result<()> {
        let (id, total) = (self.descriptor.digest.short(), self.descriptor.size);
        let (mut have, mut told) = (offset, offset);
        loop {
            let chunk = stream.chunk().await?;
            have += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            let end = chunk.is_none();
            // Who does not listen any more has failed, and says why elsewhere.
            if to_disk.send(chunk).await.is_err() || end {
                return Ok(());
            }
            if have - told >= STEP {
                told = have;
                let _ = self.progress.send(Progress::bytes(id, "Downloading", have, total));
            }
        }
    }
}

/// A part of a blob; `None` is its end, without which it was broken off.
type Piece = Option<Bytes>;

/// What the two threads of a layer must know of each other.
#[derive(Debug, Default)]
struct Fate {
    /// Nothing more will come.
    broken: AtomicBool,
    /// What was fetched can never become the layer, or there is no room for it: none of it is worth keeping.
    hopeless: AtomicBool,
}

impl Fate {
    fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::SeqCst)
    }

    /// Learns from a failed unpacking.
    fn learn(&self, error: &ImageError) {
        let bad = match error {
            ImageError::Snapshot(error) => error.is_bad_layer(),
            ImageError::Archive(_) => true,
            _ => false,
        };
        let full = error.kind() == ErrorKind::Full;
        if full || (bad && !self.broken.load(Ordering::SeqCst)) {
            self.hopeless.store(true, Ordering::SeqCst);
        }
    }
}

/// What is here of a blob that is fetched. What a broken transfer leaves of it is kept for the next; nothing is kept of
/// nothing.
struct Partial {
    images: Images,
    digest: Digest,
    /// `None` when it has become a blob.
    writer: Option<BlobWriter>,
    path: PathBuf,
    _flight: Flight,
}

impl Partial {
    fn open(images: &Images, digest: Digest, flight: Flight) -> Result<Self> {
        let mut tries = 5;
        let writer = loop {
            tries -= 1;
            // Whoever sweeps what is left may have it, or have taken it away before it was locked.
            match images.store().blobs().resume(&digest) {
                Ok(writer) if writer.path().exists() || tries == 0 => break writer,
                Err(error) if tries == 0 => return Err(error.into()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let path = writer.path().to_owned();
        Ok(Self { images: images.clone(), digest, writer: Some(writer), path, _flight: flight })
    }

    fn offset(&self) -> u64 {
        self.writer.as_ref().map_or(0, BlobWriter::offset)
    }

    /// Writes what comes to the disk, and passes it on. The end is passed on when the blob is verified and stored, so
    /// that no layer is made of another one.
    fn store(mut self, mut chunks: mpsc::Receiver<Piece>, to_unpack: &SyncSender<Piece>, fate: &Fate) -> Result<()> {
        while let Some(piece) = chunks.blocking_recv() {
            let Some(chunk) = piece else {
                let finished = self.writer.take().map(BlobWriter::finish).transpose();
                finished.inspect_err(|error| self.forget_if_full(error))?;
                if fate.is_hopeless() {
                    self.images.layers().forget_blob(&self.digest, || true)?;
                }
                let _ = to_unpack.send(None);
                return Ok(());
            };
            if let Some(writer) = &mut self.writer {
                writer.append(&chunk).inspect_err(|error| self.forget_if_full(error))?;
            }
            // An unpacking that has failed says so itself.
            let _ = to_unpack.send(Some(chunk));
            if fate.is_hopeless() {
                self.forget();
                return Ok(());
            }
        }
        Ok(())
    }

    fn forget_if_full(&self, error: &StoreError) {
        if error.is_full() {
            self.forget();
        }
    }

    fn forget(&self) {
        // What stays is swept when it is old.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.writer.as_ref().is_some_and(|writer| writer.offset() == 0) {
            self.forget();
        }
    }
}

/// A layer's blob on its way to being a layer.
struct Unpacking {
    images: Images,
    blob: LayerBlob,
    diff_id: Digest,
    fate: Arc<Fate>,
    _flight: Flight,
}

impl Unpacking {
    fn run(self, input: impl Read) -> Result<()> {
        let done = self.unpack(input);
        if let Err(error) = &done {
            self.fate.learn(error);
            if self.fate.is_hopeless() {
                // It may be stored already; another layer may be made of it all the same.
                self.images.layers().forget_blob(&self.blob.digest, || true)?;
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

/// Pieces as a stream to read.
struct Chunks {
    chunks: Receiver<Piece>,
    current: Bytes,
    ended: bool,
    fate: Arc<Fate>,
}

impl Read for Chunks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.recv() {
                Ok(Some(chunk)) => self.current = chunk,
                Ok(None) => self.ended = true,
                Err(_) => {
                    self.fate.broken.store(true, Ordering::SeqCst);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was broken off"));
                }
            }
        }
        let count = bytes.len().min(self.current.len());
        bytes[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
