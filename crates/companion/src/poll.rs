//! What the process waits for.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, Result};

/// Events that are taken at once.
const BATCH: usize = 256;
/// Bits of a token that are the number.
const NUMBER: u32 = 56;

/// Whose event it is: a kind, and a number that is never given twice, so that an event that is late is nobody's.
pub trait Token: Copy {
    /// As the kernel keeps it, by [`pack`].
    fn encode(self) -> u64;
    /// From the same.
    fn decode(bits: u64) -> Self;
}

/// A kind and a number in one.
pub const fn pack(kind: u8, number: u64) -> u64 {
    // Kinds are in the upper byte.
    (kind as u64) << NUMBER | number
}

/// The kind and the number of [`pack`].
pub const fn unpack(bits: u64) -> (u8, u64) {
    (bits.to_be_bytes()[0], bits & ((1 << NUMBER) - 1))
}

/// How somebody wants to hear of what can be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Nothing,
    /// As long as there is something to read.
    Read,
    /// As long as there is room to write.
    Write,
    Both,
    /// Once for each change: who hears of it goes on until it can go on no more.
    Changes,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Nothing => EventFlags::empty(),
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::Both => EventFlags::IN | EventFlags::OUT,
            Self::Changes => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        }
    }
}

/// What the process waits for: epoll(7).
#[derive(Debug)]
pub struct Poller<T> {
    epoll: OwnedFd,
    token: PhantomData<T>,
}

impl<T: Token> Poller<T> {
    /// # Errors
    /// At limits.
    pub fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, token: PhantomData })
    }

    /// # Errors
    /// At limits; for what cannot be waited for.
    pub fn add(&self, fd: impl AsFd, token: T, interest: Interest) -> Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token.encode()), interest.flags())
    }

    /// # Errors
    /// `ENOENT` for what was not added.
    pub fn change(&self, fd: impl AsFd, token: T, interest: Interest) -> Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(token.encode()), interest.flags())
    }

    /// For what another process may still have open: closing it here is not enough.
    pub fn remove(&self, fd: impl AsFd) {
        // It was added, or adding it failed.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something happens or `until` has come; a token may be for what has gone meanwhile.
    ///
    /// # Errors
    /// When the kernel cannot be waited for.
    pub fn wait(&self, tokens: &mut Vec<T>, until: Option<Instant>) -> Result<()> {
        tokens.clear();
        // Rounded up, or the last part of a millisecond would be spent in a loop.
        let round = |left: Duration| if left.is_zero() { left } else { left + Duration::from_millis(1) };
        let left = until.map(|until| round(until.saturating_duration_since(Instant::now())));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        match epoll::wait(&self.epoll, &mut events, left.as_ref()) {
            Ok((events, _)) => tokens.extend(events.iter().map(|event| T::decode(event.data.u64()))),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_numbers_come_back() {
        let number = (1 << NUMBER) - 1;
        for (kind, number) in [(0, 0), (7, number), (255, 1)] {
            assert_eq!(unpack(pack(kind, number)), (kind, number));
        }
    }
}
