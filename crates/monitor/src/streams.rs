//! A program's standard streams and its clients: everything passes through here, nothing is lost, and nobody who
//! reads slowly takes memory without end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use wharf_logs::Stream;
use wharf_runtime::Stdio;

use crate::attached::{Client, Said};
use crate::error::{LaunchError, Result};
use crate::launch::Attach;
use crate::outbox::Outbox;
use crate::ready::{Interest, Part, Source, Who};

/// Read from a stream at once: half a pipe.
const CHUNK: usize = 32 << 10;
/// Reads of one stream before the others have their turn.
const TURNS: usize = 8;
/// Bytes of standard input that wait for the program before its clients wait too.
const INPUT_BUFFER: usize = 64 << 10;
/// As much as a program can have left in a pipe when it ends (`/proc/sys/fs/pipe-max-size`), and some more.
const LAST_WORDS: usize = 4 << 20;

/// Where the output of a program goes beside its clients.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// The streams of one run of a program.
#[derive(Debug)]
pub(crate) struct Streams {
    tty: bool,
    /// The input ends with that of the first client that has one.
    once: bool,
    outputs: Vec<Output>,
    input: Option<Input>,
    clients: Vec<Client>,
    /// Whoever else takes the output is asked after each reading whether there may be more.
    pub(crate) careful: bool,
    /// A client that had the input has gone without a word: no half-close, no detach keys.
    lost: bool,
}

#[derive(Debug)]
struct Output {
    stream: Stream,
    /// `None` when it has ended.
    fd: Option<OwnedFd>,
}

#[derive(Debug)]
struct Input {
    fd: OwnedFd,
    /// On its way to the program.
    pending: Outbox,
    /// Nothing comes after that.
    ended: bool,
}

/// Makes the program's ends, and ours. `owner` is who the program runs as, so that it can open its own streams again
/// (`/dev/stdout`).
///
/// # Errors
/// At a limit on open files.
pub(crate) fn plumb(tty: bool, open_stdin: bool, once: bool, owner: u32) -> Result<(Stdio, Streams)> {
    let mut streams =
        Streams { tty, once, outputs: Vec::new(), input: None, clients: Vec::new(), careful: false, lost: false };
    if tty {
        return Ok((Stdio::Terminal, streams));
    }
    let pipe = || {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(LaunchError::system("make a pipe"))?;
        if owner != 0 {
            rustix::fs::fchown(&read, Some(rustix::fs::Uid::from_raw(owner)), None)
                .map_err(LaunchError::system("give a stream to the container's user"))?;
        }
        Ok::<_, LaunchError>((read, write))
    };
    let stdin = if open_stdin {
        let (theirs, ours) = pipe()?;
        streams.input = Some(Input { fd: nonblocking(ours)?, pending: Outbox::default(), ended: false });
        theirs
    } else {
        rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(LaunchError::system("open /dev/null"))?
    };
    let mut output = |stream| {
        let (ours, theirs) = pipe()?;
        streams.outputs.push(Output { stream, fd: Some(nonblocking(ours)?) });
        Ok::<_, LaunchError>(theirs)
    };
    let (stdout, stderr) = (output(Stream::Stdout)?, output(Stream::Stderr)?);
    Ok((Stdio::Fds { stdin, stdout, stderr }, streams))
}

/// For an end that nobody shares.
fn nonblocking(fd: OwnedFd) -> Result<OwnedFd> {
    fcntl_setfl(&fd, OFlags::NONBLOCK).map_err(LaunchError::system("prepare a stream"))?;
    Ok(fd)
}

impl Streams {
    /// The terminal, which came with the program.
    ///
    /// # Errors
    /// At a limit on open files.
    pub(crate) fn set_terminal(&mut self, master: OwnedFd, open_stdin: bool) -> Result<()> {
        let master = nonblocking(master)?;
        if open_stdin {
            let fd = rustix::io::fcntl_dupfd_cloexec(&master, 3).map_err(LaunchError::system("use the terminal"))?;
            self.input = Some(Input { fd, pending: Outbox::default(), ended: false });
        }
        self.outputs.push(Output { stream: Stream::Stdout, fd: Some(master) });
        Ok(())
    }

    /// Tells the terminal its size.
    ///
    /// # Errors
    /// `ENOTTY` without one.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> std::result::Result<(), Errno> {
        let master = self.outputs.first().and_then(|output| output.fd.as_ref()).filter(|_| self.tty);
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master.ok_or(Errno::NOTTY)?, size)
    }

    /// Takes a client on.
    pub(crate) fn add(&mut self, socket: OwnedFd, attach: Attach) {
        self.clients.push(Client::new(socket, attach, self.tty));
    }

    /// What is waited for; nothing of the program's while it is `held` up.
    pub(crate) fn interest<'a>(&'a self, who: Who, held: bool, interest: &mut Interest<'a>) {
        let source = |part| Source::Program(who, part);
        if !held && !self.clients.iter().any(Client::is_full) {
            for (n, output) in self.outputs.iter().enumerate() {
                if let Some(fd) = &output.fd {
                    interest.add(fd, PollFlags::IN, source(Part::Output(n)));
                }
            }
        }
        if let Some(input) = &self.input
            && !input.pending.is_empty()
        {
            interest.add(&input.fd, PollFlags::OUT, source(Part::Input));
        }
        let room = self.has_room();
        for (n, client) in self.clients.iter().enumerate() {
            if let Some(flags) = client.interest(room) {
                interest.add(client.socket(), flags, source(Part::Client(n)));
            }
            interest.until(client.deadline(false));
        }
    }

    fn has_room(&self) -> bool {
        self.input.as_ref().is_none_or(|input| input.pending.len() < INPUT_BUFFER)
    }

    /// Something can be done at `part`.
    pub(crate) fn ready(&mut self, part: Part, flags: PollFlags, sink: Sink<'_>) {
        match part {
            Part::Output(n) => self.read_output(n, if self.careful { 1 } else { TURNS }, sink),
            Part::Input => self.write_input(),
            Part::Client(n) => self.serve_client(n, flags),
            Part::Process | Part::Asker => {}
        }
    }

    /// Reads an output, at most so many times; true when there is nothing more in it now.
    fn read_output(&mut self, which: usize, turns: usize, sink: Sink<'_>) {
        let mut chunk = [0u8; CHUNK];
        for _ in 0..turns {
            if self.clients.iter().any(Client::is_full) {
                return;
            }
            match self.read_once(which, &mut chunk, sink) {
                Some(CHUNK) => {}
                _ => return,
            }
        }
    }

    /// `None` when there is nothing now, or ever.
    fn read_once(&mut self, which: usize, chunk: &mut [u8; CHUNK], sink: Sink<'_>) -> Option<usize> {
        let output = self.outputs.get_mut(which)?;
        match rustix::io::read(output.fd.as_ref()?, &mut chunk[..]) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            // A terminal whose last user has gone answers EIO.
            Ok(0) | Err(_) => {
                output.fd = None;
                None
            }
            Ok(count) => {
                let (stream, tty) = (output.stream, self.tty);
                sink(stream, &chunk[..count]);
                for client in &mut self.clients {
                    client.put(stream, &chunk[..count], tty);
                }
                Some(count)
            }
        }
    }

    fn serve_client(&mut self, which: usize, flags: PollFlags) {
        let room = self.has_room();
        let Some(client) = self.clients.get_mut(which) else { return };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        let hung_up = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        if hung_up {
            client.hung_up();
            self.lost |= client.attach.stdin;
        }
        if !flags.contains(PollFlags::IN) && !hung_up || !room {
            return;
        }
        let said = client.read(self.input.as_mut().filter(|input| !input.ended).map(|input| &mut input.pending));
        if said == Said::End && client.attach.stdin {
            if self.once && !self.tty {
                self.end_input();
            } else {
                // As Docker does: a client whose input has ended, and with it nothing of the container's, has left.
                client.leave();
                self.lost |= self.tty;
            }
        }
        self.write_input();
    }

    /// The end of the input, after what is on its way. A terminal's cannot be ended.
    pub(crate) fn end_input(&mut self) {
        if let Some(input) = &mut self.input
            && !self.tty
        {
            input.ended = true;
        }
        self.write_input();
    }

    fn write_input(&mut self) {
        let Some(input) = &mut self.input else { return };
        // Broken: the program reads no more.
        let broken = input.pending.write(&input.fd).is_err();
        if broken || (input.ended && input.pending.is_empty()) {
            self.input = None;
        }
    }

    /// Cuts off who has kept the program waiting for too long, and forgets who has gone.
    pub(crate) fn tidy(&mut self, now: Instant) {
        for client in &mut self.clients {
            if client.deadline(false).is_some_and(|due| due <= now) {
                client.cut_off();
            }
        }
        self.clients.retain(|client| !client.is_gone());
    }

    /// Whether whoever had the input has gone, said once. A terminal is hung up with that: its processes get SIGHUP.
    pub(crate) fn take_lost(&mut self) -> bool {
        let lost = std::mem::take(&mut self.lost);
        if lost && self.tty {
            self.input = None;
            self.outputs.iter_mut().for_each(|output| output.fd = None);
        }
        lost
    }

    /// Whether all output has ended.
    pub(crate) fn is_drained(&self) -> bool {
        self.outputs.iter().all(|output| output.fd.is_none())
    }

    /// Whether something still waits for a client.
    pub(crate) fn has_unsent(&self) -> bool {
        self.clients.iter().any(Client::has_unsent)
    }

    /// The program has ended: reads what it has left, for whoever is attached however full they are, and nothing
    /// after that. What still holds its streams is somebody else.
    pub(crate) fn drain(&mut self, sink: Sink<'_>) {
        let mut chunk = [0u8; CHUNK];
        for which in 0..self.outputs.len() {
            let mut left = LAST_WORDS;
            while let Some(count) = self.read_once(which, &mut chunk, sink) {
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
            self.outputs[which].fd = None;
        }
        self.input = None;
    }

    /// The clients that have not taken all yet; the others are closed with this value.
    pub(crate) fn into_late(self) -> Vec<Client> {
        let late = self.clients.into_iter().map(|mut client| {
            client.flush();
            client.leave();
            client
        });
        late.filter(|client| !client.is_gone()).collect()
    }
}

/// Gives the program's side of a terminal to its user, as runc does.
///
/// # Errors
/// When the terminal has gone.
pub(crate) fn give_terminal(master: impl AsFd, owner: u32) -> Result<()> {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let fail = || LaunchError::system("give the terminal to the container's user");
    let slave = rustix::pty::ioctl_tiocgptpeer(master, flags).map_err(fail())?;
    rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(owner)), None).map_err(fail())
}
