//! D-Bus messages as bytes (D-Bus Specification 0.41, "Message Protocol"), as far as a few calls need them. Pure.

/// More bytes than this are no message of systemd's to us; the bus allows 128 MiB.
pub(crate) const MAX_MESSAGE: usize = 1 << 20;

/// `METHOD_CALL` and its kin.
pub(crate) const CALL: u8 = 1;
pub(crate) const RETURN: u8 = 2;
pub(crate) const ERROR: u8 = 3;
pub(crate) const SIGNAL: u8 = 4;

/// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value of a unit's property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    Text(String),
    Flag(bool),
    Number(u64),
    /// Process numbers.
    Numbers(Vec<u32>),
    Bytes(Vec<u8>),
    /// Of devices: which, and what may be done with it.
    Pairs(Vec<(String, String)>),
}

impl Property {
    const fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Flag(_) => "b",
            Self::Number(_) => "t",
            Self::Numbers(_) => "au",
            Self::Bytes(_) => "ay",
            Self::Pairs(_) => "a(ss)",
        }
    }
}

/// Values one after another, each aligned as its type wants it, in little endian.
#[derive(Debug, Default)]
pub struct Body {
    bytes: Vec<u8>,
    signature: String,
}

impl Body {
    pub fn text(mut self, text: &str) -> Self {
        self.put_text(text);
        self.signature.push('s');
        self
    }

    pub fn flag(mut self, flag: bool) -> Self {
        self.put_u32(flag.into());
        self.signature.push('b');
        self
    }

    /// `a(sv)`.
    pub fn properties(mut self, all: &[(&str, Property)]) -> Self {
        self.array(8, |body| {
            for (name, value) in all {
                body.align(8);
                body.put_text(name);
                body.put_variant(value);
            }
        });
        self.signature.push_str("a(sv)");
        self
    }

    /// `a(sa(sv))` without an element: units that belong to the one that is made.
    pub fn no_other_units(mut self) -> Self {
        self.array(8, |_| {});
        self.signature.push_str("a(sa(sv))");
        self
    }

    fn put_variant(&mut self, value: &Property) {
        self.put_signature(value.signature());
        match value {
            Property::Text(text) => self.put_text(text),
            Property::Flag(flag) => self.put_u32((*flag).into()),
            Property::Number(number) => {
                self.align(8);
                self.bytes.extend(number.to_le_bytes());
            }
            Property::Numbers(all) => self.array(4, |body| all.iter().for_each(|number| body.put_u32(*number))),
            Property::Bytes(all) => self.array(1, |body| body.bytes.extend(all)),
            Property::Pairs(all) => self.array(8, |body| {
                for (first, second) in all {
                    body.align(8);
                    body.put_text(first);
                    body.put_text(second);
                }
            }),
        }
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn put_u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
    }

    fn put_text(&mut self, text: &str) {
        self.put_u32(length(text.len()));
        self.bytes.extend(text.bytes());
        self.bytes.push(0);
    }

    fn put_signature(&mut self, signature: &str) {
        self.bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.bytes());
        self.bytes.push(0);
    }

    /// The length counts neither itself nor the padding before the first element, which is there without one, too.
    fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.put_u32(0);
        let at = self.bytes.len();
        self.align(alignment);
        let first = self.bytes.len();
        elements(self);
        let bytes = length(self.bytes.len() - first).to_le_bytes();
        self.bytes[at - 4..at].copy_from_slice(&bytes);
    }
}

/// Nothing that is sent comes near the bound.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Whose method is called.
#[derive(Clone, Copy, Debug)]
pub struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// The bytes of a call.
pub(crate) fn call(serial: u32, method: Method<'_>, body: &Body) -> Vec<u8> {
    let mut message = Body::default();
    message.bytes.extend([b'l', CALL, 0, 1]);
    message.put_u32(length(body.bytes.len()));
    message.put_u32(serial);
    let fields = [
        (PATH, "o", method.path),
        (INTERFACE, "s", method.interface),
        (MEMBER, "s", method.member),
        (DESTINATION, "s", method.destination),
        (SIGNATURE, "g", body.signature.as_str()),
    ];
    message.array(8, |message| {
        for (code, kind, value) in fields.into_iter().filter(|(.., value)| !value.is_empty()) {
            message.align(8);
            message.bytes.push(code);
            message.put_signature(kind);
            if kind == "g" { message.put_signature(value) } else { message.put_text(value) }
        }
    });
    message.align(8);
    message.bytes.extend(&body.bytes);
    message.bytes
}

/// A message that came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub reply_to: u32,
    pub member: String,
    pub error: String,
    /// The texts of the body as far as they stand at its beginning: numbers (`u`) are passed over.
    pub texts: Vec<String>,
}

/// How long a message is, by its first 16 bytes; `None` for what is none.
pub(crate) fn size(start: &[u8; 16]) -> Option<usize> {
    if start[0] != b'l' || start[3] != 1 {
        return None;
    }
    let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]) as usize;
    let size = 16usize.checked_add(number(12))?.checked_next_multiple_of(8)?.checked_add(number(4))?;
    (size <= MAX_MESSAGE).then_some(size)
}

/// Reads a whole message; `None` for what is none.
pub(crate) fn read(bytes: &[u8]) -> Option<Message> {
    let mut input = Input { bytes, at: 0 };
    let mut message = Message { kind: *bytes.get(1)?, ..Message::default() };
    let mut signature = String::new();
    input.at = 12;
    let end = input.u32()? as usize + 16;
    while input.at < end {
        input.align(8);
        let code = input.u8()?;
        match (code, input.signature()?.as_str()) {
            (MEMBER, "s") => message.member = input.text()?,
            (ERROR_NAME, "s") => message.error = input.text()?,
            (REPLY_SERIAL, "u") => message.reply_to = input.u32()?,
            (SIGNATURE, "g") => signature = input.signature()?,
            (_, "s" | "o") => drop(input.text()?),
            (_, "g") => drop(input.signature()?),
            (_, "u") => drop(input.u32()?),
            _ => return None,
        }
    }
    input.align(8);
    for kind in signature.chars() {
        match kind {
            's' | 'o' => message.texts.push(input.text()?),
            'u' => drop(input.u32()?),
            _ => break,
        }
    }
    Some(message)
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.u8()? == 0).then_some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.u8()?.into();
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.u8()? == 0).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Method<'_> = Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "Hello",
    };

    #[test]
    fn a_call_has_the_bytes_that_others_send() {
        // As dbus-send of Debian 12 sends it.
        let mut expected = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00".to_vec();
        expected.extend(b"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00");
        expected.extend(b"\x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00");
        expected.extend(b"\x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00");
        expected.extend(b"\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00");
        assert_eq!(call(1, HELLO, &Body::default()), expected);
    }

    #[test]
    fn values_are_aligned_as_their_types_want() {
        let all = [("P", Property::Numbers(vec![7])), ("N", Property::Number(9)), ("F", Property::Flag(true))];
        let body = Body::default().text("u").properties(&all);
        assert_eq!(body.signature, "sa(sv)");
        let mut expected = b"\x01\x00\x00\x00u\x00\x00\x00".to_vec();
        // The length is counted from the first element on, which begins at 16.
        expected.extend(b"\x40\x00\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x01\x00\x00\x00P\x00\x02au\x00\x00\x00\x04\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x01\x00\x00\x00N\x00\x01t\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x01\x00\x00\x00F\x00\x01b\x00\x00\x00\x00\x01\x00\x00\x00");
        assert_eq!(body.bytes, expected);
        assert_eq!(Body::default().no_other_units().bytes, [0; 8]);
        let pairs = [("D", Property::Pairs(vec![("a".into(), "rw".into())])), ("B", Property::Bytes(vec![1, 2]))];
        let mut expected = b"\x3a\x00\x00\x00\x00\x00\x00\x00".to_vec();
        expected.extend(b"\x01\x00\x00\x00D\x00\x05a(ss)\x00\x00\x00\x00\x0f\x00\x00\x00\x00\x00\x00\x00");
        expected.extend(b"\x01\x00\x00\x00a\x00\x00\x00\x02\x00\x00\x00rw\x00\x00");
        expected.extend(b"\x01\x00\x00\x00B\x00\x02ay\x00\x00\x00\x02\x00\x00\x00\x01\x02");
        assert_eq!(Body::default().properties(&pairs).bytes, expected);
    }

    #[test]
    fn what_is_sent_can_be_read() {
        let body = Body::default().text("unit.scope").text("fail").flag(true);
        let bytes = call(3, HELLO, &body);
        let start: &[u8; 16] = bytes[..16].try_into().unwrap();
        assert_eq!(size(start), Some(bytes.len()));
        let message = read(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (CALL, "Hello"));
        assert_eq!(message.texts, ["unit.scope", "fail"]);
        for length in 0..bytes.len() {
            // Cut off anywhere it is no message, or one without its end; never a panic.
            let _ = read(&bytes[..length]);
        }
        let mut large = *start;
        large[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(size(&large), None);
        assert_eq!(size(&[b'B'; 16]), None);
    }
}
