//! One query to one name server, over a socket of its own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use wharf_companion::Interest;

use crate::wire::{self, MAX};

/// Datagrams that are looked at before others have their turn: whoever floods us gets no more of our time.
const DATAGRAMS: usize = 16;

/// A query that is under way.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// What it is for.
    pub(crate) flight: u64,
    pub(crate) server: SocketAddr,
    pub(crate) since: Instant,
    /// Whether it was counted as one that is not answered.
    pub(crate) late: bool,
    socket: OwnedFd,
    id: u16,
    stream: Option<Stream>,
}

#[derive(Debug)]
struct Stream {
    out: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
}

/// How far an attempt is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Waits(Interest),
    /// A message with the right number, from the right server.
    Answered(Vec<u8>),
    Failed,
}

impl Attempt {
    /// Sends `query` to `server`, from a port that the kernel draws and under a number that nobody can guess. The
    /// socket hears nobody else.
    ///
    /// # Errors
    /// When there is no way to the server, or no fd.
    pub(crate) fn start(
        flight: u64,
        server: SocketAddr,
        query: &[u8],
        tcp: bool,
        id: u16,
        now: Instant,
    ) -> Result<Self> {
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        let mut message = query.to_vec();
        wire::set_id(&mut message, id);
        let stream = if tcp {
            match rustix::net::connect(&socket, &server) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(errno) => return Err(errno),
            }
            let length = u16::try_from(message.len()).map_err(|_| Errno::MSGSIZE)?;
            Some(Stream { out: [&length.to_be_bytes(), &message[..]].concat(), sent: 0, got: Vec::new() })
        } else {
            // Bound first: a port that is drawn by connect(2) may be shared between sockets to different servers.
            let any: SocketAddr =
                if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
            rustix::net::bind(&socket, &any)?;
            rustix::net::connect(&socket, &server)?;
            rustix::net::send(&socket, &message, SendFlags::NOSIGNAL)?;
            None
        };
        Ok(Self { flight, server, since: now, late: false, socket, id, stream })
    }

    /// What to wait for first.
    pub(crate) fn interest(&self) -> Interest {
        if self.stream.is_some() { Interest::Write } else { Interest::Read }
    }

    /// Goes on. `fits` says whether a message is an answer to the question; over UDP others pass by.
    pub(crate) fn go_on(&mut self, buffer: &mut [u8], fits: impl Fn(&[u8]) -> bool) -> Progress {
        let id = self.id.to_be_bytes();
        let fits = |message: &[u8]| message.starts_with(&id) && fits(message);
        match &mut self.stream {
            Some(stream) => match stream.go_on(&self.socket, buffer) {
                Progress::Answered(message) if !fits(&message) => Progress::Failed,
                progress => progress,
            },
            None => {
                for _ in 0..DATAGRAMS {
                    match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                        Ok((_, length)) => {
                            if let Some(message) = buffer.get(..length).filter(|message| fits(message)) {
                                return Progress::Answered(message.to_vec());
                            }
                        }
                        Err(Errno::AGAIN) => break,
                        Err(Errno::INTR) => {}
                        // Nobody listens there, or nobody gets there.
                        Err(_) => return Progress::Failed,
                    }
                }
                Progress::Waits(Interest::Read)
            }
        }
    }
}

impl AsFd for Attempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stream {
    fn go_on(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Progress {
        while self.sent < self.out.len() {
            match rustix::net::send(socket, &self.out[self.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN | Errno::NOTCONN) => return Progress::Waits(Interest::Write),
                Err(Errno::INTR) => {}
                Err(_) => return Progress::Failed,
            }
        }
        loop {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return Progress::Failed,
                Ok((_, length)) => self.got.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(Errno::AGAIN) => return Progress::Waits(Interest::Read),
                Err(Errno::INTR) => continue,
                Err(_) => return Progress::Failed,
            }
            if let Some(length) = wire::word(&self.got, 0).map(usize::from)
                && let Some(message) = self.got.get(2..2 + length)
            {
                return Progress::Answered(message.to_vec());
            }
            if self.got.len() > MAX + 2 {
                return Progress::Failed;
            }
        }
    }
}
