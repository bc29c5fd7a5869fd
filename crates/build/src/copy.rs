//! COPY and ADD: from what was selected to the layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cancel::Cancel;
use crate::error::{BuildError, Result};
use crate::mode::ModeChange;
use crate::plan::{Content, Entry, Plan};
use crate::select::{Item, Selected, Shape, join};
use crate::tree::{Attributes, Kind};

/// Where to, and what changes on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination<'a> {
    /// As it is written, its variables expanded.
    pub(crate) text: &'a str,
    pub(crate) workdir: &'a str,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<&'a ModeChange>,
    /// `COPY` or `ADD`, for messages.
    pub(crate) instruction: &'static str,
    /// How many sources the instruction has, heredocs among them.
    pub(crate) sources: usize,
    /// What is in the way goes: an archive is unpacked.
    pub(crate) replaces: bool,
}

/// A file that is not copied from a tree: of a heredoc, or from a URL.
#[derive(Debug)]
pub(crate) struct Inline {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) mtime: (i64, u32),
}

impl Destination<'_> {
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/").join(self.workdir).join(self.text)
    }

    /// Refuses several files for one place, which is no directory, as the classic builder does.
    ///
    /// # Errors
    /// In its words.
    pub(crate) fn refuse_several(&self, plan: &Plan<'_>) -> Result<()> {
        if self.ends_as_directory() || plan.kind(&plan.resolve(&self.path())?)? == Some(Kind::Directory) {
            return Ok(());
        }
        Err(BuildError::invalid(format!(
            "When using {} with more than one source file, the destination must be a directory and end with a /",
            self.instruction
        )))
    }

    /// Whether several files have become one: the last of them (BuildKit).
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub(crate) fn has_lost(&self, plan: &Plan<'_>) -> Result<bool> {
        let one = self.sources > 1 && !self.ends_as_directory();
        Ok(one && plan.kind(&plan.resolve(&self.path())?)? == Some(Kind::File))
    }

    /// Whether it is written as a directory.
    fn ends_as_directory(&self) -> bool {
        let last = self.text.rsplit('/').next().unwrap_or_default();
        matches!(last, "" | ".")
    }

    /// The path where a source called `name` goes.
    fn place(&self, plan: &mut Plan<'_>, name: &Path) -> Result<PathBuf> {
        let real = plan.resolve(&self.path())?;
        let directory = self.ends_as_directory() || plan.kind(&real)? == Some(Kind::Directory);
        if directory {
            plan.directory(&real)?;
            return Ok(real.join(name));
        }
        Ok(real)
    }

    fn changed(&self, mut attributes: Attributes) -> Attributes {
        if let Some(owner) = self.owner {
            attributes.owner = owner;
        }
        if let Some(mode) = self.mode
            && attributes.kind != Kind::Symlink
        {
            attributes.mode = mode.apply(attributes.mode, attributes.kind == Kind::Directory);
        }
        attributes
    }

    /// Adds what was selected to the layer.
    ///
    /// # Errors
    /// When a directory would be replaced by a file or the other way round, or nobody waits for it any more.
    pub(crate) fn copy(&self, plan: &mut Plan<'_>, selected: &Selected, cancel: &Cancel) -> Result<()> {
        plan.begin_source();
        match &selected.shape {
            Shape::Named(name) => {
                let place = self.place(plan, Path::new(name))?;
                for item in &selected.items {
                    cancel.check()?;
                    self.item(plan, selected, item, &place)?;
                }
            }
            Shape::Contents | Shape::Paths => {
                let real = plan.resolve(&self.path())?;
                if plan.kind(&real)?.is_some_and(|kind| kind != Kind::Directory) {
                    let message = format!("cannot copy to non-directory: /{}", real.display());
                    return Err(BuildError::invalid(message));
                }
                // What is there stays as it is; what is not is made as any other directory, whatever the source is.
                plan.directory(&real)?;
                // Where links lead that are directories above what is copied.
                let mut led: BTreeMap<&Path, PathBuf> = BTreeMap::new();
                for item in selected.items.iter().filter(|item| !item.to.as_os_str().is_empty()) {
                    cancel.check()?;
                    let mut above = item.to.ancestors().skip(1).filter(|_| !led.is_empty());
                    let link = above.find_map(|above| Some((above, led.get(above)?)));
                    let place = match link {
                        Some((above, to)) => to.join(item.to.strip_prefix(above).unwrap_or(&item.to)),
                        None => real.join(&item.to),
                    };
                    // A directory above what is copied stays as it is, if it is there.
                    if item.implied
                        && let Some(kind) = plan.kind(&place)?
                    {
                        let mut above = place;
                        if kind == Kind::Symlink {
                            above = plan.resolve(&above)?;
                            led.insert(&item.to, above.clone());
                        }
                        plan.directory(&above)?;
                        continue;
                    }
                    self.item(plan, selected, item, &place)?;
                }
            }
        }
        Ok(())
    }

    fn item(&self, plan: &mut Plan<'_>, selected: &Selected, item: &Item, place: &Path) -> Result<()> {
        let found = item.found.attributes.clone();
        // Directories that an archive does not name are made as any others are on the way.
        let attributes = if item.implied && self.replaces { found } else { self.changed(found) };
        let content = match attributes.kind {
            Kind::Directory | Kind::Fifo => Content::Copied { tree: selected.tree.clone(), path: item.from.clone() },
            Kind::File => Content::File {
                tree: selected.tree.clone(),
                path: item.from.clone(),
                size: item.found.size,
                inode: item.found.inode.map(|inode| plan.inode(inode)),
            },
            Kind::Symlink => Content::Link(item.found.link.clone()),
            Kind::CharacterDevice | Kind::BlockDevice => Content::Device(item.found.device),
        };
        if place.as_os_str().is_empty() {
            return Ok(());
        }
        let entry = Entry { attributes, content };
        if self.replaces { plan.replace(place, entry) } else { plan.put(place, entry) }
    }

    /// Adds a file whose content is in memory.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub(crate) fn write(&self, plan: &mut Plan<'_>, file: &Inline) -> Result<()> {
        let place = self.place(plan, &join(Path::new(""), Path::new(&file.name)))?;
        let attributes =
            Attributes { kind: Kind::File, mode: file.mode, owner: (0, 0), mtime: file.mtime, xattrs: Vec::new() };
        plan.put(&place, Entry { attributes: self.changed(attributes), content: Content::Bytes(file.data.clone()) })
    }
}
