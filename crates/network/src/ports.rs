//! Which ports of the host containers have.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use wharf_netlink::nft::{Element, ElementEntry, Family, Key};
use wharf_store::Table;

use crate::firewall::{OPEN, PUBLISHED, PUBLISHED_AT, RANGES};
use crate::{HostPorts, NetworkError, PortRequest, Protocol, Published, Result, hold, sysctl};

/// Rows by the container's ID.
pub(crate) const PORTS: Table = Table::new("published-ports");

/// Where the kernel's ephemeral ports begin and end unless the host says otherwise.
const EPHEMERAL: (u16, u16) = (32768, 60999);

/// Ports that were published together; their elements are taken away as they were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The container's.
    pub(crate) address: IpAddr,
    pub(crate) ports: Vec<Published>,
}

impl Group {
    /// Whether a port of it is of the other family than the container's address: a process passes bytes on then.
    pub(crate) fn relays(&self, port: &Published) -> bool {
        port.host_ip.is_ipv4() != self.address.is_ipv4()
    }
}

/// A port that is to be published, with all places: an address of the host's, and the container's, of
/// the same family unless the port is to be relayed.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) request: PortRequest,
    pub(crate) places: Vec<(IpAddr, IpAddr)>,
    /// Places where no port of the host's is had: the container's own is open.
    pub(crate) routed: Vec<(IpAddr, IpAddr)>,
}

/// Who has which ports.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// By the container's ID; as in the rows.
    pub(crate) groups: BTreeMap<String, Vec<Group>>,
    taken: HashMap<(Protocol, u16), Vec<(IpAddr, String)>>,
    /// The sockets, of the ports that are held.
    held: HashMap<String, Vec<(Published, OwnedFd)>>,
    /// Where the search for a free port goes on.
    next: u16,
    /// Where they are bound, if not here.
    outside: Option<HostPorts>,
}

impl Ports {
    pub(crate) fn new(groups: BTreeMap<String, Vec<Group>>, outside: Option<HostPorts>) -> Self {
        let mut ports = Self { outside, ..Self::default() };
        for (container, groups) in groups {
            for group in groups {
                ports.add(&container, group);
            }
        }
        ports
    }

    pub(crate) fn add(&mut self, container: &str, group: Group) {
        for port in group.ports.iter().filter(|port| port.host_port > 0) {
            let owners = self.taken.entry((port.protocol, port.host_port)).or_default();
            owners.push((port.host_ip, container.to_owned()));
        }
        self.groups.entry(container.to_owned()).or_default().push(group);
    }

    /// Whether a port with its group is passed on by the relay.
    pub(crate) fn is_relayed(&self, group: &Group, port: &Published) -> bool {
        group.relays(port) || (self.outside.is_some() && port.host_port > 0)
    }

    /// Binds a port of the host's.
    fn hold(&self, protocol: Protocol, address: IpAddr, port: u16) -> Result<Option<OwnedFd>> {
        match &self.outside {
            Some(outside) => outside.bind(protocol, address, port).map(Some),
            None => hold::hold(protocol, address, port),
        }
    }

    /// Forgets a container, and lets go of its ports.
    pub(crate) fn remove(&mut self, container: &str) -> Vec<Group> {
        self.held.remove(container);
        let groups = self.groups.remove(container).unwrap_or_default();
        for port in groups.iter().flat_map(|group| &group.ports) {
            let key = (port.protocol, port.host_port);
            if let Some(owners) = self.taken.get_mut(&key) {
                owners.retain(|(address, owner)| (*address, owner.as_str()) != (port.host_ip, container));
                if owners.is_empty() {
                    self.taken.remove(&key);
                }
            }
        }
        groups
    }

    /// Takes groups back that [`Self::reserve`] has given.
    pub(crate) fn remove_groups(&mut self, container: &str, groups: &[Group]) {
        let mut held = self.held.remove(container).unwrap_or_default();
        let mut rest = self.remove(container);
        rest.retain(|other| !groups.contains(other));
        held.retain(|(port, _)| rest.iter().any(|group| group.ports.contains(port)));
        for group in rest {
            self.add(container, group);
        }
        self.held.insert(container.to_owned(), held);
    }

    /// Takes single ports back, each of the group with its address.
    pub(crate) fn remove_ports(&mut self, container: &str, gone: &[Group]) {
        let mut held = self.held.remove(container).unwrap_or_default();
        let mut rest = self.remove(container);
        for group in &mut rest {
            let goes = |port: &Published| gone.iter().any(|g| g.address == group.address && g.ports.contains(port));
            let (out, stay): (Vec<_>, Vec<_>) = group.ports.iter().copied().partition(goes);
            held.retain(|(port, _)| !out.contains(port));
            group.ports = stay;
        }
        for group in rest.into_iter().filter(|group| !group.ports.is_empty()) {
            self.add(container, group);
        }
        self.held.insert(container.to_owned(), held);
    }

    /// Finds and holds a host's port for each request, and notes them as `container`'s: a group for each address of the
    /// container.
    pub(crate) fn reserve(&mut self, container: &str, all: &[Wanted]) -> Result<Vec<Group>> {
        let mut groups: BTreeMap<IpAddr, Vec<Published>> = BTreeMap::new();
        let mut held = Vec::new();
        // Ports that were named come before those that are chosen, or one of these could take one of those.
        let is_named = |wanted: &&Wanted| wanted.request.host_port.is_some_and(|(first, _)| first > 0);
        let (named, chosen): (Vec<&Wanted>, Vec<&Wanted>) = all.iter().partition(is_named);
        for wanted in named.into_iter().chain(chosen) {
            let PortRequest { container_port, protocol, .. } = wanted.request;
            for (host_ip, address) in &wanted.routed {
                let one = Published { container_port, protocol, host_ip: *host_ip, host_port: 0 };
                let ports = groups.entry(*address).or_default();
                if !ports.contains(&one) {
                    ports.push(one);
                }
            }
            if wanted.places.is_empty() {
                continue;
            }
            let (host_port, sockets) = self.find(wanted, container, &groups)?;
            for ((host_ip, address), socket) in wanted.places.iter().zip(sockets) {
                let one = Published { container_port, protocol, host_ip: *host_ip, host_port };
                held.extend(socket.map(|socket| (one, socket)));
                groups.entry(*address).or_default().push(one);
            }
        }
        self.held.entry(container.to_owned()).or_default().extend(held);
        let groups: Vec<_> = groups.into_iter().map(|(address, ports)| Group { address, ports }).collect();
        for group in &groups {
            self.add(container, group.clone());
        }
        Ok(groups)
    }

    /// A port that is free in all places.
    fn find(
        &mut self,
        wanted: &Wanted,
        container: &str,
        groups: &BTreeMap<IpAddr, Vec<Published>>,
    ) -> Result<(u16, Vec<Option<OwnedFd>>)> {
        let Wanted { request, places, .. } = wanted;
        let protocol = request.protocol;
        let attempt = |port: u16| {
            let mut held = Vec::new();
            for (address, _) in places {
                let address = *address;
                let taken = |owner: &str| {
                    let owner = format!("by container {}", owner.get(..12).unwrap_or(owner));
                    Err(NetworkError::PortTaken { address, port, owner })
                };
                if let Some(owner) = self.owner(protocol, address, port) {
                    return taken(owner);
                }
                let mut ours = groups.values().flatten();
                let same = |other: &Published| (other.protocol, other.host_port) == (protocol, port);
                if ours.any(|other| same(other) && meet(other.host_ip, address)) {
                    return taken(container);
                }
                held.push(self.hold(protocol, address, port)?);
            }
            Ok((port, held))
        };
        match request.host_port {
            Some((first, last)) if first > 0 => {
                let mut found = attempt(first);
                for port in first.saturating_add(1)..=last {
                    if !matches!(found, Err(NetworkError::PortTaken { .. })) {
                        break;
                    }
                    found = attempt(port);
                }
                found
            }
            _ => {
                let (first, last) = ephemeral();
                let start = if (first..=last).contains(&self.next) { self.next } else { first };
                for port in (start..=last).chain(first..start) {
                    match attempt(port) {
                        Err(NetworkError::PortTaken { .. }) => {}
                        found => {
                            self.next = port.wrapping_add(1);
                            return found;
                        }
                    }
                }
                Err(NetworkError::NoPort)
            }
        }
    }

    fn owner(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<&str> {
        let owners = self.taken.get(&(protocol, port))?;
        owners.iter().find(|(other, _)| meet(*other, address)).map(|(_, owner)| owner.as_str())
    }

    /// The socket of a port that is held.
    pub(crate) fn socket(&self, container: &str, port: &Published) -> Option<&OwnedFd> {
        self.held.get(container)?.iter().find(|(other, _)| other == port).map(|(_, socket)| socket)
    }

    /// Holds the ports of a container once more that are not, after the daemon was away; not those that `served` says yes
    /// to, which the relay has. What cannot be held is in the log.
    pub(crate) fn hold_again(&mut self, container: &str, served: impl Fn(&Published) -> bool) {
        let mut held = self.held.remove(container).unwrap_or_default();
        for port in self.groups.get(container).into_iter().flatten().flat_map(|group| &group.ports) {
            if port.host_port == 0 || served(port) || held.iter().any(|(other, _)| other == port) {
                continue;
            }
            match self.hold(port.protocol, port.host_ip, port.host_port) {
                Ok(socket) => held.extend(socket.map(|socket| (*port, socket))),
                Err(error) => tracing::warn!(%error, container, "a published port is not held"),
            }
        }
        self.held.insert(container.to_owned(), held);
    }
}

/// Whether two addresses of the host's are or include one another.
fn meet(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

/// The host's ephemeral ports (ip(7)).
fn ephemeral() -> (u16, u16) {
    let text = sysctl::read("ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if 0 < first && first <= last => (first, last),
        _ => EPHEMERAL,
    }
}

/// The elements of a group, by their map. Runs of at least two ports that are the same in the container are one
/// element; whatever else is one per port.
pub(crate) fn elements(container: &str, group: &Group) -> [(&'static str, Vec<Element>); 4] {
    // What is relayed, the kernel does not send on.
    let sent = group.ports.iter().filter(|port| !group.relays(port));
    let (open, mut ports): (Vec<Published>, Vec<Published>) = sent.copied().partition(|port| port.host_port == 0);
    let open = open.iter().map(|port| Element {
        key: Key::new().protocol(port.protocol.number()).address(group.address).port(port.container_port),
        comment: Some(container.to_owned()),
        ..Element::default()
    });
    ports.sort_unstable_by_key(|port| (port.protocol, port.host_ip, port.host_port));
    let (mut any, mut at, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = ports.as_slice();
    while let Some(first) = rest.first() {
        let run = run_length(rest);
        let number = first.protocol.number();
        let mut element = Element { comment: Some(container.to_owned()), ..Element::default() };
        let target = Key::new().address(group.address);
        if run > 1 {
            let (low, high) = span(first.host_ip);
            element.key = Key::new().protocol(number).address(low).port(first.host_port);
            element.key_end = Some(Key::new().protocol(number).address(high).port(rest[run - 1].host_port));
            element.data = Some(target);
            ranges.push(element);
        } else {
            element.data = Some(target.port(first.container_port));
            if first.host_ip.is_unspecified() {
                element.key = Key::new().protocol(number).port(first.host_port);
                any.push(element);
            } else {
                element.key = Key::new().protocol(number).address(first.host_ip).port(first.host_port);
                at.push(element);
            }
        }
        rest = &rest[run..];
    }
    [(PUBLISHED, any), (PUBLISHED_AT, at), (RANGES, ranges), (OPEN, open.collect())]
}

/// How many ports at the head follow one another and are the same in the container.
fn run_length(ports: &[Published]) -> usize {
    let same = |port: &Published| port.host_port == port.container_port;
    if !ports.first().is_some_and(same) {
        return 1;
    }
    let follows = |pair: &[Published]| {
        let place = |port: &Published| (port.protocol, port.host_ip);
        place(&pair[0]) == place(&pair[1]) && pair[0].host_port.checked_add(1) == Some(pair[1].host_port)
    };
    1 + ports.windows(2).take_while(|pair| follows(pair) && same(&pair[1])).count()
}

fn span(address: IpAddr) -> (IpAddr, IpAddr) {
    let last = match address {
        address if !address.is_unspecified() => address,
        IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
    };
    (address, last)
}

/// Reads an element of one of our maps back: the container that its comment names, its address and ports. For rows
/// that a crash has taken.
pub(crate) fn read_element(family: Family, map: &str, element: &ElementEntry) -> Option<(String, Group)> {
    let length = if family == Family::Ip { 4 } else { 16 };
    let ip = |from: &[u8], at: usize| -> Option<IpAddr> {
        let bytes = from.get(at..at + length)?;
        let four = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
        four.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
    };
    let port = |from: &[u8], at: usize| Some(u16::from_be_bytes(from.get(at..at + 2)?.try_into().ok()?));
    let protocol = Protocol::from_number(*element.key.first()?)?;
    let any = if family == Family::Ip { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    if map == OPEN {
        let container_port = port(&element.key, 4 + length)?;
        let one = Published { container_port, protocol, host_ip: any, host_port: 0 };
        return Some((element.comment.clone()?, Group { address: ip(&element.key, 4)?, ports: vec![one] }));
    }
    let data = element.data.as_deref()?;
    let address = ip(data, 0)?;
    let one = |host_ip, host_port, container_port| Published { container_port, protocol, host_ip, host_port };
    let ports = match map {
        PUBLISHED => vec![one(any, port(&element.key, 4)?, port(data, length)?)],
        PUBLISHED_AT => vec![one(ip(&element.key, 4)?, port(&element.key, 4 + length)?, port(data, length)?)],
        _ => {
            let host_ip = ip(&element.key, 4)?;
            let last = element.key_end.as_deref().unwrap_or(&element.key);
            (port(&element.key, 4 + length)?..=port(last, 4 + length)?).map(|port| one(host_ip, port, port)).collect()
        }
    };
    Some((element.comment.clone()?, Group { address, ports }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 17, 0, 2));
    const WEB6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    fn port(host_ip: IpAddr, host_port: u16, container_port: u16) -> Published {
        Published { container_port, protocol: Protocol::Tcp, host_ip, host_port }
    }

    fn as_dumped(element: &Element) -> ElementEntry {
        ElementEntry {
            key: element.key.as_bytes().to_vec(),
            key_end: element.key_end.as_ref().map(|key| key.as_bytes().to_vec()),
            ends_interval: false,
            data: element.data.as_ref().map(|key| key.as_bytes().to_vec()),
            comment: element.comment.clone(),
            ..ElementEntry::default()
        }
    }

    #[test]
    fn a_run_of_ports_is_one_element() {
        runs(WEB, ANY, LOCAL);
        runs(WEB6, Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into());
    }

    fn runs(web: IpAddr, any: IpAddr, local: IpAddr) {
        let mut ports: Vec<_> = (8000..=8999).map(|number| port(any, number, number)).collect();
        ports.extend([port(any, 80, 8080), port(any, 81, 8081), port(local, 22, 22)]);
        ports.extend((9001..=9002).map(|number| port(local, number, number)));
        ports.extend([port(any, 9000, 9001), port(any, 0, 443)]);
        let group = Group { address: web, ports };
        let made = elements("web", &group);
        assert_eq!(
            made.each_ref().map(|(map, elements)| (*map, elements.len())),
            [(PUBLISHED, 3), (PUBLISHED_AT, 1), (RANGES, 2), (OPEN, 1)]
        );
        let mut again = Vec::new();
        for (map, elements) in made {
            for element in elements {
                let (container, group) =
                    read_element(crate::firewall::family_of(web), map, &as_dumped(&element)).unwrap();
                assert_eq!((container.as_str(), group.address), ("web", web));
                again.extend(group.ports);
            }
        }
        let mut ports = group.ports;
        ports.sort_unstable();
        again.sort_unstable();
        assert_eq!(again, ports);
    }

    #[test]
    fn a_chosen_port_is_none_that_was_named() {
        let wanted = |container_port, host_port: Option<u16>| Wanted {
            request: PortRequest {
                container_port,
                protocol: Protocol::Tcp,
                host_ip: None,
                host_port: host_port.map(|port| (port, port)),
            },
            places: vec![(LOCAL, WEB)],
            routed: Vec::new(),
        };
        let mut ports = Ports::default();
        let next = {
            let groups = ports.reserve("a", &[wanted(80, None)]).unwrap();
            groups[0].ports[0].host_port + 1
        };
        let groups = ports.reserve("b", &[wanted(80, None), wanted(8080, Some(next))]).unwrap();
        let host_port = |container_port| {
            let mut ports = groups.iter().flat_map(|group| &group.ports);
            ports.find(|port| port.container_port == container_port).unwrap().host_port
        };
        assert_eq!(host_port(8080), next);
        assert_ne!(host_port(80), next);
    }

    #[test]
    fn addresses_meet_when_one_includes_the_other() {
        let mut ports = Ports::default();
        ports.add("a", Group { address: WEB, ports: vec![port(LOCAL, 80, 80)] });
        assert_eq!(ports.owner(Protocol::Tcp, ANY, 80), Some("a"));
        assert_eq!(ports.owner(Protocol::Tcp, LOCAL, 80), Some("a"));
        assert_eq!(ports.owner(Protocol::Tcp, WEB, 80), None);
        assert_eq!(ports.owner(Protocol::Udp, LOCAL, 80), None);
        assert_eq!(ports.owner(Protocol::Tcp, Ipv6Addr::UNSPECIFIED.into(), 80), None, "the other family's");
        ports.remove("a");
        assert_eq!(ports.owner(Protocol::Tcp, LOCAL, 80), None);
        assert!(ports.taken.is_empty());
    }
}
