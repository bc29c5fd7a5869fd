//! One client that is attached to a program's streams.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, sendmsg};
use wharf_logs::Stream;

use crate::detach::Detach;
use crate::launch::Attach;
use crate::outbox::Outbox;

/// Bytes that wait for a client before the program waits for it too.
const BUFFER: usize = 1 << 20;
/// A client that takes nothing for so long while the program waits for it is cut off: a terminal that somebody has
/// stopped must not stop a service for ever. Nothing is lost with it, the log has it all.
const PATIENCE: Duration = Duration::from_secs(300);
/// The same when the container has ended and nobody waits: `run … | less`, and the reader is at lunch.
const LATE_PATIENCE: Duration = Duration::from_secs(3600);
/// Read from a client at once.
const CHUNK: usize = 16 << 10;

/// What a client has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    /// Its input has ended: it has half-closed its stream, or gone.
    End,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    pub(crate) attach: Attach,
    /// With a terminal only.
    detach: Option<Detach>,
    out: Outbox,
    /// Its input has not ended.
    typing: bool,
    /// It takes nothing any more.
    deaf: bool,
    /// It is to be closed when it has taken what waits for it.
    leaving: bool,
    /// Since when it has taken nothing, with something waiting for it.
    waiting: Option<Instant>,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd, attach: Attach, tty: bool) -> Self {
        let detach = (tty && attach.stdin).then(|| Detach::new(attach.detach_keys.as_deref()));
        Self {
            socket,
            attach,
            detach,
            out: Outbox::default(),
            typing: true,
            deaf: false,
            leaving: false,
            waiting: None,
        }
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// What to wait for, or `None` when nothing it does matters now. (Its hanging up is always reported, so a client
    /// that is not listened to must not be waited for.)
    pub(crate) fn interest(&self, room: bool) -> Option<PollFlags> {
        let mut flags = PollFlags::empty();
        if self.typing && room {
            flags |= PollFlags::IN;
        }
        if !self.out.is_empty() {
            flags |= PollFlags::OUT;
        }
        (!flags.is_empty() || !self.typing).then_some(flags)
    }

    pub(crate) fn is_gone(&self) -> bool {
        (self.deaf && !self.typing) || (self.leaving && self.out.is_empty())
    }

    /// So much waits for it that the program must.
    pub(crate) fn is_full(&self) -> bool {
        !self.deaf && self.out.len() > BUFFER
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// When it is to be cut off, if it goes on taking nothing. `late`: the program has ended.
    pub(crate) fn deadline(&self, late: bool) -> Option<Instant> {
        let patience = if late { LATE_PATIENCE } else { PATIENCE };
        self.waiting.filter(|_| late || self.is_full()).map(|since| since + patience)
    }

    pub(crate) fn cut_off(&mut self) {
        self.deaf = true;
        self.typing = false;
        self.out.clear();
    }

    /// Ends it when it has taken what waits.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.typing = false;
    }

    /// Gives it a piece of output, in frames if there is no terminal (Engine API, "Stream format").
    pub(crate) fn put(&mut self, stream: Stream, bytes: &[u8], tty: bool) {
        let wants = match stream {
            Stream::Stdout => self.attach.stdout,
            Stream::Stderr => self.attach.stderr,
        };
        if !wants || self.deaf || self.leaving {
            return;
        }
        let mut header = [0; 8];
        header[0] = if stream == Stream::Stdout { 1 } else { 2 };
        header[4..].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        let header: &[u8] = if tty { &[] } else { &header };
        let mut sent = 0;
        if self.out.is_empty() {
            // The usual case: it takes it all at once, and nothing is copied.
            let slices = [IoSlice::new(header), IoSlice::new(bytes)];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &slices, &mut SendAncillaryBuffer::default(), flags) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return self.fall_silent(),
            }
        }
        if sent < header.len() + bytes.len() {
            self.out.push(&header[sent.min(header.len())..]);
            self.out.push(&bytes[sent.saturating_sub(header.len())..]);
            self.waiting.get_or_insert_with(Instant::now);
        }
    }

    /// Sends what waits, as far as it takes it.
    pub(crate) fn flush(&mut self) {
        match self.out.send(&self.socket) {
            Err(_) => self.fall_silent(),
            Ok(_) if self.out.is_empty() => self.waiting = None,
            Ok(0) => {}
            Ok(_) => self.waiting = Some(Instant::now()),
        }
    }

    fn fall_silent(&mut self) {
        self.deaf = true;
        self.out.clear();
    }

    /// It has hung up: whatever it has still said may be read, but it takes nothing.
    pub(crate) fn hung_up(&mut self) {
        self.fall_silent();
    }

    /// Reads what it has typed, once, into `input`; without one it is read and forgotten.
    pub(crate) fn read(&mut self, input: Option<&mut Outbox>) -> Said {
        if !self.typing {
            return Said::Nothing;
        }
        let mut chunk = [0; CHUNK];
        match rustix::net::recv(&self.socket, &mut chunk, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Said::Nothing,
            Err(_) | Ok((0, _)) => {
                self.typing = false;
                Said::End
            }
            Ok((count, _)) => {
                let Some(input) = input.filter(|_| self.attach.stdin) else { return Said::Nothing };
                match &mut self.detach {
                    Some(detach) => {
                        if detach.pass(&chunk[..count], input) {
                            self.leave();
                        }
                    }
                    None => input.push(&chunk[..count]),
                }
                Said::Nothing
            }
        }
    }
}
