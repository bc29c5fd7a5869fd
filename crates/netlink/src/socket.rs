//! A connection to one of the kernel's families.

use std::cell::RefCell;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use wharf_sys::netlink::{Switch, turn_on};

use crate::message::{self, DONE, ERROR, HEADER, Messages, Received};
use crate::{NetlinkError, Result};

/// Bit of an error's flags: the request is not repeated in it.
const CAPPED: u16 = 0x100;
/// Bit of an error's flags: attributes follow.
const HAS_ATTRIBUTES: u16 = 0x200;
/// What the kernel says, among an error's attributes.
const ERROR_TEXT: u16 = 1;
/// As much as the kernel gives at once in a dump.
const BUFFER: usize = 64 << 10;
/// How often a list is asked for anew when something changed meanwhile.
const TRIES: usize = 16;
/// What a socket may send without asking for more (net.core.wmem_default is 208 KiB, with the kernel's overhead).
const SMALL: usize = 64 << 10;

thread_local! {
    /// What has come. Made for each request anew, it would be most of what the allocator does for a container.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `f` room for what comes.
fn with_room<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    // Taken out: who asks another question while it reads an answer gets room of its own.
    let mut room = RECEIVED.take();
    room.resize(BUFFER, 0);
    let done = f(&mut room);
    RECEIVED.set(room);
    done
}

/// Belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// `None` is rtnetlink.
    pub(crate) fn open(protocol: Option<Protocol>) -> Result<Self> {
        let fail = |errno| NetlinkError::new("open a netlink socket", errno);
        let family = AddressFamily::NETLINK;
        let fd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol).map_err(fail)?;
        turn_on(&fd, Switch::ExtendedAck).map_err(fail)?;
        turn_on(&fd, Switch::CappedAck).map_err(fail)?;
        Ok(Self { fd })
    }

    /// Lets a dump be of what it asks for, and not of everything.
    pub(crate) fn strict(self) -> Result<Self> {
        turn_on(&self.fd, Switch::StrictCheck).map_err(|errno| NetlinkError::new("open a netlink socket", errno))?;
        Ok(self)
    }

    fn send(&self, messages: &Messages) -> Result<()> {
        let bytes = messages.bytes();
        let fail = |errno| NetlinkError::new(messages.action(0), errno);
        if bytes.len() > SMALL {
            rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() * 2).map_err(fail)?;
        }
        let kernel = SocketAddrNetlink::new(0, 0);
        loop {
            match rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop).map_err(fail),
            }
        }
    }

    /// The bytes of the next answer; `None` when there is none, which only ends a wait that was not to be one.
    fn receive<'a>(&self, buffer: &'a mut [u8], flags: RecvFlags) -> rustix::io::Result<Option<&'a [u8]>> {
        let length = loop {
            match rustix::net::recv(&self.fd, &mut *buffer, flags) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                read => break read?.0,
            }
        };
        Ok(Some(&buffer[..length]))
    }

    /// Sends requests and collects what went wrong; the first error is the one that counts. The kernel does the work
    /// in the sending call, so every answer is there when that returns.
    ///
    /// The last request, or the last before a batch's end, must ask for an acknowledgement.
    pub(crate) fn transact(&self, messages: &Messages) -> Result<()> {
        if messages.len() == 0 {
            return Ok(());
        }
        self.send(messages)?;
        with_room(|buffer| self.acknowledged(messages, buffer))
    }

    fn acknowledged(&self, messages: &Messages, buffer: &mut [u8]) -> Result<()> {
        let mut answered = false;
        let mut failed = None;
        loop {
            let read = self.receive(buffer, RecvFlags::DONTWAIT);
            let Some(bytes) = read.map_err(|errno| NetlinkError::new(messages.action(0), errno))? else { break };
            for answer in message::received(bytes).filter(|answer| answer.kind == ERROR) {
                answered = true;
                if let (Err(error), None) = (outcome(messages, &answer), &failed) {
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None if answered => Ok(()),
            None => Err(NetlinkError::new(messages.action(0), Errno::PROTO)),
        }
    }

    /// Sends one request and collects what `parse` makes of the messages of the answer.
    pub(crate) fn ask<T>(&self, request: &Messages, parse: impl Fn(&Received<'_>) -> Option<T>) -> Result<Vec<T>> {
        for _ in 0..TRIES {
            if let Some(all) = self.ask_once(request, &parse)? {
                return Ok(all);
            }
        }
        Err(NetlinkError::new(request.action(0), Errno::INTR))
    }

    /// `None` when something changed while the kernel listed it, so that the list may miss something.
    fn ask_once<T>(&self, request: &Messages, parse: impl Fn(&Received<'_>) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.send(request)?;
        with_room(|buffer| self.answered(request, parse, buffer))
    }

    fn answered<T>(
        &self,
        request: &Messages,
        parse: impl Fn(&Received<'_>) -> Option<T>,
        buffer: &mut [u8],
    ) -> Result<Option<Vec<T>>> {
        let mut all = Vec::new();
        let mut interrupted = false;
        loop {
            let read = self.receive(buffer, RecvFlags::empty());
            let bytes = read.map_err(|errno| NetlinkError::new(request.action(0), errno))?;
            for answer in message::received(bytes.unwrap_or_default()) {
                interrupted |= answer.flags & message::INTERRUPTED != 0;
                if matches!(answer.kind, ERROR | DONE) {
                    // Its payload is a number, which is 0 or the error that ended the dump.
                    outcome(request, &answer)?;
                    return Ok(if interrupted { None } else { Some(all) });
                }
                all.extend(parse(&answer));
                if answer.flags & message::MULTI == 0 {
                    return Ok(Some(all));
                }
            }
        }
    }
}

/// What an answer says of the request that it names.
fn outcome(messages: &Messages, answer: &Received<'_>) -> Result<()> {
    let code = message::u32_at(answer.payload, 0).unwrap_or(0).cast_signed();
    if code == 0 {
        return Ok(());
    }
    let mut error =
        NetlinkError::new(messages.action(answer.number), Errno::from_raw_os_error(code.checked_neg().unwrap_or(0)));
    if answer.kind == ERROR && answer.flags & HAS_ATTRIBUTES != 0 {
        let request = message::u32_at(answer.payload, 4).and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let repeated = if answer.flags & CAPPED == 0 { request.saturating_sub(HEADER) } else { 0 };
        let after = answer.payload.get(4 + HEADER + repeated..).unwrap_or_default();
        error.detail = message::find(after, ERROR_TEXT).map(message::text).filter(|text| !text.is_empty());
    }
    Err(error)
}
