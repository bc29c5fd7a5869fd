//! When the files of a layer were really made, where its archive says another time.

use std::path::Path;

use wharf_snapshot::{Clamped, MARK, RealTimes, Time};

use super::{Content, Entry, Plan, clamped};
use crate::tree::moment;

/// [`Plan::real_times`]
#[derive(Debug)]
pub(crate) struct RealTimesOf<'a> {
    plan: &'a Plan<'a>,
    /// What the builder itself makes has this time.
    now: Time,
    clamped: Clamped,
}

impl RealTimesOf<'_> {
    /// As a layer that is made of the plan's archive takes them.
    pub(crate) fn with<T>(&self, make: impl FnOnce(RealTimes<'_>) -> T) -> T {
        let Clamped { from, time, whole, .. } = self.clamped;
        let of = |path: &Path, said: Time| match self.plan.entries.get(path).map(|entry| real(entry, self.now)) {
            Some(real) if real >= from && said == time => real,
            Some(real) if whole && real.0 == said.0 && said.1 == 0 => real,
            _ => said,
        };
        make(RealTimes { clamped: self.clamped, of: &of })
    }
}

/// When what is in a file was really written; of others it does not matter.
pub(super) fn real(entry: &Entry, now: Time) -> Time {
    let own = entry.attributes.mtime;
    match &entry.content {
        Content::File { tree, path, .. } | Content::Copied { tree, path } => tree.real_time(path).unwrap_or(own),
        Content::Bytes(_) => now,
        _ => own,
    }
}

impl<'a> Plan<'a> {
    /// The real times of files whose archive says another. One of those, the latest, is told from all others by being later
    /// here than they are; and whole seconds are told from their parts. What is neither has the archive's.
    pub(crate) fn real_times(&'a self, clamp: Option<i64>) -> Option<RealTimesOf<'a>> {
        let now = moment(jiff::Timestamp::now());
        let (mut latest, mut whole, mut time, mut parts) = ((i64::MIN, 0), true, None, false);
        for entry in self.entries.values() {
            let (said, real) = (clamped(entry.attributes.mtime, clamp), real(entry, now));
            latest = latest.max(said);
            whole &= said.1 <= MARK;
            if real.0 != said.0 {
                time = time.max(Some(said));
            }
            parts |= real.0 == said.0 && real.1 != said.1;
        }
        if time.is_none() && !(whole && parts) {
            return None;
        }
        let is_one = |entry: &&Entry| Some(clamped(entry.attributes.mtime, clamp)) == time;
        let (ones, others): (Vec<_>, Vec<_>) = self.entries.values().partition(is_one);
        let last = others.into_iter().map(|entry| real(entry, now)).fold((i64::MIN, 0), Time::max);
        let later = ones.into_iter().map(|entry| real(entry, now)).filter(|real| *real > last && Some(*real) > time);
        let (from, until) =
            later.fold(((i64::MAX, 0), latest), |(from, until), real| (from.min(real), until.max(real)));
        let clamped = Clamped { from, until, time: time.unwrap_or(latest), whole, copied: true };
        Some(RealTimesOf { plan: self, now, clamped })
    }
}
