//! The form of messages: headers and attributes (linux/netlink.h), written and read.

use std::ffi::CStr;
use std::net::{IpAddr, Ipv4Addr};

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 16;
/// An attribute that has attributes in it.
const NESTED: u16 = 1 << 15;
/// What is left of an attribute's type without its flags.
const TYPE_MASK: u16 = 0x3fff;

/// Flags of a message.
pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const MULTI: u16 = 0x2;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
/// Of an answer: what is listed changed meanwhile.
pub(crate) const INTERRUPTED: u16 = 0x10;
/// Flags of a request for something new.
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

/// Types of messages that every family has.
pub(crate) const ERROR: u16 = 0x2;
pub(crate) const DONE: u16 = 0x3;

/// Requests that go to the kernel together.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// Where the message that is being written begins.
    start: usize,
    /// What each message asks, by its number; for errors.
    actions: Vec<String>,
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Lengths in headers are short; what does not fit is refused by the kernel as malformed, as it should be.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

impl Messages {
    /// Writes a message with `fixed` after its header, and the attributes that `attributes` adds. `action` follows
    /// "cannot" in an error.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        action: String,
        attributes: impl FnOnce(&mut Self),
    ) {
        self.start = self.bytes.len();
        let number = u32::try_from(self.actions.len()).unwrap_or(u32::MAX);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(number.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        self.pad();
        self.actions.push(action);
        attributes(self);
        let length = u32::try_from(self.bytes.len() - self.start).unwrap_or(u32::MAX);
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend(short(4 + value.len()).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// A number in the network's order, as netfilter wants all of them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A text with the NUL that the kernel wants; one with a NUL in it ends there.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let value = value.split('\0').next().unwrap_or_default();
        self.bytes.extend(short(5 + value.len()).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    pub(crate) fn ipv4(&mut self, kind: u16, value: Ipv4Addr) {
        self.attribute(kind, &value.octets());
    }

    /// An address of either family, by its length.
    pub(crate) fn ip(&mut self, kind: u16, value: IpAddr) {
        match value {
            IpAddr::V4(value) => self.ipv4(kind, value),
            IpAddr::V6(value) => self.attribute(kind, &value.octets()),
        }
    }

    pub(crate) fn nested(&mut self, kind: u16, attributes: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        attributes(self);
        let length = short(self.bytes.len() - start);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Bytes without an attribute's header, where a fixed structure comes before attributes in an attribute.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.pad();
    }

    /// Asks for an answer to the last message: it comes after those of all others.
    pub(crate) fn acknowledge_last(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.start + 6..self.start + 8) {
            let value = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
            flags.copy_from_slice(&value.to_ne_bytes());
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.actions.len()
    }

    pub(crate) fn action(&self, number: u32) -> &str {
        usize::try_from(number).ok().and_then(|number| self.actions.get(number)).map_or("talk to the kernel", |a| a)
    }
}

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) number: u32,
    pub(crate) payload: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The messages in what one call has read. A length that lies ends them.
pub(crate) fn received(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Received {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            number: u32_at(bytes, 8)?,
            payload: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// An attribute that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
}

/// The attributes in `bytes`.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = Attribute { kind: u16_at(bytes, 2)? & TYPE_MASK, value: bytes.get(4..length)? };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(attribute)
    })
}

/// The first attribute of a type.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
}

impl<'a> Attribute<'a> {
    pub(crate) fn u32(self) -> Option<u32> {
        u32_at(self.value, 0)
    }

    pub(crate) fn text(self) -> String {
        text(self.value)
    }
}

/// An address of either family.
pub(crate) fn ip(value: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(value).ok().map(IpAddr::from))
}

/// A text that ends with a NUL, or with the bytes.
pub(crate) fn text(value: &[u8]) -> String {
    let value = CStr::from_bytes_until_nul(value).map_or(value, CStr::to_bytes);
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut messages = Messages::default();
        messages.message(16, CREATE, &[1; 6], "try".into(), |m| {
            m.text(3, "eth0");
            m.nested(18, |m| {
                m.u8(1, 7);
                m.ipv4(2, Ipv4Addr::LOCALHOST);
            });
        });
        messages.message(17, 0, &[], "try again".into(), |_| {});
        messages.acknowledge_last();
        let all: Vec<_> = received(messages.bytes()).collect();
        assert_eq!((all.len(), messages.len()), (2, 2));
        assert_eq!((all[0].kind, all[0].flags, all[0].number), (16, CREATE | REQUEST, 0));
        assert_eq!((all[1].kind, all[1].flags, all[1].number), (17, REQUEST | ACK, 1));
        let body = &all[0].payload[8..];
        assert_eq!(text(find(body, 3).unwrap()), "eth0");
        let inner = find(body, 18).unwrap();
        assert_eq!(find(inner, 1), Some([7].as_slice()));
        assert_eq!(ip(attributes(inner).nth(1).unwrap().value), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert_eq!(messages.action(1), "try again");
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        for length in [0u32, 3, 15, 17, 1 << 20, u32::MAX] {
            let mut bytes = vec![0; 16];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(received(&bytes).count(), 0, "{length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let mut bytes = vec![0; 8];
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(attributes(&bytes).count(), 0, "{length}");
        }
    }
}
