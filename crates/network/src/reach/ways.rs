//! The ways to a port, each gone as its first packet goes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wharf_netlink::nft::Hook;
use wharf_ruleset::{Course, Fate, Link, Packet, Walk};

use super::{Answer, Facts, Reach, Uplink, Way};
use crate::{Endpoint, NetworkRecord, Protocol, Published, sysctl};

pub(super) const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// What is meant to be reached.
#[derive(Clone, Copy)]
struct Goal<'a> {
    address: IpAddr,
    port: u16,
    protocol: Protocol,
    network: &'a NetworkRecord,
    /// A process of the host's listens, and passes on what comes.
    relays: bool,
}

/// Where it is asked for.
#[derive(Clone)]
struct Attempt {
    from: String,
    input: Option<Link>,
    source: Option<IpAddr>,
    to: SocketAddr,
}

impl Facts {
    /// The ways to a port that is published.
    pub(super) fn published(
        &self,
        port: &Published,
        address: IpAddr,
        relays: bool,
        endpoints: &[Endpoint],
    ) -> Option<Reach> {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.addresses().contains(&address))?;
        let network = self.records.iter().find(|record| record.id == endpoint.network_id)?;
        let goal = Goal { address, port: port.container_port, protocol: port.protocol, network, relays };
        let mut ways = Vec::new();
        if port.host_port == 0 {
            ways.extend(self.routed(&goal));
        } else {
            ways.extend(self.to_host(&goal, port.host_ip, port.host_port));
        }
        ways.extend(self.beside(&goal));
        let published = (port.host_port > 0).then(|| SocketAddr::new(port.host_ip, port.host_port).to_string());
        let (port, protocol) = (port.container_port, port.protocol);
        Some(Reach { address, port, protocol, published, ways, notes: Vec::new() })
    }

    /// The ways to a port of a container by its own address.
    pub(super) fn own(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<Reach> {
        let network = self.records.iter().find(|record| record.contains(address))?;
        let goal = Goal { address, port, protocol, network, relays: false };
        let mut ways = self.routed(&goal);
        ways.extend(self.beside(&goal));
        Some(Reach { address, port, protocol, published: None, ways, notes: Vec::new() })
    }

    fn link(&self, name: &str) -> Option<Link> {
        self.links.iter().find(|link| link.name == name).cloned()
    }

    fn lo(&self) -> Link {
        Link { name: "lo".into(), index: 1 }
    }

    /// By the host's port.
    fn to_host(&self, goal: &Goal<'_>, host_ip: IpAddr, host_port: u16) -> Vec<Way> {
        let ipv4 = host_ip.is_ipv4();
        let loopback: IpAddr = if ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let at = |address| SocketAddr::new(address, host_port);
        let mut ways = Vec::new();
        let attempt = Attempt {
            from: "this host, by its loopback".into(),
            input: None,
            source: Some(loopback),
            to: at(loopback),
        };
        ways.push(if host_ip.is_unspecified() || host_ip.is_loopback() {
            let to = if host_ip.is_loopback() { host_ip } else { loopback };
            self.go(goal, Attempt { to: at(to), ..attempt })
        } else {
            no(attempt, format!("it is published on {host_ip} alone"))
        });
        for uplink in &self.uplinks {
            let link = &uplink.link;
            for address in uplink.addresses.iter().filter(|address| address.is_ipv4() == ipv4) {
                let own = Attempt {
                    from: format!("this host, by its address on {}", link.name),
                    input: None,
                    source: Some(*address),
                    to: at(*address),
                };
                let other =
                    Attempt { from: uplink.others(), input: Some(link.clone()), source: None, to: at(*address) };
                // Of what is somebody else's on this host the address is no way that anybody goes.
                for attempt in (!uplink.is_bridge).then_some(own).into_iter().chain([other]) {
                    ways.push(if host_ip.is_unspecified() || host_ip == *address {
                        self.go(goal, attempt)
                    } else if host_ip.is_loopback() {
                        no(attempt, "it is published on the loopback alone; give an address of the host's (`-p ADDRESS:PORT:PORT`)")
                    } else {
                        no(attempt, format!("it is published on {host_ip} alone"))
                    });
                }
            }
        }
        for other in self.records.iter().filter(|other| other.id != goal.network.id && other.bridge.is_some()) {
            let gateway = self.own_address(other, ipv4);
            let Some((gateway, link)) = gateway.zip(other.bridge.as_deref().and_then(|name| self.link(name))) else {
                continue;
            };
            let attempt = Attempt {
                from: format!("containers of network {}", other.name),
                input: Some(link),
                source: somebody_in(other, ipv4),
                to: at(gateway),
            };
            ways.push(if host_ip.is_unspecified() || host_ip == gateway {
                self.go(goal, attempt)
            } else {
                no(attempt, format!("it is published on {host_ip} alone"))
            });
        }
        ways
    }

    /// The host's address in a network.
    fn own_address(&self, record: &NetworkRecord, ipv4: bool) -> Option<IpAddr> {
        let gateway =
            if ipv4 { record.gateway.map(IpAddr::V4) } else { record.pool6.as_ref()?.gateway.map(IpAddr::V6) };
        gateway.filter(|gateway| self.locals.contains(gateway))
    }

    /// From the host, and from others, by the container's own address.
    fn routed(&self, goal: &Goal<'_>) -> Vec<Way> {
        let to = SocketAddr::new(goal.address, goal.port);
        let mut ways = Vec::new();
        if goal.network.parent.is_some() {
            let attempt = Attempt { from: "this host".into(), input: None, source: None, to };
            ways.push(no(attempt, "the kernel has no way between a macvlan and the link that it is on"));
            let from = "other hosts of its link".into();
            ways.push(Way { from, to: to.to_string(), answer: Answer::Yes, why: String::new(), rules: Vec::new() });
            return ways;
        }
        let source = self.own_address(goal.network, goal.address.is_ipv4());
        ways.push(self.go(goal, Attempt { from: "this host".into(), input: None, source, to }));
        for uplink in &self.uplinks {
            let from = format!("{}, with a route to it", uplink.others());
            ways.push(self.go(goal, Attempt { from, input: Some(uplink.link.clone()), source: None, to }));
        }
        for other in self.records.iter().filter(|other| other.id != goal.network.id) {
            let Some(link) = other.bridge.as_deref().and_then(|name| self.link(name)) else { continue };
            let source = somebody_in(other, goal.address.is_ipv4());
            if source.is_some() {
                let from = format!("containers of network {}", other.name);
                ways.push(self.go(goal, Attempt { from, input: Some(link), source, to }));
            }
        }
        ways
    }

    /// From containers of the same network.
    fn beside(&self, goal: &Goal<'_>) -> Option<Way> {
        let to = SocketAddr::new(goal.address, goal.port);
        let network = goal.network;
        let from = format!("containers of its network {}", network.name);
        let attempt = Attempt { from, input: None, source: somebody_in(network, goal.address.is_ipv4()), to };
        let Some(bridge) = network.bridge.as_deref().and_then(|name| self.link(name)) else {
            return network.parent.is_some().then(|| yes(&attempt));
        };
        if !network.icc {
            return Some(no(
                attempt,
                "the network keeps its containers apart (com.docker.network.bridge.enable_icc=false)",
            ));
        }
        let family = if goal.address.is_ipv4() { "iptables" } else { "ip6tables" };
        if sysctl::read(&format!("bridge/bridge-nf-call-{family}")).is_ok_and(|value| value == "1") {
            // Frames go the packets' way.
            return Some(self.go(goal, Attempt { input: Some(bridge), ..attempt }));
        }
        Some(yes(&attempt))
    }

    /// Goes a way as its first packet goes.
    fn go(&self, goal: &Goal<'_>, attempt: Attempt) -> Way {
        let walk = Walk::new(&self.ruleset, &self.locals);
        let is_here = |address: IpAddr| self.locals.contains(&address) || address.is_loopback();
        let first = Packet::first(attempt.source, attempt.to.ip(), number(goal.protocol), attempt.to.port());
        let mut course = Walk::start(Packet { input: attempt.input.clone(), ..first });
        let bridge = goal.network.bridge.as_deref().and_then(|name| self.link(name));
        let goes = match &attempt.input {
            None => {
                let local = is_here(attempt.to.ip());
                course.packet.output = if local { Some(self.lo()) } else { bridge.clone() };
                walk.hook(Hook::Output, &mut course)
            }
            Some(_) => walk.hook(Hook::Prerouting, &mut course),
        };
        let arrived = (course.packet.destination, course.packet.port);
        if !goes {
            return self.way(&attempt, &course, None);
        }
        if is_here(arrived.0) {
            if course.packet.input.is_none() {
                // What the host sends itself comes in again.
                course.packet.output = Some(self.lo());
                if !walk.hook(Hook::Postrouting, &mut course) {
                    return self.way(&attempt, &course, None);
                }
                (course.packet.input, course.packet.output) = (Some(self.lo()), None);
                if !walk.hook(Hook::Prerouting, &mut course) {
                    return self.way(&attempt, &course, None);
                }
            }
            if !goal.relays {
                return no(attempt, "no rule sends it on to the container: it stays with the host");
            }
            course.packet.output = None;
            walk.hook(Hook::Input, &mut course);
            return self.way(&attempt, &course, None);
        }
        if arrived != (goal.address, goal.port) {
            let to = SocketAddr::new(arrived.0, arrived.1);
            return no(attempt, format!("a rule of the host's sends what comes for it to {to}"));
        }
        course.packet.output = bridge;
        if course.packet.input.is_some() {
            if let Some(setting) = self.does_not_forward(goal.address) {
                return no(attempt, format!("the host sends nothing on: net.{setting} is 0"));
            }
            if !walk.hook(Hook::Forward, &mut course) {
                return self.way(&attempt, &course, None);
            }
        }
        walk.hook(Hook::Postrouting, &mut course);
        let back = self.answer(&walk, &course.packet, &attempt, goal.network);
        self.way(&attempt, &course, Some(&back))
    }

    /// The way of what is answered.
    fn answer(&self, walk: &Walk<'_>, packet: &Packet, attempt: &Attempt, network: &NetworkRecord) -> Course {
        let input = packet.output.clone();
        let mut course = Walk::start(Packet { input, ..packet.reply() });
        // What has left as the bridge's is answered to that.
        if packet.source.is_some_and(|source| source.is_loopback()) {
            course.packet.source = self.own_address(network, packet.destination.is_ipv4());
        }
        if !walk.hook(Hook::Prerouting, &mut course) {
            return course;
        }
        match &attempt.input {
            None => drop(walk.hook(Hook::Input, &mut course)),
            Some(link) => {
                course.packet.output = Some(link.clone());
                if walk.hook(Hook::Forward, &mut course) {
                    walk.hook(Hook::Postrouting, &mut course);
                }
            }
        }
        course
    }

    /// The setting that keeps the host from sending on.
    fn does_not_forward(&self, address: IpAddr) -> Option<&'static str> {
        let (path, name) = if address.is_ipv4() {
            ("ipv4/ip_forward", "ipv4.ip_forward")
        } else {
            ("ipv6/conf/all/forwarding", "ipv6.conf.all.forwarding")
        };
        sysctl::read(path).is_ok_and(|value| value == "0").then_some(name)
    }

    fn way(&self, attempt: &Attempt, course: &Course, back: Option<&Course>) -> Way {
        let (answer, mut why, rules) = self.judge_both(course, back);
        // The most common reason of all, and what helps.
        if let Fate::Dropped(cause) = &course.fate
            && course.packet.output.is_some()
            && course.packet.input.is_some()
            && course.packet.translated.is_some()
            && self.owner(&cause.table, &cause.chain) == "nftables"
            && cause.rule.is_none()
        {
            why.push_str(": what is published has to be let through there (`ct status dnat accept`)");
        }
        Way { from: attempt.from.clone(), to: attempt.to.to_string(), answer, why, rules }
    }
}

impl Uplink {
    /// Who is behind it.
    fn others(&self) -> String {
        let what = if self.is_bridge { "others behind the bridge" } else { "other hosts, by" };
        format!("{what} {}", self.link.name)
    }
}

fn yes(attempt: &Attempt) -> Way {
    let (from, to) = (attempt.from.clone(), attempt.to.to_string());
    Way { from, to, answer: Answer::Yes, why: String::new(), rules: Vec::new() }
}

fn no(attempt: Attempt, why: impl Into<String>) -> Way {
    Way { from: attempt.from, to: attempt.to.to_string(), answer: Answer::No, why: why.into(), rules: Vec::new() }
}

/// An address that a container of a network may have.
fn somebody_in(record: &NetworkRecord, ipv4: bool) -> Option<IpAddr> {
    if ipv4 {
        let subnet = record.subnet?;
        return Some(Ipv4Addr::from_bits(subnet.last().to_bits().wrapping_sub(1)).into());
    }
    let subnet = record.pool6.as_ref()?.subnet;
    Some(Ipv6Addr::from_bits(subnet.last().to_bits().wrapping_sub(1)).into())
}
