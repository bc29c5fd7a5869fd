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

/// How the times of a layer's archive are told from those that its files have here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clamped {
    /// Up to this, in seconds since the epoch, files have the archive's.
    pub after: i64,
    /// What later ones have there. Of several the one that the file's nanoseconds count.
    pub times: Vec<i64>,
}

impl Clamped {
    fn of(&self, real: (i64, u32)) -> (i64, u32) {
        let number = if self.times.len() > 1 { real.1 as usize } else { 0 };
        match self.times.get(number).filter(|_| real.0 > self.after) {
            Some(time) => (*time, 0),
            None => real,
        }
    }
}

/// Those of a stack of layers.
#[derive(Debug)]
pub struct ArchiveTimes {
    /// The topmost first.
    layers: Vec<Dated>,
    /// What is not later is what the archives say, and was made by no step.
    earliest: i64,
}

#[derive(Debug)]
struct Dated {
    root: RootDir,
    clamped: Option<Clamped>,
    /// What its archive has from this time on, a step has made.
    made: Option<i64>,
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
    pub fn time_of(&self, path: &Path, real: (i64, u32)) -> (i64, u32) {
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
    pub fn dated_view_of(&self, diff_ids: &[Digest], made: &HashMap<Digest, i64>) -> Result<DatedView> {
        Ok(DatedView { view: self.view(diff_ids, None)?, times: self.times(diff_ids, made)? })
    }

    /// The times of a stack; none where all files have what the archives say.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn archive_times(&self, diff_ids: &[Digest]) -> Result<Option<ArchiveTimes>> {
        self.times(diff_ids, &HashMap::new())
    }

    fn times(&self, diff_ids: &[Digest], made: &HashMap<Digest, i64>) -> Result<Option<ArchiveTimes>> {
        let (mut layers, mut earliest) = (Vec::new(), None);
        for diff_id in diff_ids.iter().rev() {
            let (clamped, made) = (self.require(diff_id)?.clamped, made.get(diff_id).copied());
            let begins = [clamped.as_ref().map(|clamped| clamped.after), made.map(|made| made - 1)];
            earliest = begins.into_iter().flatten().chain(earliest).min();
            layers.push((diff_id, clamped, made));
        }
        let Some(earliest) = earliest else { return Ok(None) };
        let open = |(diff_id, clamped, made): (&Digest, Option<Clamped>, Option<i64>)| {
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
        Ok(Some(ArchiveTimes { layers, earliest }))
    }
}

impl ArchiveTimes {
    /// The time, in seconds since the epoch and nanoseconds, that the archive of the topmost layer with `path` says for it; here
    /// it has `real`.
    pub fn of(&self, path: &Path, real: (i64, u32)) -> (i64, u32) {
        self.look(path, real).0
    }

    /// The same; none for what a step has made, and was not there before.
    pub fn of_its_own(&self, path: &Path, real: (i64, u32)) -> Option<(i64, u32)> {
        let (time, made) = self.look(path, real);
        (!made).then_some(time)
    }

    fn look(&self, path: &Path, real: (i64, u32)) -> ((i64, u32), bool) {
        if real.0 <= self.earliest {
            return (real, false);
        }
        let Some(layer) = self.layers.iter().find(|layer| layer.root.metadata(path, false).is_ok()) else {
            return (real, false);
        };
        let time = layer.clamped.as_ref().map_or(real, |clamped| clamped.of(real));
        (time, layer.made.is_some_and(|made| time.0 >= made))
    }
}
