//! What an image should have in it, kept in the plainest way: whole paths in one table.

use std::collections::BTreeMap;

use wharf_erofs::{Attributes, Node};

use crate::operations::{Operation, Piece};
use crate::seen::{DIRECTORY, FILE, SYMLINK, Seen, TYPE, Tree, join};

/// Refused, for whatever reason.
#[derive(Debug)]
pub(crate) struct Refused;

type Result<T> = std::result::Result<T, Refused>;

#[derive(Clone, Debug)]
enum Named {
    /// Attributes that nobody told of are `None`.
    Directory(Option<Attributes>, bool),
    File(usize),
}

#[derive(Debug)]
struct File {
    mode: u32,
    /// A whiteout has none.
    attributes: Option<Attributes>,
    device: (u32, u32),
    content: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Model {
    names: BTreeMap<Vec<u8>, Named>,
    files: Vec<File>,
    time: Option<(i64, u32)>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let names = BTreeMap::from([(Vec::new(), Named::Directory(None, false))]);
        Self { names, files: Vec::new(), time: None }
    }

    pub(crate) fn apply(&mut self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::Directory(path, attributes) => {
                let path = self.place(path)?;
                let mut told = attributes.clone();
                let mark = b"trusted.overlay.opaque".as_slice();
                let marked = told.xattrs.remove(mark).is_some();
                let hidden = match self.names.get(&path) {
                    Some(Named::Directory(_, hidden)) => *hidden,
                    Some(Named::File(file)) => self.is_whiteout(*file),
                    None => false,
                };
                if !matches!(self.names.get(&path), Some(Named::Directory(..))) {
                    self.remove(&path);
                }
                self.names.insert(path, Named::Directory(Some(told), hidden | marked));
            }
            Operation::File(path, attributes, pieces) => {
                let path = self.new_file(path, attributes)?;
                let mut content = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Data(bytes) => content.extend_from_slice(bytes),
                        Piece::Hole(length) => content.resize(content.len() + *length as usize, 0),
                    }
                }
                self.file(path, FILE | attributes.mode, Some(attributes), (0, 0), content);
            }
            Operation::Dropped(path, attributes, _) => {
                self.new_file(path, attributes)?;
            }
            Operation::Symlink(path, target, attributes) => {
                let path = self.new_file(path, attributes)?;
                if target.is_empty() || target.len() > 4095 {
                    return Err(Refused);
                }
                self.file(path, SYMLINK | 0o777, Some(attributes), (0, 0), target.clone());
            }
            Operation::Node(path, node, attributes) => {
                let path = self.new_file(path, attributes)?;
                let (kind, device) = match node {
                    Node::CharacterDevice(major, minor) => (0o2_0000, (*major, *minor)),
                    Node::BlockDevice(major, minor) => (0o6_0000, (*major, *minor)),
                    Node::Fifo => (0o1_0000, (0, 0)),
                    Node::Socket => (0o14_0000, (0, 0)),
                };
                if device.0 > 4095 {
                    return Err(Refused);
                }
                self.file(path, kind | attributes.mode, Some(attributes), device, Vec::new());
            }
            Operation::Link(path, existing) => {
                let path = self.place(path)?;
                if path.is_empty() {
                    return Err(Refused);
                }
                let before = self.names.clone();
                self.remove(&path);
                let existing = self.resolve(existing, false).ok().and_then(|existing| self.names.get(&existing));
                let Some(&Named::File(file)) = existing else {
                    self.names = before;
                    return Err(Refused);
                };
                self.names.insert(path, Named::File(file));
            }
            Operation::Whiteout(path) => {
                let path = self.place(path)?;
                if path.is_empty() {
                    return Err(Refused);
                }
                match self.names.get_mut(&path) {
                    Some(Named::Directory(_, opaque)) => *opaque = true,
                    Some(Named::File(_)) => {}
                    None => self.file(path, 0o2_0000, None, (0, 0), Vec::new()),
                }
            }
            Operation::Opaque(path) => {
                let mut path = self.place(&join(path, b"x"))?;
                path.truncate(path.len().saturating_sub(2));
                match self.names.entry(path).or_insert(Named::Directory(None, false)) {
                    Named::Directory(_, opaque) => *opaque = true,
                    Named::File(_) => return Err(Refused),
                }
            }
        }
        Ok(())
    }

    /// The tree as whoever reads the image should see it.
    pub(crate) fn tree(&self) -> Tree {
        let time = self.time.unwrap_or_default();
        let mut first: BTreeMap<usize, &Vec<u8>> = BTreeMap::new();
        let mut links: BTreeMap<usize, u32> = BTreeMap::new();
        for (path, named) in &self.names {
            if let Named::File(file) = named {
                first.entry(*file).or_insert(path);
                *links.entry(*file).or_default() += 1;
            }
        }
        let seen = |(path, named): (&Vec<u8>, &Named)| {
            let told = Attributes { mode: 0o755, mtime: time, ..Attributes::default() };
            let seen = match named {
                Named::Directory(attributes, opaque) => {
                    let mut told = attributes.clone().unwrap_or(told);
                    if *opaque {
                        told.xattrs.insert(b"trusted.overlay.opaque".to_vec(), b"y".to_vec());
                    }
                    let (links, first) = (2 + self.subdirectories(path), path.clone());
                    seen(DIRECTORY | told.mode, &told, links, (0, 0), Vec::new(), first)
                }
                Named::File(number) => {
                    let file = &self.files[*number];
                    let told = file.attributes.clone().unwrap_or(told);
                    seen(file.mode, &told, links[number], file.device, file.content.clone(), first[number].clone())
                }
            };
            (path.clone(), seen)
        };
        self.names.iter().map(seen).collect()
    }

    fn subdirectories(&self, path: &[u8]) -> u32 {
        let start = if path.is_empty() { Vec::new() } else { join(path, b"") };
        let below = self.names.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
        let direct = below.filter(|(name, _)| !name[start.len()..].is_empty() && !name[start.len()..].contains(&b'/'));
        direct.filter(|(_, named)| matches!(named, Named::Directory(..))).count() as u32
    }

    fn is_whiteout(&self, file: usize) -> bool {
        self.files[file].mode & TYPE == 0o2_0000 && self.files[file].device == (0, 0)
    }

    fn new_file(&mut self, path: &[u8], attributes: &Attributes) -> Result<Vec<u8>> {
        let path = self.place(path)?;
        if path.is_empty() {
            return Err(Refused);
        }
        if attributes.mtime.0 >= 0 {
            self.time.get_or_insert(attributes.mtime);
        }
        Ok(path)
    }

    fn file(&mut self, path: Vec<u8>, mode: u32, told: Option<&Attributes>, device: (u32, u32), content: Vec<u8>) {
        self.remove(&path);
        self.names.insert(path, Named::File(self.files.len()));
        self.files.push(File { mode, attributes: told.cloned(), device, content });
    }

    fn remove(&mut self, path: &[u8]) {
        let below = join(path, b"");
        self.names.retain(|name, _| name != path && !name.starts_with(&below));
    }

    /// The path with links on its way resolved, and the directories on it made.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        if path.split(|byte| *byte == b'/').next_back().is_some_and(|name| name.len() > 255) {
            return Err(Refused);
        }
        self.resolve(path, true)
    }

    fn resolve(&mut self, path: &[u8], make: bool) -> Result<Vec<u8>> {
        if path.is_empty() {
            return Ok(Vec::new());
        }
        let mut left: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        // Parts at the end that the path itself has; those before come of links.
        let mut own = left.len();
        let mut here: Vec<u8> = Vec::new();
        let mut links = 0;
        while left.len() > 1 {
            let part = left.remove(0);
            let linked = left.len() >= own;
            own = own.min(left.len());
            if part == b".." && linked {
                here = here.iter().rposition(|byte| *byte == b'/').map(|at| here[..at].to_vec()).unwrap_or_default();
                continue;
            }
            let next = join(&here, &part);
            match self.names.get(&next) {
                Some(Named::Directory(..)) => here = next,
                Some(Named::File(file)) if self.files[*file].mode & TYPE == SYMLINK => {
                    links += 1;
                    if links > 40 {
                        return Err(Refused);
                    }
                    let target = &self.files[*file].content;
                    if target.starts_with(b"/") {
                        here = Vec::new();
                    }
                    let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
                    left.splice(0..0, parts.map(<[u8]>::to_vec));
                }
                None if make && !linked && part.len() <= 255 => {
                    self.names.insert(next.clone(), Named::Directory(None, false));
                    here = next;
                }
                _ => return Err(Refused),
            }
        }
        Ok(join(&here, &left[0]))
    }
}

fn seen(mode: u32, told: &Attributes, links: u32, device: (u32, u32), content: Vec<u8>, first: Vec<u8>) -> Seen {
    Seen {
        mode,
        uid: told.uid,
        gid: told.gid,
        mtime: told.mtime,
        links,
        device,
        size: content.len() as u64,
        xattrs: told.xattrs.clone(),
        content,
        first,
    }
}
