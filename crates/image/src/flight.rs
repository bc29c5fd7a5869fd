//! Blobs that are on their way here: two pulls of the same one make one transfer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;
use wharf_reference::Digest;

#[derive(Debug, Default)]
pub(crate) struct Flights {
    all: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Flights {
    /// Waits until nobody else fetches the blob, and keeps others waiting until the answer is dropped. What they
    /// waited for is here then, or it is their turn.
    pub(crate) async fn board(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let flight = {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody is on or waits for.
            all.retain(|_, flight| Arc::strong_count(flight) > 1);
            Arc::clone(all.entry(digest.clone()).or_default())
        };
        flight.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_kept() {
        let flights = Flights::default();
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let first = flights.board(&one).await;
        let _other = flights.board(&two).await;
        let again = tokio::time::timeout(std::time::Duration::from_millis(20), flights.board(&one)).await;
        assert!(again.is_err());
        drop(first);
        drop(flights.board(&one).await);
        drop(flights.board(&two));
        assert_eq!(flights.all.lock().unwrap().len(), 2);
    }
}
