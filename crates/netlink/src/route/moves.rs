//! Links that go to another network namespace, with what the kernel would let them lose on the way.
//!
//! The kernel takes a link down and all of its addresses off when it leaves a namespace (`dev_change_net_namespace`).

use std::os::fd::{AsRawFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use super::batch::{IFA_ADDRESS, IFA_LOCAL, IFLA_IFNAME, IFLA_MASTER, NEW_ADDRESS, SET_LINK, link_header};
use super::dump::GET_ADDRESS;
use super::{Batch, Connection};
use crate::Result;
use crate::message::{self, CREATE, DUMP, EXCLUSIVE, Messages};

// linux/if_link.h
pub(super) const IFLA_NET_NS_FD: u16 = 28;

// linux/if_addr.h
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
/// Addresses that do not run out.
const PERMANENT: u32 = 0x80;
/// The flags that are a choice of whoever gave the address: `nodad`, `home`, `mngtmpaddr`, `noprefixroute`, `autojoin`.
const CHOSEN: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
/// `RT_SCOPE_UNIVERSE`: global.
const UNIVERSE: u8 = 0;

/// An address of a link that is permanent and of global scope, IPv4 or IPv6, with its options: made to be given to the
/// link again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermanentAddress {
    /// `AF_INET` or `AF_INET6`.
    family: u8,
    prefix: u8,
    flags: u32,
    /// As the kernel has told them.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Connection {
    /// The permanent addresses of global scope that a link has, in the order in which the kernel has them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn permanent_addresses(&self, link: u32) -> Result<Vec<PermanentAddress>> {
        let mut request = Messages::default();
        request.message(GET_ADDRESS, DUMP, &address_header(0, 0, link), "list addresses".into(), |_| {});
        self.socket.ask(&request, |answer| permanent(answer.kind, answer.payload, link))
    }
}

/// `struct ifaddrmsg`.
fn address_header(family: u8, prefix: u8, link: u32) -> [u8; 8] {
    let mut header = [family, prefix, 0, UNIVERSE, 0, 0, 0, 0];
    header[4..].copy_from_slice(&link.to_ne_bytes());
    header
}

fn permanent(kind: u16, payload: &[u8], link: u32) -> Option<PermanentAddress> {
    if kind != NEW_ADDRESS || payload.get(3) != Some(&UNIVERSE) || message::u32_at(payload, 4) != Some(link) {
        return None;
    }
    let all = payload.get(8..)?;
    let flags = message::find(all, IFA_FLAGS).and_then(|value| message::u32_at(value, 0)).unwrap_or(payload[2].into());
    if flags & PERMANENT == 0 {
        return None;
    }
    let kept = [IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_CACHEINFO, IFA_RT_PRIORITY, IFA_PROTO];
    let attributes = message::attributes(all).filter(|attribute| kept.contains(&attribute.kind));
    Some(PermanentAddress {
        family: payload[0],
        prefix: payload[1],
        flags: flags & CHOSEN,
        attributes: attributes.map(|attribute| (attribute.kind, attribute.value.to_vec())).collect(),
    })
}

impl Batch {
    /// Moves a link to another network namespace, where it has the name `name`. It is down then, and has no address.
    pub fn move_link(&mut self, index: u32, name: &str, netns: BorrowedFd<'_>) -> &mut Self {
        let action = format!("move the link to another network namespace as `{name}`");
        self.messages.message(SET_LINK, 0, &link_header(0, index, 0, 0), action, |m| {
            m.text(IFLA_IFNAME, name);
            m.u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
        });
        self
    }

    /// Makes a link a port of the bridge, bond, … with the index `master`.
    pub fn set_master(&mut self, index: u32, master: u32) -> &mut Self {
        let action = format!("make link {index} a port of link {master}");
        self.messages.message(SET_LINK, 0, &link_header(0, index, 0, 0), action, |m| m.u32(IFLA_MASTER, master));
        self
    }

    /// Gives a link an address that it had. `renamed`: its name is another than then, so that labels, which begin with
    /// the name (ip-address(8)), do not fit any more and are left out.
    pub fn restore_address(&mut self, index: u32, address: &PermanentAddress, renamed: bool) -> &mut Self {
        let header = address_header(address.family, address.prefix, index);
        let action = "give the link its address again".to_owned();
        self.messages.message(NEW_ADDRESS, CREATE | EXCLUSIVE, &header, action, |m| {
            for (kind, value) in &address.attributes {
                if *kind != IFA_LABEL || !renamed {
                    m.attribute(*kind, value);
                }
            }
            m.u32(IFA_FLAGS, address.flags);
        });
        self
    }
}
