//! What is said to a query: by us, or by those whom we ask.

use std::time::Instant;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::forwarder::{Asker, Forwarder, Origin};
use crate::records::Container;
use crate::token::Poller;
use crate::wire::{self, A, AAAA, ANY, Answer, Code, Data, PTR, Query, Refusal};
use crate::zones::Zones;

/// How long our own answers hold, in seconds: what Docker says.
const TTL: u32 = 600;

/// What we know, and whom we ask for the rest.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) zones: Zones,
    pub(crate) forwarder: Forwarder,
    /// Which of several addresses comes first.
    turn: usize,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        // So that the first query after a start is not always about the same address.
        let mut seed = [0; 1];
        let _ = getrandom(&mut seed[..], GetRandomFlags::empty());
        Self { zones: Zones::default(), forwarder: Forwarder::new(), turn: usize::from(seed[0]) }
    }

    /// What to say to a message, now. The answer to what is asked for elsewhere comes out of the forwarder later.
    pub(crate) fn answer(
        &mut self,
        poller: &Poller,
        now: Instant,
        container: &Container,
        origin: Origin,
        message: &[u8],
    ) -> Said {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Refusal::Silent) => return Said::Nothing,
            Err(Refusal::Code(code)) => return Said::Now(Answer::refusal(message, code)),
        };
        let asker = Asker { origin, query };
        if let Some(answer) = self.own(container, &asker) {
            return Said::Now(answer);
        }
        let closed = self.zones.is_closed(&container.networks);
        let servers = if closed { &container.near } else { &container.upstreams };
        self.forwarder.ask(poller, now, asker, servers).map_or(Said::Later, Said::Now)
    }

    /// The answer to what is ours.
    fn own(&mut self, container: &Container, asker: &Asker) -> Option<Vec<u8>> {
        let query = &asker.query;
        let name = wire::text(query.name())?;
        if query.kind == PTR {
            let name = self.zones.name_of(&container.networks, wire::reversed(&name)?)?;
            let mut answer = Answer::new(query, Code::Done, asker.limit());
            answer.add(TTL, &Data::Name(name));
            return Some(answer.finish());
        }
        let addresses = self.zones.addresses(&container.networks, &container.links, &name)?;
        // A name that is known has no more than is known: other types are not asked for elsewhere either.
        let wanted = |address: &std::net::IpAddr| match query.kind {
            A => address.is_ipv4(),
            AAAA => address.is_ipv6(),
            kind => kind == ANY,
        };
        let mut addresses: Vec<_> = addresses.into_iter().filter(wanted).collect();
        if addresses.len() > 1 {
            self.turn = self.turn.wrapping_add(1);
            let first = self.turn % addresses.len();
            addresses.rotate_left(first);
        }
        let mut answer = Answer::new(query, Code::Done, asker.limit());
        addresses.into_iter().for_each(|address| answer.add(TTL, &Data::Address(address)));
        Some(answer.finish())
    }
}

/// What becomes of a message.
#[derive(Debug)]
pub(crate) enum Said {
    Now(Vec<u8>),
    Later,
    Nothing,
}
