//! Directories of a client (`FileSync.DiffCopy`): first it says what is in one, then it is asked for contents.
//!
//! Source: tonistiigi/fsutil `send.go`, `receive.go`. The client sends a STAT for each file and one without a file behind them; for
//! each REQ with the number of a file its DATA, and an empty one behind that; FIN is answered by FIN.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;

use crate::grpc::client::Answers;
use crate::grpc::{Code, Sender, Status};
use crate::listing::{File, Listing};
use crate::proto::session::{PACKET_DATA, PACKET_ERR, PACKET_FIN, PACKET_REQ, PACKET_STAT, Packet};
use crate::session::{Session, encoded};

/// What is waited for, for the message.
const FILES: &str = "the question for its files";
/// So long a client may look for files without a word.
const LISTING: std::time::Duration = std::time::Duration::from_secs(300);
const METHOD: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// What may be asked for before what is read now has come: files, and bytes.
const AHEAD: usize = 64;
const AHEAD_BYTES: u64 = 4 << 20;
/// No Dockerfile or ignore file that a person wrote is larger.
const MAX_TEXT: u64 = 16 << 20;

/// Which directory, and what of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// `context`, `dockerfile`.
    pub(crate) name: String,
    /// Only what these patterns match; everything without any.
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// Only these, and where their links lead; everything without any.
    pub(crate) follow: Vec<String>,
}

/// A directory that the client has listed and can be asked for.
#[derive(Debug)]
pub(crate) struct Directory {
    session: Session,
    sender: Sender,
    answers: Answers,
    listing: Listing,
    /// What was asked for and has not come whole.
    coming: VecDeque<Coming>,
}

#[derive(Debug)]
struct Coming {
    entry: u32,
    id: u32,
    size: u64,
    /// What comes before the content has been read.
    headed: bool,
    /// What came before its turn. Copied: a piece of a message would keep all of that.
    early: BytesMut,
    come: u64,
    whole: bool,
}

impl Directory {
    /// Has a directory listed. `remember`: with the names of its files, for [`Self::text`].
    ///
    /// # Errors
    /// When the client gives no such directory.
    pub(crate) async fn list(session: &Session, wanted: &Wanted, remember: bool) -> Result<Self, Status> {
        if !session.serves(METHOD) {
            return Err(Status::new(Code::FailedPrecondition, "no local sources enabled: the client serves no files"));
        }
        let mut values = BTreeMap::from([("dir-name", vec![wanted.name.clone()])]);
        for (name, patterns) in [
            ("include-patterns", &wanted.include),
            ("exclude-patterns", &wanted.exclude),
            ("followpaths", &wanted.follow),
        ] {
            if !patterns.is_empty() {
                values.insert(name, patterns.clone());
            }
        }
        let (sender, mut answers) = session.callee.both(METHOD, &encoded(values))?;
        let key = match session.shared_key.is_empty() {
            // The next build's session would have another name.
            true => String::new(),
            false => format!("buildkit\0{}\0{}", session.shared_key, wanted.name),
        };
        let place = session.shared_key.split(':').next().unwrap_or_default();
        let partial = !wanted.follow.is_empty() || !wanted.include.is_empty();
        let mut listing = Listing::new(key.as_bytes(), place, partial);
        if remember {
            listing = listing.with_names();
        }
        loop {
            // It may have to look at many files before it names one.
            let packet = session.answered_within(LISTING, FILES, next(&mut answers)).await?;
            let Some(stat) = packet.stat.filter(|_| packet.kind == PACKET_STAT) else {
                match packet.kind {
                    PACKET_STAT => break,
                    _ => return Err(Status::invalid("the client sends contents that nobody has asked for")),
                }
            };
            listing.add(stat)?;
        }
        Ok(Self { session: session.clone(), sender, answers, listing, coming: VecDeque::new() })
    }

    /// The listing, once.
    pub(crate) fn listed(&mut self) -> Vec<u8> {
        self.listing.take_bytes()
    }

    /// Says that nothing more is wanted.
    pub(crate) async fn end(self) {
        let Self { sender, mut answers, .. } = self;
        if !sender.send(&Packet { kind: PACKET_FIN, ..Packet::default() }).await {
            return;
        }
        drop(sender);
        let ending = async { while let Ok(Some(_)) = answers.next::<Packet>().await {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), ending).await;
    }

    /// What a small file has in it, and when that was changed last; nothing when it is not there.
    ///
    /// # Errors
    /// When it is too large or the client has gone.
    pub(crate) async fn text(&mut self, path: &str) -> Result<Option<(Vec<u8>, i64)>, Status> {
        let Some((id, modified)) = self.listing.named(path.as_bytes()) else { return Ok(None) };
        let Some((entry, file)) = self.listing.files.iter().find(|(_, file)| file.id == id) else {
            return Err(Status::invalid(format!("{path} is no file")));
        };
        if file.size > MAX_TEXT {
            return Err(Status::invalid(format!("{path} has more than {MAX_TEXT} bytes")));
        }
        let mut queue = VecDeque::from([*entry]);
        let mut bytes = Vec::new();
        let mut is_head = true;
        while let Some(piece) = self.piece(&mut queue).await? {
            if !std::mem::take(&mut is_head) {
                bytes.extend_from_slice(&piece);
            }
        }
        Ok(Some((bytes, modified)))
    }

    /// The next piece of what these entries have, one behind the other; nothing at the end.
    async fn piece(&mut self, queue: &mut VecDeque<u32>) -> Result<Option<Bytes>, Status> {
        loop {
            self.ask(queue).await?;
            let Some(first) = self.coming.front_mut() else { return Ok(None) };
            if !std::mem::replace(&mut first.headed, true) {
                let head = self.listing.files.get(&first.entry).map(File::head).unwrap_or_default();
                return Ok(Some(head.into()));
            }
            if !first.early.is_empty() {
                return Ok(Some(std::mem::take(&mut first.early).freeze()));
            }
            if first.whole {
                if first.come != first.size {
                    let message =
                        format!("a file became shorter or cannot be read: {} of {} bytes came", first.come, first.size);
                    return Err(Status::new(Code::FailedPrecondition, message));
                }
                self.coming.pop_front();
                continue;
            }
            let packet = self.session.answered(FILES, next(&mut self.answers)).await?;
            if packet.kind != PACKET_DATA {
                return Err(Status::invalid("the client lists files after the end of its list"));
            }
            let place = self.coming.iter().position(|coming| coming.id == packet.id && !coming.whole);
            let Some((place, coming)) = place.and_then(|place| Some((place, self.coming.get_mut(place)?))) else {
                return Err(Status::invalid("the client sends contents that nobody has asked for"));
            };
            coming.whole = packet.data.is_empty();
            // What is written to all the time, as logs are, is as long as it was when it was listed.
            let left = usize::try_from(coming.size - coming.come).unwrap_or(usize::MAX);
            let data = packet.data.slice(..packet.data.len().min(left));
            coming.come += data.len() as u64;
            if place == 0 && !data.is_empty() {
                return Ok(Some(data));
            }
            coming.early.extend_from_slice(&data);
        }
    }

    /// Asks for as much as may wait here.
    async fn ask(&mut self, queue: &mut VecDeque<u32>) -> Result<(), Status> {
        while let Some(entry) = queue.front() {
            let file = self.listing.files.get(entry);
            let file = file.ok_or_else(|| Status::new(Code::Internal, "an entry that is no file was asked for"))?;
            // What is read now goes on as it comes.
            let waiting: u64 = self.coming.iter().skip(1).map(|coming| coming.size).sum();
            let full = self.coming.len() >= AHEAD || waiting + file.size > AHEAD_BYTES;
            if full && !self.coming.is_empty() {
                break;
            }
            let (entry, id, size) = (*entry, file.id, file.size);
            let request = Packet { kind: PACKET_REQ, id, ..Packet::default() };
            let asked = async { Ok(self.sender.send(&request).await) };
            if !self.session.answered(FILES, asked).await? {
                return Err(Status::unavailable("the client has gone"));
            }
            let early = BytesMut::new();
            self.coming.push_back(Coming { entry, id, size, headed: false, early, come: 0, whole: false });
            queue.pop_front();
        }
        Ok(())
    }

    /// A reader of what these entries have, for code that waits.
    pub(crate) fn contents<'a>(&'a mut self, handle: &'a Handle, wanted: &[Range<u32>]) -> Contents<'a> {
        let queue = wanted.iter().cloned().flatten().collect();
        // Of a reader that has given up something is still to come, which is nothing of this one's.
        let is_stale = !self.coming.is_empty();
        Contents { directory: self, handle, queue, current: Bytes::new(), is_stale }
    }
}

async fn next(answers: &mut Answers) -> Result<Packet, Status> {
    let packet: Packet = answers.next().await?.ok_or_else(|| Status::unavailable("the client has ended its files"))?;
    match packet.kind {
        PACKET_ERR => Err(Status::new(Code::Unknown, String::from_utf8_lossy(&packet.data).into_owned())),
        PACKET_FIN => Err(Status::unavailable("the client has ended its files")),
        _ => Ok(packet),
    }
}

/// Contents of files, one behind the other, each with its extended attributes before it.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    directory: &'a mut Directory,
    handle: &'a Handle,
    queue: VecDeque<u32>,
    current: Bytes,
    is_stale: bool,
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_stale {
            return Err(io::Error::other("an earlier transfer of this directory has ended in the middle"));
        }
        while self.current.is_empty() {
            let next = self.handle.block_on(self.directory.piece(&mut self.queue));
            match next.map_err(|status| io::Error::other(status.message().to_owned()))? {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
pub(crate) mod tests;
