//! `--squash`: one layer in place of all that the build has put on its base.
//!
//! The layers say which paths they touch, and what is to be seen of them in the end says what the one layer has. So no
//! file of the base is read, and what one layer makes and a later one removes is in none.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use wharf_archive::{Kind as EntryKind, Reader};
use wharf_image::HistoryEntry;
use wharf_reference::Digest;
use wharf_report::chain;

use crate::cache::Key;
use crate::error::{BuildError, Result};
use crate::plan::{Content, Entry, Plan};
use crate::session::Session;
use crate::state::State;
use crate::tree::{Attributes, Found, Kind, Tree};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What layers touch.
#[derive(Debug, Default)]
struct Touched {
    paths: BTreeSet<PathBuf>,
    /// Of these nothing of what is below shows, if they are directories in the end.
    replaced: BTreeSet<PathBuf>,
}

impl Session<'_> {
    /// Makes one layer of those that are not of the image that the target is based on. The history says of which.
    pub(crate) fn squash(&mut self, state: &mut State) -> Result<()> {
        let (below, above) = state.layers().split_at(state.base_layers.min(state.layers().len()));
        if above.is_empty() {
            return Ok(());
        }
        let (below, above) = (below.to_vec(), above.to_vec());
        let key = Key::new("squash")
            .list(below.iter().map(Digest::as_str))
            .list(above.iter().map(Digest::as_str))
            .text(&self.clamp_text())
            .finish();
        let shared = self.shared;
        let cancel = self.cancel.clone();
        let _making = shared.cache.claim(&key, &cancel)?;
        let outcome = match self.cached(&key)? {
            Some(outcome) => outcome,
            None => {
                let base = shared.layers.view(&below, None)?;
                let whole = Tree::new(shared.layers.dated_view(state.layers())?, true);
                let mut touched = Touched::default();
                for layer in &above {
                    self.touched(layer, &mut touched)?;
                }
                let mut plan =
                    Plan::new(&base, (0, 0), (self.date_of(state), 0)).with_times(shared.layers.archive_times(&below)?);
                fill(&mut plan, &whole, &touched)?;
                self.commit(&plan, &key, "squash", state.date)?
            }
        };
        let created = self.moment(state.newest)?;
        // As Docker writes it (moby, `squashImage`).
        let id = Digest::sha256(&state.config_bytes());
        let onto = state.base_image.as_ref().map_or_else(|| "scratch".to_owned(), Digest::to_string);
        for entry in state.image.history.iter_mut().skip(state.base_history) {
            entry.empty_layer = true;
        }
        state.image.rootfs.diff_ids = below;
        state.image.rootfs.diff_ids.extend(outcome.layer.clone());
        state.image.history.push(HistoryEntry {
            created: Some(created.clone()),
            comment: Some(format!("merge {id} to {onto}")),
            empty_layer: outcome.layer.is_none(),
            ..HistoryEntry::default()
        });
        state.image.created = Some(created);
        Ok(())
    }

    /// Notes what a layer touches.
    fn touched(&self, layer: &Digest, touched: &mut Touched) -> Result<()> {
        let failing = |e: io::Error| BuildError::system("a layer cannot be read", &e);
        let (reader, writer) = io::pipe().map_err(failing)?;
        let layers = &self.shared.layers;
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut output = BufWriter::with_capacity(1 << 16, writer);
                layers.write_tar(layer, &mut output).map_err(BuildError::from)?;
                output.flush().map_err(failing)
            });
            let read = self.read_touched(reader, touched);
            let written = writing.join().map_err(|_| BuildError::invalid("the reading of a layer has crashed"))?;
            // A reader that gives up ends the writer, too.
            read.and(written)
        })
    }

    fn read_touched(&self, mut input: impl io::Read, touched: &mut Touched) -> Result<()> {
        let bad = |e: wharf_archive::ArchiveError| BuildError::invalid(format!("a layer: {}", chain(&e)));
        let mut reader = Reader::new(&mut input);
        while let Some(entry) = reader.next_entry().map_err(bad)? {
            self.cancel.check()?;
            let Some(path) = wharf_archive::normal(&entry.path).filter(|path| !path.as_os_str().is_empty()) else {
                continue;
            };
            let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
            if name.as_bytes() == OPAQUE {
                touched.replaced.insert(above.to_owned());
                continue;
            }
            let hidden = name.as_bytes().strip_prefix(WHITEOUT.as_bytes());
            let path = match hidden {
                Some(name) => above.join(OsString::from_vec(name.to_vec())),
                None => path.clone(),
            };
            if hidden.is_some() || entry.kind != EntryKind::Directory {
                touched.replaced.insert(path.clone());
            }
            touched.paths.insert(path);
        }
        // The rest behind the last entry, or the writer would find nobody.
        drop(reader);
        io::copy(&mut input, &mut io::sink()).map_err(|e| BuildError::system("a layer cannot be read", &e))?;
        Ok(())
    }
}

/// What is to be seen in the end, without following any link: a directory that was touched may be one now.
struct Seen<'a> {
    whole: &'a Tree,
    directories: HashMap<PathBuf, bool>,
}

impl Seen<'_> {
    fn is_directory(&mut self, path: &Path) -> Result<bool> {
        if path.as_os_str().is_empty() {
            return Ok(true);
        }
        if let Some(known) = self.directories.get(path) {
            return Ok(*known);
        }
        let found = self.look(path)?;
        let is = found.is_some_and(|found| found.attributes.kind == Kind::Directory);
        self.directories.insert(path.to_owned(), is);
        Ok(is)
    }

    fn look(&mut self, path: &Path) -> Result<Option<Found>> {
        let above = path.parent().unwrap_or(Path::new(""));
        if self.is_directory(above)? { self.whole.look(path, false) } else { Ok(None) }
    }
}

/// Puts what has been touched into a layer, as it is to be seen in the end.
fn fill(plan: &mut Plan<'_>, whole: &Tree, touched: &Touched) -> Result<()> {
    let mut seen = Seen { whole, directories: HashMap::new() };
    let mut hidden = BTreeSet::new();
    for path in &touched.paths {
        match seen.look(path)? {
            Some(found) => plan.replace(path, entry(whole, path, found))?,
            None => drop(hidden.insert(path.clone())),
        }
    }
    for path in &touched.replaced {
        if seen.is_directory(path)? {
            hide_below(plan, &mut seen, path, &mut hidden)?;
        }
    }
    for path in hidden {
        // Where what is above has gone, or was never there, this has, too.
        let above = path.parent().unwrap_or(Path::new(""));
        let Some(name) = path.file_name() else { continue };
        if !seen.is_directory(above)? || !plan.is_below(&path)? {
            continue;
        }
        let mut whiteout = OsString::from(WHITEOUT);
        whiteout.push(name);
        let attributes = Attributes { kind: Kind::File, mode: 0, owner: (0, 0), mtime: (0, 0), xattrs: Vec::new() };
        plan.replace(&above.join(whiteout), Entry { attributes, content: Content::Bytes(Vec::new()) })?;
    }
    Ok(())
}

/// Notes what the base has in a directory that was made anew, and the directory has no more.
fn hide_below(plan: &Plan<'_>, seen: &mut Seen<'_>, dir: &Path, hidden: &mut BTreeSet<PathBuf>) -> Result<()> {
    let mut stack = vec![dir.to_owned()];
    while let Some(dir) = stack.pop() {
        for name in plan.names_below(&dir)? {
            let path = dir.join(name);
            match seen.look(&path)? {
                None => drop(hidden.insert(path)),
                Some(found) if found.attributes.kind == Kind::Directory => stack.push(path),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

fn entry(whole: &Tree, path: &Path, found: Found) -> Entry {
    let content = match found.attributes.kind {
        Kind::Directory | Kind::Fifo => Content::Nothing,
        Kind::File => Content::File {
            tree: whole.clone(),
            path: path.to_owned(),
            size: found.size,
            inode: found.inode.map(|(device, number)| (0, device, number)),
        },
        Kind::Symlink => Content::Link(found.link),
        Kind::CharacterDevice | Kind::BlockDevice => Content::Device(found.device),
    };
    Entry { attributes: found.attributes, content }
}
