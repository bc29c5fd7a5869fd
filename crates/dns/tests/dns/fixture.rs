//! A process, and containers that are nothing but a network namespace.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use wharf_dns::{Container, Member, Network, Server, Sockets};
use wharf_netlink::namespace;
use wharf_netlink::route::{Batch, Connection};

/// A process with a volatile directory of its own. Ends it when it goes.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) server: Option<Server>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Some(Server::start(dir.path()).unwrap());
        Self { dir, server }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// A container that is answered.
    pub(crate) fn container(&self, id: &str, networks: &[&str], upstreams: &[SocketAddr]) -> OwnedFd {
        let netns = netns();
        let sockets = Sockets::open(netns.as_fd()).unwrap();
        self.server().put_container(&container(id, networks, upstreams), Some(&sockets), None).unwrap();
        netns
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // In a case that has failed there may be none.
        if let Some(server) = self.server.take().or_else(|| Server::start(self.dir.path()).ok()) {
            let _ = server.quit();
        }
    }
}

pub(crate) fn container(id: &str, networks: &[&str], upstreams: &[SocketAddr]) -> Container {
    Container {
        id: id.into(),
        networks: networks.iter().map(|&id| id.into()).collect(),
        upstreams: upstreams.into(),
        near: Vec::new(),
        links: BTreeMap::new(),
    }
}

pub(crate) fn member(container: &str, address: &str, names: &[&str]) -> Member {
    let addresses: Vec<IpAddr> = vec![address.parse().unwrap()];
    Member { container: container.into(), addresses, names: names.iter().map(|&name| name.into()).collect() }
}

/// A network that leads out, with a gateway.
pub(crate) fn network(id: &str, members: Vec<Member>) -> Network {
    let gateways = vec!["172.18.0.1".parse().unwrap()];
    Network { id: id.into(), name: format!("{id}net"), internal: false, gateways, members }
}

/// A namespace with its loopback up.
pub(crate) fn netns() -> OwnedFd {
    let made = namespace::create(|| {
        let mut batch = Batch::new();
        batch.set_up(1);
        Connection::open()?.apply(batch)
    });
    made.unwrap().0
}

/// What a program in a namespace prints.
pub(crate) fn output(netns: &OwnedFd, words: &[&str]) -> String {
    let output = namespace::within(netns.as_fd(), || Command::new(words[0]).args(&words[1..]).output().unwrap());
    let output = output.unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
