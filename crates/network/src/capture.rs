//! What goes over a network or a container's links, as a capture file.
//!
//! The form is pcap with nanoseconds (draft-ietf-opsawg-pcap), which every program that reads captures knows.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use wharf_netlink::namespace;
use wharf_sys::packet;

use crate::{MacAddress, NetworkError, Networks, Protocol, Result};

/// Magic of a file with nanoseconds, in this host's order of bytes; then its version, 2.4.
const MAGIC: u32 = 0xa1b2_3c4d;
const VERSION: (u16, u16) = (2, 4);
/// `LINKTYPE_ETHERNET`, and what the kernel calls the same (`ARPHRD_ETHER`).
const ETHERNET: u32 = 1;
const ETHERNET_LINK: u16 = 1;
/// The longest that tcpdump keeps of a frame, and more than any link has.
pub const SNAPLEN: u32 = 262_144;
/// What may wait to be read, with the kernel's overhead.
const WAITING: usize = 16 << 20;
/// What is read at once, about.
const ENOUGH: usize = 256 << 10;

/// Which frames are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureFilter {
    /// From or to this address of a link.
    pub mac: Option<MacAddress>,
    /// From or to this port.
    pub port: Option<u16>,
    pub protocol: Option<Protocol>,
    /// Bytes that are kept of a frame.
    pub snaplen: u32,
}

impl Default for CaptureFilter {
    fn default() -> Self {
        Self { mac: None, port: None, protocol: None, snaplen: SNAPLEN }
    }
}

/// A capture that goes on. It keeps the network namespace that it is of.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    filter: CaptureFilter,
    buffer: Vec<u8>,
    lost: u64,
}

impl Networks {
    /// Captures what goes over the bridge of a network (by its ID), between containers, too.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a network without a bridge; when the kernel refuses.
    pub fn capture(&self, network_id: &str, filter: CaptureFilter) -> Result<Capture> {
        let record = self.resolve(network_id)?;
        let Some(bridge) = &record.bridge else {
            return Err(NetworkError::Invalid(format!(
                "the {} network {} has no bridge that could be listened to; capture one of its containers",
                record.driver, record.name
            )));
        };
        let link = wharf_netlink::route::Connection::open()?.link(bridge)?;
        let link = link.ok_or_else(|| NetworkError::NotFound(format!("bridge {bridge}")))?;
        let socket = packet::open(Some(link.index)).map_err(fail)?;
        packet::see_all(&socket, link.index).map_err(fail)?;
        Capture::of(socket, filter)
    }
}

fn fail(errno: Errno) -> NetworkError {
    NetworkError::host("capture packets")(errno.into())
}

impl Capture {
    /// Captures what goes over all Ethernet links of a container's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn within(netns: BorrowedFd<'_>, filter: CaptureFilter) -> Result<Self> {
        let socket = namespace::within(netns, || packet::open(None))?.map_err(fail)?;
        Self::of(socket, filter)
    }

    fn of(socket: OwnedFd, filter: CaptureFilter) -> Result<Self> {
        // A kernel that gives less is no failure: what is lost is counted.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, WAITING);
        let buffer = vec![0; usize::try_from(SNAPLEN).unwrap_or(usize::MAX)];
        Ok(Self { socket, filter, buffer, lost: 0 })
    }

    /// The beginning of the file.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend(VERSION.0.to_ne_bytes());
        bytes.extend(VERSION.1.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(self.filter.snaplen.to_ne_bytes());
        bytes.extend(ETHERNET.to_ne_bytes());
        bytes
    }

    /// Waits for frames, no longer than `patience`. Gives whole records, at most `count`, and how many they are; none when
    /// nothing came. `None` when the link has gone.
    ///
    /// # Errors
    /// When the kernel cannot be waited for.
    pub fn read(&mut self, patience: Duration, count: u64) -> Result<Option<(Vec<u8>, u64)>> {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut polled, Timespec::try_from(patience).ok().as_ref()) {
            Err(errno) if errno != Errno::INTR => return Err(fail(errno)),
            _ => {}
        }
        let (mut records, mut taken) = (Vec::new(), 0);
        while records.len() < ENOUGH && taken < count {
            match packet::receive(&self.socket, &mut self.buffer) {
                Ok(frame) => {
                    let bytes = self.buffer.get(..frame.kept).unwrap_or_default();
                    if frame.kind == ETHERNET_LINK && self.filter.wants(bytes) {
                        record(&mut records, &frame, bytes, self.filter.snaplen);
                        taken += 1;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                // What came before is still to be given.
                Err(Errno::NETDOWN | Errno::NODEV) if taken > 0 => break,
                Err(Errno::NETDOWN | Errno::NODEV) => return Ok(None),
                Err(errno) => return Err(fail(errno)),
            }
        }
        Ok(Some((records, taken)))
    }

    /// Frames that were not captured since the beginning, because they came faster than they were read.
    pub fn lost(&mut self) -> u64 {
        self.lost += u64::from(packet::lost(&self.socket).unwrap_or(0));
        self.lost
    }
}

fn record(records: &mut Vec<u8>, frame: &packet::Frame, bytes: &[u8], snaplen: u32) {
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let seconds = u32::try_from(frame.time / 1_000_000_000).unwrap_or(u32::MAX);
    let rest = u32::try_from(frame.time % 1_000_000_000).unwrap_or(0);
    let kept = bytes.get(..usize::try_from(snaplen).unwrap_or(usize::MAX)).unwrap_or(bytes);
    for number in [seconds, rest, short(kept.len()), short(frame.length)] {
        records.extend(number.to_ne_bytes());
    }
    records.extend(kept);
}

impl CaptureFilter {
    fn wants(&self, frame: &[u8]) -> bool {
        if let Some(mac) = &self.mac {
            let is_own = |at: usize| frame.get(at..at + 6) == Some(&mac.0);
            if !is_own(0) && !is_own(6) {
                return false;
            }
        }
        if self.port.is_none() && self.protocol.is_none() {
            return true;
        }
        let Some((protocol, ports)) = carried(frame) else { return false };
        self.protocol.is_none_or(|wanted| wanted.number() == protocol)
            && self.port.is_none_or(|wanted| ports.is_some_and(|ports| ports.contains(&wanted)))
    }
}

/// The protocol in an IP packet in a frame, and the ports that it is from and to. A fragment but the first has none.
fn carried(frame: &[u8]) -> Option<(u8, Option<[u16; 2]>)> {
    let word = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let mut at = 12;
    // VLAN tags.
    while matches!(word(frame, at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    let packet = frame.get(at + 2..)?;
    let (protocol, payload, is_first) = match word(frame, at)? {
        0x0800 => {
            let length = usize::from(packet.first()? & 0xf) * 4;
            (*packet.get(9)?, packet.get(length..)?, word(packet, 6)? & 0x1fff == 0)
        }
        0x86dd => {
            let (mut next, mut rest, mut is_first) = (*packet.get(6)?, packet.get(40..)?, true);
            // Headers of options (RFC 8200, section 4), of a length of their own; that of a fragment has eight bytes.
            while matches!(next, 0 | 43 | 44 | 60) {
                let length = if next == 44 { 8 } else { usize::from(*rest.get(1)?) * 8 + 8 };
                is_first &= next != 44 || word(rest, 2)? & 0xfff8 == 0;
                next = *rest.first()?;
                rest = rest.get(length..)?;
            }
            (next, rest, is_first)
        }
        _ => return None,
    };
    let ports = if is_first { word(payload, 0).zip(word(payload, 2)).map(|(from, to)| [from, to]) } else { None };
    Some((protocol, ports))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        frame
    }

    fn four(protocol: u8, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0]);
        packet.extend(Ipv4Addr::new(10, 0, 0, 1).octets());
        packet.extend(Ipv4Addr::new(10, 0, 0, 2).octets());
        packet.extend([0x1f, 0x90, 0, 80, 0, 8, 0, 0]);
        packet
    }

    fn six(headers: &[(u8, [u8; 8])], protocol: u8) -> Vec<u8> {
        let kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).chain([protocol]).collect();
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, kinds[0], 64];
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        for (place, (_, bytes)) in headers.iter().enumerate() {
            packet.push(kinds[place + 1]);
            packet.extend(&bytes[1..]);
        }
        packet.extend([0x1f, 0x90, 0, 80, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn frames_are_chosen() {
        let tcp = ethernet(0x0800, &four(6, 0));
        let port = |port| CaptureFilter { port: Some(port), ..CaptureFilter::default() };
        assert!(port(80).wants(&tcp) && port(8080).wants(&tcp) && !port(443).wants(&tcp));
        let protocol = |protocol| CaptureFilter { protocol: Some(protocol), ..port(80) };
        assert!(protocol(Protocol::Tcp).wants(&tcp) && !protocol(Protocol::Udp).wants(&tcp));
        let later = ethernet(0x0800, &four(17, 185));
        assert!(!port(80).wants(&later), "a part without ports");
        assert!(CaptureFilter { protocol: Some(Protocol::Udp), ..CaptureFilter::default() }.wants(&later));
        let tagged = [&tcp[..12], &[0x81, 0, 0, 7], &tcp[12..]].concat();
        assert!(port(80).wants(&tagged));
        let mac = |last| CaptureFilter { mac: Some(MacAddress([2, 0, 0, 0, 0, last])), ..CaptureFilter::default() };
        assert!(mac(1).wants(&tcp) && mac(2).wants(&tcp) && !mac(3).wants(&tcp));
        assert!(CaptureFilter::default().wants(&[]) && !mac(1).wants(&[]) && !port(80).wants(&tcp[..30]));
        assert!(!port(80).wants(&ethernet(0x0806, &[0; 28])), "ARP has no ports");
    }

    #[test]
    fn ports_stand_behind_the_options_of_ipv6() {
        let port = CaptureFilter { port: Some(80), ..CaptureFilter::default() };
        assert!(port.wants(&ethernet(0x86dd, &six(&[], 6))));
        assert!(port.wants(&ethernet(0x86dd, &six(&[(0, [0; 8]), (60, [0; 8])], 17))));
        assert!(port.wants(&ethernet(0x86dd, &six(&[(44, [0, 0, 0, 1, 0, 0, 0, 9])], 17))), "the first fragment");
        assert!(!port.wants(&ethernet(0x86dd, &six(&[(44, [0, 0, 1, 1, 0, 0, 0, 9])], 17))), "a later one");
        let cut = ethernet(0x86dd, &six(&[(0, [0; 8])], 6));
        assert!((0..cut.len()).all(|length| !port.wants(&cut[..length.min(57)])), "what is cut off is not read");
    }

    #[test]
    fn a_record_says_what_is_missing() {
        let frame = packet::Frame { kept: 4, length: 1500, time: 3_000_000_007, kind: 1 };
        let mut records = Vec::new();
        record(&mut records, &frame, &[1, 2, 3, 4], 2);
        let numbers: Vec<u32> =
            records[..16].chunks(4).map(|bytes| u32::from_ne_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!((numbers.as_slice(), &records[16..]), ([3, 7, 2, 1500].as_slice(), [1, 2].as_slice()));
    }
}
