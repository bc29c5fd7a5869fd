//! Steps that put files into a stage: COPY, ADD and WORKDIR.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use wharf_archive::{Reader, decompressed};
use wharf_dockerfile::{Copy, Ignore, Source};
use wharf_git::Repository;
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;
use wharf_snapshot::MARK;

use crate::cache::Key;
use crate::cancel::Cancellable;
use crate::copy::{Destination, Inline};
use crate::definition::sums_name;
use crate::error::{BuildError, ErrorKind, Result};
use crate::identity::Accounts;
use crate::mode::ModeChange;
use crate::parts::Part;
use crate::plan::{Plan, above};
use crate::repository::Added;
use crate::select::{Selected, Selection, Shape, checksum};
use crate::session::{Outcome, Session};
use crate::state::{DATE_OF_NOTHING, State};
use crate::tree::{Attributes, Kind, Tree, UNDATED};
use crate::url::{is_url, url_name, without_user};
use crate::why::Inputs;

/// One source of an instruction.
#[derive(Debug)]
pub(crate) enum Origin {
    Files(Selected, Digest),
    /// A local archive that ADD unpacks.
    Archive(Selected, Digest),
    Inline(Inline),
    /// A repository that ADD names.
    Repository(Added),
}

impl Session<'_> {
    /// COPY or ADD. The value is what the files are afterwards, and the outcome.
    pub(crate) fn copy(
        &mut self,
        index: usize,
        state: &State,
        copy: &Copy,
        add: bool,
        source: &Source,
    ) -> Result<(Digest, Outcome)> {
        let (tree, place) = self.tree(index, copy.from.as_deref(), source)?;
        self.copy_of(tree, &place, state, copy, add, source)
    }

    /// The same, from a tree that is known.
    pub(crate) fn copy_of(
        &mut self,
        tree: Tree,
        place: &str,
        state: &State,
        copy: &Copy,
        add: bool,
        source: &Source,
    ) -> Result<(Digest, Outcome)> {
        let instruction = if add { "ADD" } else { "COPY" };
        let exclude = Ignore::new(copy.exclude.iter().map(String::as_str))?;
        let mode = copy.chmod.as_deref().map(ModeChange::parse).transpose()?;
        let owner = copy.chown.as_deref().map(|text| self.owner(state, text)).transpose()?;
        let origins = self.origins(copy, add, &tree, place, &exclude)?;
        let count = copy.sources.len() + copy.contents.len();
        let destination = Destination {
            text: &copy.destination,
            workdir: state.workdir(),
            owner,
            mode: mode.as_ref(),
            instruction,
            sources: count.max(origins.iter().filter(|origin| origin.is_one_file()).count()),
            replaces: false,
        };
        let shared = self.shared;
        if self.options.classic && destination.sources > 1 {
            let below = shared.layers.view(state.layers(), None)?;
            destination.refuse_several(&Plan::new(&below, (0, 0), UNDATED))?;
        }
        // What a linked layer lies upon is as it is for all but this: its own directories cover those.
        let expected = match copy.link && !state.layers().is_empty() {
            true => {
                let view = shared.layers.view(state.layers(), None)?;
                above(&view, &destination.path())?
            }
            false => BTreeMap::new(),
        };
        let (key, inputs) = self.copy_key(state, copy, &destination, &expected, &origins)?;
        let cancel = self.cancel.clone();
        let _making = shared.cache.claim(&key, &cancel)?;
        if let Some(outcome) = self.cached(&key)? {
            self.note_inputs(source, inputs, &outcome)?;
            return Ok((key, outcome));
        }
        // A linked layer knows nothing of what it will lie upon.
        let upon = if copy.link { &[] } else { state.layers() };
        let below = shared.layers.view(upon, None)?;
        let archives = origins.iter().all(|origin| matches!(origin, Origin::Archive(..)));
        let dir = self.step_dir()?;
        let parts = self.parts(&origins, &exclude, instruction, &dir)?;
        // As new as the newest that is copied; what it lies upon is part of what it is, unless it is linked.
        let before = if copy.link { DATE_OF_NOTHING } else { state.date };
        let date = parts.iter().filter_map(Part::newest).fold(before, i64::max);
        let fresh = (self.clamp.unwrap_or(date), MARK);
        let mut plan = Plan::new(&below, owner.unwrap_or((0, 0)), fresh)
            .with_expected(expected)
            .with_times(shared.layers.archive_times(upon)?);
        if let Some(mode) = mode.as_ref().and_then(ModeChange::of_new_directories).filter(|_| !archives) {
            plan = plan.with_fresh_mode(mode);
        }
        for part in &parts {
            match part {
                Part::Files(selected) => destination.copy(&mut plan, selected, &self.cancel)?,
                Part::Got(selected) => destination.copy(&mut plan, selected, &self.cancel)?,
                Part::Inline(file) => destination.write(&mut plan, file)?,
                // An archive's own modes count, as its owners would without --chown.
                Part::Unpacked(selected) => {
                    Destination { replaces: true, mode: None, ..destination }.copy(
                        &mut plan,
                        selected,
                        &self.cancel,
                    )?;
                }
            }
        }
        if destination.has_lost(&plan)? {
            let (count, to) = (destination.sources, &copy.destination);
            self.output.text(format!(
                "[Warning] {instruction} of {count} files to {to}, which is no directory: only the last is there. End {to} with a /\n"
            ))?;
        }
        let outcome = self.commit(&plan, &key, &source.text, date)?;
        self.note_inputs(source, inputs, &outcome)?;
        Ok((key, outcome))
    }

    /// `WORKDIR`: the directory is made if it is not there.
    pub(crate) fn make_workdir(&mut self, state: &State, path: &str) -> Result<(Digest, Outcome)> {
        let owner = state.image.config.user.as_str();
        let key =
            Key::new("workdir").text(state.files.as_str()).text(path).text(owner).text(&self.clamp_text()).finish();
        let shared = self.shared;
        let cancel = self.cancel.clone();
        let _making = shared.cache.claim(&key, &cancel)?;
        if let Some(outcome) = self.cached(&key)? {
            return Ok((key, outcome));
        }
        let below = shared.layers.view(state.layers(), None)?;
        let owner = if owner.is_empty() { (0, 0) } else { self.owner_in(&below, owner)? };
        let times = shared.layers.archive_times(state.layers())?;
        let mut plan = Plan::new(&below, owner, (self.date_of(state), 0)).with_times(times);
        let real = plan.resolve(Path::new(path))?;
        if plan.kind(&real)? == Some(Kind::Directory) {
            let outcome = self.made(&key, None, &format!("WORKDIR {path}"), state.date)?;
            return Ok((key, outcome));
        }
        plan.directory(&real)?;
        let outcome = self.commit(&plan, &key, &format!("WORKDIR {path}"), state.date)?;
        Ok((key, outcome))
    }

    /// Makes a layer of a plan and keeps it in the cache.
    pub(crate) fn commit(&self, plan: &Plan<'_>, key: &Digest, description: &str, date: i64) -> Result<Outcome> {
        if plan.is_empty() {
            return self.made(key, None, description, date);
        }
        let times = plan.real_times(self.clamp);
        let failing = |e: io::Error| BuildError::system("the layer cannot be written", &e);
        let (mut reader, writer) = io::pipe().map_err(failing)?;
        // A larger pipe than the usual 64 KiB lets both sides work at once; without one it is slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
        let (packed, imported) = std::thread::scope(|scope| {
            let packing = scope.spawn(move || {
                let writer = Cancellable { inner: writer, cancel: self.cancel.clone() };
                let mut writer = BufWriter::with_capacity(1 << 18, writer);
                plan.pack(&mut writer, self.clamp, &self.cancel)?;
                writer.flush().map_err(|_| BuildError::new(ErrorKind::System, "the layer cannot be written"))
            });
            let layers = &self.shared.layers;
            let imported = match &times {
                Some(times) => times.with(|times| layers.import_with(&mut reader, None, Some(times))),
                None => layers.import(&mut reader, None),
            };
            // So that the packing does not wait for a reader that has given up.
            drop(reader);
            (packing.join(), imported)
        });
        let packed = packed.map_err(|_| BuildError::new(ErrorKind::System, "the packing of a layer has crashed"))?;
        if packed.is_err() || imported.is_err() {
            self.cancel.check()?;
        }
        // The cause first: what could not be packed ends as an archive that cannot be unpacked.
        let layer = match (packed, imported) {
            (Err(error), _) if error.kind != ErrorKind::System => return Err(error),
            (_, Err(error)) => return Err(error.into()),
            (packed, Ok(layer)) => packed.map(|()| layer)?,
        };
        self.made(key, Some(&layer), description, date)
    }

    /// `--chown`, by the stage's own users.
    fn owner(&self, state: &State, text: &str) -> Result<(u32, u32)> {
        // Numbers need no files.
        if let Ok(owner) = Accounts::default().owner(text) {
            return Ok(owner);
        }
        let below = self.shared.layers.view(state.layers(), None)?;
        self.owner_in(&below, text)
    }

    fn owner_in(&self, below: &RootDir, text: &str) -> Result<(u32, u32)> {
        let accounts = Accounts::of(below)?;
        if self.options.classic {
            return accounts.owner(text);
        }
        let (owner, unknown) = accounts.owner_or_root(text)?;
        for name in unknown {
            let (uid, gid) = owner;
            self.output.text(format!("[Warning] the image has no {name}: what {text} is to own gets {uid}:{gid}\n"))?;
        }
        Ok(owner)
    }

    /// Everything that decides what the layer will be.
    fn copy_key<'o>(
        &self,
        state: &State,
        copy: &Copy,
        destination: &Destination<'_>,
        expected: &BTreeMap<PathBuf, Attributes>,
        origins: &'o [Origin],
    ) -> Result<(Digest, Inputs<'o>)> {
        let kind = if copy.link { "link" } else { destination.instruction };
        let below = if copy.link { "" } else { state.files.as_str() };
        let path = format!("{}\0{}", destination.workdir, destination.text);
        let mut key = Key::new(kind)
            .text(below)
            .text(&path)
            .text(&format!("{:?} {:?}", destination.owner, copy.chmod))
            .text(&destination.sources.to_string())
            .text(&self.clamp_text())
            .list(&copy.exclude);
        let mut inputs = Inputs::after(below)
            .with("the destination", &path)
            .with("the owner", &format!("{:?}", destination.owner))
            .with("the mode", &format!("{:?}", copy.chmod))
            .with("what is excluded", &format!("{:?}", copy.exclude))
            .with("SOURCE_DATE_EPOCH", &self.clamp_text());
        if !expected.is_empty() {
            let expected = format!("{expected:?}");
            key = key.text(&expected);
            inputs = inputs.with("the directories that are there", &expected);
        }
        for origin in origins {
            key = match origin {
                Origin::Files(selected, checksum) | Origin::Archive(selected, checksum) => {
                    let kind = if matches!(origin, Origin::Files(..)) { "files" } else { "archive" };
                    inputs.files(checksum.to_string(), selected);
                    key.text(kind).text(checksum.as_str())
                }
                Origin::Repository(repository) => {
                    inputs = inputs.with("the commit of the repository", &repository.key());
                    key.text("repository").text(&repository.key())
                }
                Origin::Inline(file) => {
                    inputs = inputs.with(&format!("the text {}", file.name), &String::from_utf8_lossy(&file.data));
                    key.text("inline").text(&file.name).text(&file.mode.to_string()).bytes(&file.data)
                }
            };
        }
        Ok((key.finish(), inputs))
    }

    /// What each source means, in the order of the instruction.
    fn origins(&mut self, copy: &Copy, add: bool, tree: &Tree, place: &str, exclude: &Ignore) -> Result<Vec<Origin>> {
        if copy.checksum.is_some()
            && (copy.sources.len() != 1 || !(is_url(&copy.sources[0]) || Repository::is_address(&copy.sources[0])))
        {
            return Err(BuildError::invalid("checksum requires a single HTTP(S) or git source"));
        }
        let mut origins = Vec::new();
        for source in &copy.sources {
            if Repository::is_address(source) {
                if !add {
                    return Err(BuildError::invalid("source can't be a git ref for COPY"));
                }
                let added = Added::new(self, source, copy)?;
                self.note_material(source, ("sha1", added.commit()));
                origins.push(Origin::Repository(added));
                continue;
            }
            if is_url(source) {
                if !add {
                    return Err(BuildError::invalid("source can't be a URL for COPY"));
                }
                origins.push(self.downloaded(source, copy)?);
                continue;
            }
            let selection = Selection {
                tree,
                exclude,
                parents: copy.parents,
                instruction: if add { "ADD" } else { "COPY" },
                place,
                cancel: &self.cancel,
            };
            let found = selection.select(source)?;
            let outside = copy.from.is_none() || place.starts_with("context ");
            let name = outside.then(|| sums_name(place, source, &copy.exclude, copy.parents));
            let sums = self.checksums(name, &found)?;
            for (selected, sum) in found.into_iter().zip(sums) {
                let unpacked = add && copy.unpack != Some(false) && is_archive(&selected);
                origins.push(if unpacked { Origin::Archive(selected, sum) } else { Origin::Files(selected, sum) });
            }
        }
        for content in &copy.contents {
            origins.push(Origin::Inline(Inline {
                name: content.name.clone(),
                data: content.data.clone().into_bytes(),
                mode: 0o644,
                mtime: UNDATED,
            }));
        }
        Ok(origins)
    }

    fn downloaded(&mut self, url: &str, copy: &Copy) -> Result<Origin> {
        let (path, time) = self.download(url)?;
        let failing = |e: std::io::Error| BuildError::system(format_args!("cannot read {}", without_user(url)), &e);
        let expected = copy.checksum.as_deref().map(Digest::parse).transpose();
        let expected = expected.map_err(|e| BuildError::invalid(e.to_string()))?;
        if expected.is_some() || self.options.attested {
            let mut hasher = wharf_reference::Hasher::new();
            let mut file = std::fs::File::open(&path).map_err(failing)?;
            std::io::copy(&mut file, &mut hasher).map_err(failing)?;
            let found = hasher.finish();
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(BuildError::invalid(format!("digest mismatch {found}: {expected}")));
            }
            self.note_material(url, ("sha256", found.hex()));
        }
        let name = url_name(url);
        if self.options.classic && name.is_none() && copy.destination.ends_with('/') {
            return Err(BuildError::invalid(format!("cannot determine filename from url: {url}")));
        }
        let below = RootDir::open(path.parent().unwrap_or(Path::new("/")))?;
        let tree = Tree::new(below, false);
        let from = PathBuf::from(path.file_name().unwrap_or_default());
        let found = tree.look(&from, false)?.ok_or_else(|| BuildError::invalid("a download is no file"))?;
        let mut item = crate::select::Item { from, to: PathBuf::new(), found, implied: false };
        // As Docker has it: nobody else's business, and as old as the server says.
        item.found.attributes.mode = 0o600;
        item.found.attributes.mtime = (time.unwrap_or(0), 0);
        let shape = Shape::Named(name.unwrap_or_else(|| "__unnamed__".into()).into());
        let selected = Selected { tree, shape, items: vec![item] };
        let unpacked = copy.unpack == Some(true) && is_archive(&selected);
        let sum = checksum(std::slice::from_ref(&selected), &self.cancel)?;
        Ok(if unpacked { Origin::Archive(selected, sum) } else { Origin::Files(selected, sum) })
    }
}

impl Origin {
    fn is_one_file(&self) -> bool {
        match self {
            Self::Files(selected, _) => matches!(selected.shape, Shape::Named(_)),
            Self::Inline(_) => true,
            Self::Archive(..) | Self::Repository(_) => false,
        }
    }
}

/// The instruction's line in the image's history.
pub(crate) fn history_line(copy: &Copy, add: bool) -> String {
    let mut line = String::from(if add { "ADD" } else { "COPY" });
    if copy.parents {
        line.push_str(" --parents");
    }
    for (flag, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if let Some(value) = value {
            line.push_str(&format!(" --{flag}={value}"));
        }
    }
    for source in &copy.sources {
        // Everybody who has the image reads it.
        line.push_str(&format!(" {}", without_user(source)));
    }
    for content in &copy.contents {
        line.push_str(&format!(" <<{}", content.name));
    }
    line.push_str(&format!(" {} # buildkit", copy.destination));
    line
}

/// Whether a single file is a tar archive, compressed or not.
fn is_archive(selected: &Selected) -> bool {
    let (Shape::Named(_), [item]) = (&selected.shape, selected.items.as_slice()) else { return false };
    if item.found.attributes.kind != Kind::File {
        return false;
    }
    let Ok(file) = selected.tree.open(&item.from) else { return false };
    decompressed(file).is_ok_and(|content| matches!(Reader::new(content.take(1 << 20)).next_entry(), Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (source, url, git) in [
            ("http://h/f", true, false),
            ("HTTPS://h/f", true, false),
            ("https://h/r.git", true, true),
            ("https://h/r.git#main:dir", true, true),
            ("git@h:r", false, true),
            ("git://h/r", false, true),
            ("dir/file.git", false, false),
            ("ftp://x", false, false),
        ] {
            assert_eq!((is_url(source), Repository::is_address(source)), (url, git), "{source}");
        }
    }

    #[test]
    fn history_lines_are_dockers() {
        let copy = Copy {
            sources: vec!["a".into(), "b".into()],
            destination: "/c/".into(),
            chown: Some("web".into()),
            chmod: Some("644".into()),
            ..Copy::default()
        };
        assert_eq!(history_line(&copy, false), "COPY --chown=web --chmod=644 a b /c/ # buildkit");
    }
}
