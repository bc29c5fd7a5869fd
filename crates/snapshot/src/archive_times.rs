//! The times that the archives of layers say, where the files have others here.
//!
//! What a command of a build writes has the time of its build in the files, and in the archive a time that depends on its input
//! alone, so that the layer is the same wherever it is made. Programs that compare times, as make and cargo do, find the real
//! ones: what a cache mount has kept would else seem newer to them than a source that was just written.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;

use rustix::io::{Errno, dup};
use serde::{Deserialize, Serialize};
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;

use crate::layers::Layers;
use crate::lower::Lower;
use crate::view::View;
use crate::{Result, SnapshotError};

/// Seconds since the epoch, and nanoseconds.
pub type Time = (i64, u32);

/// A time that tells what a step has made from what it has copied, by one nanosecond: archives have no other parts of seconds.
pub const MARK: u32 = 1;

/// How the times of a layer's archive are told from those that its files have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clamped {
    /// What files have from this time on was made by the step, or another that it has copied from.
    pub from: Time,
    /// When it had ended.
    pub until: Time,
    /// What that has in the archive, which has no later time.
    pub time: Time,
    /// The archive has no parts of seconds.
    pub whole: bool,
    /// It has copied, and nothing in it is what layers below had.
    pub copied: bool,
}

impl Clamped {
    /// The archive's time of what is older than the step, if `before` is what an archive says of it.
    pub(crate) fn older(self, real: Time, before: Option<Time>) -> Time {
        let whole = if self.whole && real.1 > MARK { (real.0, 0) } else { real };
        before.unwrap_or(whole).min(self.time)
    }
}

/// Those of a stack of layers.
#[derive(Debug)]
pub struct ArchiveTimes {
    /// The topmost first.
    layers: Vec<Dated>,
    /// What is earlier is what the archives say, but for parts of seconds, and was made by no step.
    earliest: Time,
    /// Some archive has no parts of seconds.
    whole: bool,
}

#[derive(Debug)]
struct Dated {
    root: RootDir,
    clamped: Option<Clamped>,
    /// What its archive has from this time on, a step has made.
    made: Option<Time>,
}

/// Layers on top of each other, with the times that their archives say.
#[derive(Debug)]
pub struct DatedView {
    view: View,
    /// None where files have them.
    pub times: Option<ArchiveTimes>,
}

impl Deref for DatedView {
    type Target = View;
    fn deref(&self) -> &View {
        &self.view
    }
}

impl DatedView {
    /// As [`ArchiveTimes::of`].
    pub fn time_of(&self, path: &Path, real: Time) -> Time {
        self.times.as_ref().map_or(real, |times| times.of(path, real))
    }
}

impl Layers {
    /// Mounts layers read-only, as [`Self::view`].
    ///
    /// # Errors
    /// `NotFound`, `Mount`.
    pub fn dated_view(&self, diff_ids: &[Digest]) -> Result<DatedView> {
        self.dated_view_of(diff_ids, &HashMap::new())
    }

    /// The same of layers of which steps have made some: what the archive of one has from its time on.
    ///
    /// # Errors
    /// `NotFound`, `Mount`.
    pub fn dated_view_of(&self, diff_ids: &[Digest], made: &HashMap<Digest, Time>) -> Result<DatedView> {
        Ok(DatedView { view: self.view(diff_ids, None)?, times: self.times(diff_ids, made)? })
    }

    /// The times of a stack; none where all files have what the archives say.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn archive_times(&self, diff_ids: &[Digest]) -> Result<Option<ArchiveTimes>> {
        self.times(diff_ids, &HashMap::new())
    }

    fn times(&self, diff_ids: &[Digest], made: &HashMap<Digest, Time>) -> Result<Option<ArchiveTimes>> {
        let (mut layers, mut earliest) = (Vec::new(), None);
        for diff_id in diff_ids.iter().rev() {
            let (clamped, made) = (self.require(diff_id)?.clamped, made.get(diff_id).copied());
            let begins = [clamped.map(|clamped| clamped.from), made];
            earliest = begins.into_iter().flatten().chain(earliest).min();
            layers.push((diff_id, clamped, made));
        }
        let Some(earliest) = earliest else { return Ok(None) };
        let open = |(diff_id, clamped, made): (&Digest, Option<Clamped>, Option<Time>)| {
            let root = match self.lower(diff_id)? {
                Lower::Directory(path) => RootDir::open(&path)?,
                Lower::Image(image) => {
                    let fail = |errno: Errno| SnapshotError::file("open", &image.path)(errno.into());
                    RootDir::from_fd(dup(&*image.mount).map_err(fail)?)
                }
            };
            Ok(Dated { root, clamped, made })
        };
        let layers = layers.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let whole = layers.iter().any(|layer| layer.clamped.is_some_and(|clamped| clamped.whole));
        Ok(Some(ArchiveTimes { layers, earliest, whole }))
    }
}

impl ArchiveTimes {
    /// What the archive of the topmost layer with `path` says for it, which has the time `real` here.
    pub fn of(&self, path: &Path, real: Time) -> Time {
        self.look(path, real).0
    }

    /// The same; none for what a step has made, and was not there before.
    pub fn of_its_own(&self, path: &Path, real: Time) -> Option<Time> {
        let (time, made) = self.look(path, real);
        (!made).then_some(time)
    }

    /// What archives say of something that has this time here, and was not written since: it may have been moved, or copied
    /// with its time.
    pub(crate) fn of_older(&self, path: &Path, real: Time) -> Option<Time> {
        if self.is_plain(real) { None } else { self.resolve(&self.layers, path, real) }
    }

    fn is_plain(&self, real: Time) -> bool {
        real < self.earliest && (real.1 <= MARK || !self.whole)
    }

    fn look(&self, path: &Path, real: Time) -> (Time, bool) {
        if self.is_plain(real) {
            return (real, false);
        }
        let top = self.layers.iter().find(|layer| layer.root.metadata(path, false).is_ok());
        // A layer that was made once more meanwhile has other times than the view.
        let latest = top.and_then(|layer| layer.clamped).map_or(real, |clamped| clamped.time.min(real));
        let time = self.resolve(&self.layers, path, real).unwrap_or(latest);
        (time, top.and_then(|layer| layer.made).is_some_and(|made| time >= made))
    }

    /// By the topmost of these layers that has it with this time; else by the last step that was at work then.
    fn resolve(&self, layers: &[Dated], path: &Path, real: Time) -> Option<Time> {
        let has = |layer: &Dated| {
            let stat = layer.root.metadata(path, false);
            stat.is_ok_and(|stat| (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)) == real)
        };
        let Some(at) = layers.iter().position(has) else {
            let at_work =
                layers.iter().filter_map(|layer| layer.clamped).filter(|it| it.from <= real && real <= it.until);
            return at_work.max_by_key(|clamped| clamped.from).map(|clamped| clamped.time);
        };
        let Some(clamped) = layers[at].clamped else { return Some(real) };
        if real >= clamped.from {
            return Some(clamped.time);
        }
        let before = if clamped.copied { None } else { self.resolve(&layers[at + 1..], path, real) };
        Some(clamped.older(real, before))
    }
}
