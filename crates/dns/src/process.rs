//! The process: one thread that waits for containers, name servers and daemons.

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use wharf_companion::{Daemons, Interest};
use wharf_sys::datagrams::{Inbox, Outbox};

use crate::containers::Containers;
use crate::forwarder::Origin;
use crate::protocol::ROLE;
use crate::resolver::{Resolver, Said};
use crate::tcp::{self, Client};
use crate::timers::Timers;
use crate::token::{Poller, Token};
use crate::wire::MAX;

/// How long the process stays without a container and a daemon.
const IDLE: Duration = Duration::from_secs(5);
/// Datagrams that are taken and answered at once, and how often that is done for one container before others have their
/// turn.
const DATAGRAMS: usize = 32;
const ROUNDS: usize = 2;
/// Bytes of a datagram that are read: far more than a query over UDP has (RFC 1035, RFC 6891).
const QUERY: usize = 2 << 10;
/// Clients over TCP, of all containers and of each.
const MAX_CLIENTS: usize = 512;
const MAX_CLIENTS_OF_ONE: usize = 32;
/// How long the answer to some queries takes at most, in nanoseconds: the least that the scheduler knows.
const MOMENT: u64 = 100_000;
/// How long no new connection is taken when there is no fd for it.
const PAUSE: Duration = Duration::from_millis(200);

/// The program, when it is called by the name of [`ROLE`].
pub fn main() -> ExitCode {
    ROLE.main(|listener| Process::new(listener)?.run())
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) poller: Poller,
    pub(crate) daemons: Daemons,
    pub(crate) containers: Containers,
    pub(crate) resolver: Resolver,
    clients: HashMap<u64, Client>,
    /// When each client has been idle for too long.
    patience: Timers<u64>,
    numbers: u64,
    buffer: Vec<u8>,
    inbox: Inbox,
    outbox: Outbox,
    idle_since: Instant,
    /// Where no connection is taken for the moment, and until when.
    paused: BTreeSet<Token>,
    resume: Option<Instant>,
    pub(crate) ends: bool,
}

impl Process {
    /// # Errors
    /// At limits.
    pub(crate) fn new(listener: UnixListener) -> std::io::Result<Self> {
        let poller = Poller::new()?;
        let daemons = Daemons::new(&ROLE, listener, &poller, Token::Daemons)?;
        Ok(Self {
            poller,
            daemons,
            containers: Containers::default(),
            resolver: Resolver::new(),
            clients: HashMap::new(),
            patience: Timers::default(),
            numbers: 0,
            buffer: vec![0; MAX],
            inbox: Inbox::new(DATAGRAMS, QUERY),
            outbox: Outbox::default(),
            idle_since: Instant::now(),
            paused: BTreeSet::new(),
            resume: None,
            ends: false,
        })
    }

    /// Serves until nobody is there any more.
    ///
    /// # Errors
    /// When the kernel cannot be waited for.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        // On a busy host who asks would else wait for the slices of others. Where it cannot be had all goes on as before.
        let _ = wharf_sys::scheduling::work_for_moments(MOMENT);
        let mut tokens = Vec::new();
        while !self.ends {
            let is_idle = self.containers.is_empty() && self.daemons.is_empty();
            let end = is_idle.then(|| self.idle_since + IDLE);
            let moments = [self.resolver.forwarder.next(), self.patience.next(), self.resume, end];
            self.poller.wait(&mut tokens, moments.into_iter().flatten().min())?;
            let now = Instant::now();
            if !is_idle {
                self.idle_since = now;
            }
            for token in &tokens {
                self.event(*token, now);
            }
            self.tick(now);
            // Who has just connected finds somebody.
            if tokens.is_empty() && end.is_some_and(|end| end <= now) {
                self.ends = true;
            }
        }
        Ok(())
    }

    fn event(&mut self, token: Token, now: Instant) {
        match token {
            Token::Daemons => self.welcome(),
            Token::Control(number) => self.control(number),
            Token::Until(number) => self.remove_container(number),
            Token::Udp(number) => self.datagrams(number, now),
            Token::Tcp(number) => self.accept(number, now),
            Token::Client(number) => self.client(number, now),
            Token::Attempt(number) => self.resolver.forwarder.ready(&self.poller, now, number),
        }
        self.deliver(now);
    }

    fn tick(&mut self, now: Instant) {
        self.resolver.forwarder.tick(&self.poller, now);
        self.deliver(now);
        while let Some(number) = self.patience.due(now) {
            let Some(client) = self.clients.get(&number) else { continue };
            let ends = client.used + tcp::PATIENCE;
            if ends <= now { self.close_client(number) } else { self.patience.set(number, ends) }
        }
        if self.resume.is_some_and(|resume| resume <= now) {
            self.resume = None;
            for token in std::mem::take(&mut self.paused) {
                self.listen(token, Interest::Read);
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Takes a daemon's connection.
    fn welcome(&mut self) {
        let number = self.number();
        if let Err(error) = self.daemons.welcome(&self.poller, number, Token::Control(number)) {
            self.pause(Token::Daemons, &error);
        }
    }

    /// After a connection that could not be taken: it would be offered again at once, for ever.
    fn pause(&mut self, token: Token, error: &std::io::Error) {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted) {
            return;
        }
        self.listen(token, Interest::Nothing);
        self.paused.insert(token);
        self.resume = Some(Instant::now() + PAUSE);
    }

    fn listen(&self, token: Token, interest: Interest) {
        // What has gone meanwhile wants nothing.
        let _ = match token {
            Token::Daemons => self.daemons.listen(&self.poller, token, interest),
            Token::Tcp(number) => match self.containers.get(number) {
                Some(asking) => self.poller.change(&asking.tcp, token, interest),
                None => Ok(()),
            },
            _ => Ok(()),
        };
    }

    /// Forgets a container with what it has under way.
    pub(crate) fn remove_container(&mut self, number: u64) {
        self.containers.remove(&self.poller, number);
        self.close_clients_of(number);
    }

    pub(crate) fn close_clients_of(&mut self, container: u64) {
        self.clients.retain(|number, client| {
            let stays = client.container != container;
            if !stays {
                self.patience.cancel(*number);
            }
            stays
        });
    }

    fn datagrams(&mut self, number: u64, now: Instant) {
        for _ in 0..ROUNDS {
            let Some(asking) = self.containers.get(number) else { return };
            let got = match self.inbox.receive(&asking.udp) {
                Ok(got) => got,
                Err(Errno::AGAIN) => return,
                // Of one that was sent before; the next may be well.
                Err(_) => continue,
            };
            for index in 0..got {
                let Some((message, peer)) = self.inbox.get(index) else { continue };
                let origin = Origin::Udp { container: number, peer: peer.into() };
                if let Said::Now(answer) = self.resolver.answer(&self.poller, now, &asking.record, origin, message) {
                    self.outbox.push(&answer, peer);
                }
            }
            self.outbox.send(&asking.udp);
            // The kernel says it again when there is more: to ask whether would be one more call for each query.
            if got < DATAGRAMS {
                return;
            }
        }
    }

    fn accept(&mut self, container: u64, now: Instant) {
        let Some(asking) = self.containers.get_mut(container) else { return };
        match asking.tcp.accept() {
            Ok((stream, _)) => {
                // One more than that is closed unheard.
                if asking.clients >= MAX_CLIENTS_OF_ONE || self.clients.len() >= MAX_CLIENTS {
                    return;
                }
                self.numbers += 1;
                let number = self.numbers;
                // Answers are small and whole: nothing is to wait for more.
                let _ = stream.set_nodelay(true);
                let nonblocking = stream.set_nonblocking(true);
                let client = Client::new(container, stream, now);
                if nonblocking.is_ok() && self.poller.add(&client, Token::Client(number), Interest::Read).is_ok() {
                    asking.clients += 1;
                    self.clients.insert(number, client);
                    self.patience.set(number, now + tcp::PATIENCE);
                }
            }
            Err(error) => self.pause(Token::Tcp(container), &error),
        }
    }

    fn close_client(&mut self, number: u64) {
        self.patience.cancel(number);
        if let Some(client) = self.clients.remove(&number)
            && let Some(asking) = self.containers.get_mut(client.container)
        {
            asking.clients = asking.clients.saturating_sub(1);
        }
    }

    /// Goes on with a client over TCP.
    fn client(&mut self, number: u64, now: Instant) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let went = client.go_on(&mut self.buffer, now);
        if went.is_err() || self.queries(number, now).is_err() {
            self.close_client(number);
        }
    }

    /// Answers what a client has asked, as far as it may ask more; then waits for what it wants next.
    fn queries(&mut self, number: u64, now: Instant) -> Result<(), tcp::Closed> {
        let Some(client) = self.clients.get_mut(&number) else { return Ok(()) };
        let container = client.container;
        let asking = self.containers.get(container).ok_or(tcp::Closed)?;
        while let Some(message) = client.query()? {
            let origin = Origin::Tcp { container, client: number };
            match self.resolver.answer(&self.poller, now, &asking.record, origin, &message) {
                Said::Now(answer) => client.answer(&answer, now)?,
                Said::Later => {}
                Said::Nothing => client.skip(),
            }
        }
        if client.is_done() {
            return Err(tcp::Closed);
        }
        self.poller.change(&*client, Token::Client(number), client.interest()).map_err(|_| tcp::Closed)
    }

    /// Passes on what name servers have answered.
    fn deliver(&mut self, now: Instant) {
        loop {
            let answered = self.resolver.forwarder.take_answered();
            if answered.is_empty() {
                return;
            }
            for (origin, message) in answered {
                match origin {
                    Origin::Udp { container, peer } => {
                        if let Some(asking) = self.containers.get(container) {
                            send(asking, &message, peer);
                        }
                    }
                    Origin::Tcp { client: number, .. } => {
                        let Some(client) = self.clients.get_mut(&number) else { continue };
                        if client.answer(&message, now).is_err() || self.queries(number, now).is_err() {
                            self.close_client(number);
                        }
                    }
                }
            }
        }
    }
}

fn send(asking: &crate::containers::Asking, message: &[u8], peer: SocketAddr) {
    // A client that has gone, or does not read: as if the datagram were lost.
    let _ = asking.udp.send_to(message, peer);
}
