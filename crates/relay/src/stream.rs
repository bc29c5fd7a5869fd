//! A connection that is passed on: a client's, and ours to the container.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_keepalive, set_socket_linger, set_tcp_nodelay};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Reads of each direction before others have their turn.
const ROUNDS: usize = 8;
/// Whoever sends this much at once goes on sending, mostly: then a pipe is worth its two fds.
const MUCH: usize = 16 << 10;
/// Bytes that a pipe has room for, and is offered at once.
const PIPE: usize = 512 << 10;

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It goes on when something changes.
    Waits,
    /// There is more to do at once.
    HasMore,
    /// Both directions are over, or an end has failed.
    Over,
}

#[derive(Debug)]
pub(crate) struct Stream {
    /// The number of the port that it came by.
    pub(crate) port: u64,
    pub(crate) client: TcpStream,
    pub(crate) server: TcpStream,
    is_connected: bool,
    up: Direction,
    down: Direction,
}

/// What goes one way.
#[derive(Debug, Default)]
struct Direction {
    /// Read and not written yet: nothing more is read before it is.
    pending: Vec<u8>,
    /// From when on there is much.
    pipe: Option<Pipe>,
    /// There was no pipe to be had.
    has_no_pipe: bool,
    has_ended: bool,
    is_shut: bool,
}

impl Stream {
    /// Begins to connect to a container for a client.
    ///
    /// # Errors
    /// At limits, and where there is no way to the container.
    pub(crate) fn begin(port: u64, client: TcpStream, target: SocketAddr) -> rustix::io::Result<Self> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let server: OwnedFd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match connect(&server, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let server = TcpStream::from(server);
        client.set_nonblocking(true).map_err(|_| Errno::IO)?;
        for socket in [&client, &server] {
            // What comes in pieces goes on in pieces; who has vanished is found out.
            set_tcp_nodelay(socket, true)?;
            set_socket_keepalive(socket, true)?;
        }
        Ok(Self { port, client, server, is_connected: false, up: Direction::default(), down: Direction::default() })
    }

    /// Passes on what there is.
    pub(crate) fn go_on(&mut self, buffer: &mut [u8]) -> Progress {
        if !self.is_connected {
            if !matches!(self.server.take_error(), Ok(None)) {
                return self.fail();
            }
            match self.server.peer_addr() {
                Ok(_) => self.is_connected = true,
                Err(error) if error.kind() == ErrorKind::NotConnected => return Progress::Waits,
                Err(_) => return self.fail(),
            }
        }
        let up = self.up.pump(&mut self.client, &mut self.server, buffer);
        let down = self.down.pump(&mut self.server, &mut self.client, buffer);
        match (up, down) {
            (Ok(_), Ok(_)) if self.up.is_shut && self.down.is_shut => Progress::Over,
            (Ok(up), Ok(down)) if up || down => Progress::HasMore,
            (Ok(_), Ok(_)) => Progress::Waits,
            _ => self.fail(),
        }
    }

    /// Both ends are told that it has not ended well.
    fn fail(&self) -> Progress {
        for socket in [&self.client, &self.server] {
            // The end that has failed knows.
            let _ = set_socket_linger(socket, Some(std::time::Duration::ZERO));
        }
        Progress::Over
    }
}

impl Direction {
    /// Whether there may be more at once.
    fn pump(&mut self, from: &mut TcpStream, to: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<bool> {
        for _ in 0..ROUNDS {
            if let Some(pipe) = &mut self.pipe {
                pipe.pour(to)?;
                if pipe.holds > 0 {
                    return Ok(false);
                }
            }
            if !self.pending.is_empty() {
                let written = write(to, &self.pending)?;
                self.pending.drain(..written);
                if !self.pending.is_empty() {
                    return Ok(false);
                }
                self.pending = Vec::new();
            }
            if self.has_ended {
                if !self.is_shut {
                    match to.shutdown(Shutdown::Write) {
                        // It has gone altogether, which is no failure of what went this way.
                        Err(error) if error.kind() != ErrorKind::NotConnected => return Err(error),
                        _ => self.is_shut = true,
                    }
                }
                return Ok(false);
            }
            if let Some(pipe) = &mut self.pipe {
                match pipe.fill(from)? {
                    Some(0) => self.has_ended = true,
                    Some(_) => {}
                    None => return Ok(false),
                }
                continue;
            }
            match from.read(buffer) {
                Ok(0) => self.has_ended = true,
                Ok(length) => {
                    if length >= MUCH && !self.has_no_pipe {
                        self.pipe = Pipe::new().ok();
                        self.has_no_pipe = self.pipe.is_none();
                    }
                    let written = write(to, &buffer[..length])?;
                    self.pending.extend_from_slice(&buffer[written..length]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Where bytes are between two sockets that the kernel moves without copying them (splice(2)).
#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    holds: usize,
}

impl Pipe {
    fn new() -> rustix::io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // One that is as large as it was is slower, not wrong.
        let _ = fcntl_setpipe_size(&into, PIPE);
        Ok(Self { out, into, holds: 0 })
    }

    /// Takes what has come, 0 bytes at the end; `None` when nothing has.
    fn fill(&mut self, from: &TcpStream) -> std::io::Result<Option<usize>> {
        loop {
            match splice(from, None, &self.into, None, PIPE, SpliceFlags::NONBLOCK) {
                Ok(length) => {
                    self.holds += length;
                    return Ok(Some(length));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Gives on what can be.
    fn pour(&mut self, to: &TcpStream) -> std::io::Result<()> {
        while self.holds > 0 {
            match splice(&self.out, None, to, None, self.holds, SpliceFlags::NONBLOCK) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => self.holds -= length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Writes what can be; how much that was.
fn write(to: &mut TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => written += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
