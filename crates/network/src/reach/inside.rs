//! What a container makes of who has come: its own rules, and who listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use wharf_netlink::namespace;
use wharf_netlink::nft::{self, Hook};
use wharf_ruleset::{Link, Packet, Walk};

use super::{Answer, Facts, Reach};
use crate::{Endpoint, NetworkError, Protocol, Result};

/// States of sockets in `/proc/net` (include/net/tcp_states.h): those that listen, and those of UDP that hear everybody.
const LISTENS: &str = "0A";
const UNCONNECTED: &str = "07";

/// The container's side.
pub(super) struct Inside {
    ruleset: nft::Ruleset,
    /// Who listens, at what address.
    listeners: Vec<(Protocol, IpAddr, u16)>,
    addresses: Vec<(IpAddr, String)>,
}

impl Inside {
    /// Looks into a container.
    pub(super) fn look(netns: BorrowedFd<'_>, endpoints: &[Endpoint]) -> Result<Self> {
        let (ruleset, listeners) = namespace::within(netns, || {
            let ruleset = nft::Connection::open()?.ruleset()?;
            Ok::<_, NetworkError>((ruleset, listeners()))
        })??;
        let addresses = endpoints
            .iter()
            .flat_map(|endpoint| endpoint.addresses().into_iter().map(|address| (address, endpoint.interface.clone())));
        Ok(Self { ruleset, listeners, addresses: addresses.collect() })
    }

    /// Adds what the container itself decides.
    pub(super) fn finish(&self, facts: &Facts, reach: &mut Reach) {
        let wanted = |listener: &&(Protocol, IpAddr, u16)| (listener.0, listener.2) == (reach.protocol, reach.port);
        let there: Vec<IpAddr> = self.listeners.iter().filter(wanted).map(|(_, address, _)| *address).collect();
        let hears = |address: &IpAddr| match address {
            address if *address == reach.address => true,
            IpAddr::V4(address) => address.is_unspecified() && reach.address.is_ipv4(),
            // One of IPv6 hears IPv4, too, unless it has said otherwise, which is not seen here.
            IpAddr::V6(address) => address.is_unspecified(),
        };
        let (port, protocol) = (reach.port, reach.protocol);
        if reach.protocol == Protocol::Sctp {
            // Its table is another one.
        } else if there.is_empty() {
            reach.notes.push(format!("nothing listens on port {port}/{protocol} in the container"));
        } else if !there.iter().any(hears) {
            let at: Vec<String> = there.iter().map(ToString::to_string).collect();
            reach.notes.push(format!(
                "what listens on port {port}/{protocol} in the container does so on {} alone, and not on {}",
                at.join(", "),
                reach.address
            ));
        }
        let locals: Vec<IpAddr> = self.addresses.iter().map(|(address, _)| *address).collect();
        let walk = Walk::new(&self.ruleset, &locals);
        let interface = self.addresses.iter().find(|(address, _)| *address == reach.address);
        let link = interface.map(|(_, name)| Link { name: name.clone(), index: 0 });
        let first = Packet::first(None, reach.address, super::ways::number(protocol), port);
        let mut course = Walk::start(Packet { input: link.clone(), ..first });
        if walk.hook(Hook::Prerouting, &mut course) {
            walk.hook(Hook::Input, &mut course);
        }
        let mut back = Walk::start(Packet { output: link, ..course.packet.reply() });
        if walk.hook(Hook::Output, &mut back) {
            walk.hook(Hook::Postrouting, &mut back);
        }
        let (answer, why, rules) = facts.judge_both(&course, Some(&back));
        if answer == Answer::Yes {
            return;
        }
        for way in reach.ways.iter_mut().filter(|way| matches!(way.answer, Answer::Yes | Answer::Some)) {
            way.answer = answer;
            way.why = format!("in the container {why}");
            way.rules.extend(rules.clone());
        }
    }
}

/// Who listens in the namespace of the calling thread; what cannot be read is nobody.
fn listeners() -> Vec<(Protocol, IpAddr, u16)> {
    let mut all = Vec::new();
    for (file, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        let table = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        all.extend(table.lines().skip(1).filter_map(|line| {
            let (address, port) = listener(line, protocol)?;
            Some((protocol, address, port))
        }));
    }
    all
}

/// The address and port of a line of `/proc/net/tcp`, `udp` and those of IPv6 (proc_pid_net(5)) that listens.
fn listener(line: &str, protocol: Protocol) -> Option<(IpAddr, u16)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let state = if protocol == Protocol::Tcp { LISTENS } else { UNCONNECTED };
    if *words.get(3)? != state {
        return None;
    }
    let (address, port) = words.get(1)?.split_once(':')?;
    // Words of four bytes in the host's order.
    let word = |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let bytes: [u8; 16] = words.try_into().ok()?;
            let address = Ipv6Addr::from(bytes);
            address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
        }
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read() {
        let line = "   0: 0B00007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 4711 1 0 100";
        assert_eq!(listener(line, Protocol::Tcp), Some(("127.0.0.11".parse().unwrap(), 8080)));
        assert_eq!(listener(line, Protocol::Udp), None);
        let any =
            "  1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 07 00000000:00000000";
        assert_eq!(listener(any, Protocol::Udp), Some((IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80)));
        let local = any.replacen(&"0".repeat(32), "00000000000000000000000001000000", 1);
        assert_eq!(listener(&local, Protocol::Udp), Some((IpAddr::V6(Ipv6Addr::LOCALHOST), 80)));
    }
}
