//! Layers of one archive that are made beside each other, while the archive is read in its own order.
//!
//! Each has a thread that unpacks it. What was read and not unpacked yet waits in memory, all of it together within a
//! bound: while a layer's last bytes are unpacked and synced, the next ones are read and at work already.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use wharf_archive::decompressed;
use wharf_reference::Digest;
use wharf_snapshot::{Layer, SnapshotError};

use crate::images::Images;
use crate::{ImageError, Result};

/// Bytes that wait in memory, of all layers of all archives together. As layers of images are mostly smaller, there are two or more at
/// work at nearly any time; and it is a fifth of what the daemon may take.
const WAITING: usize = 32 << 20;
/// Layers at work at once. Small ones mostly wait for the disk, and share that (`snapshot`'s syncs are of all that wait).
const AT_ONCE: usize = 8;
/// Read at once.
pub(crate) const CHUNK: usize = 256 << 10;

/// So many of something, which its users wait for.
#[derive(Clone, Debug)]
pub(crate) struct Limit(Arc<(Mutex<usize>, Condvar)>);

impl Limit {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new((Mutex::new(most), Condvar::new())))
    }

    fn take(&self, count: usize) {
        let (left, freed) = &*self.0;
        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = freed.wait_while(left, |left| *left < count).unwrap_or_else(PoisonError::into_inner);
        *left -= count;
    }

    fn give(&self, count: usize) {
        let (left, freed) = &*self.0;
        *left.lock().unwrap_or_else(PoisonError::into_inner) += count;
        freed.notify_all();
    }

    #[cfg(test)]
    fn left(&self) -> usize {
        *self.0.0.lock().unwrap()
    }
}

/// Bytes that may wait, of all archives that are loaded at the same moment.
pub(crate) fn waiting() -> Limit {
    Limit::new(WAITING)
}

/// What may wait yet, and how many layers may begin.
///
/// The bytes are everybody's: ten archives at once take no more than one. They come back by themselves, as a layer's
/// thread waits for nothing but the disk. Its place comes back when its archive is read on, and a client may leave that:
/// so places are each archive's own.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    bytes: Limit,
    layers: Limit,
}

impl Room {
    pub(crate) fn new(bytes: Limit) -> Self {
        Self { bytes, layers: Limit::new(AT_ONCE) }
    }
}

/// The place of a layer that is at work; given back also when its thread fails.
struct AtWork(Limit);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.give(1);
    }
}

/// Bytes that wait, and give their room back when they do not any more.
struct Waiting {
    bytes: Vec<u8>,
    room: Limit,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room.give(self.bytes.len());
    }
}

/// What a layer is made of: pieces, then the word that they were all. Without it the archive was broken off.
type Piece = Option<Waiting>;

/// A layer that is being made.
pub(crate) struct Making {
    pieces: Option<Sender<Piece>>,
    room: Limit,
    thread: JoinHandle<Result<Layer>>,
}

impl Making {
    /// Begins a layer of an archive's so many bytes, plain or compressed, when there are not too many at work.
    pub(crate) fn begin(images: &Images, expected: Option<Digest>, size: u64, room: &Room) -> Self {
        let (pieces, coming) = channel();
        room.layers.take(1);
        let at_work = AtWork(room.layers.clone());
        let (store, layers) = (images.store().clone(), images.layers().clone());
        let free = store.free();
        let thread = std::thread::spawn(move || {
            let _at_work = at_work;
            let input = Pieces { coming, current: None, at: 0, ended: false };
            let mut tar = decompressed(input).map_err(SnapshotError::Input)?;
            let layer = layers.import(&mut tar, expected.as_ref());
            layer.map_err(|error| ImageError::from(error).with_missing(&store, size, free))
        });
        Self { pieces: Some(pieces), room: room.bytes.clone(), thread }
    }

    /// Gives it more, when there is room for it. Whether it wants more: one that has failed does not.
    pub(crate) fn give(&self, bytes: Vec<u8>) -> bool {
        self.room.take(bytes.len());
        let waiting = Waiting { bytes, room: self.room.clone() };
        self.pieces.as_ref().is_some_and(|pieces| pieces.send(Some(waiting)).is_ok())
    }

    /// That was all.
    pub(crate) fn end(&mut self) {
        // One that has failed says so itself.
        let _ = self.pieces.take().map(|pieces| pieces.send(None));
    }

    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the layer.
    pub(crate) fn layer(mut self) -> Result<Layer> {
        drop(self.pieces.take());
        self.thread.join().map_err(|_| ImageError::Invalid("a layer's thread has ended too early".into()))?
    }
}

/// Pieces as a stream to read.
struct Pieces {
    coming: Receiver<Piece>,
    current: Piece,
    at: usize,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.current.as_ref().is_none_or(|current| self.at == current.bytes.len()) && !self.ended {
            // Before the next one is waited for, which may need the room.
            self.current = None;
            self.at = 0;
            match self.coming.recv() {
                Ok(Some(piece)) => self.current = Some(piece),
                Ok(None) => self.ended = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive was broken off")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_share_the_memory_and_not_the_places() {
        let bytes = waiting();
        let (one, two) = (Room::new(bytes.clone()), Room::new(bytes));
        one.bytes.take(WAITING - 1);
        one.layers.take(AT_ONCE);
        assert_eq!((two.bytes.left(), two.layers.left()), (1, AT_ONCE));
        let waits = std::thread::spawn(move || two.bytes.take(2));
        one.bytes.give(WAITING - 1);
        waits.join().unwrap();
        assert_eq!(one.bytes.left(), WAITING - 2);
    }
}
