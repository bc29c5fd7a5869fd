//! The order of stages: each begins when those that it needs have ended, and they are told in the order of the
//! Dockerfile.
//!
//! Nobody waits in a circle: a stage needs only stages above it, and whoever is free takes the topmost that can begin. So
//! the topmost that has not ended is always at work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use wharf_dockerfile::Base;

use crate::error::{BuildError, ErrorKind, Result};
use crate::output::Output;
use crate::session::{Common, Session, lock};
use crate::steps::Steps;

/// Stages that run at once for each processor, and how many at least: most wait for a network or a disk, and Docker's
/// builder runs as many as can begin.
const FOR_EACH: usize = 4;
const AT_LEAST: usize = 16;

/// Where the stages of a build are.
#[derive(Debug)]
pub(crate) struct Progress {
    turns: Mutex<Turns>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    /// Those that have not begun, with what they still need.
    waiting: BTreeMap<usize, BTreeSet<usize>>,
    running: BTreeSet<usize>,
    /// Those of these whose command goes on for other builds alone, and where their steps are told of.
    deserted: BTreeMap<usize, Option<Steps>>,
    /// Where each is heard, if it has begun and was not told to its end.
    outputs: BTreeMap<usize, Output>,
    /// The first failure.
    failure: Option<BuildError>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { turns: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// The topmost stage that can begin.
    fn next(&mut self) -> Option<usize> {
        let ready = self.waiting.iter().find(|(_, needs)| needs.is_empty()).map(|(stage, _)| *stage)?;
        self.waiting.remove(&ready);
        self.running.insert(ready);
        Some(ready)
    }

    /// The topmost that has not ended.
    fn first(&self) -> Option<usize> {
        self.waiting.keys().chain(&self.running).min().copied()
    }
}

impl Common<'_> {
    /// Runs these stages and what they need of each other. `first` is the number of the step before them.
    pub(crate) fn run_stages(&self, needed: &[usize], first: usize) -> Result<()> {
        let mut numbers = BTreeMap::new();
        let mut next = first;
        {
            let mut turns = self.progress.lock();
            for stage in needed {
                numbers.insert(*stage, next);
                next += 1 + self.graph.statements(self.dockerfile, *stage);
                let node = &self.graph.nodes[*stage];
                let mut needs = node.copies.clone();
                if let Base::Stage(base) = node.base {
                    needs.insert(base);
                }
                turns.waiting.insert(*stage, needs);
                turns.outputs.insert(*stage, self.output.waiting(&self.dir.path.join(format!("output-{stage}"))));
            }
            if let Some(output) = turns.first().and_then(|first| turns.outputs.get(&first)) {
                output.turn()?;
            }
        }
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let workers = (FOR_EACH * processors).max(AT_LEAST).min(needed.len());
        thread::scope(|scope| {
            let work = || self.work(&numbers);
            let made = |_: &usize| thread::Builder::new().spawn_scoped(scope, work).map(drop).is_err();
            // With fewer it takes longer.
            if (0..workers).position(|worker| made(&worker)) == Some(0) {
                self.work(&numbers);
            }
            self.wait_for_all();
        });
        match self.progress.lock().failure.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Until no stage is at work, or only commands that go on for others are: the build has ended before these.
    fn wait_for_all(&self) {
        let mut turns = self.progress.lock();
        let is_over = |turns: &Turns| turns.failure.is_some() || turns.waiting.is_empty() || !turns.deserted.is_empty();
        while !(is_over(&turns) && turns.running.iter().all(|stage| turns.deserted.contains_key(stage))) {
            turns = self.progress.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
        if turns.running.is_empty() {
            return;
        }
        let failure = turns.failure.clone().unwrap_or_else(BuildError::cancelled);
        let deserted = std::mem::take(&mut turns.deserted);
        drop(turns);
        // To this build they end here.
        for steps in deserted.into_values().flatten() {
            let _ = steps.end(Some(&BuildError::cancelled()));
        }
        let _ = self.tell_warnings(&self.warnings());
        if let Some(early) = lock(&self.early).take() {
            let _ = early.send(failure);
        }
    }

    /// The command of this stage goes on for other builds alone.
    pub(crate) fn desert(&self, stage: usize, steps: Option<Steps>) {
        self.progress.lock().deserted.insert(stage, steps);
        self.progress.changed.notify_all();
    }

    /// Runs one stage after another, until none is left or one has failed.
    fn work(&self, numbers: &BTreeMap<usize, usize>) {
        while let Some((stage, output)) = self.take() {
            let number = numbers.get(&stage).copied().unwrap_or_default();
            let mut session = Session::new(self, output, stage, number);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.stage_if_needed(stage)));
            let done = done.unwrap_or_else(|_| Err(BuildError::new(ErrorKind::System, "the build has crashed")));
            self.ended(stage, done);
        }
    }

    /// A stage that can begin; waits for one.
    fn take(&self) -> Option<(usize, Output)> {
        let mut turns = self.progress.lock();
        loop {
            if turns.failure.is_some() || turns.waiting.is_empty() {
                return None;
            }
            if let Some(stage) = turns.next() {
                return Some((stage, turns.outputs.get(&stage).cloned()?));
            }
            turns = self.progress.changed.wait(turns).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ended(&self, stage: usize, done: Result<()>) {
        let mut turns = self.progress.lock();
        turns.running.remove(&stage);
        turns.deserted.remove(&stage);
        for needs in turns.waiting.values_mut() {
            needs.remove(&stage);
        }
        // A client that has gone is noticed by whoever says something next.
        match done {
            Ok(()) if turns.failure.is_none() => {
                // Whoever ended while others above were at work is told now, and the next speaks.
                let first = turns.first();
                let later = turns.outputs.split_off(&first.unwrap_or(usize::MAX));
                for output in std::mem::replace(&mut turns.outputs, later).values() {
                    let _ = output.turn();
                }
                if let Some(output) = first.and_then(|first| turns.outputs.get(&first)) {
                    let _ = output.turn();
                }
            }
            Err(error) if turns.failure.is_none() => {
                turns.failure = Some(error);
                let outputs = std::mem::take(&mut turns.outputs);
                drop(turns);
                // The others end, as nobody can use what they make. What was said above the failure comes before it.
                for (other, output) in outputs {
                    if other <= stage {
                        let _ = output.turn();
                    }
                    output.end();
                }
                self.cancel.cancel();
            }
            _ => drop(turns),
        }
        self.progress.changed.notify_all();
    }

    /// Waits for a stage that this build runs anyway; tells whether it does.
    pub(crate) fn wait_for(&self, stage: usize) -> Result<bool> {
        let mut turns = self.progress.lock();
        loop {
            if !turns.waiting.contains_key(&stage) && !turns.running.contains(&stage) {
                return Ok(self.stages[stage].get().is_some());
            }
            self.cancel.check()?;
            let waited = self.progress.changed.wait_timeout(turns, Duration::from_millis(100));
            turns = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
