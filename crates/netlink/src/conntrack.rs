//! Forgetting tracked connections (linux/netfilter/nfnetlink_conntrack.h).
//!
//! A datagram that belongs to a tracked exchange goes where the first one went, whatever the rules say now: a client
//! that keeps sending would never reach a container that was started since, or would reach the next one that has got
//! an old address.

use std::net::IpAddr;

use rustix::io::Errno;

use crate::message::{ACK, DUMP, Messages, find};
use crate::{Result, nft};

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

// enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto, ctattr_filter
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_SOURCE_V6: u16 = 3;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION_PORT: u16 = 3;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// Bits of a filter (net/netfilter/nf_internals.h).
const BY_SOURCE: u32 = 1 << 0;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// UDP exchanges that are to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchanges {
    /// Those that `.0` answers, whatever address the sender used for it.
    AnsweredBy(IpAddr),
    /// Those that were sent to this port, over IPv6 or else over IPv4.
    SentTo { port: u16, ipv6: bool },
}

impl Exchanges {
    const fn family(self) -> u8 {
        match self {
            Self::AnsweredBy(IpAddr::V4(_)) | Self::SentTo { ipv6: false, .. } => AF_INET,
            Self::AnsweredBy(IpAddr::V6(_)) | Self::SentTo { ipv6: true, .. } => AF_INET6,
        }
    }
}

/// Forgets UDP exchanges in the network namespace of `connection`.
///
/// # Errors
/// `EINVAL` before Linux 5.8, which cannot choose.
pub fn forget(connection: &nft::Connection, all: &[Exchanges]) -> Result<()> {
    let mut messages = Messages::default();
    for exchanges in all {
        // `struct nfgenmsg`.
        messages.message(DELETE, ACK, &[exchanges.family(), 0, 0, 0], action(), |m| write(m, *exchanges));
    }
    match connection.socket.transact(&messages) {
        // Debian 12's kernel (6.1) can list by choice, and takes what is to be deleted for the whole of one exchange.
        Err(error) if error.errno == Errno::INVAL => {
            all.iter().try_for_each(|exchanges| forget_each(connection, *exchanges))
        }
        done => done,
    }
}

fn action() -> String {
    "forget tracked connections".to_owned()
}

fn forget_each(connection: &nft::Connection, exchanges: Exchanges) -> Result<()> {
    let mut request = Messages::default();
    request.message(GET, DUMP, &[exchanges.family(), 0, 0, 0], action(), |m| write(m, exchanges));
    let found = connection.socket.ask(&request, |answer| {
        let attributes = answer.payload.get(4..)?;
        let part = |kind| find(attributes, kind).map(<[u8]>::to_vec);
        Some((part(TUPLE_ORIGINAL)?, part(ZONE)))
    })?;
    for (tuple, zone) in found {
        let mut request = Messages::default();
        request.message(DELETE, ACK, &[exchanges.family(), 0, 0, 0], action(), |m| {
            m.nested(TUPLE_ORIGINAL, |m| m.raw(&tuple));
            if let Some(zone) = &zone {
                m.attribute(ZONE, zone);
            }
        });
        match connection.socket.transact(&request) {
            // It has ended by itself meanwhile.
            Err(error) if error.errno == Errno::NOENT => {}
            done => done?,
        }
    }
    Ok(())
}

fn write(m: &mut Messages, exchanges: Exchanges) {
    match exchanges {
        Exchanges::AnsweredBy(address) => {
            m.nested(TUPLE_REPLY, |m| {
                m.nested(TUPLE_IP, |m| m.ip(if address.is_ipv4() { IP_SOURCE } else { IP_SOURCE_V6 }, address));
                m.nested(TUPLE_PROTOCOL, |m| m.u8(PROTOCOL_NUMBER, UDP));
            });
            m.nested(FILTER, |m| {
                m.u32(FILTER_ORIGINAL, 0);
                m.u32(FILTER_REPLY, BY_SOURCE | BY_PROTOCOL);
            });
        }
        Exchanges::SentTo { port, .. } => {
            m.nested(TUPLE_ORIGINAL, |m| {
                m.nested(TUPLE_IP, |_| {});
                m.nested(TUPLE_PROTOCOL, |m| {
                    m.u8(PROTOCOL_NUMBER, UDP);
                    m.attribute(PROTOCOL_DESTINATION_PORT, &port.to_be_bytes());
                });
            });
            m.nested(FILTER, |m| {
                m.u32(FILTER_ORIGINAL, BY_PROTOCOL | BY_DESTINATION_PORT);
                m.u32(FILTER_REPLY, 0);
            });
        }
    }
}
