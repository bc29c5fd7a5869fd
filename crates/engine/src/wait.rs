//! Waiting for a container's end.

use std::future::Future;

use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does not run: at once when it does not now.
    NotRunning,
    /// Its next end, however it is now.
    NextExit,
    /// It is gone.
    Removed,
}

impl Condition {
    /// The words of the API.
    ///
    /// # Errors
    /// `InvalidParameter`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            other => Err(EngineError::invalid(format!("invalid condition: \"{other}\""))),
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitExit {
    pub code: i32,
}

impl Engine {
    /// Begins to wait. What happens after this call has returned is not missed, whenever the answer is polled.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn wait(
        &self,
        name: &str,
        condition: Condition,
    ) -> Result<impl Future<Output = Result<WaitExit>> + Send + use<>> {
        let slot = self.inner.slots.find(name)?;
        let mut life = slot.life();
        let before = life.borrow_and_update().exits;
        Ok(async move {
            let ended = life.wait_for(|life| match condition {
                // One that is started again has ended, too.
                Condition::NotRunning => !life.active || life.exits > before,
                // A container that is removed has no next end.
                Condition::NextExit => life.exits > before || life.removed,
                Condition::Removed => life.removed,
            });
            let life = ended.await.map_err(|_| EngineError::system("the engine stops"))?.clone();
            Ok(WaitExit { code: life.code })
        })
    }
}
