//! The process: one thread that waits for clients, containers and daemons.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use wharf_companion::{Asked, Daemons, Interest};
use wharf_sys::datagram;

use crate::flow::{self, Flow};
use crate::ports::Ports;
use crate::protocol::{Protocol, ROLE, Reply, Request};
use crate::stream::{Progress, Stream};
use crate::token::{Poller, Token};

/// How long the process stays without a port and a daemon.
const IDLE: Duration = Duration::from_secs(2);
/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;
/// Clients and datagrams of one port that are taken before others have their turn.
const TURN: usize = 64;
/// Senders of datagrams that are remembered.
const MAX_FLOWS: usize = 16384;
/// How often it is looked which of them are to be forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// How long no new client is taken when there is no fd for it.
const PAUSE: Duration = Duration::from_millis(200);

/// The program, when it is called by the name of [`ROLE`].
pub fn main() -> ExitCode {
    ROLE.main(|listener| Process::new(listener)?.run())
}

#[derive(Debug)]
pub(crate) struct Process {
    poller: Poller,
    daemons: Daemons,
    ports: Ports,
    streams: HashMap<u64, Stream>,
    /// Streams with more to pass on than they could in one turn.
    busy: VecDeque<u64>,
    flows: BTreeMap<u64, Flow>,
    by_sender: HashMap<(u64, SocketAddrV6, Ipv6Addr), u64>,
    numbers: u64,
    buffer: Vec<u8>,
    idle_since: Instant,
    swept: Instant,
    /// Where no connection is taken for the moment, and until when.
    paused: BTreeSet<Token>,
    resume: Option<Instant>,
    ends: bool,
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
            ports: Ports::default(),
            streams: HashMap::new(),
            busy: VecDeque::new(),
            flows: BTreeMap::new(),
            by_sender: HashMap::new(),
            numbers: 0,
            buffer: vec![0; BUFFER],
            idle_since: Instant::now(),
            swept: Instant::now(),
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
        let mut tokens = Vec::new();
        while !self.ends {
            let is_idle = self.ports.is_empty() && self.daemons.is_empty();
            let end = is_idle.then(|| self.idle_since + IDLE);
            let sweep = (!self.flows.is_empty()).then(|| self.swept + SWEEP);
            let at_once = (!self.busy.is_empty()).then(Instant::now);
            self.poller.wait(&mut tokens, [end, sweep, at_once, self.resume].into_iter().flatten().min())?;
            let now = Instant::now();
            if !is_idle {
                self.idle_since = now;
            }
            for token in &tokens {
                self.event(*token, now);
            }
            for _ in 0..self.busy.len() {
                if let Some(number) = self.busy.pop_front() {
                    self.stream(number);
                }
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
            Token::Until(number) => {
                if let Some(container) = self.ports.hung(number) {
                    self.remove(&container, &[]);
                }
            }
            Token::Port(number) => match self.ports.get(number).map(|served| served.port.protocol) {
                Some(Protocol::Tcp) => self.accept(number),
                Some(Protocol::Udp) => self.datagrams(number, now),
                None => {}
            },
            Token::Stream(number) if !self.busy.contains(&number) => self.stream(number),
            Token::Stream(_) => {}
            Token::Flow(number) => self.answers(number, now),
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.resume.is_some_and(|resume| resume <= now) {
            self.resume = None;
            for token in std::mem::take(&mut self.paused) {
                self.listen(token, Interest::Read);
            }
        }
        if now.duration_since(self.swept) >= SWEEP {
            self.swept = now;
            let old = self.flows.iter().filter(|(_, flow)| now.duration_since(flow.used) >= flow::PATIENCE);
            let old: Vec<u64> = old.map(|(number, _)| *number).collect();
            old.into_iter().for_each(|number| self.forget(number));
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Takes a daemon's connection.
    fn welcome(&mut self) {
        let number = self.number();
        if self.daemons.welcome(&self.poller, number, Token::Control(number)).is_err() {
            self.pause(Token::Daemons);
        }
    }

    /// Goes on with a daemon's connection.
    fn control(&mut self, number: u64) {
        loop {
            match self.daemons.hear(number) {
                Asked::Nothing => break,
                Asked::Quit => self.ends = true,
                Asked::Own(request, fds) => {
                    let answer = self.serve(request, fds);
                    self.daemons.answer(number, answer);
                }
            }
        }
        self.daemons.wait_for(&self.poller, number, Token::Control(number));
    }

    fn serve(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, String> {
        let mut reply = Reply::default();
        match request {
            Request::Known => reply.known = Some(self.ports.all()),
            Request::Put(ports) => {
                if ports.len() != fds.len() {
                    return Err(format!("{} sockets came with {} ports", fds.len(), ports.len()));
                }
                for (port, socket) in ports.into_iter().zip(fds) {
                    if let Some(old) = self.ports.put(&self.poller, port, socket)? {
                        self.close_clients(&[old]);
                    }
                }
            }
            Request::Remove { container, ports } => self.remove(&container, &ports),
            Request::Until { container } => {
                let process = fds.into_iter().next().ok_or("no process came with the container")?;
                self.ports.hang(&self.poller, container, process)?;
            }
        }
        Ok(reply)
    }

    fn remove(&mut self, container: &str, ports: &[(Protocol, SocketAddrV6)]) {
        let gone = self.ports.remove(&self.poller, container, ports);
        self.close_clients(&gone);
    }

    fn close_clients(&mut self, ports: &[u64]) {
        self.streams.retain(|_, stream| !ports.contains(&stream.port));
        let flows = self.flows.iter().filter(|(_, flow)| ports.contains(&flow.port));
        let flows: Vec<u64> = flows.map(|(number, _)| *number).collect();
        flows.into_iter().for_each(|number| self.forget(number));
    }

    fn listen(&self, token: Token, interest: Interest) {
        // What has gone meanwhile wants nothing.
        let _ = match token {
            Token::Daemons => self.daemons.listen(&self.poller, token, interest),
            Token::Port(number) => match self.ports.get(number) {
                Some(served) => self.poller.change(&served.socket, token, interest),
                None => Ok(()),
            },
            _ => Ok(()),
        };
    }

    /// After a connection that could not be taken: it would be offered again at once, for ever.
    fn pause(&mut self, token: Token) {
        self.listen(token, Interest::Nothing);
        self.paused.insert(token);
        self.resume = Some(Instant::now() + PAUSE);
    }

    fn accept(&mut self, port: u64) {
        for _ in 0..TURN {
            let Some(served) = self.ports.get(port) else { return };
            let target = served.port.target;
            let client = match accept_with(&served.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => TcpStream::from(client),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    return self.pause(Token::Port(port));
                }
                Err(Errno::AGAIN) => return,
                // Of one that has gone before it was taken; the next may be well.
                Err(_) => continue,
            };
            let stream = match Stream::begin(port, client, target) {
                Ok(stream) => stream,
                Err(Errno::MFILE | Errno::NFILE) => return self.pause(Token::Port(port)),
                // The client finds a closed connection, as one that the container has refused.
                Err(_) => continue,
            };
            let number = self.number();
            let token = Token::Stream(number);
            let client = self.poller.add(&stream.client, token, Interest::Changes);
            if client.and_then(|()| self.poller.add(&stream.server, token, Interest::Changes)).is_ok() {
                self.streams.insert(number, stream);
            }
        }
    }

    fn stream(&mut self, number: u64) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        match stream.go_on(&mut self.buffer) {
            Progress::Waits => {}
            Progress::HasMore => self.busy.push_back(number),
            Progress::Over => drop(self.streams.remove(&number)),
        }
    }

    fn datagrams(&mut self, port: u64, now: Instant) {
        for _ in 0..TURN {
            let Some(served) = self.ports.get(port) else { return };
            let target = served.port.target;
            let (length, sender, own) = match datagram::receive(&served.socket, &mut self.buffer) {
                Ok(received) => received,
                Err(Errno::AGAIN) => return,
                // Of one that was sent before; the next may be well.
                Err(_) => continue,
            };
            let key = (port, sender, own);
            let number = match self.by_sender.get(&key) {
                Some(number) => *number,
                None => {
                    if self.flows.len() >= MAX_FLOWS
                        && let Some(oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(n, _)| *n)
                    {
                        self.forget(oldest);
                    }
                    // Without one it is as if the datagram were lost.
                    let Ok(flow) = Flow::begin(port, (sender, own), target, now) else { continue };
                    let number = self.number();
                    if self.poller.add(&flow.socket, Token::Flow(number), Interest::Read).is_err() {
                        continue;
                    }
                    self.flows.insert(number, flow);
                    self.by_sender.insert(key, number);
                    number
                }
            };
            if let Some(flow) = self.flows.get_mut(&number) {
                flow.used = now;
                let bytes = &self.buffer[..length];
                // The first error is that of the datagram before, which nobody has taken.
                if flow.socket.send(bytes).is_err() {
                    let _ = flow.socket.send(bytes);
                }
            }
        }
    }

    fn answers(&mut self, number: u64, now: Instant) {
        for _ in 0..TURN {
            let Some(flow) = self.flows.get_mut(&number) else { return };
            let Some(served) = self.ports.get(flow.port) else { return };
            match flow.socket.recv(&mut self.buffer) {
                Ok(length) => {
                    flow.used = now;
                    // Lost where there is no room, as datagrams are.
                    let _ = datagram::send(&served.socket, &self.buffer[..length], flow.sender, flow.own);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // That nobody has taken what was sent.
                Err(_) => {}
            }
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some(flow) = self.flows.remove(&number) {
            self.by_sender.remove(&(flow.port, flow.sender, flow.own));
        }
    }
}
