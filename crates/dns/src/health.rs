//! Which name servers answer, and which are better not waited for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long one that has not answered is left alone.
const REST: Duration = Duration::from_secs(10);
/// Far more than a host has; a bound for what containers are given by hand.
const MAX: usize = 1024;

/// The servers that have not answered lately, and when to look at each again.
#[derive(Debug, Default)]
pub(crate) struct Health {
    slow: HashMap<SocketAddr, Instant>,
    /// When each has answered last.
    heard: HashMap<SocketAddr, Instant>,
    /// When each was last asked whether it answers at all.
    looked: HashMap<SocketAddr, Instant>,
}

impl Health {
    pub(crate) fn answered(&mut self, server: SocketAddr, now: Instant) {
        self.slow.remove(&server);
        put(&mut self.heard, server, now);
    }

    /// It does not answer a question of `since`. One that has answered others meanwhile is well: it is that name that takes so
    /// long, and whoever asks for such names moves nobody else to another server.
    pub(crate) fn late(&mut self, server: SocketAddr, since: Instant, now: Instant) {
        if self.heard.get(&server).is_none_or(|heard| *heard < since) {
            self.failed(server, now);
        }
    }

    /// There is nobody.
    pub(crate) fn failed(&mut self, server: SocketAddr, now: Instant) {
        put(&mut self.slow, server, now + REST);
    }

    /// Whether to ask it something that every server answers at once, as it has not answered for a while; once in `pause`.
    pub(crate) fn looks(&mut self, server: SocketAddr, pause: Duration, now: Instant) -> bool {
        let again = self.looked.get(&server).is_none_or(|looked| now.saturating_duration_since(*looked) >= pause);
        if again {
            put(&mut self.looked, server, now);
        }
        again
    }

    /// In which order to ask: those that answer first.
    pub(crate) fn order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let (slow, well): (Vec<_>, Vec<_>) = servers.iter().partition(|server| self.slow.contains_key(server));
        well.into_iter().chain(slow).collect()
    }

    /// One that should be asked beside the others, to see whether it is back: nobody waits for it. One that is asked
    /// anyway, as all are slow, is not among them.
    pub(crate) fn due(&mut self, servers: &[SocketAddr], now: Instant) -> Option<SocketAddr> {
        if servers.iter().all(|server| self.slow.contains_key(server)) {
            return None;
        }
        let server = *servers.iter().find(|server| self.slow.get(server).is_some_and(|again| *again <= now))?;
        self.slow.insert(server, now + REST);
        Some(server)
    }
}

fn put(map: &mut HashMap<SocketAddr, Instant>, server: SocketAddr, time: Instant) {
    if map.len() >= MAX {
        map.clear();
    }
    map.insert(server, time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_come_last_and_are_looked_at_again() {
        let servers: Vec<SocketAddr> = ["192.0.2.1:53", "192.0.2.2:53"].map(|text| text.parse().unwrap()).into();
        let now = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.order(&servers), servers);
        health.failed(servers[0], now);
        assert_eq!(health.order(&servers), [servers[1], servers[0]]);
        assert_eq!(health.due(&servers, now), None);
        assert_eq!(health.due(&servers, now + REST), Some(servers[0]));
        assert_eq!(health.due(&servers, now + REST), None);
        assert_eq!(health.due(&servers[..1], now + REST * 3), None);
        health.answered(servers[0], now);
        assert_eq!(health.order(&servers), servers);
        // It has answered another question meanwhile.
        let before = now - Duration::from_secs(1);
        health.late(servers[0], before, now);
        assert_eq!(health.order(&servers), servers);
        health.late(servers[0], now + REST, now + REST * 2);
        assert_eq!(health.order(&servers), [servers[1], servers[0]]);
        assert!(health.looks(servers[0], REST, now) && !health.looks(servers[0], REST, now + REST / 2));
        assert!(health.looks(servers[0], REST, now + REST));
    }
}
