//! Which files a COPY or ADD means, and a checksum of exactly those.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use wharf_dockerfile::{Glob, Ignore};
use wharf_reference::{Digest, Hasher};

use crate::cancel::Cancel;
use crate::error::{BuildError, ErrorKind, Result};
use crate::tree::{Found, Kind, Tree, rooted};

/// What one source of an instruction means.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) tree: Tree,
    pub(crate) shape: Shape,
    /// The source's own root first, then all below it, parents before their children.
    pub(crate) items: Vec<Item>,
}

/// How a source goes to its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A directory: what is in it goes into the destination.
    Contents,
    /// Anything else: it goes into the destination under this name, or becomes the destination.
    Named(OsString),
    /// `--parents`: paths below the destination.
    Paths,
}

/// One file or directory.
#[derive(Debug)]
pub(crate) struct Item {
    /// In the source's tree.
    pub(crate) from: PathBuf,
    /// Below the destination; empty for the source itself.
    pub(crate) to: PathBuf,
    pub(crate) found: Found,
    /// A directory that is only there because something below it is copied (`--parents`).
    pub(crate) implied: bool,
}

impl Selected {
    /// Gets what is still with who has sent the tree.
    fn bring(&mut self) -> Result<()> {
        self.tree.bring(self.items.iter_mut().map(|item| &mut item.found))
    }
}

/// How to select.
#[derive(Debug)]
pub(crate) struct Selection<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) exclude: &'a Ignore,
    pub(crate) parents: bool,
    /// `COPY` or `ADD`, for messages.
    pub(crate) instruction: &'static str,
    /// The context, a stage or an image, for messages.
    pub(crate) place: &'a str,
    pub(crate) cancel: &'a Cancel,
}

/// No tree of files that anybody copies has more; a bomb ends here.
const MAX_ITEMS: usize = 10_000_000;

impl Selection<'_> {
    /// Resolves one source as it is written; `..` does not lead out of its root.
    ///
    /// # Errors
    /// When a path without wildcards is not there.
    pub(crate) fn select(&self, source: &str) -> Result<Vec<Selected>> {
        let mut all = self.find(source)?;
        all.iter_mut().try_for_each(Selected::bring)?;
        Ok(all)
    }

    /// Resolves one path in which no character is special.
    ///
    /// # Errors
    /// As [`Self::select`].
    pub(crate) fn select_literal(&self, source: &str) -> Result<Option<Selected>> {
        let mut found = self.one(&rooted(Path::new(source)), source)?;
        found.iter_mut().try_for_each(Selected::bring)?;
        Ok(found)
    }

    fn find(&self, source: &str) -> Result<Vec<Selected>> {
        if self.parents {
            return self.select_with_parents(source).map(|found| vec![found]);
        }
        let path = rooted(Path::new(source));
        if !Glob::is_pattern(source) {
            return self.one(&unescaped(&path), source).map(|found| found.into_iter().collect());
        }
        // What may match nothing is the pattern, and not the directory in which it is looked for.
        let is_plain = |part: &Component<'_>| !Glob::is_pattern(&part.as_os_str().to_string_lossy());
        let dir = unescaped(&path.components().take_while(is_plain).collect::<PathBuf>());
        let is_dir = |found: Found| found.attributes.kind == Kind::Directory;
        if !dir.as_os_str().is_empty() && !self.tree.look(&dir, true)?.is_some_and(is_dir) {
            return Err(self.missing(&dir.to_string_lossy()));
        }
        let mut all = Vec::new();
        for path in self.matches(&path)? {
            // Which of those that match leads nowhere, and not that nothing matches.
            all.extend(self.one(&path, &path.to_string_lossy())?);
        }
        Ok(all)
    }

    fn missing(&self, source: &str) -> BuildError {
        let hint = if self.place == "build context" { " or excluded by .dockerignore" } else { "" };
        let message = format!(
            "{} failed: file not found in {}{hint}: stat {source}: file does not exist",
            self.instruction, self.place
        );
        BuildError::new(ErrorKind::Invalid, message)
    }

    /// Paths that match, component by component, sorted.
    fn matches(&self, pattern: &Path) -> Result<Vec<PathBuf>> {
        let mut found = vec![PathBuf::new()];
        for part in pattern.components() {
            let text = part.as_os_str().to_string_lossy();
            let literal = !Glob::is_pattern(&text);
            let glob = if literal { None } else { Some(Glob::new(&text)?) };
            let mut next = Vec::new();
            for dir in found {
                self.cancel.check()?;
                let Some(glob) = &glob else {
                    let path = dir.join(unescaped(Path::new(part.as_os_str())));
                    if self.tree.look(&path, false)?.is_some() {
                        next.push(path);
                    }
                    continue;
                };
                let names = self.tree.names(&dir)?.into_iter().filter(|name| glob.matches(&name.to_string_lossy()));
                next.extend(names.map(|name| dir.join(name)));
            }
            found = next;
        }
        Ok(found)
    }

    /// One path without wildcards; nothing when it is excluded.
    fn one(&self, path: &Path, source: &str) -> Result<Option<Selected>> {
        let found = self.tree.look(path, true)?.ok_or_else(|| self.missing(source))?;
        let directory = found.attributes.kind == Kind::Directory;
        let shape = match path.file_name() {
            Some(name) if !directory => Shape::Named(name.to_owned()),
            _ => Shape::Contents,
        };
        if let Shape::Named(name) = &shape
            && self.exclude.is_ignored(&name.to_string_lossy())
        {
            return Ok(None);
        }
        let mut items = vec![Item { from: path.to_owned(), to: PathBuf::new(), found, implied: false }];
        if directory {
            self.walk(path, Path::new(""), &mut items)?;
        }
        Ok(Some(Selected { tree: self.tree.clone(), shape, items }))
    }

    /// Everything below `from`, but for what is excluded. `to` is what patterns are about.
    fn walk(&self, from: &Path, to: &Path, items: &mut Vec<Item>) -> Result<()> {
        let children = |from: &Path, to: &Path, above: &wharf_dockerfile::Verdict| -> Result<Vec<_>> {
            let all = self.tree.children(from)?.into_iter().rev();
            Ok(all.map(|(name, found)| (from.join(&name), to.join(&name), found, above.clone())).collect())
        };
        // A stack instead of recursion: a tree may be deeper than ours.
        let mut stack = children(from, to, &wharf_dockerfile::Verdict::default())?;
        // Directories that are excluded, and there only if something below them is not.
        let mut pending: Vec<Item> = Vec::new();
        while let Some((from, to, found, above)) = stack.pop() {
            self.cancel.check()?;
            let verdict = match self.exclude.is_empty() {
                true => above,
                false => self.exclude.decide(&above, &to.to_string_lossy()),
            };
            let directory = found.attributes.kind == Kind::Directory;
            let item = Item { from, to, found, implied: false };
            pending.retain(|dir| item.to.starts_with(&dir.to));
            if directory && (!verdict.ignored || self.exclude.keeps_some()) {
                stack.extend(children(&item.from, &item.to, &verdict)?);
            }
            if verdict.ignored {
                if directory {
                    pending.push(item);
                }
                continue;
            }
            items.append(&mut pending);
            items.push(item);
            if items.len() > MAX_ITEMS {
                return Err(BuildError::invalid(format!("more than {MAX_ITEMS} files are to be copied")));
            }
        }
        Ok(())
    }

    /// `--parents`: the path stays as it is, from `/./` on if that is in it.
    fn select_with_parents(&self, source: &str) -> Result<Selected> {
        let (base, pattern) = source.split_once("/./").unwrap_or(("", source));
        let (base, pattern) = (rooted(Path::new(base)), rooted(Path::new(pattern)));
        let mut selected = Selected { tree: self.tree.clone(), shape: Shape::Paths, items: Vec::new() };
        let mut seen = BTreeMap::new();
        if !Glob::is_pattern(&base.to_string_lossy()) {
            self.below(&unescaped(&base), &pattern, source, &mut seen, &mut selected)?;
            return Ok(selected);
        }
        // What one of them lacks, another may have.
        let literal = (!Glob::is_pattern(&pattern.to_string_lossy())).then(|| unescaped(&pattern));
        for base in self.matches(&base)? {
            let is_there = literal
                .as_ref()
                .map_or(Ok(true), |path| Ok::<_, BuildError>(self.tree.look(&base.join(path), true)?.is_some()))?;
            if is_there {
                self.below(&base, &pattern, source, &mut seen, &mut selected)?;
            }
        }
        Ok(selected)
    }

    /// What a pattern means in a directory, with its path from there on.
    fn below(
        &self,
        base: &Path,
        pattern: &Path,
        source: &str,
        seen: &mut BTreeMap<PathBuf, ()>,
        selected: &mut Selected,
    ) -> Result<()> {
        if Glob::is_pattern(&pattern.to_string_lossy()) {
            let glob = Glob::new(&pattern.to_string_lossy())?;
            let mut all = Vec::new();
            self.walk(base, Path::new(""), &mut all)?;
            // What is below a directory that matches belongs to it.
            let mut within: Option<PathBuf> = None;
            for item in all {
                let inside = within.as_ref().is_some_and(|dir| item.to.starts_with(dir));
                if inside || glob.matches(&item.to.to_string_lossy()) {
                    if !inside && item.found.attributes.kind == Kind::Directory {
                        within = Some(item.to.clone());
                    }
                    self.imply(base, &item.to, seen, &mut selected.items)?;
                    seen.insert(item.to.clone(), ());
                    selected.items.push(item);
                }
            }
            return Ok(());
        }
        let pattern = unescaped(pattern);
        let path = base.join(&pattern);
        match self.one(&path, source)? {
            None => {}
            Some(found) => {
                self.imply(base, &pattern, seen, &mut selected.items)?;
                let moved = |item: Item| Item { to: join(&pattern, &item.to), ..item };
                selected.items.extend(found.items.into_iter().map(moved));
            }
        }
        Ok(())
    }

    /// Adds the directories above `to` that are not there yet.
    fn imply(&self, base: &Path, to: &Path, seen: &mut BTreeMap<PathBuf, ()>, items: &mut Vec<Item>) -> Result<()> {
        // What is here has all above it here.
        let above = to.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
        let missing: Vec<&Path> = above.take_while(|dir| !seen.contains_key(*dir)).collect();
        for dir in missing.into_iter().rev() {
            seen.insert(dir.to_owned(), ());
            if let Some(found) = self.tree.look(&base.join(dir), true)? {
                items.push(Item { from: base.join(dir), to: dir.to_owned(), found, implied: true });
            }
        }
        Ok(())
    }
}

/// As `Path::join`, which would end an empty second part with a slash.
pub(crate) fn join(dir: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { dir.to_owned() } else { dir.join(rest) }
}

/// A path whose escapes have been taken away: it has no wildcards that they would protect.
fn unescaped(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    if !bytes.contains(&b'\\') {
        return path.to_owned();
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        plain.push(if *byte == b'\\' { *rest.next().unwrap_or(byte) } else { *byte });
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// A checksum of what was selected: names, kinds, permissions, owners, contents. Times do not count, so that a
/// fresh checkout of the same files is the same.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn checksum(all: &[Selected], cancel: &Cancel) -> Result<Digest> {
    const PREFIX: &[u8] = b"sha256:";
    let mut hasher = Hasher::new();
    let (mut line, mut digest) = (Vec::new(), [0; PREFIX.len() + 64]);
    digest[..PREFIX.len()].copy_from_slice(PREFIX);
    let (mut last, mut rest) = (None, String::new());
    for selected in all {
        // The name of a file counts, as it may become the name of the copy.
        let name = match &selected.shape {
            Shape::Named(name) => name.as_bytes(),
            Shape::Contents => b"/",
            Shape::Paths => b"/./",
        };
        line.clear();
        field(&mut line, name);
        let mut names: HashMap<(u64, u64), &[u8]> = HashMap::new();
        for item in &selected.items {
            cancel.check()?;
            let attributes = &item.found.attributes;
            let device;
            let content: &[u8] = match attributes.kind {
                Kind::File => {
                    write_hex(&mut digest[PREFIX.len()..], &selected.tree.digest(&item.from, &item.found)?);
                    &digest
                }
                Kind::Symlink => item.found.link.as_bytes(),
                Kind::CharacterDevice | Kind::BlockDevice => {
                    device = item.found.device.to_string();
                    device.as_bytes()
                }
                Kind::Directory | Kind::Fifo => &[],
            };
            field(&mut line, item.to.as_os_str().as_bytes());
            field(&mut line, content);
            // Of thousands of files nearly all are alike in this.
            let like = (attributes.kind, attributes.mode, attributes.owner, attributes.xattrs.len());
            if last.as_ref() != Some(&like) {
                let (kind, mode, (uid, gid), xattrs) = like;
                rest = format!("{kind:?} {mode:o} {uid} {gid} {xattrs}");
                last = Some(like);
            }
            field(&mut line, rest.as_bytes());
            for (key, value) in &attributes.xattrs {
                field(&mut line, key.as_bytes());
                field(&mut line, value);
            }
            // Names of one file are told from files that are alike.
            if let Some(inode) = item.found.inode {
                match names.get(&inode) {
                    Some(first) => field(&mut line, &[b"link of ", *first].concat()),
                    None => drop(names.insert(inode, item.to.as_os_str().as_bytes())),
                }
            }
            hasher.update(&line);
            line.clear();
        }
        hasher.update(&line);
    }
    Ok(hasher.finish())
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// With its length before it, so that no two lists of fields give the same bytes.
fn field(line: &mut Vec<u8>, bytes: &[u8]) {
    // By hand, as it is done several times for each file.
    let (mut digits, mut at, mut left) = ([0; 20], 20, bytes.len());
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
    line.push(b':');
    line.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_length_before_them() {
        let mut line = Vec::new();
        for length in [0, 9, 10, 123] {
            field(&mut line, "x".repeat(length).as_bytes());
        }
        let expected = [0, 9, 10, 123].map(|length| format!("{length}:{}", "x".repeat(length))).concat();
        assert_eq!(String::from_utf8(line).unwrap(), expected);
        let mut text = [0; 6];
        write_hex(&mut text, &[0x0f, 0xa0, 0x5c]);
        assert_eq!(&text, b"0fa05c");
    }
}
