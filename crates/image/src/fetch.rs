//! One layer on its way: fetched, stored and unpacked in one pass.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use tokio::sync::{OwnedMutexGuard, mpsc};
use wharf_distribution::{BlobStream, Descriptor, Repository};
use wharf_reference::Digest;
use wharf_snapshot::LayerBlob;
use wharf_store::BlobWriter;

use crate::compression;
use crate::images::Images;
use crate::progress::{Progress, ProgressSender};
use crate::pull::blocking;
use crate::{ImageError, Result};

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
        let unpack = self.unpacking(flight);
        let images = self.images.clone();
        blocking(move || unpack.run(images.store().blobs().reader(&digest)?)).await
    }

    fn unpacking(&self, flight: Flight) -> Unpacking {
        Unpacking {
            images: self.images.clone(),
            blob: LayerBlob {
                digest: self.descriptor.digest.clone(),
                size: self.descriptor.size,
                media_type: self.descriptor.media_type.clone(),
            },
            diff_id: self.diff_id.clone(),
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
        let resumed = blocking(move || Ok((images.store().blobs().resume(&digest)?, own))).await?;
        let (offset, path) = (resumed.0.offset(), resumed.0.path().to_owned());
        let mut stream = self.repository.blob(&self.descriptor, offset).await?;
        let (to_disk, chunks) = mpsc::channel(CHUNKS);
        let (to_unpack, stored) = sync_channel(CHUNKS);
        let storing = tokio::task::spawn_blocking(move || {
            let (writer, _flight) = resumed;
            store(writer, chunks, &to_unpack)
        });
        let unpacking = self.unpacking(Arc::clone(flight));
        let unpacked = tokio::task::spawn_blocking(move || {
            let rest = Chunks { chunks: stored, current: Bytes::new(), ended: false };
            if offset == 0 {
                return unpacking.run(rest);
            }
            let before = File::open(&path).map_err(|e| ImageError::Io("cannot go on with a layer", e))?;
            unpacking.run(before.take(offset).chain(rest))
        });
        let received = self.receive(&mut stream, offset, &to_disk).await;
        drop(to_disk);
        drop(slot);
        if received.is_ok() {
            self.say("Verifying Checksum");
        }
        let stored = storing.await.map_err(ImageError::from).and_then(|stored| stored);
        let fetched = stored.and(received);
        if fetched.is_ok() {
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

/// Writes what comes to the disk, and passes it on. The end is passed on when the blob is verified and stored, so that
/// no layer is made of another one.
fn store(mut writer: BlobWriter, mut chunks: mpsc::Receiver<Piece>, to_unpack: &SyncSender<Piece>) -> Result<()> {
    while let Some(piece) = chunks.blocking_recv() {
        let Some(chunk) = piece else {
            writer.finish()?;
            let _ = to_unpack.send(None);
            return Ok(());
        };
        writer.append(&chunk)?;
        // An unpacking that has failed says so itself; the blob is worth keeping all the same.
        let _ = to_unpack.send(Some(chunk));
    }
    Ok(())
}

/// A layer's blob on its way to being a layer.
struct Unpacking {
    images: Images,
    blob: LayerBlob,
    diff_id: Digest,
    _flight: Flight,
}

impl Unpacking {
    fn run(self, input: impl Read) -> Result<()> {
        let input = BufReader::with_capacity(1 << 17, input);
        let tar = compression::by_name(input, &self.blob.media_type);
        let mut tar = tar.map_err(|e| ImageError::Io("the layer cannot be decompressed", e))?;
        let layers = self.images.layers();
        layers.import(&mut tar, Some(&self.diff_id))?;
        Ok(layers.note_blob(&self.diff_id, self.blob)?)
    }
}

/// Pieces as a stream to read.
struct Chunks {
    chunks: Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for Chunks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.recv() {
                Ok(Some(chunk)) => self.current = chunk,
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was broken off")),
            }
        }
        let count = bytes.len().min(self.current.len());
        bytes[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
