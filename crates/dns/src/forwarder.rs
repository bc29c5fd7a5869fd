//! Names of others: asked for where the host asks for them.
//!
//! Equal questions of the same moment are one flight. It asks one server after the other, each some time after the last
//! when there is no answer, at once when it refuses; the first good answer ends it.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::attempt::{Attempt, Progress};
use crate::cache::Cache;
use crate::health::Health;
use crate::timers::Timers;
use crate::token::{Poller, Token};
use crate::wire::{Answer, CONCLUSIVE, Code, HEADER, MAX, Query, Response, restore};

/// Servers of one container that are asked, as everywhere (resolv.conf(5)).
const MAX_SERVERS: usize = 3;
/// Flights at a time.
const MAX_FLIGHTS: usize = 1024;
/// Queries of one container that wait at a time: no one has all flights.
const MAX_WAITING: usize = 256;
/// Queries of one flight.
const MAX_ATTEMPTS: usize = 6;
/// How long a server has before the next is asked too.
const NEXT: Duration = Duration::from_secs(1);
/// And before it is asked for what every server has at hand: the name may take long, and the server be well.
const DOUBT: Duration = Duration::from_millis(300);
/// The name servers of the root, by recursion: header, the empty name, NS, IN (RFC 1035, 4.1; RFC 9609 has resolvers know it).
const ROOT: &[u8] = &[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
/// How long all have: programs ask again after five seconds.
const ALL: Duration = Duration::from_millis(4500);

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Udp { container: u64, peer: SocketAddr },
    Tcp { container: u64, client: u64 },
}

impl Origin {
    fn container(self) -> u64 {
        match self {
            Self::Udp { container, .. } | Self::Tcp { container, .. } => container,
        }
    }

    fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp { .. })
    }
}

/// A query, and whose it is.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) origin: Origin,
    pub(crate) query: Query,
}

impl Asker {
    /// The bytes that an answer may have.
    pub(crate) fn limit(&self) -> usize {
        if self.origin.is_tcp() { MAX } else { self.query.limit() }
    }

    fn code(&self, code: Code) -> Vec<u8> {
        Answer::new(&self.query, code, MAX).finish()
    }

    /// A server's answer as one for this asker.
    fn answer(&self, message: &[u8], ttls: &[u16], age: u32) -> Vec<u8> {
        if message.len() > self.limit() {
            return Answer::new(&self.query, Code::Done, MAX).truncate().finish();
        }
        let mut message = message.to_vec();
        restore(&mut message, ttls, age, self.query.id, &self.query.question);
        message
    }
}

#[derive(Debug)]
struct Flight {
    /// What equal questions have in common; `None` when it is for nobody else, and not to be kept.
    key: Option<Vec<u8>>,
    message: Vec<u8>,
    question: Box<[u8]>,
    /// Who is asked next; those that have refused are not in it.
    servers: VecDeque<SocketAddr>,
    attempts: usize,
    running: Vec<u64>,
    tcp: bool,
    askers: Vec<Asker>,
    ends: Instant,
    /// What was answered that is better than nothing.
    spare: Option<(Vec<u8>, Response)>,
}

impl Flight {
    fn new(key: Option<Vec<u8>>, asker: Asker, servers: Vec<SocketAddr>, now: Instant) -> Self {
        Self {
            key,
            message: asker.query.to_forward(),
            question: asker.query.question.clone(),
            servers: servers.into(),
            attempts: 0,
            running: Vec::new(),
            tcp: asker.origin.is_tcp(),
            askers: vec![asker],
            ends: now + ALL,
            spare: None,
        }
    }

    /// One that is for nobody: only to see whether a server answers.
    fn looking(server: SocketAddr, now: Instant) -> Self {
        Self {
            key: None,
            message: ROOT.to_vec(),
            question: ROOT[HEADER..].into(),
            servers: VecDeque::from([server]),
            attempts: 0,
            running: Vec::new(),
            tcp: false,
            askers: Vec::new(),
            ends: now + NEXT,
            spare: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Forwarder {
    cache: Cache,
    health: Health,
    flights: HashMap<u64, Flight>,
    by_key: HashMap<Vec<u8>, u64>,
    attempts: HashMap<u64, Attempt>,
    waiting: HashMap<u64, usize>,
    timers: Timers<u64>,
    numbers: u64,
    random: Vec<u8>,
    buffer: Vec<u8>,
    answered: Vec<(Origin, Vec<u8>)>,
}

impl Forwarder {
    pub(crate) fn new() -> Self {
        Self {
            cache: Cache::default(),
            health: Health::default(),
            flights: HashMap::new(),
            by_key: HashMap::new(),
            attempts: HashMap::new(),
            waiting: HashMap::new(),
            timers: Timers::default(),
            numbers: 0,
            random: Vec::new(),
            buffer: vec![0; MAX],
            answered: Vec::new(),
        }
    }

    /// When to call [`Self::tick`].
    pub(crate) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The answers that have come.
    pub(crate) fn take_answered(&mut self) -> Vec<(Origin, Vec<u8>)> {
        std::mem::take(&mut self.answered)
    }

    /// Asks `servers`. The answer may be there at once; else it comes out of [`Self::take_answered`].
    pub(crate) fn ask(
        &mut self,
        poller: &Poller,
        now: Instant,
        asker: Asker,
        servers: &[SocketAddr],
    ) -> Option<Vec<u8>> {
        let servers = &servers[..servers.len().min(MAX_SERVERS)];
        if servers.is_empty() {
            return Some(asker.code(Code::Failed));
        }
        let key = asker.query.is_common().then(|| key(&asker.query, servers));
        if let Some(kept) = key.as_ref().and_then(|key| self.cache.get(key, now)) {
            return Some(asker.answer(kept.message, kept.ttls, kept.age));
        }
        let container = asker.origin.container();
        if self.waiting.get(&container).is_some_and(|waiting| *waiting >= MAX_WAITING) {
            return Some(asker.code(Code::Refused));
        }
        let same = key.as_ref().and_then(|key| self.by_key.get(key));
        if let Some(flight) = same.and_then(|id| self.flights.get_mut(id)) {
            flight.askers.push(asker);
            *self.waiting.entry(container).or_default() += 1;
            return None;
        }
        if self.flights.len() >= MAX_FLIGHTS {
            return Some(asker.code(Code::Refused));
        }
        *self.waiting.entry(container).or_default() += 1;
        let looks = self.health.due(servers, now).map(|server| Flight::looking(server, now));
        let flight = Flight::new(key, asker, self.health.order(servers), now);
        for flight in looks.into_iter().chain([flight]) {
            self.take_off(poller, now, flight);
        }
        None
    }

    fn take_off(&mut self, poller: &Poller, now: Instant, flight: Flight) {
        let id = self.number();
        if let Some(key) = &flight.key {
            self.by_key.insert(key.clone(), id);
        }
        self.flights.insert(id, flight);
        self.advance(poller, now, id);
    }

    /// Asks the next server of a flight, or ends it when there is none and none that could still answer.
    fn advance(&mut self, poller: &Poller, now: Instant, id: u64) {
        loop {
            let number = self.number();
            let query_id = self.draw();
            let Some(flight) = self.flights.get_mut(&id) else { return };
            let next = if flight.attempts < MAX_ATTEMPTS { flight.servers.pop_front() } else { None };
            let Some(server) = next else {
                if flight.running.is_empty() {
                    self.land(id, None);
                } else {
                    self.timers.set(id, flight.ends);
                }
                return;
            };
            flight.attempts += 1;
            let started = Attempt::start(id, server, &flight.message, flight.tcp, query_id, now).and_then(|attempt| {
                poller.add(&attempt, Token::Attempt(number), attempt.interest())?;
                Ok(attempt)
            });
            if let Ok(attempt) = started {
                flight.servers.push_back(server);
                flight.running.push(number);
                self.attempts.insert(number, attempt);
                self.timers.set(id, flight.ends.min(now + DOUBT));
                return;
            }
            // There is no way to it: not for this flight any more.
            flight.servers.retain(|other| *other != server);
        }
    }

    /// Goes on with an attempt whose socket is ready.
    pub(crate) fn ready(&mut self, poller: &Poller, now: Instant, number: u64) {
        let Some(attempt) = self.attempts.get_mut(&number) else { return };
        let (id, server) = (attempt.flight, attempt.server);
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let fits = |message: &[u8]| Response::parse(message, &flight.question).is_some();
        let progress = attempt.go_on(&mut self.buffer, fits);
        let answer = match progress {
            Progress::Waits(interest) => {
                // It is in the set, by `advance`.
                let _ = poller.change(&*attempt, Token::Attempt(number), interest);
                return;
            }
            Progress::Answered(mut message) => Response::parse(&message, &flight.question).map(|response| {
                message.truncate(response.end);
                (message, response)
            }),
            Progress::Failed => None,
        };
        self.attempts.remove(&number);
        flight.running.retain(|other| *other != number);
        match answer {
            Some((message, response)) => {
                self.health.answered(server, now);
                let is_truncated = response.truncated;
                if !is_truncated && CONCLUSIVE.contains(&response.code) {
                    return self.land(id, Some((message, response)));
                }
                flight.servers.retain(|other| *other != server);
                if is_truncated && !flight.tcp {
                    // The same server has all of it.
                    flight.tcp = true;
                    flight.servers.push_front(server);
                }
                flight.spare = Some((message, response));
            }
            None => {
                if !flight.tcp {
                    // Some answer over UDP alone, and are well.
                    self.health.failed(server, now);
                }
                flight.servers.retain(|other| *other != server);
            }
        }
        self.advance(poller, now, id);
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, poller: &Poller, now: Instant) {
        while let Some(id) = self.timers.due(now) {
            let Some(flight) = self.flights.get(&id) else { continue };
            let (mut doubted, mut newest) = (Vec::new(), None);
            for number in &flight.running {
                let Some(attempt) = self.attempts.get_mut(number) else { continue };
                newest = newest.max(Some(attempt.since));
                let age = now.saturating_duration_since(attempt.since);
                if age >= NEXT && !attempt.late {
                    attempt.late = true;
                    self.health.late(attempt.server, attempt.since, now);
                } else if age >= DOUBT && !flight.askers.is_empty() && self.health.looks(attempt.server, NEXT, now) {
                    doubted.push(attempt.server);
                }
            }
            let next = newest.map(|since| flight.ends.min(since + NEXT));
            match next.filter(|next| now < *next) {
                _ if now >= flight.ends => self.land(id, None),
                Some(next) => self.timers.set(id, next),
                None => self.advance(poller, now, id),
            }
            for server in doubted {
                self.take_off(poller, now, Flight::looking(server, now));
            }
        }
    }

    /// Ends a flight with an answer, with what there is, or with none.
    fn land(&mut self, id: u64, answer: Option<(Vec<u8>, Response)>) {
        let Some(flight) = self.flights.remove(&id) else { return };
        self.timers.cancel(id);
        for number in &flight.running {
            self.attempts.remove(number);
        }
        if let Some(key) = &flight.key {
            self.by_key.remove(key);
            if let Some((message, Response { code, ttls, lifetime: Some(lifetime), .. })) = &answer {
                let nothing = *code != 0 || message.get(6..8) == Some(&[0; 2]);
                self.cache.put(key, message, ttls, *lifetime, nothing, Instant::now());
            }
        }
        let answer = answer.or(flight.spare);
        for asker in flight.askers {
            let container = asker.origin.container();
            if let Some(waiting) = self.waiting.get_mut(&container) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.waiting.remove(&container);
                }
            }
            let message = match &answer {
                Some((_, response)) if response.truncated && asker.origin.is_tcp() => asker.code(Code::Failed),
                Some((_, response)) if response.truncated => {
                    Answer::new(&asker.query, Code::Done, MAX).truncate().finish()
                }
                Some((message, response)) => asker.answer(message, &response.ttls, 0),
                None => asker.code(Code::Failed),
            };
            self.answered.push((asker.origin, message));
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A number that cannot be guessed.
    fn draw(&mut self) -> u16 {
        if self.random.len() < 2 {
            self.random = vec![0; 512];
            // Blocks only before the kernel has any randomness, which is long before a daemon runs.
            while rustix::rand::getrandom(&mut self.random[..], rustix::rand::GetRandomFlags::empty()) != Ok(512) {}
        }
        let (high, low) = (self.random.pop().unwrap_or_default(), self.random.pop().unwrap_or_default());
        u16::from_be_bytes([high, low])
    }
}

/// What decides on an answer: the question, and who is asked.
fn key(query: &Query, servers: &[SocketAddr]) -> Vec<u8> {
    let mut key = query.key();
    for server in servers {
        match server.ip() {
            IpAddr::V4(address) => key.extend(address.octets()),
            IpAddr::V6(address) => key.extend(address.octets()),
        }
        key.extend(server.port().to_be_bytes());
        if let SocketAddr::V6(server) = server {
            key.extend(server.scope_id().to_be_bytes());
        }
    }
    key
}
