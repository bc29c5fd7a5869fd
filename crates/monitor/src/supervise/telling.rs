//! What watchers are told: all that is now, at first, and then what changes.

use std::time::{Duration, Instant};

use super::Monitor;
use crate::connection::Connection;
use crate::container::number;
use crate::ready::{Interest, Source};
use crate::state::{Exit, State};
use crate::wire::EventFrame;

/// How long what the watchers are told last may take to go out.
const LAST_FRAMES: Duration = Duration::from_secs(1);
/// So many ends are kept for who comes late.
const MAX_UNTOLD: usize = 32;

impl Monitor {
    fn state(&self) -> State {
        let started_at = match (&self.container, &self.last) {
            (Some(container), _) => container.started_at.clone(),
            (None, last) => last.as_ref().map(|exit| exit.started_at.clone()).unwrap_or_default(),
        };
        State {
            pid: self.container.as_ref().map_or(0, |container| number(container.pid)),
            started_at,
            restart_count: self.history.count,
            restarting: self.container.is_none(),
            health: self.prober.as_ref().map(|prober| prober.count.state.clone()),
            oom_killed: self.oom_killed,
            oom_group: self.oom.reached(),
            untold: Vec::new(),
            execs: Vec::new(),
        }
    }

    /// The first word to who watches from now on.
    pub(crate) fn first_word(&mut self) -> State {
        let execs = self.exec_states();
        State { untold: std::mem::take(&mut self.untold).into(), execs, ..self.state() }
    }

    pub(super) fn tell_exited(&mut self, exit: &Exit, restarting: bool) {
        if restarting && !self.connections.iter().any(Connection::is_watching) {
            if self.untold.len() == MAX_UNTOLD {
                self.untold.pop_front();
            }
            self.untold.push_back(exit.clone());
        }
        let (exited, restarting) = (Some(exit.clone()), Some(restarting));
        self.tell(&EventFrame { exited, restarting, ..EventFrame::default() });
    }

    pub(crate) fn tell(&mut self, frame: &EventFrame) {
        // Types of ours that have no map with other keys than strings: it cannot fail.
        let bytes = serde_json::to_vec(frame).unwrap_or_default();
        for connection in self.connections.iter_mut().filter(|connection| connection.watching) {
            connection.send_bytes(&bytes);
        }
    }

    /// Waits a little for the watchers to take the last word.
    pub(super) fn flush_connections(&mut self) {
        let deadline = Instant::now() + LAST_FRAMES;
        while Instant::now() < deadline && self.connections.iter().any(|c| c.watching && c.has_unsent()) {
            let mut interest = Interest::default();
            for (n, connection) in self.connections.iter().enumerate().filter(|(_, c)| c.has_unsent()) {
                connection.interest(Source::Connection(n), &mut interest);
            }
            interest.until(Some(deadline));
            for (source, flags) in interest.wait() {
                if let Source::Connection(n) = source {
                    drop(self.connections[n].receive(flags));
                }
            }
        }
        // Not taken out of the list here: a request may be being served by its place in it.
        for connection in self.connections.iter_mut().filter(|connection| connection.watching) {
            connection.close();
        }
    }
}
