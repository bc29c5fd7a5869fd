//! What an instruction copies, once repositories are got and archives unpacked.

use std::collections::BTreeSet;
use std::path::PathBuf;

use wharf_archive::{UnpackOptions, Whiteouts, decompressed};
use wharf_dockerfile::Ignore;
use wharf_report::chain;
use wharf_rooted_path::RootDir;

use crate::cancel::{Cancel, Cancellable};
use crate::copy::Inline;
use crate::error::{BuildError, Result};
use crate::files::Origin;
use crate::scratch::Scratch;
use crate::select::{Item, Selected, Selection, Shape};
use crate::session::Session;
use crate::tree::{Tree, UNDATED};

/// What is copied.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    Files(&'a Selected),
    Inline(&'a Inline),
    /// A repository.
    Got(Selected),
    /// What was in an archive.
    Unpacked(Selected),
}

impl Part<'_> {
    /// The newest time in it, in seconds since the epoch.
    pub(crate) fn newest(&self) -> Option<i64> {
        let selected = match self {
            Self::Files(selected) => selected,
            Self::Got(selected) | Self::Unpacked(selected) => selected,
            Self::Inline(_) => return None,
        };
        // A directory whose contents are copied is not copied itself.
        let copied = |item: &&Item| selected.shape != Shape::Contents || !item.to.as_os_str().is_empty();
        selected.items.iter().filter(copied).map(|item| item.found.attributes.mtime.0).max()
    }
}

/// Bounds on an archive that ADD unpacks.
const MAX_ENTRIES: u64 = 5_000_000;
const MAX_BYTES: u64 = 256 << 30;

impl Session<'_> {
    /// What there is to copy: repositories are got and archives unpacked, below `dir`.
    pub(crate) fn parts<'o>(
        &self,
        origins: &'o [Origin],
        exclude: &Ignore,
        instruction: &'static str,
        dir: &Scratch,
    ) -> Result<Vec<Part<'o>>> {
        let all = |tree: &Tree, place: &str| {
            let selection = Selection { tree, exclude, parents: false, instruction, place, cancel: &self.cancel };
            selection.select(".")
        };
        let mut parts = Vec::new();
        for (number, origin) in origins.iter().enumerate() {
            match origin {
                Origin::Files(selected, _) => parts.push(Part::Files(selected)),
                Origin::Inline(file) => parts.push(Part::Inline(file)),
                Origin::Repository(repository) => {
                    parts.extend(all(&repository.tree(self)?, "repository")?.into_iter().map(Part::Got));
                }
                Origin::Archive(selected, _) => {
                    let dir = dir.sub(&format!("archive-{number}"))?;
                    let (unpacked, implied) = unpack(selected, dir, &self.cancel)?;
                    for mut selected in all(&unpacked, "archive")? {
                        // The archive says nothing about these: where they are they stay as they are, links among them.
                        for item in selected.items.iter_mut().filter(|item| implied.contains(&item.to)) {
                            item.implied = true;
                            item.found.attributes.mtime = UNDATED;
                        }
                        parts.push(Part::Unpacked(selected));
                    }
                }
            }
        }
        Ok(parts)
    }
}

/// Unpacks a local archive. Its own owners count.
fn unpack(selected: &Selected, path: PathBuf, cancel: &Cancel) -> Result<(Tree, BTreeSet<PathBuf>)> {
    let [item] = selected.items.as_slice() else { return Err(BuildError::invalid("an archive is one file")) };
    let file = selected.tree.open(&item.from)?;
    let failing = |e: &dyn std::error::Error| {
        BuildError::invalid(format!("ADD failed: {} cannot be unpacked: {}", item.from.display(), chain(e)))
    };
    let input = Cancellable { inner: file, cancel: cancel.clone() };
    let content = decompressed(input).map_err(|e| failing(&e))?;
    let root = RootDir::open(&path)?;
    let options = UnpackOptions {
        whiteouts: Whiteouts::Literal,
        same_owner: true,
        no_overwrite_dir_non_dir: false,
        max_entries: MAX_ENTRIES,
        max_bytes: MAX_BYTES,
        ..UnpackOptions::default()
    };
    let unpacked = wharf_archive::unpack_telling_implied(content, &root, &options);
    cancel.check()?;
    let (_, implied) = unpacked.map_err(|e| failing(&e))?;
    Ok((Tree::new(root, true), implied))
}
