//! Layers on their way in.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, RenameFlags, Timespec, Timestamps, rename, renameat_with};
use rustix::io::Errno;
use wharf_archive::{ArchiveError, IdRange, OtherTimes, Unpacked, Upper, pack_upper};
use wharf_reference::Digest;
use wharf_rooted_path::{RootDir, disk_usage};

use crate::archive_times::{ArchiveTimes, Clamped, Time};
use crate::content::check;
use crate::hashed::HashedReader;
use crate::hold::Held;
use crate::layers::{LAYERS, Layer, Layers, now};
use crate::storage::Storage;
use crate::temporary::{Content, Temporary};
use crate::view::View;
use crate::{Result, SnapshotError};

/// Most bytes of a layer's tar. Larger than any layer that anybody pulls, and an end to what inflates without one.
pub(crate) const MAX_TAR: u64 = 256 << 30;

/// A layer of so many entries is measured, which takes a few milliseconds; of a larger one the archive says it near enough.
const MEASURED_ENTRIES: u64 = 1000;

/// What the files of a layer have for times here, where they are others than its archive says.
pub struct RealTimes<'a> {
    /// How the archive's are told from them.
    pub clamped: Clamped,
    pub of: &'a OtherTimes<'a>,
}

impl std::fmt::Debug for RealTimes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RealTimes").field("clamped", &self.clamped).finish_non_exhaustive()
    }
}

/// The times that an archive has of what a step has written, whose files keep their own.
#[derive(Debug)]
pub struct Dating {
    /// No entry gets a later one.
    pub latest: Time,
    /// When the step began: all that it has written gets that time.
    pub since: Time,
    /// When it had ended.
    pub until: Time,
    /// What archives say of what was there before.
    pub below: Option<ArchiveTimes>,
}

/// An archive that has come in, whole.
struct Streamed {
    diff_id: Digest,
    tar_size: u64,
    content: Content,
    /// [`Layer::clamped`]
    clamped: Option<Clamped>,
}

/// Ends when nobody wants what is read.
struct While<'a> {
    input: File,
    goes_on: &'a dyn Fn() -> bool,
}

impl Read for While<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match (self.goes_on)() {
            true => self.input.read(bytes),
            false => Err(io::Error::other("nobody waits for the layer any more")),
        }
    }
}

/// Gives files of `to` the times that those of `from`, which is the same tree, have from this one on.
fn touch(from: &RootDir, to: &RootDir, begin: Time) -> Result<()> {
    let mut left = vec![PathBuf::new()];
    while let Some(dir) = left.pop() {
        for name in from.read_dir(&dir)? {
            let path = dir.join(name);
            let stat = from.metadata(&path, false)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => left.push(path),
                FileType::RegularFile if stat.st_mtime >= begin.0 => {
                    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() as _ };
                    to.set_times(&path, &Timestamps { last_access: time, last_modification: time })?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

impl Layers {
    /// Makes a layer of an uncompressed tar stream. What is here already is read to its end and not kept twice. It is
    /// held as long as the answer is.
    ///
    /// # Errors
    /// `WrongDiffId` when it is not `expected`; for an archive that is hostile or damaged, and for what the disk
    /// refuses. Then nothing of it stays.
    pub fn import(&self, tar: &mut dyn Read, expected: Option<&Digest>) -> Result<Layer> {
        self.import_with(tar, expected, None)
    }

    /// As [`Self::import`], of what a step of a build has made, where its files keep the times that they really have.
    ///
    /// # Errors
    /// As [`Self::import`].
    pub fn import_with(
        &self,
        tar: &mut dyn Read,
        expected: Option<&Digest>,
        times: Option<RealTimes<'_>>,
    ) -> Result<Layer> {
        // First held, then looked for: what is found stays.
        let _held = expected.map(|diff_id| self.hold(std::slice::from_ref(diff_id)));
        if let Some(layer) = expected.map(|diff_id| self.present(diff_id)).transpose()?.flatten() {
            let (found, _) = HashedReader::new(tar, MAX_TAR).finish().map_err(SnapshotError::Input)?;
            check(expected, &found)?;
            return Ok(layer);
        }
        let temporary = self.temporary()?;
        let mut tar = self.store().budget().metered(tar);
        let mut reader = HashedReader::new(&mut tar, MAX_TAR);
        let content = temporary.unpack(&mut reader, times.as_ref().map(|times| times.of))?;
        let (diff_id, tar_size) = reader.finish().map_err(SnapshotError::Input)?;
        check(expected, &diff_id)?;
        self.keep(temporary, Streamed { diff_id, tar_size, content, clamped: times.map(|times| times.clamped) })
    }

    /// Makes a layer of what a container, or a step of a build, has written to its upper directory, which stays. The layer
    /// is held as long as the answer. `below` is what the directory has lain upon, if that is known.
    ///
    /// # Errors
    /// When something cannot be read or the disk refuses.
    pub fn commit(&self, upper: &Path, below: Option<View>, dating: Option<Dating>) -> Result<Layer> {
        self.commit_while(upper, below, dating, &|| true)
    }

    /// The same of a container with a user namespace of its own, which has these of the host's IDs: the layer has the
    /// container's.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_of(&self, upper: &Path, below: Option<View>, ids: Option<IdRange>) -> Result<Layer> {
        self.commit_within(upper, || self.commit_now(upper, below, None, ids, &|| true))
    }

    /// The same for as long as somebody wants it: a file of holes alone may be terabytes long.
    ///
    /// # Errors
    /// As [`Self::commit`], and when nobody wants it any more.
    pub fn commit_while(
        &self,
        upper: &Path,
        below: Option<View>,
        dating: Option<Dating>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Layer> {
        self.commit_within(upper, || self.commit_now(upper, below, dating, None, goes_on))
    }

    /// Within the budget, and with a word about the disk when that is full.
    fn commit_within(&self, upper: &Path, make: impl FnOnce() -> Result<Layer>) -> Result<Layer> {
        let budget = self.store().budget();
        if budget.max().is_some() {
            budget.require(disk_usage(upper))?;
        }
        let free = self.store().free();
        make().map_err(|error| match error.is_full() && !error.is_over_budget() {
            true => self.store().lacking(disk_usage(upper), free).map_or(error, SnapshotError::from),
            false => error,
        })
    }

    fn commit_now(
        &self,
        upper: &Path,
        below: Option<View>,
        dating: Option<Dating>,
        ids: Option<IdRange>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Layer> {
        // Packed and unpacked at once: the files that are kept are those of the tar, not those that may still change.
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| SnapshotError::Output(errno.into()))?;
        // A larger pipe than the usual 64 KiB lets both sides work at once; without one it is slower.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
        let written = RootDir::open(upper)?;
        let real = |path: &Path, said: Time| match written.metadata(path, false) {
            Ok(stat) => (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            // A whiteout, or what has gone meanwhile.
            Err(_) => said,
        };
        let clamped = dating.as_ref().map(|dating| Clamped {
            from: dating.since,
            until: dating.until,
            time: dating.latest,
            whole: true,
            copied: false,
        });
        let source = RootDir::open(upper)?;
        let packing = std::thread::spawn(move || {
            let mut writer = io::BufWriter::with_capacity(1 << 18, File::from(writer));
            let before = dating.and_then(|dating| dating.below);
            let times = |path: &Path, real: Time| match clamped {
                None => real,
                Some(clamped) if real >= clamped.from => clamped.time,
                Some(clamped) => clamped.older(real, before.as_ref().and_then(|before| before.of_older(path, real))),
            };
            let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
            let hides = |path: &Path| match below.as_ref().map(|below| below.metadata(path, false)) {
                // Where that is not known, it may.
                None => true,
                Some(found) => found.is_ok_and(|stat| is_directory(stat.st_mode)),
            };
            let upper = Upper { times: clamped.is_some().then_some(&times), hides: &hides, ids };
            pack_upper(&source, &mut writer, &upper)?;
            writer.flush().map_err(ArchiveError::Write)
        });
        let temporary = self.temporary()?;
        let mut input = While { input: File::from(reader), goes_on };
        let mut metered = self.store().budget().metered(&mut input);
        let mut hashed = HashedReader::new(&mut metered, MAX_TAR);
        let unpacked = temporary.unpack(&mut hashed, clamped.is_some().then_some(&real));
        let finished = hashed.finish();
        // So that the packing does not wait for a reader that has given up.
        drop(metered);
        drop(input);
        let packed = packing.join().map_err(|_| SnapshotError::Input(io::Error::other("the packing failed")))?;
        let content = match (packed, unpacked) {
            // The cause first: each side's failure ends the other's stream.
            (Err(ArchiveError::Write(_)), Err(error)) => return Err(error),
            (packed, unpacked) => {
                packed?;
                unpacked?
            }
        };
        let (diff_id, tar_size) = finished.map_err(SnapshotError::Input)?;
        self.keep(temporary, Streamed { diff_id, tar_size, content, clamped })
    }

    /// A layer that is here with its files, held.
    fn present(&self, diff_id: &Digest) -> Result<Option<Layer>> {
        let held = self.hold(std::slice::from_ref(diff_id)).into();
        let found = self.get(diff_id)?.filter(|layer| self.has_files(layer));
        Ok(found.map(|layer| Layer { held, ..layer }))
    }

    /// Makes files a layer: on the disk, in their place, then in the database. It is held before it is there, so that no
    /// moment is left in which it is nobody's.
    fn keep(&self, mut temporary: Temporary, streamed: Streamed) -> Result<Layer> {
        let held = self.hold(std::slice::from_ref(&streamed.diff_id));
        if let Some(layer) = self.present(&streamed.diff_id)? {
            return if streamed.clamped.is_some() { self.renew(&temporary, streamed, layer) } else { Ok(layer) };
        }
        let layer = Layer { held: held.into(), ..self.settled(&temporary, streamed)? };
        // Nobody removes it between the two halves of its coming in.
        let _placing = self.placing();
        if self.contains(&layer.diff_id) {
            // Somebody else has made the same layer meanwhile.
            return Ok(Layer { held: layer.held, ..self.require(&layer.diff_id)? });
        }
        // Files that nobody knows of, from a removal that was cut off: swept with the next opening.
        self.move_away(&layer.diff_id)?;
        let place = self.place(&layer.diff_id);
        fs::rename(&temporary.path, &place).map_err(SnapshotError::file("rename", &temporary.path))?;
        temporary.kept = true;
        File::open(self.dir()).and_then(|dir| dir.sync_all()).map_err(SnapshotError::file("write", self.dir()))?;
        self.written(layer)
    }

    /// Gives a layer that is here and was made once more the times of now: what compares them would find what it is made of
    /// older than what it has kept of it since.
    fn renew(&self, temporary: &Temporary, streamed: Streamed, layer: Layer) -> Result<Layer> {
        let place = self.place(&layer.diff_id);
        if layer.form != temporary.form {
            return Ok(layer);
        }
        let Some(from) = streamed.clamped.map(|clamped| clamped.from) else { return Ok(layer) };
        let made = self.settled(temporary, streamed)?;
        let _placing = self.placing();
        // The row first: what the files have until then is later than all that the archive says, so it stands for the same.
        let made = Layer { held: layer.held, ..self.written(made)? };
        if layer.form == Storage::Dirs {
            // Containers that run on them have these very files.
            touch(&RootDir::open(temporary.path.join("root"))?, &RootDir::open(place.join("root"))?, from)?;
        } else {
            // Who has the image mounted keeps the old one; what is in either is the same.
            match renameat_with(CWD, &temporary.path, CWD, &place, RenameFlags::EXCHANGE) {
                Ok(()) => {}
                // The file system cannot: then it is as old as it was.
                Err(Errno::INVAL | Errno::NOSYS) => return Ok(made),
                Err(errno) => return Err(SnapshotError::file("rename", &temporary.path)(errno.into())),
            }
            self.forget_mount(&layer.diff_id);
            File::open(self.dir()).and_then(|dir| dir.sync_all()).map_err(SnapshotError::file("write", self.dir()))?;
        }
        Ok(made)
    }

    /// Writes a layer's row, with the compressed forms that it had before its files were lost.
    fn written(&self, mut layer: Layer) -> Result<Layer> {
        self.store().write(|tx| {
            let before: Option<Layer> = tx.get(LAYERS, layer.diff_id.as_str())?;
            layer.blobs = before.map(|before| before.blobs).unwrap_or_default();
            tx.put(LAYERS, layer.diff_id.as_str(), &layer)?;
            Ok(layer)
        })
    }

    /// Makes the files of a layer that has a row again, and puts them into the place of those that are there, which go
    /// out of it in the same rename: killed at any moment, the layer has the one or the other. `may` is asked just before
    /// that. Answers with where the others are now.
    ///
    /// # Errors
    /// Those of [`Self::import`] and of `may`. Then all is as before.
    pub(crate) fn remake(
        &self,
        layer: &Layer,
        tar: &mut dyn Read,
        may: impl FnOnce() -> Result<()>,
    ) -> Result<Option<PathBuf>> {
        // In its own form, where that can be had: then its row says the truth before and after.
        let form = if self.no_images().is_some() { Storage::Dirs } else { layer.form };
        let mut temporary = Temporary::new(self.dir(), self.number(), form)?;
        let mut tar = self.store().budget().metered(tar);
        let mut reader = HashedReader::new(&mut tar, MAX_TAR);
        let content = temporary.unpack(&mut reader, None)?;
        let (diff_id, tar_size) = reader.finish().map_err(SnapshotError::Input)?;
        check(Some(&layer.diff_id), &diff_id)?;
        let made = self.settled(&temporary, Streamed { diff_id, tar_size, content, clamped: None })?;
        let _placing = self.placing();
        may()?;
        let place = self.place(&layer.diff_id);
        let fail = |errno: Errno| SnapshotError::file("rename", &temporary.path)(errno.into());
        let damaged = match renameat_with(CWD, &temporary.path, CWD, &place, RenameFlags::EXCHANGE) {
            Ok(()) => Some(temporary.path.clone()),
            // There is nothing in its place, or the file system cannot exchange.
            Err(Errno::NOENT | Errno::INVAL) => {
                let damaged = self.move_away(&layer.diff_id)?;
                rename(&temporary.path, &place).map_err(fail)?;
                damaged
            }
            Err(errno) => return Err(fail(errno)),
        };
        temporary.kept = true;
        self.forget_mount(&layer.diff_id);
        File::open(self.dir()).and_then(|dir| dir.sync_all()).map_err(SnapshotError::file("write", self.dir()))?;
        self.written(made)?;
        Ok(damaged)
    }

    /// Brings files to the disk, and says what they are as a layer.
    fn settled(&self, temporary: &Temporary, streamed: Streamed) -> Result<Layer> {
        let Streamed { diff_id, tar_size, content, clamped } = streamed;
        let Unpacked { bytes: size, disk, entries } = content.unpacked;
        let form = temporary.form;
        let measured = match content.image {
            Some(image) => {
                temporary.settle(image, &diff_id)?;
                true
            }
            None => {
                // One syncfs(2) instead of an fsync(2) of each file. 2,000 files of 10 kB on ext4 take 0.1 s so, and 2
                // to 5 s one by one: each of those waits for the journal. The price is that what others have written
                // comes along, 0.3 s beside a writer that fills the disk's queue.
                let dir = File::open(&temporary.path).map_err(SnapshotError::file("open", &temporary.path))?;
                self.sync(&dir).map_err(|errno| SnapshotError::file("write", &temporary.path)(errno.into()))?;
                entries <= MEASURED_ENTRIES
            }
        };
        // An image is a file or two. Of a small tree what the archive does not say is much: its own directories, and
        // those that only paths name.
        let disk = if measured { disk_usage(&temporary.path) } else { disk };
        let (blobs, held) = (Vec::new(), Held::default());
        Ok(Layer { diff_id, size, tar_size, disk, form, blobs, clamped, created: now(), held })
    }

    fn temporary(&self) -> Result<Temporary> {
        Temporary::new(self.dir(), self.number(), self.form())
    }
}
