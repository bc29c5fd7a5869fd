//! What can be asked of a writer, chosen by bytes or by chance.

use std::collections::BTreeMap;

use wharf_erofs::{Attributes, Node, Result, Writer};

#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Directory(Vec<u8>, Attributes),
    File(Vec<u8>, Attributes, Vec<Piece>),
    /// One that is given up.
    Dropped(Vec<u8>, Attributes, Vec<u8>),
    Symlink(Vec<u8>, Vec<u8>, Attributes),
    Node(Vec<u8>, Node, Attributes),
    Link(Vec<u8>, Vec<u8>),
    Whiteout(Vec<u8>),
    Opaque(Vec<u8>),
}

impl Operation {
    pub(crate) fn apply(&self, writer: &mut Writer) -> Result<()> {
        match self {
            Self::Directory(path, attributes) => writer.directory(path, attributes),
            Self::File(path, attributes, pieces) => {
                let length = |piece: &Piece| match piece {
                    Piece::Data(bytes) => bytes.len() as u64,
                    Piece::Hole(length) => *length,
                };
                let mut file = writer.file(path, attributes, pieces.iter().map(length).sum())?;
                for piece in pieces {
                    match piece {
                        Piece::Data(bytes) => file.append(bytes)?,
                        Piece::Hole(length) => file.hole(*length)?,
                    }
                }
                file.finish().map(drop)
            }
            Self::Dropped(path, attributes, bytes) => {
                let mut file = writer.file(path, attributes, bytes.len() as u64 + 5000)?;
                file.append(bytes)
            }
            Self::Symlink(path, target, attributes) => writer.symlink(path, target, attributes),
            Self::Node(path, node, attributes) => writer.node(path, *node, attributes),
            Self::Link(path, existing) => writer.hard_link(path, existing),
            Self::Whiteout(path) => writer.whiteout(path),
            Self::Opaque(path) => writer.opaque(path),
        }
    }
}

/// What decides, and what it has decided of paths.
pub(crate) struct Choices<'a> {
    source: Source<'a>,
    /// Paths of files, some of which may be gone.
    files: Vec<Vec<u8>>,
}

/// Numbers: given bytes until they end, or pseudo-random ones for ever.
enum Source<'a> {
    Given(&'a [u8]),
    /// Xorshift (Marsaglia 2003).
    Random(u64),
}

/// Names that try the order of directories, which has `.` and `..` among them.
const NAMES: [&[u8]; 18] = [
    b"a",
    b"b",
    b"c",
    b"ab",
    b"a.b",
    b"a ",
    b"!",
    b"-",
    b".a",
    b"..a",
    b".-",
    b"...",
    b" ",
    b"\xff\xfe",
    b"\xc3\xa4",
    b"a\nb",
    b"usr",
    b"lib",
];

impl<'a> Choices<'a> {
    pub(crate) fn given(bytes: &'a [u8]) -> Self {
        Self { source: Source::Given(bytes), files: Vec::new() }
    }

    pub(crate) fn random(seed: u64) -> Self {
        Self { source: Source::Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), files: Vec::new() }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.source, Source::Given([]))
    }

    fn byte(&mut self) -> u8 {
        match &mut self.source {
            Source::Given(bytes) => {
                let Some((first, rest)) = bytes.split_first() else { return 0 };
                *bytes = rest;
                *first
            }
            Source::Random(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                (*state >> 24) as u8
            }
        }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let mut value = u64::from(self.byte());
        for _ in 0..(64 - bound.leading_zeros()) / 8 {
            value = value << 8 | u64::from(self.byte());
        }
        value % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == count - 1
    }

    fn name(&mut self) -> Vec<u8> {
        match self.below(24) {
            22 => vec![b'n'; 250 + self.below(7) as usize],
            23 => format!("f{}", self.below(2000)).into_bytes(),
            number => NAMES[number as usize % NAMES.len()].to_vec(),
        }
    }

    fn path(&mut self) -> Vec<u8> {
        let mut path = self.name();
        for _ in 0..self.below(4) {
            path.push(b'/');
            path.extend(self.name());
        }
        path
    }

    /// The path of a file to be.
    fn file(&mut self) -> Vec<u8> {
        let path = self.path();
        self.files.push(path.clone());
        path
    }

    /// A file that was made, or any path.
    fn existing(&mut self) -> Vec<u8> {
        if self.files.is_empty() || self.one_in(4) {
            return self.path();
        }
        // One of the latest, as others are often replaced by now.
        let back = self.below(self.files.len().min(8) as u64) as usize;
        self.files[self.files.len() - 1 - back].clone()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.below(8) {
            0 => 0,
            1..=3 => self.below(200),
            4 => 3900 + self.below(300),
            5 => 4096 * self.below(4),
            6 => self.below(20_000),
            _ if self.one_in(8) => 200_000 + self.below(300_000),
            _ => self.below(5000),
        };
        // Repeats only after more than a block, and at another place in each.
        let (first, length) = (self.byte(), length as usize);
        let pattern: Vec<u8> = (0..4099u32).map(|at| (at.wrapping_mul(at) >> 5) as u8 ^ first).collect();
        let mut bytes = pattern.repeat(length / pattern.len() + 1);
        bytes.truncate(length);
        bytes
    }

    fn attributes(&mut self, any: bool) -> Attributes {
        let mut xattrs = BTreeMap::new();
        if self.one_in(6) {
            for _ in 0..=self.below(3) {
                let mut names = ["trusted.a", "security.b", "trusted.overlay.opaque", "user.a", "user.bb"].iter();
                let name = names.nth(self.below(if any { 5 } else { 2 }) as usize).unwrap_or(&"trusted.z");
                let length = if self.one_in(8) { self.below(9000) } else { self.below(60) };
                let value = vec![b'a' + self.below(26) as u8; length as usize];
                let value = if name.ends_with("opaque") { b"y".to_vec() } else { value };
                xattrs.insert(name.as_bytes().to_vec(), value);
            }
        }
        let id = |choices: &mut Self| if choices.one_in(4) { choices.below(1 << 32) as u32 } else { 0 };
        let (uid, gid) = (id(self), id(self));
        let mtime = match self.below(4) {
            0 | 1 => (1_700_000_000, 0),
            2 => (self.below(1 << 33) as i64 - (1 << 31), self.below(1_000_000_000) as u32),
            _ => (0, 0),
        };
        Attributes { mode: self.below(0o10000) as u32, uid, gid, mtime, xattrs }
    }

    pub(crate) fn operation(&mut self) -> Operation {
        match self.below(16) {
            0..=3 => Operation::Directory(self.path(), self.attributes(true)),
            4..=7 => {
                let (path, attributes) = (self.file(), self.attributes(true));
                let mut pieces = vec![Piece::Data(self.bytes())];
                if self.one_in(4) {
                    for _ in 0..=self.below(4) {
                        let hole = if self.one_in(3) { 4096 * self.below(30) } else { self.below(30_000) };
                        pieces.extend([Piece::Hole(hole), Piece::Data(self.bytes())]);
                    }
                    if self.one_in(3) {
                        pieces.push(Piece::Hole(self.below(30_000)));
                    }
                }
                Operation::File(path, attributes, pieces)
            }
            8 if self.one_in(4) => Operation::Dropped(self.path(), self.attributes(true), self.bytes()),
            8 | 9 => {
                let target = match self.below(6) {
                    0 => [b"/", self.path().as_slice()].concat(),
                    1 => [b"../", self.path().as_slice()].concat(),
                    2 => vec![b't'; self.below(4200) as usize],
                    _ => self.path(),
                };
                Operation::Symlink(self.file(), target, self.attributes(false))
            }
            10 => {
                let numbers = (self.below(4100) as u32, self.below(1 << 20) as u32);
                let node = match self.below(5) {
                    0 => Node::CharacterDevice(numbers.0, numbers.1),
                    1 => Node::BlockDevice(numbers.0, numbers.1),
                    2 => Node::Fifo,
                    3 => Node::Socket,
                    _ => Node::CharacterDevice(0, 0),
                };
                Operation::Node(self.file(), node, self.attributes(false))
            }
            11 | 12 => Operation::Link(self.file(), self.existing()),
            13 => Operation::Whiteout(self.path()),
            14 => Operation::Opaque(self.path()),
            _ => Operation::Directory(Vec::new(), self.attributes(true)),
        }
    }
}
