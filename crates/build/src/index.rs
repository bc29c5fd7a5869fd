//! A context as it came: an index of an archive, or of a listing, whose contents lie in one file.
//!
//! A context of thousands of files is not unpacked: to make as many files on a disk, and to remove them again, costs
//! more than all the rest of a build that finds its steps in the cache. Links are resolved in the index, so nothing in
//! it can lead anywhere else.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use wharf_archive::{Entry, Kind as EntryKind, Reader, may_carry};
use wharf_dockerfile::{Ignore, Needs, Verdict};
use wharf_reference::Hasher;
use wharf_report::chain;
use wharf_snapshot::Time;

use crate::cancel::Cancel;
use crate::error::{BuildError, Result};
use crate::missing::Missing;
use crate::tree::{Attributes, Kind, UNDATED};

mod content;
mod lookup;
pub(crate) use content::{Body, IndexFile, Place, Sum, sum};

/// Bounds on what a client may send: a bomb ends here.
pub(crate) const MAX_ENTRIES: usize = 5_000_000;
pub(crate) const MAX_BYTES: u64 = 256 << 30;
/// The kernel takes no longer path (PATH_MAX), and no directory of a project is that deep.
pub(crate) const MAX_PATH: usize = 4096;

/// An archive's entries by path, and their contents.
#[derive(Debug)]
pub(crate) struct Index {
    /// The root is the first.
    nodes: Vec<Node>,
    bodies: Vec<Body>,
    contents: Arc<File>,
    /// Gets contents that are not here; none for an archive, which has all of them.
    missing: Option<Missing>,
    /// It was listed as a part of what there is.
    pub(crate) partial: bool,
    /// No file has a later time than this in layers, in seconds since the epoch.
    pub(crate) latest: Option<i64>,
    /// All files were written now, whatever they say: they have the time of their commit.
    pub(crate) checked_out: Option<Time>,
    /// The directory that the last entry came into: the next one mostly comes into the same.
    last: (PathBuf, usize),
}

/// An entry of it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) attributes: Attributes,
    pub(crate) link: OsString,
    pub(crate) device: u64,
    /// Which of the bodies is its content.
    pub(crate) content: Option<usize>,
    pub(crate) children: BTreeMap<OsString, usize>,
    /// A directory that nothing is said about.
    pub(crate) implied: bool,
}

impl Node {
    pub(crate) fn implied() -> Self {
        let attributes =
            Attributes { kind: Kind::Directory, mode: 0o755, owner: (0, 0), mtime: UNDATED, xattrs: Vec::new() };
        let children = BTreeMap::new();
        Self { attributes, link: OsString::new(), device: 0, content: None, children, implied: true }
    }
}

/// Hashes what a hole stands for.
fn hash_zeroes(hasher: &mut Hasher, count: u64, cancel: &Cancel) -> Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = count;
    while left > 0 {
        cancel.check()?;
        let piece = ZEROES.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        hasher.update(&ZEROES[..piece]);
        left -= piece as u64;
    }
    Ok(())
}

impl Index {
    /// Reads an archive; `contents` is an empty file for what is in its files.
    ///
    /// # Errors
    /// For an archive that is hostile or damaged, and for what the disk refuses.
    pub(crate) fn read(input: impl Read, contents: File, cancel: &Cancel) -> Result<Self> {
        let mut index = Self::empty(Arc::new(contents));
        let bad = |e: wharf_archive::ArchiveError| invalid(chain(&e));
        let writing = index.contents.try_clone().map_err(failing)?;
        let mut writer = BufWriter::with_capacity(1 << 20, writing);
        let mut reader = Reader::new(input);
        let mut offset = 0u64;
        let mut buffer = vec![0; 1 << 18];
        while let Some(entry) = reader.next_entry().map_err(bad)? {
            if index.nodes.len() > MAX_ENTRIES {
                return Err(invalid(format!("it has more than {MAX_ENTRIES} entries")));
            }
            // Before a byte of it is written: the size may be a lie, but not a cheap one.
            if offset.saturating_add(entry.size) > MAX_BYTES {
                return Err(invalid(format!("it has more than {MAX_BYTES} bytes of content")));
            }
            let content = if entry.kind == EntryKind::File {
                let mut hasher = Hasher::new();
                while hasher.count() < entry.size {
                    let hole = reader.skip_hole();
                    if hole > 0 {
                        writer.seek_relative(hole.cast_signed()).map_err(failing)?;
                        hash_zeroes(&mut hasher, hole, cancel)?;
                        continue;
                    }
                    let count = reader.read(&mut buffer).map_err(|e| invalid(chain(&e)))?;
                    if count == 0 {
                        return Err(invalid(format!("it ends in the middle of {}", shown(&entry.path))));
                    }
                    hasher.update(&buffer[..count]);
                    writer.write_all(&buffer[..count]).map_err(failing)?;
                }
                let size = hasher.count();
                let content =
                    index.body(size, Some(Place { offset, digest: sum(&hasher.finish()), xattrs: Vec::new() }));
                offset += size;
                Some(content)
            } else {
                None
            };
            index.add(&entry, content)?;
        }
        writer.flush().map_err(failing)?;
        // The last may end with a hole.
        index.contents.set_len(offset).map_err(failing)?;
        Ok(index)
    }

    /// One with nothing but a root.
    pub(crate) fn empty(contents: Arc<File>) -> Self {
        Self {
            nodes: vec![Node::implied()],
            bodies: Vec::new(),
            contents,
            missing: None,
            partial: false,
            latest: None,
            checked_out: None,
            last: (PathBuf::new(), 0),
        }
    }

    /// A content, which [`Self::add`] gives a name.
    pub(crate) fn body(&mut self, size: u64, place: Option<Place>) -> usize {
        self.bodies.push(Body::new(size, place));
        self.bodies.len() - 1
    }

    /// Says where contents come from that are not here.
    pub(crate) fn comes_from(&mut self, missing: Missing) {
        self.missing = Some(missing);
    }

    /// Whether a content is not here.
    pub(crate) fn lacks(&self, body: usize) -> bool {
        self.bodies[body].place.get().is_none()
    }

    /// Gets those of these contents that are not here.
    ///
    /// # Errors
    /// When whoever has them does not send them.
    pub(crate) fn bring(&self, bodies: impl IntoIterator<Item = usize>) -> Result<()> {
        let Some(missing) = &self.missing else { return Ok(()) };
        let wanted: Vec<usize> = bodies.into_iter().filter(|body| self.lacks(*body)).collect();
        if wanted.is_empty() { Ok(()) } else { missing.bring(&self.bodies, wanted) }
    }

    /// Adds an entry, a file with its content.
    ///
    /// # Errors
    /// For one that no honest client has.
    pub(crate) fn add(&mut self, entry: &Entry, content: Option<usize>) -> Result<()> {
        let name = || shown(&entry.path);
        let path = confined(&entry.path).ok_or_else(|| invalid(format!("`{}`: its name is too long", name())))?;
        let mut node = Node { content, ..node_of(entry) };
        if entry.kind == EntryKind::HardLink {
            node = self.linked(&entry.link).map_err(|why| invalid(format!("`{}` links to {why}", name())))?;
        }
        let Some(last) = path.file_name() else {
            if node.attributes.kind != Kind::Directory {
                return Err(invalid(format!("`{}` would replace the root", name())));
            }
            // The root itself.
            self.nodes[0].attributes = Attributes { kind: Kind::Directory, ..node.attributes };
            self.nodes[0].implied = false;
            return Ok(());
        };
        let parent = self
            .parent(&path)
            .ok_or_else(|| invalid(format!("`{}` is below something that is no directory", name())))?;
        self.put(parent, last.to_owned(), node);
        Ok(())
    }

    /// Another name for what is at the end of `link`: a file with its content, or whatever else may have several names.
    ///
    /// # Errors
    /// When nothing of the kind is there; why.
    pub(crate) fn linked(&mut self, link: &[u8]) -> std::result::Result<Node, &'static str> {
        let target = inside(link).ok_or("something outside")?;
        let at = self.node(&target).filter(|at| self.nodes[*at].attributes.kind != Kind::Directory);
        let node = &self.nodes[at.ok_or("what is not there")?];
        if let Some(content) = node.content {
            self.bodies[content].several = true;
        }
        let (attributes, link, children) = (node.attributes.clone(), node.link.clone(), BTreeMap::new());
        Ok(Node { attributes, link, device: node.device, content: node.content, children, implied: false })
    }

    /// Puts a node into a directory, which is one of the index's; the number that it has there.
    pub(crate) fn put(&mut self, parent: usize, name: OsString, node: Node) -> usize {
        if let Some(old) = self.nodes[parent].children.get(&name).copied()
            && self.nodes[old].attributes.kind == Kind::Directory
            && node.attributes.kind == Kind::Directory
        {
            if !node.implied {
                self.nodes[old].attributes = node.attributes;
                self.nodes[old].implied = false;
            }
            return old;
        }
        // A later entry replaces an earlier one, with all that was below it.
        let at = self.nodes.len();
        self.nodes.push(node);
        if self.nodes[parent].children.insert(name, at).is_some() {
            // It may have been below what was replaced.
            self.last = (PathBuf::new(), 0);
        }
        at
    }

    /// The directory above `path`, made with those above it where the archive does not name them.
    fn parent(&mut self, path: &Path) -> Option<usize> {
        let above = path.parent()?;
        if self.last.0 == above {
            return Some(self.last.1);
        }
        let mut at = 0;
        for part in above.components() {
            let name = part.as_os_str();
            at = match self.nodes[at].children.get(name).copied() {
                Some(next) if self.nodes[next].attributes.kind == Kind::Directory => next,
                Some(_) => return None,
                None => {
                    let next = self.nodes.len();
                    self.nodes.push(Node::implied());
                    self.nodes[at].children.insert(name.to_owned(), next);
                    next
                }
            };
        }
        self.last = (above.to_owned(), at);
        Some(at)
    }

    /// The digest of a content.
    pub(crate) fn digest(&self, body: usize) -> Result<Sum> {
        self.place(body).map(|place| place.digest)
    }

    /// The extended attributes that came with a content; none as long as it is not here.
    pub(crate) fn xattrs(&self, body: usize) -> &[(OsString, Vec<u8>)] {
        self.bodies[body].place.get().map_or(&[], |place| place.xattrs.as_slice())
    }

    fn content(&self, path: &Path) -> Result<(u64, &Place)> {
        let body = self.followed(path, true).and_then(|at| self.nodes[at].content);
        let body = body.ok_or_else(|| BuildError::invalid(format!("{} is no regular file", path.display())))?;
        Ok((self.bodies[body].size, self.place(body)?))
    }

    fn place(&self, body: usize) -> Result<&Place> {
        let content = &self.bodies[body];
        if content.place.get().is_none() {
            self.bring([body])?;
        }
        content.place.get().ok_or_else(|| BuildError::invalid("a file of the context has not been sent"))
    }

    /// The newest time of what may be needed, but for directories, in seconds since the epoch.
    pub(crate) fn newest(&self, needs: &Needs) -> i64 {
        let (mut newest, mut stack) = (0, vec![(0, needs.start())]);
        while let Some((at, reach)) = stack.pop() {
            for (name, child) in &self.nodes[at].children {
                let needed = match reach.whole {
                    true => Some(reach.clone()),
                    false => needs.enter(&reach, &name.to_string_lossy()),
                };
                let Some(reach) = needed else { continue };
                let node = &self.nodes[*child];
                if node.attributes.kind == Kind::Directory {
                    stack.push((*child, reach));
                } else if reach.whole {
                    newest = newest.max(node.attributes.mtime.0);
                }
            }
        }
        newest
    }

    /// Forgets what is ignored.
    pub(crate) fn prune(&mut self, ignore: &Ignore) {
        if ignore.is_empty() {
            return;
        }
        enum Visit {
            Enter(usize, PathBuf, Verdict),
            /// An ignored directory whose children have been looked at: it stays if one of them does.
            Leave {
                parent: usize,
                name: OsString,
            },
        }
        let mut stack = vec![Visit::Enter(0, PathBuf::new(), Verdict::default())];
        while let Some(visit) = stack.pop() {
            let (at, dir, above) = match visit {
                Visit::Enter(at, dir, verdict) => (at, dir, verdict),
                Visit::Leave { parent, name } => {
                    let child = self.nodes[parent].children.get(&name).copied();
                    if child.is_some_and(|child| self.nodes[child].children.is_empty()) {
                        self.nodes[parent].children.remove(&name);
                    }
                    continue;
                }
            };
            let children: Vec<(OsString, usize)> =
                self.nodes[at].children.iter().map(|(name, child)| (name.clone(), *child)).collect();
            for (name, child) in children {
                let path = dir.join(&name);
                let directory = self.nodes[child].attributes.kind == Kind::Directory;
                let verdict = ignore.decide(&above, &path.to_string_lossy());
                if verdict.ignored && !(directory && ignore.keeps_some()) {
                    self.nodes[at].children.remove(&name);
                    continue;
                }
                if directory {
                    if verdict.ignored {
                        stack.push(Visit::Leave { parent: at, name });
                    }
                    stack.push(Visit::Enter(child, path, verdict));
                }
            }
        }
    }
}

pub(crate) fn invalid(why: impl std::fmt::Display) -> BuildError {
    BuildError::invalid(format!("the context cannot be used: {why}"))
}

pub(crate) fn failing(error: io::Error) -> BuildError {
    BuildError::system("the context cannot be kept", &error)
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The path below the root; `..` ends there, as Go's `Clean("/" + name)` has it.
fn confined(bytes: &[u8]) -> Option<PathBuf> {
    let path = [b"/", bytes].concat();
    let mut confined = PathBuf::new();
    for part in Path::new(OsStr::from_bytes(&path)).components() {
        match part {
            Component::Normal(name) => confined.push(name),
            Component::ParentDir => drop(confined.pop()),
            _ => {}
        }
    }
    Some(confined).filter(|_| bytes.len() <= MAX_PATH)
}

/// What a link leads to, below the root; `None` when that is outside.
fn inside(bytes: &[u8]) -> Option<PathBuf> {
    if bytes.len() > MAX_PATH {
        return None;
    }
    wharf_archive::normal(bytes)
}

/// Owners are not those of whoever sent it.
fn node_of(entry: &Entry) -> Node {
    let kind = match entry.kind {
        EntryKind::File | EntryKind::HardLink => Kind::File,
        EntryKind::Directory => Kind::Directory,
        EntryKind::Symlink => Kind::Symlink,
        EntryKind::CharacterDevice => Kind::CharacterDevice,
        EntryKind::BlockDevice => Kind::BlockDevice,
        EntryKind::Fifo => Kind::Fifo,
    };
    let carried = entry.xattrs.iter().filter(|(key, _)| may_carry(key));
    let xattrs = carried.map(|(key, value)| (OsString::from_vec(key.clone()), value.clone())).collect();
    let attributes = Attributes { kind, mode: entry.mode, owner: (0, 0), mtime: entry.mtime, xattrs };
    Node {
        attributes,
        link: if kind == Kind::Symlink { OsString::from_vec(entry.link.clone()) } else { OsString::new() },
        device: rustix::fs::makedev(entry.device.0, entry.device.1),
        content: None,
        children: BTreeMap::new(),
        implied: false,
    }
}

#[cfg(test)]
mod tests;
