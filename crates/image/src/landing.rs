//! A blob on its way to the disk, and from there, in order, to who unpacks it.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use tokio::sync::mpsc;
use wharf_distribution::Descriptor;
use wharf_reference::Digest;
use wharf_snapshot::Hold;
use wharf_store::PartsWriter;

use crate::fetch::Flight;
use crate::images::Images;
use crate::transfer::{Chunk, PART, Piece};
use crate::{ErrorKind, ImageError, Result};

/// What the threads of a layer must know of each other.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// Nothing more will come.
    broken: AtomicBool,
    /// What was fetched can never become the layer, or there is no room for it: none of it is worth keeping.
    hopeless: AtomicBool,
}

impl Fate {
    pub(crate) fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::SeqCst)
    }

    /// Learns from a failed unpacking.
    pub(crate) fn learn(&self, error: &ImageError) {
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

/// What is here of a blob that is fetched. What a broken transfer leaves of it is kept for the next.
pub(crate) struct Landing {
    images: Images,
    writer: PartsWriter,
    held: Arc<Hold>,
    _flight: Flight,
}

impl Landing {
    pub(crate) fn open(images: &Images, descriptor: &Descriptor, held: Arc<Hold>, flight: Flight) -> Result<Self> {
        let mut tries = 5;
        let writer = loop {
            tries -= 1;
            // Whoever sweeps what is left may have it, or have taken it away before it was locked.
            match images.store().blobs().parts(&descriptor.digest, descriptor.size, PART) {
                Ok(writer) if writer.path().exists() || tries == 0 => break writer,
                Err(error) if tries == 0 => return Err(error.into()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        Ok(Self { images: images.clone(), writer, held, _flight: flight })
    }

    pub(crate) fn missing(&self) -> VecDeque<Range<u64>> {
        self.writer.missing().into()
    }

    /// Whether an earlier attempt has left something.
    pub(crate) fn is_resumed(&self) -> bool {
        self.writer.is_resumed()
    }

    /// Writes what comes to its place on the disk, and passes the blob on in order. The end is passed on when the blob is
    /// verified and stored, so that no layer is made of another one. Whether it is, the answer says.
    pub(crate) fn store(
        mut self,
        mut pieces: mpsc::Receiver<Piece>,
        to_unpack: &SyncSender<Option<Chunk>>,
        fate: &Fate,
    ) -> Result<bool> {
        if !self.pass_on(to_unpack, fate)? {
            return Ok(false);
        }
        while let Some(piece) = pieces.blocking_recv() {
            let Some((offset, chunk)) = piece else {
                self.finish(to_unpack, fate)?;
                return Ok(true);
            };
            match self.writer.write(offset, &chunk.bytes) {
                // An unpacking that has failed says so itself.
                Ok(true) => drop(to_unpack.send(Some(chunk))),
                Ok(false) => {}
                Err(error) => {
                    if error.is_full() {
                        self.writer.forget();
                    }
                    return Err(error.into());
                }
            }
            if !self.pass_on(to_unpack, fate)? {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Passes on what is on the disk and comes next; whether there is any use in going on.
    fn pass_on(&mut self, to_unpack: &SyncSender<Option<Chunk>>, fate: &Fate) -> Result<bool> {
        while !fate.is_hopeless() {
            match self.writer.verified()? {
                Some(bytes) => drop(to_unpack.send(Some(Chunk { bytes: bytes.into(), _room: None }))),
                None => return Ok(true),
            }
        }
        self.writer.forget();
        Ok(false)
    }

    fn finish(self, to_unpack: &SyncSender<Option<Chunk>>, fate: &Fate) -> Result<()> {
        let (digest, _) = self.writer.finish()?;
        if fate.is_hopeless() {
            self.images.forget_hopeless(&digest, &self.held)?;
        }
        let _ = to_unpack.send(None);
        Ok(())
    }
}

impl Images {
    /// Removes a blob that cannot become the layer that it was fetched for. Whoever else holds it may have brought it, or
    /// count on it: then it stays. So does what an image or an index is made of, which a manifest may call a layer.
    pub(crate) fn forget_hopeless(&self, digest: &Digest, own: &Hold) -> Result<()> {
        let _gate = self.gate();
        if self.owned_blobs()?.contains(digest) {
            return Ok(());
        }
        let layers = self.layers();
        layers.forget_blob(digest, || !layers.is_held_beside(digest, own))?;
        Ok(())
    }
}

/// What was passed on, as a stream to read.
pub(crate) struct Chunks {
    chunks: Receiver<Option<Chunk>>,
    current: Option<Chunk>,
    at: usize,
    ended: bool,
    fate: Arc<Fate>,
}

impl Chunks {
    pub(crate) fn new(chunks: Receiver<Option<Chunk>>, fate: Arc<Fate>) -> Self {
        Self { chunks, current: None, at: 0, ended: false, fate }
    }
}

impl Read for Chunks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.current.as_ref().is_none_or(|chunk| self.at == chunk.bytes.len()) && !self.ended {
            // Before the next one is waited for: it may need the room.
            self.current = None;
            self.at = 0;
            match self.chunks.recv() {
                Ok(Some(chunk)) => self.current = Some(chunk),
                Ok(None) => self.ended = true,
                Err(_) => {
                    self.fate.broken.store(true, Ordering::SeqCst);
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was broken off"));
                }
            }
        }
        let Some(current) = &self.current else { return Ok(0) };
        let rest = &current.bytes[self.at..];
        let count = bytes.len().min(rest.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
