//! When to ask again.

use std::time::Duration;

use crate::error::DistributionError;

/// Docker's number for downloads.
pub(crate) const ATTEMPTS: u32 = 5;
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// A registry that wants more patience than this gets none: the user is told instead.
const PATIENCE: u64 = 30;

/// So many bytes at once are worth more attempts. Fewer are what a peer sends that only keeps us busy.
const PROGRESS: u64 = 1 << 20;

/// Counts attempts that failed one after another.
#[derive(Debug)]
pub(crate) struct Retry {
    most: u32,
    failed: u32,
    /// Bytes since the last failure.
    came: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self::at_most(ATTEMPTS)
    }
}

impl Retry {
    /// For so many attempts.
    pub(crate) fn at_most(most: u32) -> Self {
        Self { most, failed: 0, came: 0 }
    }

    /// How long to wait after `error`; `None` when it is not worth it.
    pub(crate) fn after(&mut self, error: &DistributionError) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        self.wait(match error {
            DistributionError::Refused(refusal) => refusal.retry_after,
            _ => None,
        })
    }

    /// How long to wait for the next attempt; `None` when there have been enough.
    pub(crate) fn wait(&mut self, asked: Option<u64>) -> Option<Duration> {
        self.failed += 1;
        self.came = 0;
        if self.failed >= self.most || asked.is_some_and(|seconds| seconds > PATIENCE) {
            return None;
        }
        let doubled = FIRST.saturating_mul(1 << (self.failed - 1).min(16)).min(LONGEST);
        let wait = asked.map_or(doubled, Duration::from_secs);
        // Many layers that lost one registry at one moment must not come back at one moment.
        Some(wait + doubled.mul_f64(f64::from(noise()) / f64::from(u32::MAX) / 4.0))
    }

    /// Something came. When it is enough, the count of failures begins again.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        self.came = self.came.saturating_add(bytes);
        if self.came >= PROGRESS {
            self.failed = 0;
        }
    }
}

/// A number that differs from call to call and process to process; no secret depends on it.
fn noise() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ConnectError, Refusal};

    fn refused(status: u16, retry_after: Option<u64>) -> DistributionError {
        let (code, message) = (String::new(), String::new());
        DistributionError::Refused(Refusal { status, code, message, context: None, retry_after })
    }

    #[test]
    fn waits_double_and_end() {
        let mut retry = Retry::default();
        let waits: Vec<_> = std::iter::from_fn(|| retry.after(&refused(503, None))).collect();
        assert_eq!(waits.len() as u32, ATTEMPTS - 1);
        assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
        retry.progressed(PROGRESS);
        assert!(retry.after(&refused(503, None)).is_some());
    }

    #[test]
    fn a_byte_now_and_then_is_no_progress() {
        let mut retry = Retry::default();
        let mut attempts = 0;
        while retry.wait(None).is_some() {
            retry.progressed(PROGRESS / 2);
            attempts += 1;
        }
        assert_eq!(attempts, ATTEMPTS - 1);
    }

    #[test]
    fn the_registry_says_how_long_within_reason() {
        let mut retry = Retry::default();
        let wait = retry.after(&refused(429, Some(7))).unwrap();
        assert!(wait >= Duration::from_secs(7) && wait < Duration::from_secs(8), "{wait:?}");
        assert_eq!(retry.after(&refused(429, Some(3600))), None);
    }

    #[test]
    fn only_what_may_change_is_asked_again() {
        let error = |source| DistributionError::Unreachable { method: "Get".into(), url: String::new(), source };
        assert!(Retry::default().after(&error(ConnectError::Lost("x".into()))).is_some());
        assert_eq!(Retry::default().after(&error(ConnectError::NoSuchHost { host: "x".into() })), None);
        assert_eq!(Retry::default().after(&refused(404, None)), None);
    }
}
