//! What is asked of whoever wants a build while it goes on: secrets, agents and credentials that did not come with the request.

use std::sync::Arc;

use wharf_image::registry::Credentials;

use crate::agent::Agent;
use crate::error::Result;

/// A client that can be asked. It is asked from threads that may wait.
pub trait Client: Send + Sync {
    /// A secret's value; none: it has no secret of this ID.
    ///
    /// # Errors
    /// When the client cannot be reached.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>>;

    /// An SSH agent; none: it gives no agent of this ID.
    ///
    /// # Errors
    /// When the client cannot be reached.
    fn agent(&self, id: &str) -> Result<Option<Agent>>;

    /// What it has for a registry, by its host; none: it is nobody there.
    ///
    /// # Errors
    /// When the client cannot be reached.
    fn credentials(&self, registry: &str) -> Result<Option<Credentials>>;
}

/// One, or nobody.
#[derive(Clone, Default)]
pub(crate) struct Asked(pub(crate) Option<Arc<dyn Client>>);

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Asked(somebody)" } else { "Asked(nobody)" })
    }
}

/// A Dockerfile that is not in the context, or was read before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub text: Vec<u8>,
    /// What the ignore file says that counts; empty without one.
    pub ignore: String,
    /// When it was changed last, in seconds since the epoch.
    pub modified: i64,
}
