//! A blob over the net: the ranges that are missing, several at once where the registry gives ranges.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use wharf_distribution::{BlobStream, Descriptor, Repository};

use crate::Result;
use crate::progress::{Progress, ProgressSender};

/// What is counted as one part of a blob: small enough that several connections share a layer of some MiB, large enough
/// that the request for each, with its redirect to an object store, is a small part of it.
pub(crate) const PART: u64 = 8 << 20;
/// Parts that one request asks for at most.
const MOST_PARTS: usize = 4;
/// Connections of one layer.
pub(crate) const MOST_CONNECTIONS: usize = 4;
/// A progress message for each so many bytes.
const STEP: u64 = 512 << 10;

/// Bytes that have come and are neither on the disk nor unpacked, of all layers together and beside each one's own:
/// enough for each connection's next chunks, while the disk and the processors are what all wait for.
pub(crate) const WAITING: usize = 8 << 20;
/// Such bytes that each layer may have whatever the others do: some chunks. Without them one layer that is unpacked
/// slowly could keep all that may wait, and nothing would come for anybody else.
const OWN: usize = 1 << 20;

/// Bytes of a blob and where they belong. `None` is the end of the transfer, without which it was broken off.
pub(crate) type Piece = Option<(u64, Chunk)>;

/// Bytes in memory, with their room there.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    /// None for those that come from the disk.
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

/// Room for a layer's bytes in memory.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    own: Arc<Semaphore>,
    /// All layers'.
    common: Arc<Semaphore>,
}

impl Room {
    /// Of a layer, beside what it may take of `common`.
    pub(crate) fn beside(common: Arc<Semaphore>) -> Self {
        Self { own: Arc::new(Semaphore::new(OWN)), common }
    }

    /// Waits for room. Whoever has some gives it back without waiting for more, but it may need its own layer's unpacking
    /// for that: so only what is the layer's own is waited for.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(bytes.min(OWN)).unwrap_or(u32::MAX);
        for of in [&self.own, &self.common] {
            if let Ok(permit) = Arc::clone(of).try_acquire_many_owned(count) {
                return Some(permit);
            }
        }
        Arc::clone(&self.own).acquire_many_owned(count).await.ok()
    }
}

pub(crate) struct Transfer {
    pub(crate) repository: Repository,
    pub(crate) descriptor: Descriptor,
    /// What is not here, in order, in parts.
    pub(crate) missing: VecDeque<Range<u64>>,
    pub(crate) to_disk: mpsc::Sender<Piece>,
    pub(crate) progress: ProgressSender,
    /// Connections beside the first, of all layers together.
    pub(crate) spare: Arc<Semaphore>,
    pub(crate) room: Room,
}

/// What one connection has still to do.
struct Lane {
    stream: BlobStream,
    room: Room,
    _spare: Option<OwnedSemaphorePermit>,
}

impl Transfer {
    /// Brings all that is missing, and then says that it was all. Dropped, or with one of its ranges failed, it leaves
    /// what has come.
    pub(crate) async fn run(mut self) -> Result<()> {
        let whole = self.descriptor.size;
        let missing: u64 = self.missing.iter().map(|range| range.end - range.start).sum();
        let mut meter = Meter { have: whole - missing, told: whole - missing };
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut lanes = JoinSet::new();
        if let Some(range) = self.claim() {
            let mut stream = self.repository.blob_range(&self.descriptor, range).await?;
            if !stream.is_ranged() && !self.missing.is_empty() {
                // All comes on this connection or none: what is here already is passed over.
                stream.to_the_end();
                self.missing.clear();
            }
            lanes.spawn(carry(
                Lane { stream, room: self.room.clone(), _spare: None },
                self.to_disk.clone(),
                tell.clone(),
            ));
        }
        loop {
            // Nobody listens any more to what has failed elsewhere.
            while lanes.len() < MOST_CONNECTIONS && !self.missing.is_empty() && !self.to_disk.is_closed() {
                let spare = match lanes.is_empty() {
                    true => None,
                    false => match Arc::clone(&self.spare).try_acquire_owned() {
                        Ok(spare) => Some(spare),
                        Err(_) => break,
                    },
                };
                let Some(range) = self.claim() else { break };
                let (repository, descriptor) = (self.repository.clone(), self.descriptor.clone());
                let (to_disk, tell, room) = (self.to_disk.clone(), tell.clone(), self.room.clone());
                lanes.spawn(async move {
                    let stream = repository.blob_range(&descriptor, range).await?;
                    carry(Lane { stream, room, _spare: spare }, to_disk, tell).await
                });
            }
            tokio::select! {
                Some(bytes) = told.recv() => meter.count(bytes, &self.descriptor, &self.progress),
                ended = lanes.join_next() => match ended {
                    // The first failure ends the others: what they have sent to the disk is kept.
                    Some(ended) => ended??,
                    None => break,
                },
            }
        }
        let _ = self.to_disk.send(None).await;
        Ok(())
    }

    /// Some parts that follow each other: less of them the nearer the end, so that all connections end together.
    fn claim(&mut self) -> Option<Range<u64>> {
        let mut claimed = self.missing.pop_front()?;
        let most = (self.missing.len() / (2 * MOST_CONNECTIONS)).clamp(1, MOST_PARTS);
        for _ in 1..most {
            match self.missing.front() {
                Some(next) if next.start == claimed.end => claimed.end = next.end,
                _ => break,
            }
            self.missing.pop_front();
        }
        Some(claimed)
    }
}

async fn carry(mut lane: Lane, to_disk: mpsc::Sender<Piece>, tell: mpsc::UnboundedSender<u64>) -> Result<()> {
    while let Some(chunk) = lane.stream.chunk().await? {
        let count = chunk.len() as u64;
        let offset = lane.stream.position() - count;
        let room = lane.room.take(chunk.len()).await;
        if to_disk.send(Some((offset, Chunk { bytes: chunk, _room: room }))).await.is_err() {
            return Ok(());
        }
        let _ = tell.send(count);
    }
    Ok(())
}

struct Meter {
    have: u64,
    told: u64,
}

impl Meter {
    fn count(&mut self, bytes: u64, descriptor: &Descriptor, progress: &ProgressSender) {
        // Of a registry without ranges comes again what is here.
        self.have = (self.have + bytes).min(descriptor.size);
        if self.have - self.told >= STEP {
            self.told = self.have;
            let (id, total) = (descriptor.digest.short(), descriptor.size);
            let _ = progress.send(Progress::bytes(id, "Downloading", self.have, total));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use wharf_distribution::{Client, ClientOptions};
    use wharf_reference::{Digest, Reference};

    #[tokio::test]
    async fn claims_get_smaller_and_leave_nothing_out() {
        let reference = Reference::parse("x.example/y").unwrap();
        let parts = 100;
        let all = (0..parts).filter(|at| *at != 1);
        let mut transfer = Transfer {
            repository: Client::new(ClientOptions::default()).unwrap().repository(&reference, None),
            descriptor: Descriptor::new("x/y", Digest::sha256(b""), parts * PART),
            missing: all.map(|at| at * PART..(at + 1) * PART).collect(),
            to_disk: mpsc::channel(1).0,
            progress: mpsc::unbounded_channel().0,
            spare: Arc::new(Semaphore::new(0)),
            room: Room::beside(Arc::new(Semaphore::new(WAITING))),
        };
        let claims: Vec<Range<u64>> = std::iter::from_fn(|| transfer.claim()).collect();
        assert_eq!((claims[0].clone(), claims[1].clone()), (0..PART, 2 * PART..6 * PART));
        assert_eq!(claims.last().unwrap(), &(99 * PART..100 * PART));
        assert!(claims.windows(2).all(|pair| pair[0].end == pair[1].start || pair[1].start == 2 * PART));
        assert_eq!(claims.iter().map(|range| range.end - range.start).sum::<u64>(), (parts - 1) * PART);
    }

    /// A registry of one blob of zeros, without ranges; until the tests' process ends.
    fn zeros(size: usize) -> Repository {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    // The first of all connections asks whether this is TLS, and has no lines.
                    while let Some(Ok(line)) = lines.next() {
                        if line.is_empty() {
                            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
                            let _ = stream.write_all(&[head.as_bytes(), &vec![0; size]].concat());
                        }
                    }
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        let reference = Reference::parse(&format!("{address}/x")).unwrap();
        Client::new(ClientOptions::default()).unwrap().repository(&reference, None)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_layer_that_is_not_unpacked_keeps_no_other_from_coming() {
        let size = 2 * (WAITING + OWN);
        let (repository, common) = (zeros(size), Arc::new(Semaphore::new(WAITING)));
        let transfer = |to_disk| Transfer {
            repository: repository.clone(),
            descriptor: Descriptor::new("x/y", Digest::sha256(b""), size as u64),
            missing: std::iter::once(0..size as u64).collect(),
            to_disk,
            progress: mpsc::unbounded_channel().0,
            spare: Arc::new(Semaphore::new(0)),
            room: Room::beside(Arc::clone(&common)),
        };
        let (to_disk, mut held_up) = mpsc::channel(64);
        let slow = tokio::spawn(transfer(to_disk).run());
        // Nothing of it is let go until there is no room for a chunk more.
        let (mut kept, mut have) = (Vec::new(), 0);
        while have < WAITING {
            let Some(Some((_, chunk))) = held_up.recv().await else { panic!("it ended early") };
            have += chunk.bytes.len();
            kept.push(chunk);
        }
        let (to_disk, mut coming) = mpsc::channel(64);
        let other = tokio::spawn(transfer(to_disk).run());
        let all = async {
            let mut came = 0;
            while let Some(Some((_, chunk))) = coming.recv().await {
                came += chunk.bytes.len();
            }
            came
        };
        let came = tokio::time::timeout(std::time::Duration::from_secs(30), all).await.expect("nothing comes");
        other.await.unwrap().unwrap();
        assert!(came == size && !slow.is_finished());
        slow.abort();
    }
}
