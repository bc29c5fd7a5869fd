//! Execs whose asker has gone, with a daemon that was killed or has given way to another: who watches next is told of them.

use std::time::Instant;

use crate::connection::Connection;
use crate::state::ExecState;
use crate::supervise::Monitor;
use crate::wire::EventFrame;

/// Ends that are kept for who watches next; the oldest beyond these go.
const MOST: usize = 100;

impl Monitor {
    /// Goes on with the execs, and tells of the ends that their askers did not hear.
    pub(crate) fn tidy_execs(&mut self, now: Instant) {
        let mut ends = Vec::new();
        self.execs.retain_mut(|exec| {
            let is_over = exec.tidy(now);
            ends.extend(exec.take_unheard());
            !is_over
        });
        for end in ends {
            if self.connections.iter().any(Connection::is_watching) {
                self.tell(&EventFrame { exec_ended: Some(end), ..EventFrame::default() });
                continue;
            }
            if self.unheard.len() == MOST {
                self.unheard.pop_front();
            }
            self.unheard.push_back(end);
        }
    }

    /// Those that run, and those of whose ends nobody has heard, once.
    pub(crate) fn exec_states(&mut self) -> Vec<ExecState> {
        let running = self.execs.iter().filter_map(|exec| exec.state(None));
        self.unheard.drain(..).chain(running).collect()
    }
}
