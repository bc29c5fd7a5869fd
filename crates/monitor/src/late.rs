//! Clients of a program that has ended, who have not taken all yet.

use std::time::Instant;

use rustix::event::PollFlags;

use crate::attached::Client;
use crate::ready::{Interest, Source};

/// They are kept, within bounds, until they have.
#[derive(Debug, Default)]
pub(crate) struct Late(Vec<Client>);

impl Late {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn extend(&mut self, clients: impl IntoIterator<Item = Client>) {
        self.0.extend(clients);
    }

    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        for (n, client) in self.0.iter().enumerate() {
            interest.add(client.socket(), PollFlags::OUT, Source::Late(n));
            interest.until(client.deadline(true));
        }
    }

    /// Something can be done for the client at `n`.
    pub(crate) fn ready(&mut self, n: usize, flags: PollFlags) {
        let Some(client) = self.0.get_mut(n) else { return };
        client.flush();
        if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
            client.cut_off();
        }
    }

    /// Forgets who has all, has gone, or has been waited for too long.
    pub(crate) fn tidy(&mut self, now: Instant) {
        for client in self.0.iter_mut().filter(|client| client.deadline(true).is_some_and(|due| due <= now)) {
            client.cut_off();
        }
        self.0.retain(|client| !client.is_gone());
    }

    /// Stays until there is nobody left.
    pub(crate) fn see_off(mut self) {
        while !self.is_empty() {
            let mut interest = Interest::default();
            self.interest(&mut interest);
            for (source, flags) in interest.wait() {
                if let Source::Late(n) = source {
                    self.ready(n, flags);
                }
            }
            self.tidy(Instant::now());
        }
    }
}
