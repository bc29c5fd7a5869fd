//! Docker's default filter, compiled once for many containers.
//!
//! It depends on little, so a caller says on what, and sends no policy of hundreds of names. Whoever has compiled one keeps
//! it, and so does what is forked from there: a program that forks one process for each container prepares the common one
//! before that.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use wharf_seccomp::{Abi, docker_default_for};

use crate::Result;
use crate::filter::Judged;

/// Filters that are kept.
const MOST: usize = 16;

static KEPT: Mutex<Vec<(DefaultFilter, Arc<Judged>)>> = Mutex::new(Vec::new());

/// What Docker's default seccomp policy depends on ([`wharf_seccomp::docker_default_for`]).
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
pub struct DefaultFilter {
    architecture: String,
    /// In order.
    capabilities: Vec<String>,
}

impl PartialEq for DefaultFilter {
    /// Architectures differ only in the ABI that they add to the machine's own.
    fn eq(&self, other: &Self) -> bool {
        let beside = |filter: &Self| Abi::beside_the_native(&filter.architecture);
        beside(self) == beside(other) && self.capabilities == other.capabilities
    }
}

impl DefaultFilter {
    /// Of programs for `architecture`, by Go's name, with `capabilities` (`CAP_…`) as their bounding set.
    pub fn new(architecture: &str, capabilities: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut capabilities: Vec<String> = capabilities.into_iter().map(Into::into).collect();
        capabilities.sort_unstable();
        Self { architecture: architecture.into(), capabilities }
    }

    /// Compiles it ahead, for this process and those that are forked from it.
    ///
    /// # Errors
    /// None that is known: the policy is a part of this program.
    pub fn prepare(&self) -> Result<()> {
        self.judged().map(drop)
    }

    pub(crate) fn judged(&self) -> Result<Arc<Judged>> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = kept.iter().find(|(filter, _)| filter == self) {
            return Ok(Arc::clone(known));
        }
        let judged = Arc::new(Judged::of(&docker_default_for(&self.architecture, &self.capabilities))?);
        if kept.len() >= MOST {
            kept.remove(0);
        }
        kept.push((self.clone(), Arc::clone(&judged)));
        Ok(judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_filter_serves_all_who_ask_for_the_same() {
        let first = DefaultFilter::new("amd64", ["CAP_KILL", "CAP_CHOWN"]).judged().unwrap();
        let same = DefaultFilter::new("arm64", ["CAP_CHOWN", "CAP_KILL"]).judged().unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        assert!(!Arc::ptr_eq(&first, &DefaultFilter::new("amd64", ["CAP_KILL"]).judged().unwrap()));
        for number in 0..40 {
            DefaultFilter::new("", [format!("CAP_{number}")]).prepare().unwrap();
        }
        assert!(KEPT.lock().unwrap().len() <= MOST);
    }
}
