//! The packet that is thought of.

use std::net::IpAddr;

use wharf_netlink::nft::Family;

use crate::registers::{Bytes, known};

/// A link that a packet comes in by or goes out by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub index: u32,
}

/// The first packet of a connection, or of what is answered to it.
#[derive(Clone, Debug)]
pub struct Packet {
    /// `None` for what the host sends itself.
    pub input: Option<Link>,
    pub output: Option<Link>,
    /// Who connects; `None` is somebody out there.
    pub source: Option<IpAddr>,
    /// To what is connected, at this point of the way.
    pub destination: IpAddr,
    /// `IPPROTO_*`.
    pub protocol: u8,
    pub port: u16,
    /// Whether a rule has changed the destination, and what it was before.
    pub translated: Option<(IpAddr, u16)>,
    /// `None` once a rule has set it that may be about others.
    pub mark: Option<u32>,
    /// On its way back.
    pub is_reply: bool,
    /// Whether connection tracking has seen it; [`crate::Walk`] says so.
    pub is_tracked: bool,
}

/// Who connects does so from a port that nobody has a rule about: the first of those that are given to nobody (RFC 6335, 6).
pub(crate) const DYNAMIC: u16 = 49152;

// Numbers of protocols (linux/in.h).
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Packet {
    /// The first packet of a connection that was not seen by any rule yet.
    pub fn first(source: Option<IpAddr>, destination: IpAddr, protocol: u8, port: u16) -> Self {
        Self {
            input: None,
            output: None,
            source,
            destination,
            protocol,
            port,
            translated: None,
            mark: Some(0),
            is_reply: false,
            is_tracked: true,
        }
    }

    /// What is answered to it.
    pub fn reply(&self) -> Self {
        Self { input: None, output: None, mark: Some(0), is_reply: true, ..self.clone() }
    }

    /// Where the packet itself comes from.
    pub(crate) fn sender(&self) -> Option<IpAddr> {
        if self.is_reply { Some(self.destination) } else { self.source }
    }

    /// Where it goes to.
    pub(crate) fn receiver(&self) -> Option<IpAddr> {
        if self.is_reply { self.source } else { Some(self.destination) }
    }

    pub(crate) fn family(&self) -> Family {
        if self.destination.is_ipv4() { Family::Ip } else { Family::Ip6 }
    }

    pub(crate) fn source_bytes(&self) -> Bytes {
        match self.source {
            Some(address) => known(&octets(address)),
            None => vec![None; octets(self.destination).len()],
        }
    }

    /// The header of IP, as far as it is known.
    pub(crate) fn network_header(&self) -> Bytes {
        let (mut source, mut destination) = (self.source_bytes(), known(&octets(self.destination)));
        if self.is_reply {
            (source, destination) = (destination, source);
        }
        let mut header: Bytes = match self.family() {
            Family::Ip6 => vec![Some(0x60), None, None, None, None, None, Some(self.protocol), None],
            // A packet that is whole.
            _ => {
                let mut header = vec![None; 12];
                (header[0], header[6], header[7], header[9]) = (Some(0x45), Some(0x40), Some(0), Some(self.protocol));
                header
            }
        };
        header.extend(source);
        header.extend(destination);
        header
    }

    /// The header behind it.
    pub(crate) fn transport_header(&self) -> Bytes {
        let own = known(&self.port.to_be_bytes());
        let other = known(&DYNAMIC.to_be_bytes());
        let mut header = if self.is_reply { [own, other] } else { [other, own] }.concat();
        match self.protocol {
            TCP => {
                header.resize(20, None);
                // SYN, and with it ACK in the answer.
                header[13] = Some(if self.is_reply { 0x12 } else { 2 });
            }
            UDP => header.resize(8, None),
            _ => header.resize(12, None),
        }
        header
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
