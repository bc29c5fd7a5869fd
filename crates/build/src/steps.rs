//! Steps as they begin and end, for clients that show them side by side and not one after another.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::Sender;
use wharf_image::Progress;

use crate::error::{BuildError, Result};
use crate::request::BuildEvent;

/// What becomes of a step that changes files. Others take no time and are not told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEvent {
    /// It is at work from now on. `step` names it in what follows, and is unlike that of any other of the build.
    Began { step: u64, name: String },
    /// What its command writes, to the standard output (1) or the standard error (2).
    Said { step: u64, stream: u8, bytes: Vec<u8> },
    /// How far the base image is.
    Progress { step: u64, progress: Progress },
    /// It was found in the cache, or has been made, or has failed.
    Ended { step: u64, cached: bool, error: Option<BuildError> },
    /// Something in the Dockerfile that is allowed and probably not meant.
    Warned(Warned),
}

/// A warning, with the lines that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warned {
    /// `FromAsCasing`.
    pub rule: &'static str,
    pub message: String,
    pub file: String,
    /// All of the Dockerfile.
    pub text: Arc<str>,
    /// The first and the last.
    pub lines: (u32, u32),
}

/// Where a stage tells of its steps.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    events: Sender<BuildEvent>,
    next: Arc<std::sync::atomic::AtomicU64>,
    current: Arc<Mutex<Option<Current>>>,
}

#[derive(Debug)]
struct Current {
    step: u64,
    cached: bool,
}

impl Steps {
    pub(crate) fn new(events: Sender<BuildEvent>) -> Self {
        Self { events, next: Arc::default(), current: Arc::default() }
    }

    /// Those of another stage, which are numbered with these.
    pub(crate) fn beside(&self) -> Self {
        Self { events: self.events.clone(), next: Arc::clone(&self.next), current: Arc::default() }
    }

    fn current<T>(&self, with: impl FnOnce(&mut Option<Current>) -> T) -> T {
        with(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn send(&self, event: StepEvent) -> Result<()> {
        self.events.blocking_send(BuildEvent::Step(event)).map_err(|_| BuildError::cancelled())
    }

    pub(crate) fn begin(&self, name: String) -> Result<()> {
        let step = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.current(|current| *current = Some(Current { step, cached: false }));
        self.send(StepEvent::Began { step, name })
    }

    /// The one at work was found in the cache.
    pub(crate) fn cached(&self) {
        self.current(|current| current.iter_mut().for_each(|current| current.cached = true));
    }

    pub(crate) fn said(&self, stream: u8, bytes: &[u8]) -> Result<()> {
        match self.saying(stream, bytes) {
            Some(event) => self.events.blocking_send(event).map_err(|_| BuildError::cancelled()),
            None => Ok(()),
        }
    }

    /// What is told of what the one at work has written, if one is.
    pub(crate) fn saying(&self, stream: u8, bytes: &[u8]) -> Option<BuildEvent> {
        let step = self.current(|current| current.as_ref().map(|current| current.step))?;
        Some(BuildEvent::Step(StepEvent::Said { step, stream, bytes: bytes.to_vec() }))
    }

    /// From where nothing may block. False when nobody hears it any more.
    pub(crate) async fn progress(&self, progress: &Progress) -> bool {
        let Some(step) = self.current(|current| current.as_ref().map(|current| current.step)) else { return true };
        let event = BuildEvent::Step(StepEvent::Progress { step, progress: progress.clone() });
        self.events.send(event).await.is_ok()
    }

    pub(crate) fn end(&self, error: Option<&BuildError>) -> Result<()> {
        match self.current(Option::take) {
            Some(Current { step, cached }) => {
                self.send(StepEvent::Ended { step, cached: cached && error.is_none(), error: error.cloned() })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn warn(&self, warned: Warned) -> Result<()> {
        self.send(StepEvent::Warned(warned))
    }
}
