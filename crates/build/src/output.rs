//! Telling the client, which may have gone.

use tokio::sync::mpsc::Sender;

use crate::error::{BuildError, Result};
use crate::request::BuildEvent;

/// Where a build's events go. A client that has gone ends the build.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) events: Sender<BuildEvent>,
    pub(crate) quiet: bool,
}

impl Output {
    /// Tells text, unless only the result is wanted.
    pub(crate) fn text(&self, text: impl Into<String>) -> Result<()> {
        if self.quiet { Ok(()) } else { self.event(BuildEvent::Stream(text.into())) }
    }

    pub(crate) fn event(&self, event: BuildEvent) -> Result<()> {
        self.events.blocking_send(event).map_err(|_| BuildError::cancelled())
    }
}
