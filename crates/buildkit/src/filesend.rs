//! What a client gets (`FileSend.DiffCopy`): the bytes of an archive, or files as fsutil sends them.
//!
//! Source: moby/buildkit `session/filesync/filesync.go`, `diffcopy.go`; tonistiigi/fsutil `send.go`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FileType;
use tokio::runtime::Handle;
use wharf_archive::{ArchiveError, Writer};
use wharf_image::StatementFile;
use wharf_rooted_path::RootDir;
use wharf_snapshot::DatedView;

use crate::bridge;
use crate::control::blocking;
use crate::export::Archived;
use crate::grpc::{Code, Sender, Status};
use crate::progress::Step;
use crate::proto::session::{PACKET_DATA, PACKET_ERR, PACKET_FIN, PACKET_REQ, PACKET_STAT, Packet, Stat};
use crate::proto::{Piece, Timestamp};
use crate::session::{Session, encoded};

const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Which of its outputs the client is to write to.
const NUMBER: &str = "buildkit-attachable-exporter-id";
/// Sent at once. Clients refuse messages of more than 4 MiB.
const CHUNK: usize = 64 << 10;

/// A tree of files.
pub(crate) struct Tree {
    /// The directory that it is in, if it is in one.
    pub(crate) name: Option<String>,
    pub(crate) view: DatedView,
    /// Files beside it.
    pub(crate) statements: Vec<StatementFile>,
}

pub(crate) type Trees = Vec<Tree>;

/// What is sent.
pub(crate) enum Output {
    Files(Trees),
    Tar(Trees),
    Archive(Archived),
}

/// Sends it to the output of this number.
///
/// # Errors
/// When the client does not take it.
pub(crate) async fn send(session: &Session, number: usize, output: Output, step: &Step) -> Result<(), Status> {
    if !session.serves(METHOD) {
        return Err(Status::new(Code::FailedPrecondition, "the client takes no output: it serves no FileSend"));
    }
    let metadata = encoded(BTreeMap::from([(NUMBER, vec![number.to_string()])]));
    let (sender, answers) = session.callee.both(METHOD, &metadata)?;
    let began = Timestamp::now();
    match output {
        Output::Files(trees) => files(trees, sender, answers).await?,
        Output::Tar(trees) => {
            bytes(sender, answers, move |output| {
                write_tar(&trees, output).map_err(|e| Status::new(Code::Unknown, wharf_report::chain(&e)))
            })
            .await?;
        }
        Output::Archive(archived) => bytes(sender, answers, move |output| archived.write(output)).await?,
    }
    step.status("sending to client", 0, 0, began, true);
    Ok(())
}

/// All trees as one archive.
fn write_tar(trees: &Trees, output: &mut dyn Write) -> Result<(), ArchiveError> {
    let mut archive = Writer::new(output);
    for Tree { name, view, statements } in trees {
        archive.tree_dated(view, name.as_ref().map(OsStr::new), &|path, real| view.time_of(path, real))?;
        for StatementFile { name: own, bytes, time } in statements {
            let path = name.as_ref().map_or_else(|| own.clone(), |name| format!("{name}/{own}"));
            archive.file_at(&path, bytes.len() as u64, *time, &mut bytes.as_slice())?;
        }
    }
    archive.finish()
}

/// Sends what `write` writes, and waits until the client has taken it.
async fn bytes(
    sender: Sender,
    mut answers: crate::grpc::client::Answers,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Status> + Send + 'static,
) -> Result<(), Status> {
    let handle = Handle::current();
    let writing = blocking(move || {
        let mut writer = io::BufWriter::with_capacity(CHUNK, Pieces { sender, handle });
        write(&mut writer)?;
        writer.flush().map_err(|e| Status::unavailable(format!("the client takes no more: {e}")))
    });
    let taking = async {
        while answers.next::<Piece>().await?.is_some() {}
        Ok::<_, Status>(())
    };
    let (written, taken) = tokio::join!(writing, taking);
    // What the client says of itself comes first: a writer only sees that nobody reads.
    taken.and(written)
}

struct Pieces {
    sender: Sender,
    handle: Handle,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(CHUNK)];
        match self.handle.block_on(self.sender.send(&Piece { data: Bytes::copy_from_slice(bytes) })) {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Files by the numbers that their STATs have, for as long as they may be asked for.
type Sent = Arc<std::sync::Mutex<HashMap<u32, Source>>>;

/// Where a file's content is: which tree, and where in it.
#[derive(Clone)]
enum Source {
    File(usize, PathBuf),
    Statement(usize, usize),
}

/// Sends trees as fsutil does: all STATs, and contents as they are asked for.
async fn files(trees: Trees, sender: Sender, mut answers: crate::grpc::client::Answers) -> Result<(), Status> {
    let trees = Arc::new(trees);
    let sent = Sent::default();
    let handle = Handle::current();
    let telling = {
        let (trees, sent, sender, handle) = (Arc::clone(&trees), Arc::clone(&sent), sender.clone(), handle.clone());
        blocking(move || {
            let mut walk = Walk { sender, handle, sent, next: 0, links: HashMap::new() };
            for (number, tree) in trees.iter().enumerate() {
                walk.links.clear();
                if let Some(name) = &tree.name {
                    let mut top = bridge::stat(&tree.view, Path::new(""), false)?;
                    top.path = name.as_bytes().to_vec();
                    walk.tell(Packet { kind: PACKET_STAT, stat: Some(top), ..Packet::default() })?;
                }
                walk.tree(number, tree)?;
            }
            walk.tell(Packet { kind: PACKET_STAT, ..Packet::default() })
        })
    };
    let answering = async {
        loop {
            let Some(packet) = answers.next::<Packet>().await? else { return Ok(()) };
            match packet.kind {
                PACKET_REQ => {
                    let known = sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&packet.id);
                    let source =
                        known.ok_or_else(|| Status::invalid(format!("the client asks for no file: {}", packet.id)))?;
                    let (trees, sender, handle) = (Arc::clone(&trees), sender.clone(), handle.clone());
                    blocking(move || match source {
                        Source::File(tree, path) => file(&trees[tree].view, &path, packet.id, &sender, &handle),
                        Source::Statement(tree, at) => {
                            content(&mut trees[tree].statements[at].bytes.as_slice(), packet.id, &sender, &handle)
                        }
                    })
                    .await?;
                }
                PACKET_FIN => {
                    sender.send(&Packet { kind: PACKET_FIN, ..Packet::default() }).await;
                    return Ok(());
                }
                PACKET_ERR => {
                    return Err(Status::new(Code::Unknown, String::from_utf8_lossy(&packet.data).into_owned()));
                }
                _ => return Err(Status::invalid("the client sends what nobody has asked for")),
            }
        }
    };
    let (told, answered): (_, Result<(), Status>) = tokio::join!(telling, answering);
    answered?;
    told?;
    drop(sender);
    // The call is over when the client has written everything.
    while answers.next::<Packet>().await?.is_some() {}
    Ok(())
}

fn file(root: &RootDir, path: &Path, id: u32, sender: &Sender, handle: &Handle) -> Result<(), Status> {
    let failing = |why: String| Status::new(Code::Unknown, format!("{}: {why}", path.display()));
    let mut file = root.open_file(path).map_err(|e| failing(e.to_string()))?;
    content(&mut file, id, sender, handle).map_err(|status| failing(status.message().to_owned()))
}

fn content(input: &mut dyn Read, id: u32, sender: &Sender, handle: &Handle) -> Result<(), Status> {
    let gone = || Status::unavailable("the client takes no more");
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = input.read(&mut buffer).map_err(|e| Status::new(Code::Unknown, e.to_string()))?;
        let data = Bytes::copy_from_slice(&buffer[..count]);
        if !handle.block_on(sender.send(&Packet { kind: PACKET_DATA, id, data, ..Packet::default() })) {
            return Err(gone());
        }
        if count == 0 {
            return Ok(());
        }
    }
}

fn unread(error: wharf_rooted_path::RootError) -> Status {
    Status::new(Code::Unknown, wharf_report::chain(&error))
}

/// Paths in a directory of a tree, the last one first.
fn children(tree: &Tree, dir: &Path) -> Result<Vec<PathBuf>, Status> {
    let mut names = tree.view.read_dir(dir).map_err(unread)?;
    names.sort();
    Ok(names.into_iter().rev().map(|name| dir.join(name)).collect())
}

struct Walk {
    sender: Sender,
    handle: Handle,
    sent: Sent,
    next: u32,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Walk {
    fn tell(&mut self, packet: Packet) -> Result<(), Status> {
        self.next += 1;
        match self.handle.block_on(self.sender.send(&packet)) {
            true => Ok(()),
            false => Err(Status::unavailable("the client takes no more")),
        }
    }

    /// What is in tree `number`, in the order in which fsutil walks.
    fn tree(&mut self, number: usize, tree: &Tree) -> Result<(), Status> {
        // A stack instead of recursion: a tree may be deeper than ours.
        let mut left = children(tree, Path::new(""))?;
        // These are in the place of what has their names.
        left.retain(|path| tree.statements.iter().all(|file| path.as_os_str() != OsStr::new(&file.name)));
        left.extend(tree.statements.iter().map(|file| PathBuf::from(&file.name)));
        left.sort_by(|a, b| b.cmp(a));
        while let Some(path) = left.pop() {
            if let Some(at) = tree.statements.iter().position(|file| path.as_os_str() == OsStr::new(&file.name)) {
                self.statement(number, tree, at)?;
            } else if self.entry(number, tree, &path)? {
                left.extend(children(tree, &path)?);
            }
        }
        Ok(())
    }

    /// Tells of something in a tree; the value is whether it is a directory.
    fn entry(&mut self, number: usize, tree: &Tree, own: &Path) -> Result<bool, Status> {
        let (root, top) = (&tree.view, tree.name.as_deref());
        let found = root.metadata(own, false).map_err(unread)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Socket {
            return Ok(false);
        }
        let mut stat = bridge::stat(root, own, false)?;
        let shown = top.map_or_else(|| own.to_owned(), |top| Path::new(top).join(own));
        stat.path = shown.as_os_str().as_bytes().to_vec();
        let real = (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0));
        let (seconds, nanoseconds) = root.time_of(own, real);
        stat.mod_time = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.into());
        stat.xattrs = root
            .xattrs(own)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect();
        if kind == FileType::RegularFile && found.st_nlink > 1 {
            let first = self.links.entry((found.st_dev, found.st_ino)).or_insert_with(|| stat.path.clone());
            if *first != stat.path {
                stat.linkname.clone_from(first);
            }
        }
        if kind == FileType::RegularFile && stat.linkname.is_empty() {
            self.note(Source::File(number, own.to_owned()));
        }
        self.tell(Packet { kind: PACKET_STAT, stat: Some(stat), ..Packet::default() })?;
        Ok(kind == FileType::Directory)
    }

    /// What the next STAT is about may be asked for.
    fn note(&self, source: Source) {
        self.sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(self.next, source);
    }

    fn statement(&mut self, number: usize, tree: &Tree, at: usize) -> Result<(), Status> {
        let StatementFile { name: own, bytes, time } = &tree.statements[at];
        let shown = tree.name.as_deref().map_or_else(|| own.into(), |top| Path::new(top).join(own));
        let stat = Stat {
            path: shown.as_os_str().as_bytes().to_vec(),
            // As BuildKit writes them.
            mode: 0o600,
            mod_time: i64::try_from(*time).unwrap_or(0).saturating_mul(1_000_000_000),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            ..Stat::default()
        };
        self.note(Source::Statement(number, at));
        self.tell(Packet { kind: PACKET_STAT, stat: Some(stat), ..Packet::default() })
    }
}
