//! Room in memory for JSON that clients send: so much for all of them together, whatever the number of those that have
//! sent half of it.
//!
//! The beginning of each body, which with most is all of it, has room of its own: those that send much take none away from
//! a `start` or an `exec`. Who sends more gets room for all of it before it is read, so that nobody who has some waits for
//! more, and must go on sending.

use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::http::ApiError;

/// A body's beginning is so long.
const BEGINNING: usize = 16 << 10;
/// What a body gets first.
const FIRST: usize = 512;
/// How long one may wait for room, and who has more than a beginning may send nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The memory is the process's, and so is this.
static ROOM: Room = Room::new(32 << 20, 64 << 20);

/// The process's.
pub(crate) fn room() -> &'static Room {
    &ROOM
}

#[derive(Debug)]
pub(crate) struct Room {
    /// Bytes that are free: of beginnings, and of what comes after them.
    beginnings: Semaphore,
    rests: Semaphore,
}

/// Bytes that grow within a room, and leave it when they are dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    room: &'a Room,
    bytes: Vec<u8>,
    /// How many they may become.
    most: usize,
    beginning: Option<SemaphorePermit<'a>>,
    rest: Option<SemaphorePermit<'a>>,
    patience: Duration,
}

impl Room {
    pub(crate) const fn new(beginnings: usize, rests: usize) -> Self {
        Self { beginnings: Semaphore::const_new(beginnings), rests: Semaphore::const_new(rests) }
    }

    /// No bytes yet, of which there will be `most`.
    pub(crate) fn hold(&self, most: usize) -> Held<'_> {
        Held { room: self, bytes: Vec::new(), most, beginning: None, rest: None, patience: PATIENCE }
    }
}

impl Held<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is more than a beginning, for which others may be waiting.
    pub(crate) fn is_large(&self) -> bool {
        self.rest.is_some()
    }

    /// Adds some, and waits where there is no room for them.
    ///
    /// # Errors
    /// 503 when there is none for too long.
    pub(crate) async fn extend(&mut self, more: &[u8]) -> Result<(), ApiError> {
        let (had, needed) = (self.bytes.capacity(), self.bytes.len() + more.len());
        if needed > had {
            let bound = if needed > BEGINNING { self.most } else { BEGINNING };
            let wanted = (2 * had).clamp(FIRST, bound).max(needed);
            let patience = self.patience;
            let taken = tokio::time::timeout(patience, self.take(had, wanted)).await;
            taken.ok().flatten().ok_or_else(|| {
                let text = "too many requests whose bodies have not come whole: try again when some of them have been \
                            answered";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text)
            })?;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Room for `wanted` bytes instead of `had`.
    async fn take(&mut self, had: usize, wanted: usize) -> Option<()> {
        let room = self.room;
        let beginning = wanted.min(BEGINNING) - had.min(BEGINNING);
        let more = room.beginnings.acquire_many(u32::try_from(beginning).ok()?).await.ok()?;
        match &mut self.beginning {
            None => self.beginning = Some(more),
            Some(own) => own.merge(more),
        }
        if wanted > BEGINNING && self.rest.is_none() {
            let rest = self.most.max(wanted) - BEGINNING;
            self.rest = Some(room.rests.acquire_many(u32::try_from(rest).ok()?).await.ok()?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_that_send_much_wait_and_others_do_not() {
        const MOST: usize = 1 << 20;
        let room = Room::new(4 * BEGINNING, MOST);
        let hold = |most| Held { patience: Duration::from_millis(20), ..room.hold(most) };
        let mut large = hold(MOST - BEGINNING);
        for _ in 0..63 {
            large.extend(&[b'x'; MOST / 64]).await.unwrap();
        }
        assert!(large.is_large() && large.bytes().len() == MOST - BEGINNING);
        // Nothing was taken twice, and what is there is not more than was taken.
        assert_eq!(room.rests.available_permits(), 2 * BEGINNING);
        assert_eq!(large.bytes.capacity(), MOST - BEGINNING);
        // Room for all of it, however little has come.
        let mut second = hold(MOST / 2);
        second.extend(&[b'x'; BEGINNING]).await.unwrap();
        let error = second.extend(b"y").await.unwrap_err();
        assert!(error.status == StatusCode::SERVICE_UNAVAILABLE && !second.is_large());
        let mut small = hold(2);
        small.extend(b"{}").await.unwrap();
        assert_eq!((small.bytes(), small.bytes.capacity()), (&b"{}"[..], FIRST));
        drop((large, small));
        second.extend(b"y").await.unwrap();
        assert_eq!(second.bytes().len(), BEGINNING + 1);
        drop(second);
        assert_eq!((room.beginnings.available_permits(), room.rests.available_permits()), (4 * BEGINNING, MOST));
    }
}
