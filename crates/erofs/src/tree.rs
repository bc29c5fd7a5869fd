//! The names of an image: what is where, until the directories are written.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use crate::Result;
use crate::error::Refusal;
use crate::format::{Kind, MAX_NAME};

/// The root's number among the directories.
pub(crate) const ROOT: u32 = 0;
/// Names that a file can have: the short form of an inode counts them by 16 bits. Other file systems take as many.
const MAX_LINKS: u32 = u16::MAX as u32;
/// Links that are followed on the way of a path, as many as the kernel follows (path_resolution(7)).
const MAX_FOLLOWED: u32 = 40;

/// Bytes of memory that all names may take, near enough: room for eight million files, and an end to an archive whose
/// short entries have long ways of directories.
const MAX_MEMORY: u64 = 1 << 30;
/// What a name takes beside itself, and what a directory takes more.
const PER_NAME: u64 = 80;
const PER_DIRECTORY: u64 = 120;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory(u32),
    Other(u32),
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) parent: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Option<(i64, u32)>,
    /// Encoded, without the mark for overlayfs.
    pub(crate) xattrs: Option<Arc<[u8]>>,
    pub(crate) opaque: bool,
    children: BTreeMap<Box<[u8]>, Entry>,
}

/// A file of any other kind, which is on the disk by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    /// Byte of the image.
    pub(crate) place: u64,
    pub(crate) links: u32,
    pub(crate) kind: Kind,
    pub(crate) compact: bool,
    /// A character device 0:0.
    pub(crate) whiteout: bool,
}

#[derive(Debug)]
pub(crate) struct Tree {
    directories: Vec<Directory>,
    pub(crate) files: Vec<File>,
    /// Targets of symbolic links, as later entries may come by way of them.
    targets: HashMap<u32, Box<[u8]>>,
    /// Bytes that all of it takes; what was replaced is counted as well.
    memory: u64,
}

impl Directory {
    /// One that no entry has told of yet.
    fn new(parent: u32) -> Self {
        Self {
            parent,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: None,
            xattrs: None,
            opaque: false,
            children: BTreeMap::new(),
        }
    }

    pub(crate) fn subdirectories(&self) -> impl Iterator<Item = u32> {
        self.children.values().filter_map(|entry| match entry {
            Entry::Directory(number) => Some(*number),
            Entry::Other(_) => None,
        })
    }

    /// All names in order, also the directory's own, `number`, and its parent's.
    pub(crate) fn listing(&self, number: u32) -> impl Iterator<Item = (&[u8], Entry)> {
        let range = |from, to| self.children.range::<[u8], _>((from, to)).map(|(name, entry)| (name.as_ref(), *entry));
        let (one, two) = (b".".as_slice(), b"..".as_slice());
        range(Unbounded, Excluded(one))
            .chain([(one, Entry::Directory(number))])
            .chain(range(Excluded(one), Excluded(two)))
            .chain([(two, Entry::Directory(self.parent))])
            .chain(range(Excluded(two), Unbounded))
    }
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self { directories: vec![Directory::new(ROOT)], files: Vec::new(), targets: HashMap::new(), memory: 0 }
    }

    pub(crate) fn directory(&self, number: u32) -> &Directory {
        &self.directories[number as usize]
    }

    pub(crate) fn directory_mut(&mut self, number: u32) -> &mut Directory {
        &mut self.directories[number as usize]
    }

    /// Numbers of directories are below this.
    pub(crate) fn bound(&self) -> usize {
        self.directories.len()
    }

    /// The directory that `path` is in, with those on the way made that are missing, and its name there; `None` for the
    /// root.
    pub(crate) fn place<'p>(&mut self, path: &'p [u8]) -> Result<Option<(u32, &'p [u8])>, Refusal> {
        let mut parts: Vec<&[u8]> = parts(path).collect();
        let Some(name) = parts.pop() else { return Ok(None) };
        check_name(name)?;
        let parent = self.walk(&parts, true)?.ok_or(Refusal::NotADirectory)?;
        Ok(Some((parent, name)))
    }

    pub(crate) fn get(&self, parent: u32, name: &[u8]) -> Option<Entry> {
        self.directory(parent).children.get(name).copied()
    }

    /// The file that `path` names, if it is no directory. A link at its end is not followed.
    pub(crate) fn find(&mut self, path: &[u8]) -> Result<u32, Refusal> {
        let mut parts: Vec<&[u8]> = parts(path).collect();
        let Some(name) = parts.pop() else { return Err(Refusal::LinkToDirectory) };
        let parent = self.walk(&parts, false)?;
        match parent.and_then(|parent| self.get(parent, name)) {
            Some(Entry::Other(file)) => Ok(file),
            Some(Entry::Directory(_)) => Err(Refusal::LinkToDirectory),
            None => Err(Refusal::LinkToNothing),
        }
    }

    /// The directory at the end of `parts`, through links, which never leave the root. What is missing is made if `make`
    /// says so, but not where a link leads: then, as without `make`, it is `None`.
    fn walk(&mut self, parts: &[&[u8]], make: bool) -> Result<Option<u32>, Refusal> {
        let mut here = ROOT;
        let mut followed = 0;
        // What is left of the way, the next part last, and whether a link says so.
        let mut left: Vec<(Cow<'_, [u8]>, bool)> =
            parts.iter().rev().map(|part| (Cow::Borrowed(*part), false)).collect();
        while let Some((name, linked)) = left.pop() {
            if linked && *name == *b".." {
                here = self.directory(here).parent;
                continue;
            }
            match self.get(here, &name) {
                Some(Entry::Directory(below)) => here = below,
                Some(Entry::Other(file)) => {
                    let Some(target) = self.targets.get(&file) else { return Err(Refusal::NotADirectory) };
                    followed += 1;
                    if followed > MAX_FOLLOWED {
                        return Err(Refusal::Loop);
                    }
                    if target.starts_with(b"/") {
                        here = ROOT;
                    }
                    let way: Vec<_> = self::parts(target).map(|part| (Cow::Owned(part.to_vec()), true)).collect();
                    left.extend(way.into_iter().rev());
                }
                None if make && !linked => {
                    check_name(&name)?;
                    here = self.make_directory(here, &name)?;
                }
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// Makes a directory under a name that is free.
    pub(crate) fn make_directory(&mut self, parent: u32, name: &[u8]) -> Result<u32, Refusal> {
        self.take(PER_NAME + PER_DIRECTORY + name.len() as u64)?;
        let number = self.directories.len() as u32;
        self.directories.push(Directory::new(parent));
        self.directory_mut(parent).children.insert(name.into(), Entry::Directory(number));
        Ok(number)
    }

    /// Counts what comes into memory.
    fn take(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.memory += bytes;
        if self.memory > MAX_MEMORY { Err(Refusal::TooManyNames(MAX_MEMORY)) } else { Ok(()) }
    }

    /// Gives a file that is on the disk its first name, in place of what has it now.
    ///
    /// # Errors
    /// `TooManyNames`.
    pub(crate) fn add(&mut self, parent: u32, name: &[u8], file: File, target: Option<&[u8]>) -> Result<(), Refusal> {
        self.take(PER_NAME + name.len() as u64 + target.map_or(0, |target| PER_NAME + target.len() as u64))?;
        let number = self.files.len() as u32;
        self.files.push(file);
        if let Some(target) = target {
            self.targets.insert(number, target.into());
        }
        self.name(parent, name, number);
        Ok(())
    }

    /// Gives the file `existing` another name, in place of what has it now.
    pub(crate) fn link(&mut self, parent: u32, name: &[u8], existing: &[u8]) -> Result<(), Refusal> {
        // Taken out first: it may be on the way of what is linked to, and then there is nothing.
        let before = self.directory_mut(parent).children.remove(name);
        match self.find(existing).and_then(|number| self.take_link(number, name)) {
            Ok(number) => {
                before.into_iter().for_each(|entry| self.forget(entry));
                self.directory_mut(parent).children.insert(name.into(), Entry::Other(number));
                Ok(())
            }
            Err(why) => {
                let Some(entry) = before else { return Err(why) };
                self.directory_mut(parent).children.insert(name.into(), entry);
                let itself = self.find(existing).is_ok_and(|number| entry == Entry::Other(number));
                Err(if itself { Refusal::LinkToItself } else { why })
            }
        }
    }

    fn take_link(&mut self, number: u32, name: &[u8]) -> Result<u32, Refusal> {
        if self.files[number as usize].links == MAX_LINKS {
            return Err(Refusal::TooManyLinks(MAX_LINKS + 1));
        }
        self.take(PER_NAME + name.len() as u64)?;
        self.files[number as usize].links += 1;
        Ok(number)
    }

    fn name(&mut self, parent: u32, name: &[u8], number: u32) {
        match self.directory_mut(parent).children.get_mut(name) {
            Some(entry) => {
                let replaced = std::mem::replace(entry, Entry::Other(number));
                self.forget(replaced);
            }
            None => {
                self.directory_mut(parent).children.insert(name.into(), Entry::Other(number));
            }
        }
    }

    /// Takes a name away, with all that is below it.
    pub(crate) fn remove(&mut self, parent: u32, name: &[u8]) {
        if let Some(entry) = self.directory_mut(parent).children.remove(name) {
            self.forget(entry);
        }
    }

    fn forget(&mut self, entry: Entry) {
        let mut gone = vec![entry];
        while let Some(entry) = gone.pop() {
            match entry {
                Entry::Directory(number) => {
                    gone.extend(std::mem::take(&mut self.directory_mut(number).children).into_values());
                }
                Entry::Other(number) => {
                    let file = &mut self.files[number as usize];
                    file.links -= 1;
                    if file.links == 0 {
                        self.targets.remove(&number);
                    }
                }
            }
        }
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    match name {
        _ if name.len() > MAX_NAME => Err(Refusal::NameTooLong),
        b".." => Err(Refusal::BadName),
        _ if name.contains(&0) => Err(Refusal::BadName),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_bound() {
        let mut tree = Tree::new();
        tree.memory = MAX_MEMORY - 3 * (PER_NAME + PER_DIRECTORY + 1);
        assert_eq!(tree.place(b"a/b/c/d"), Ok(Some((3, b"d".as_slice()))));
        assert_eq!(tree.place(b"a/b/c/d"), Ok(Some((3, b"d".as_slice()))));
        assert_eq!(tree.place(b"a/b/c/d/e"), Err(Refusal::TooManyNames(MAX_MEMORY)));
    }

    #[test]
    fn ways_go_through_links_and_not_out() {
        let file = |kind| File { place: 0, links: 1, kind, compact: true, whiteout: false };
        let mut tree = Tree::new();
        let usr = tree.make_directory(ROOT, b"usr").unwrap();
        let lib = tree.make_directory(usr, b"lib").unwrap();
        for (name, target) in [("lib", "usr/lib"), ("up", "../../../usr"), ("root", "/"), ("a", "b"), ("b", "a")] {
            tree.add(ROOT, name.as_bytes(), file(Kind::Symlink), Some(target.as_bytes())).unwrap();
        }
        for (path, parent) in [("lib/x", lib), ("up/lib/x", lib), ("root/root/up/x", usr), ("root/x", ROOT)] {
            assert_eq!(tree.place(path.as_bytes()), Ok(Some((parent, b"x".as_slice()))), "{path}");
        }
        assert_eq!(tree.place(b"a/x"), Err(Refusal::Loop));
    }
}
