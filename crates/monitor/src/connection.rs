//! One connection on `monitor.sock`, never waited for.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::Serialize;
use wharf_sys::message::{MAX_BYTES, MAX_FDS};

use crate::outbox::Outbox;
use crate::ready::{Interest, Source};

/// More than this does not wait for a watcher: it has stopped reading, and finds everything in a new first frame.
const MAX_OUT: usize = 1 << 20;
/// The length before a frame.
const LENGTH: usize = 4;

/// A request that has come whole: its bytes and its fds.
pub(crate) type Frame = (Vec<u8>, Vec<OwnedFd>);

/// A connection. The default is one that is over.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    /// `None` when it is over.
    socket: Option<OwnedFd>,
    inbox: Vec<u8>,
    fds: Vec<OwnedFd>,
    out: Outbox,
    /// It is told of changes.
    pub(crate) watching: bool,
    /// It is closed when the last answer is sent.
    finished: bool,
    /// The other end has gone without reading all that was sent.
    reset: bool,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket: Some(socket), ..Self::default() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// Whether somebody is told of changes by it.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching && self.is_open()
    }

    /// Whether the other end has gone without reading all that was sent; said once.
    pub(crate) fn take_reset(&mut self) -> bool {
        std::mem::take(&mut self.reset)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.is_open() && !self.out.is_empty()
    }

    pub(crate) fn interest<'a>(&'a self, source: Source, interest: &mut Interest<'a>) {
        let Some(socket) = &self.socket else { return };
        let mut flags = if self.finished { PollFlags::empty() } else { PollFlags::IN };
        if !self.out.is_empty() {
            flags |= PollFlags::OUT;
        }
        interest.add(socket, flags, source);
    }

    /// Something can be done, but no request is expected: what is said is forgotten.
    pub(crate) fn ready(&mut self, flags: PollFlags) {
        if self.receive(flags).is_some() {
            self.close();
        }
    }

    /// Something can be done; a request that is whole comes back.
    pub(crate) fn receive(&mut self, flags: PollFlags) -> Option<Frame> {
        if flags.contains(PollFlags::OUT) {
            self.flush();
        }
        let gone = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        let frame = if flags.contains(PollFlags::IN) || gone { self.read() } else { None };
        if gone && frame.is_none() {
            self.close();
        }
        frame
    }

    /// Reads what has come.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(length) = self.inbox.first_chunk::<LENGTH>().map(|bytes| u32::from_be_bytes(*bytes) as usize) {
                if length > MAX_BYTES {
                    self.close();
                    return None;
                }
                if self.inbox.len() >= LENGTH + length {
                    let mut bytes = std::mem::take(&mut self.inbox);
                    bytes.drain(..LENGTH);
                    bytes.truncate(length);
                    return Some((bytes, std::mem::take(&mut self.fds)));
                }
            }
            let socket = self.socket.as_ref()?;
            let mut chunk = [0u8; 8 << 10];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let got = recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut control, flags);
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            match got {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Ok(got) if got.bytes > 0 && self.fds.len() <= MAX_FDS => {
                    self.inbox.extend_from_slice(&chunk[..got.bytes])
                }
                // A half-close is an end too: nobody who speaks this protocol does that.
                got => {
                    self.reset = matches!(got, Err(Errno::CONNRESET));
                    self.close();
                    return None;
                }
            }
        }
    }

    /// Sends an answer or an event, now or when it is taken.
    pub(crate) fn send(&mut self, value: &impl Serialize) {
        // Types of ours that have no map with other keys than strings: it cannot fail.
        let Ok(bytes) = serde_json::to_vec(value) else { return self.close() };
        self.send_bytes(&bytes);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let Ok(length) = u32::try_from(bytes.len()) else { return self.close() };
        if self.out.len() > MAX_OUT {
            return self.close();
        }
        self.out.push(&length.to_be_bytes());
        self.out.push(bytes);
        self.flush();
    }

    /// Sends the last answer.
    pub(crate) fn finish(&mut self, value: &impl Serialize) {
        self.finished = true;
        self.send(value);
    }

    pub(crate) fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        if self.out.send(socket).is_err() || (self.finished && self.out.is_empty()) {
            self.close();
        }
    }

    pub(crate) fn close(&mut self) {
        self.socket = None;
        self.out.clear();
        self.inbox = Vec::new();
        self.fds.clear();
    }
}
