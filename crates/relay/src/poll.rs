//! What the process waits for.

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

/// Whose event it is. Numbers are never given twice, so that an event that is late is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    /// Where daemons connect.
    Daemons,
    Control(u64),
    /// What a container's life hangs on.
    Until(u64),
    /// A port of the host's.
    Port(u64),
    /// Either end of a connection that is passed on.
    Stream(u64),
    /// A container's answers to one sender of datagrams.
    Flow(u64),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Daemons => (0, 0),
            Self::Control(number) => (1, number),
            Self::Until(number) => (2, number),
            Self::Port(number) => (3, number),
            Self::Stream(number) => (4, number),
            Self::Flow(number) => (5, number),
        };
        kind << NUMBER | number
    }

    fn decode(bits: u64) -> Self {
        let number = bits & ((1 << NUMBER) - 1);
        match bits >> NUMBER {
            1 => Self::Control(number),
            2 => Self::Until(number),
            3 => Self::Port(number),
            4 => Self::Stream(number),
            5 => Self::Flow(number),
            _ => Self::Daemons,
        }
    }
}

/// How somebody wants to hear of what can be read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Nothing,
    /// As long as there is something to read.
    Read,
    /// Once for each change: who hears of it goes on until it can go on no more.
    Changes,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Nothing => EventFlags::empty(),
            Self::Read => EventFlags::IN,
            Self::Changes => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: Token, interest: Interest) -> Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token.encode()), interest.flags())
    }

    pub(crate) fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(token.encode()), interest.flags())
    }

    /// For what another process may still have open: closing it here is not enough.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // It was added, or adding it failed.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something happens or `until` has come; a token may be for what has gone meanwhile.
    pub(crate) fn wait(&self, tokens: &mut Vec<Token>, until: Option<Instant>) -> Result<()> {
        tokens.clear();
        // Rounded up, or the last part of a millisecond would be spent in a loop.
        let round = |left: Duration| if left.is_zero() { left } else { left + Duration::from_millis(1) };
        let left = until.map(|until| round(until.saturating_duration_since(Instant::now())));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        match epoll::wait(&self.epoll, &mut events, left.as_ref()) {
            Ok((events, _)) => tokens.extend(events.iter().map(|event| Token::decode(event.data.u64()))),
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
    fn tokens_come_back() {
        let number = (1 << NUMBER) - 1;
        for token in [
            Token::Daemons,
            Token::Control(number),
            Token::Until(1),
            Token::Port(2),
            Token::Stream(number),
            Token::Flow(0),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
