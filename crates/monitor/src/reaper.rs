//! Reaping children that nobody waits for any more.
//!
//! An exec that is given up, or whose code a tracer holds back, may end long afterwards: in a frozen group nothing does. As
//! long as it is not reaped then, the PID namespace that it is in does not end, and so neither does the container.

use rustix::event::PollFlags;
use rustix::process::Signal;
use wharf_sys::reaping::{next_ended, reap_number};
use wharf_sys::signals::Signals;

use crate::ready::{Interest, Source};

/// Hears of children that have ended.
#[derive(Debug)]
pub(crate) struct Reaper {
    /// `None` where there could be no such fd: then each round is a reason to look.
    signals: Option<Signals>,
    /// One may have ended that nobody waits for.
    due: bool,
}

impl Reaper {
    /// From now on SIGCHLD is read and not delivered.
    pub(crate) fn new() -> Self {
        Self { signals: Signals::block(&[Signal::CHILD]).ok(), due: true }
    }

    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        if let Some(signals) = &self.signals {
            interest.add(signals, PollFlags::IN, Source::Children);
        }
    }

    /// Children have ended.
    pub(crate) fn ready(&mut self) {
        self.due = true;
        while let Some(Ok(Some(_))) = self.signals.as_ref().map(Signals::next) {}
    }

    /// Reaps who has ended, but for those that are waited for by others: they have not come to it yet, and whoever is
    /// behind them waits for the next round.
    pub(crate) fn tidy(&mut self, is_waited_for: impl Fn(i32) -> bool) {
        if !self.due && self.signals.is_some() {
            return;
        }
        while let Some(number) = next_ended() {
            if is_waited_for(number) {
                return;
            }
            reap_number(number);
        }
        self.due = false;
    }
}

#[cfg(test)]
mod tests {
    use wharf_sys::process::{Namespaces, clone3};
    use wharf_sys::reaping::{End, reap};

    use super::*;
    use crate::container::number;

    #[test]
    fn who_is_waited_for_is_left_to_those_who_do() {
        let [ours, other] = [(); 2].map(|()| clone3(Namespaces::default(), None, || 3).unwrap());
        let mut reaper = Reaper { signals: None, due: true };
        // Children of other tests are waited for there.
        let only = |pid| move |number_of: i32| number_of != number(pid);
        while reap(&ours.pidfd) == End::NotYet {
            reaper.tidy(|_| true);
        }
        while rustix::process::test_kill_process(other.pid).is_ok() {
            reaper.tidy(only(other.pid));
        }
        assert_eq!(reap(&other.pidfd), End::Unknown, "it is reaped");
    }
}
