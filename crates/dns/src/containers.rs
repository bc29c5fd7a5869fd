//! The containers that ask.

use std::collections::HashMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use wharf_companion::Interest;

use crate::protocol::Put;
use crate::records::Container;
use crate::token::{Poller, Token};

/// A container with its sockets.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) record: Container,
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
    until: Option<OwnedFd>,
    /// Clients that it has over TCP.
    pub(crate) clients: usize,
}

/// All of them, by numbers that are never given twice.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    by_number: HashMap<u64, Asking>,
    by_id: HashMap<String, u64>,
    numbers: u64,
}

impl Containers {
    pub(crate) fn get(&self, number: u64) -> Option<&Asking> {
        self.by_number.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Asking> {
        self.by_number.get_mut(&number)
    }

    pub(crate) fn number(&self, id: &str) -> Option<u64> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let mut all: Vec<String> = self.by_id.keys().cloned().collect();
        all.sort();
        all
    }

    /// Adds a container with its fds, or replaces what is said of one. The number is that of one whose place another
    /// set of sockets has taken.
    ///
    /// # Errors
    /// What the daemon is told.
    pub(crate) fn put(&mut self, poller: &Poller, put: Put, fds: Vec<OwnedFd>) -> Result<Option<u64>, String> {
        let Put { container, sockets, until } = put;
        let wanted = usize::from(sockets) * 2 + usize::from(until);
        if fds.len() != wanted {
            return Err(format!("{} fds came with the container, and it says {wanted}", fds.len()));
        }
        let mut fds = fds.into_iter();
        let old = self.number(&container.id);
        if !sockets {
            let there = old.and_then(|number| self.by_number.get_mut(&number).map(|there| (number, there)));
            let Some((number, there)) = there else {
                return Err(format!("container {} has no sockets yet", container.id));
            };
            there.record = container;
            if let Some(until) = fds.next() {
                let _ = there.until.take().inspect(|old| poller.remove(old));
                watch(poller, number, &until)?;
                there.until = Some(until);
            }
            return Ok(None);
        }
        let (Some(udp), Some(tcp)) = (fds.next().map(UdpSocket::from), fds.next().map(TcpListener::from)) else {
            return Err("there are no sockets".into());
        };
        self.numbers += 1;
        let number = self.numbers;
        let added = (|| {
            // They are so already, unless somebody else has made them.
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            poller.add(&udp, Token::Udp(number), Interest::Read)?;
            poller.add(&tcp, Token::Tcp(number), Interest::Read)?;
            Ok(())
        })();
        let until = fds.next();
        let added = added.map_err(|error: std::io::Error| format!("cannot listen to the container: {error}"));
        let added = added.and_then(|()| until.as_ref().map_or(Ok(()), |until| watch(poller, number, until)));
        let asking = Asking { record: container, udp, tcp, until, clients: 0 };
        if let Err(error) = added {
            close(poller, &asking);
            return Err(error);
        }
        if let Some(old) = old {
            self.remove(poller, old);
        }
        self.by_id.insert(asking.record.id.clone(), number);
        self.by_number.insert(number, asking);
        Ok(old)
    }

    /// Removes a container, and closes its sockets.
    pub(crate) fn remove(&mut self, poller: &Poller, number: u64) {
        if let Some(asking) = self.by_number.remove(&number) {
            self.by_id.remove(&asking.record.id);
            close(poller, &asking);
        }
    }
}

fn watch(poller: &Poller, number: u64, until: &OwnedFd) -> Result<(), String> {
    poller
        .add(until, Token::Until(number), Interest::Read)
        .map_err(|errno| format!("cannot watch what the container hangs on: {errno}"))
}

/// The daemon may still have them open.
fn close(poller: &Poller, asking: &Asking) {
    poller.remove(&asking.udp);
    poller.remove(&asking.tcp);
    if let Some(until) = &asking.until {
        poller.remove(until);
    }
}
