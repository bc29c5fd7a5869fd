//! The ports that are passed on, and what they hang on.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddrV6;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_reuseaddr, socket_type};
use rustix::net::{SocketType, listen};
use wharf_companion::Interest;

use crate::protocol::{Port, Protocol};
use crate::token::{Poller, Token};

/// Clients that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that may wait to be read: the daemon has kept the socket without room for any.
const BURST: usize = 208 << 10;

/// A port with its socket.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) port: Port,
    pub(crate) socket: OwnedFd,
}

type Key = (Protocol, SocketAddrV6);

/// All of them, by numbers that are never given twice.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    by_number: BTreeMap<u64, Served>,
    by_place: HashMap<Key, u64>,
    /// What containers hang on, by number.
    until: BTreeMap<u64, (String, OwnedFd)>,
    numbers: u64,
}

impl Ports {
    pub(crate) fn get(&self, number: u64) -> Option<&Served> {
        self.by_number.get(&number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Port> {
        self.by_number.values().map(|served| served.port.clone()).collect()
    }

    /// Adds a port with its bound socket, in the place of one that is the same for the host; the number of that one.
    ///
    /// # Errors
    /// What the daemon is told.
    pub(crate) fn put(&mut self, poller: &Poller, port: Port, socket: OwnedFd) -> Result<Option<u64>, String> {
        let fail = |errno: rustix::io::Errno| {
            format!("cannot serve port {}: {}", port.host, std::io::Error::from_raw_os_error(errno.raw_os_error()))
        };
        let kind = socket_type(&socket).map_err(fail)?;
        let wanted = if port.protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
        if kind != wanted {
            return Err(format!("the socket for port {} is of another kind", port.host));
        }
        rustix::io::ioctl_fionbio(&socket, true).map_err(fail)?;
        match port.protocol {
            Protocol::Tcp => {
                // What is left of earlier connections (TIME_WAIT) is in nobody's way, and what will be left of these in
                // nobody's who gets the port after us. While it listens nobody listens beside it, whatever he asks for.
                set_socket_reuseaddr(&socket, true).map_err(fail)?;
                listen(&socket, BACKLOG).map_err(fail)?;
            }
            Protocol::Udp => {
                set_socket_recv_buffer_size(&socket, BURST).map_err(fail)?;
                wharf_sys::datagram::tell_destinations(&socket).map_err(fail)?;
            }
        }
        self.numbers += 1;
        let number = self.numbers;
        poller.add(&socket, Token::Port(number), Interest::Read).map_err(fail)?;
        let key = (port.protocol, port.host);
        let old = self.by_place.insert(key, number);
        if let Some(old) = old.and_then(|old| self.by_number.remove(&old)) {
            poller.remove(&old.socket);
        }
        self.by_number.insert(number, Served { port, socket });
        Ok(old)
    }

    /// Takes ports of a container away; with an empty list all of them. Their numbers.
    pub(crate) fn remove(&mut self, poller: &Poller, container: &str, ports: &[Key]) -> Vec<u64> {
        let goes = |served: &Served| {
            served.port.container == container
                && (ports.is_empty() || ports.contains(&(served.port.protocol, served.port.host)))
        };
        let gone: Vec<u64> = self.by_number.iter().filter(|(_, served)| goes(served)).map(|(n, _)| *n).collect();
        for number in &gone {
            if let Some(served) = self.by_number.remove(number) {
                self.by_place.remove(&(served.port.protocol, served.port.host));
                // The daemon may still have it open.
                poller.remove(&served.socket);
            }
        }
        if !self.by_number.values().any(|served| served.port.container == container) {
            self.until.retain(|_, (of, fd)| {
                let stays = of != container;
                if !stays {
                    poller.remove(&*fd);
                }
                stays
            });
        }
        gone
    }

    /// Has a container's ports hang on a process.
    ///
    /// # Errors
    /// What the daemon is told.
    pub(crate) fn hang(&mut self, poller: &Poller, container: String, process: OwnedFd) -> Result<(), String> {
        self.numbers += 1;
        let number = self.numbers;
        poller
            .add(&process, Token::Until(number), Interest::Read)
            .map_err(|errno| format!("cannot watch what the container hangs on: {errno}"))?;
        self.until.retain(|_, (of, fd)| {
            let stays = *of != container;
            if !stays {
                poller.remove(&*fd);
            }
            stays
        });
        self.until.insert(number, (container, process));
        Ok(())
    }

    /// Whose process has ended.
    pub(crate) fn hung(&self, number: u64) -> Option<String> {
        self.until.get(&number).map(|(container, _)| container.clone())
    }
}
