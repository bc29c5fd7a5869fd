//! Whether and when a container is started again. Pure.

use std::time::Duration;

use crate::launch::Restart;

/// Docker's back-off: doubled from the first to the last, forgotten after a run of ten seconds.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(60);
const LONG_RUN: Duration = Duration::from_secs(10);

/// What the policy remembers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct History {
    pub(crate) count: u32,
    back_off: Option<Duration>,
}

impl History {
    /// After a run of `ran` that ended with `code`: how long to wait before the next, or `None` for no next.
    pub(crate) fn next(&mut self, policy: &Restart, code: i32, ran: Duration, stopped: bool) -> Option<Duration> {
        if stopped {
            return None;
        }
        let again = match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => code != 0 && (policy.max == 0 || self.count < policy.max),
            _ => false,
        };
        if !again {
            return None;
        }
        if ran >= LONG_RUN {
            self.back_off = None;
        }
        let wait = self.back_off.map_or(FIRST, |last| (last * 2).min(LAST));
        self.back_off = Some(wait);
        self.count += 1;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    fn policy(name: &str, max: u32) -> Restart {
        Restart { name: name.into(), max }
    }

    #[test]
    fn policies_decide() {
        let next = |name: &str, code, stopped| History::default().next(&policy(name, 0), code, SHORT, stopped);
        assert!(next("no", 1, false).is_none() && next("", 1, false).is_none());
        assert!(next("always", 0, false).is_some() && next("unless-stopped", 0, false).is_some());
        assert!(next("on-failure", 1, false).is_some() && next("on-failure", 0, false).is_none());
        assert!(next("always", 0, true).is_none());
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_a_long_run_resets_it() {
        let mut history = History::default();
        let always = policy("always", 0);
        let waits: Vec<u128> = (0..12).map(|_| history.next(&always, 1, SHORT, false).unwrap().as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(history.next(&always, 1, LONG_RUN, false), Some(FIRST));
    }

    #[test]
    fn failures_are_counted() {
        let mut history = History::default();
        let twice = policy("on-failure", 2);
        assert!(history.next(&twice, 1, SHORT, false).is_some());
        assert!(history.next(&twice, 1, SHORT, false).is_some());
        assert!(history.next(&twice, 1, SHORT, false).is_none());
    }
}
