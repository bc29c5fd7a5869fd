//! A program's standard streams, its log and its clients: everything passes through here, nothing is lost, and nobody
//! who reads slowly takes memory without end.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use wharf_logs::Stream;
use wharf_runtime::Stdio;

use crate::detach::Detach;
use crate::error::{LaunchError, Result};
use crate::launch::Attach;

/// Read from a stream at once: half a pipe.
const CHUNK: usize = 32 << 10;
/// Reads of one stream before the others have their turn.
const TURNS: usize = 16;
/// Bytes that wait for a client before the program waits for it too.
const CLIENT_BUFFER: usize = 1 << 20;
/// Bytes of standard input that wait for the program before its clients wait too.
const INPUT_BUFFER: usize = 256 << 10;

/// The streams of one run of a program.
#[derive(Debug)]
pub(crate) struct Streams {
    tty: bool,
    outputs: Vec<Output>,
    input: Option<OwnedFd>,
    /// On its way to the program; the input is closed behind it when it has ended.
    pending: VecDeque<u8>,
    input_ended: bool,
    /// The input ends with its first client's.
    once: bool,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    /// `None` when it has ended.
    fd: Option<OwnedFd>,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    attach: Attach,
    detach: Option<Detach>,
    /// On its way to the client.
    out: VecDeque<u8>,
    /// Its standard input has not ended.
    typing: bool,
    gone: bool,
}

/// The program's ends, and ours.
pub(crate) fn plumb(tty: bool, open_stdin: bool, once: bool) -> Result<(Stdio, Streams)> {
    let mut streams = Streams {
        tty,
        outputs: Vec::new(),
        input: None,
        pending: VecDeque::new(),
        input_ended: false,
        once,
        clients: Vec::new(),
    };
    if tty {
        return Ok((Stdio::Terminal, streams));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(LaunchError::system("make a pipe"));
    let stdin = if open_stdin {
        let (theirs, ours) = pipe()?;
        nonblocking(&ours)?;
        streams.input = Some(ours);
        theirs
    } else {
        rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(LaunchError::system("open /dev/null"))?
    };
    let mut output = |stream| {
        let (ours, theirs) = pipe()?;
        nonblocking(&ours)?;
        streams.outputs.push(Output { stream, fd: Some(ours) });
        Ok::<_, LaunchError>(theirs)
    };
    let (stdout, stderr) = (output(Stream::Stdout)?, output(Stream::Stderr)?);
    Ok((Stdio::Fds { stdin, stdout, stderr }, streams))
}

fn nonblocking(fd: &OwnedFd) -> Result<()> {
    let flags = fcntl_getfl(fd).map_err(LaunchError::system("prepare a stream"))?;
    fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(LaunchError::system("prepare a stream"))
}

impl Streams {
    /// The terminal came with the container.
    pub(crate) fn set_terminal(&mut self, master: OwnedFd, open_stdin: bool) -> Result<()> {
        nonblocking(&master)?;
        if open_stdin {
            self.input = Some(master.try_clone().map_err(|e| LaunchError::System {
                action: "duplicate the terminal",
                errno: Errno::from_io_error(&e).unwrap_or(Errno::MFILE),
            })?);
        }
        self.outputs.push(Output { stream: Stream::Stdout, fd: Some(master) });
        Ok(())
    }

    /// Tells the terminal its size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> rustix::io::Result<()> {
        let master = self.outputs.first().and_then(|output| output.fd.as_ref()).filter(|_| self.tty);
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master.ok_or(Errno::NOTTY)?, size)
    }

    /// Takes a client on.
    pub(crate) fn add(&mut self, socket: OwnedFd, attach: Attach) -> Result<()> {
        nonblocking(&socket)?;
        // Where it types into a terminal, or has said by which keys it leaves.
        let detach = (attach.stdin && (self.tty || attach.detach_keys.is_some()))
            .then(|| Detach::new(attach.detach_keys.as_deref()));
        self.clients.push(Client { socket, typing: true, attach, detach, out: VecDeque::new(), gone: false });
        Ok(())
    }

    /// What is waited for.
    pub(crate) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if !self.is_throttled() {
            fds.extend(self.outputs.iter().filter_map(|o| o.fd.as_ref()).map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        if let Some(input) = self.input.as_ref().filter(|_| !self.pending.is_empty()) {
            fds.push(PollFd::new(input, PollFlags::OUT));
        }
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            if client.typing && self.pending.len() < INPUT_BUFFER {
                flags |= PollFlags::IN;
            }
            if !client.out.is_empty() {
                flags |= PollFlags::OUT;
            }
            fds.push(PollFd::new(&client.socket, flags));
        }
    }

    fn is_throttled(&self) -> bool {
        self.clients.iter().any(|client| client.out.len() > CLIENT_BUFFER)
    }

    /// Passes on what there is, without waiting.
    pub(crate) fn pass(&mut self, log: &mut dyn FnMut(Stream, &[u8])) {
        self.read_outputs(log);
        self.feed_clients();
        self.hear_clients();
        self.write_input();
    }

    fn read_outputs(&mut self, log: &mut dyn FnMut(Stream, &[u8])) {
        let mut chunk = [0u8; CHUNK];
        for which in 0..self.outputs.len() {
            for _ in 0..TURNS {
                if self.is_throttled() {
                    return;
                }
                let output = &mut self.outputs[which];
                let Some(fd) = &output.fd else { break };
                match rustix::io::read(fd, &mut chunk) {
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    // A terminal whose last user has gone answers EIO.
                    Ok(0) | Err(_) => output.fd = None,
                    Ok(count) => {
                        let stream = output.stream;
                        log(stream, &chunk[..count]);
                        self.offer(stream, &chunk[..count]);
                        if count < CHUNK {
                            break;
                        }
                    }
                }
            }
        }
    }

    fn offer(&mut self, stream: Stream, bytes: &[u8]) {
        for client in &mut self.clients {
            let wants = match stream {
                Stream::Stdout => client.attach.stdout,
                Stream::Stderr => client.attach.stderr,
            };
            if !wants {
                continue;
            }
            if !self.tty {
                let length = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
                client.out.extend([if stream == Stream::Stdout { 1 } else { 2 }, 0, 0, 0]);
                client.out.extend(length);
            }
            client.out.extend(bytes);
        }
    }

    fn feed_clients(&mut self) {
        for client in &mut self.clients {
            while !client.out.is_empty() && !client.gone {
                let (first, _) = client.out.as_slices();
                match rustix::net::send(&client.socket, first, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(count) => drop(client.out.drain(..count)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => client.gone = true,
                }
            }
        }
        self.forget_gone();
    }

    fn hear_clients(&mut self) {
        let mut chunk = [0u8; CHUNK];
        for client in &mut self.clients {
            while client.typing && self.pending.len() < INPUT_BUFFER {
                match rustix::io::read(&client.socket, &mut chunk) {
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Ok(0) | Err(_) => {
                        client.typing = false;
                        if client.attach.stdin && self.once && !self.tty {
                            self.input_ended = true;
                        }
                    }
                    Ok(_) if !client.attach.stdin || self.input.is_none() => {}
                    Ok(count) => match &mut client.detach {
                        Some(detach) => {
                            if detach.pass(&chunk[..count], &mut self.pending) {
                                client.gone = true;
                                client.typing = false;
                            }
                        }
                        None => self.pending.extend(&chunk[..count]),
                    },
                }
            }
            // Both directions are closed: the client has ended.
            if !client.typing && client.out.is_empty() && is_hung_up(&client.socket) {
                client.gone = true;
            }
        }
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        self.clients.retain(|client| !client.gone);
    }

    fn write_input(&mut self) {
        while let Some(input) = &self.input {
            if self.pending.is_empty() {
                if self.input_ended {
                    self.input = None;
                }
                return;
            }
            let (first, _) = self.pending.as_slices();
            match rustix::io::write(input, first) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The program reads no more.
                Err(_) => {
                    self.input = None;
                    self.pending.clear();
                }
            }
        }
    }

    /// The program's input ends behind what is on its way.
    pub(crate) fn end_input(&mut self) {
        self.input_ended = true;
        self.write_input();
    }

    /// Whether all output has ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.outputs.iter().all(|output| output.fd.is_none())
    }

    /// Output is not waited for any more: the program has ended, and what holds its streams is somebody else.
    pub(crate) fn stop_reading(&mut self) {
        for output in &mut self.outputs {
            output.fd = None;
        }
    }

    /// Whether something still waits for a client.
    pub(crate) fn has_unsent(&self) -> bool {
        self.clients.iter().any(|client| !client.out.is_empty())
    }

    /// Sends what waits for clients, without waiting.
    pub(crate) fn flush(&mut self) {
        self.feed_clients();
    }
}

fn is_hung_up(socket: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&none)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}
