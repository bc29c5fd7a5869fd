//! When the files of a layer were really made, where its archive says another time.

use std::collections::HashMap;
use std::path::Path;

use wharf_snapshot::{Clamped, RealTimes};

use super::{Content, Plan, clamped};

/// [`Plan::real_times`]
#[derive(Debug)]
pub(crate) struct RealTimesOf<'a> {
    files: HashMap<&'a Path, (i64, u32)>,
    clamped: Clamped,
}

impl RealTimesOf<'_> {
    /// As a layer that is made of the plan's archive takes them.
    pub(crate) fn with<T>(&self, make: impl FnOnce(RealTimes<'_>) -> T) -> T {
        let of = |path: &Path, said| self.files.get(path).copied().unwrap_or(said);
        make(RealTimes { clamped: self.clamped.clone(), of: &of })
    }
}

impl Plan<'_> {
    /// The real times of files whose archive says another. Later ones than all that the archive says are told from those by
    /// that; others are given up.
    pub(crate) fn real_times(&self, clamp: Option<i64>) -> Option<RealTimesOf<'_>> {
        let mut after = i64::MIN;
        let mut differing = Vec::new();
        for (path, entry) in &self.entries {
            let own = entry.attributes.mtime;
            let said = clamped(own, clamp);
            after = after.max(said.0);
            if let Content::File { tree, path: from, .. } = &entry.content {
                let real = tree.real_time(from).unwrap_or(own);
                if real != said {
                    differing.push((path.as_path(), real, said.0));
                }
            }
        }
        differing.retain(|(_, real, _)| real.0 > after);
        let mut times: Vec<i64> = differing.iter().map(|(_, _, said)| *said).collect();
        times.sort_unstable();
        times.dedup();
        if times.is_empty() {
            return None;
        }
        let number = |said| u32::try_from(times.binary_search(&said).unwrap_or(0)).unwrap_or(0);
        let counted = times.len() > 1;
        let files = differing
            .into_iter()
            .map(|(path, real, said)| (path, if counted { (real.0, number(said)) } else { real }))
            .collect();
        Some(RealTimesOf { files, clamped: Clamped { after, times } })
    }
}
