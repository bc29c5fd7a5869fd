//! Names: labels with their lengths, ended by an empty one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::word;

/// Longest name with its lengths and its end (RFC 1035, 2.3.4).
const LONGEST: usize = 255;
/// Longest label.
pub(crate) const LONGEST_LABEL: usize = 63;
/// The two bits that make a length a pointer.
const POINTER: u8 = 0xc0;

/// Where the name that begins at `at` ends, which must be written out, as a question's is: there is nothing before it
/// that it could point to.
pub(super) fn end_of_plain(message: &[u8], at: usize) -> Option<usize> {
    let mut next = at;
    loop {
        let length = usize::from(*message.get(next)?);
        next += 1 + length;
        if length > LONGEST_LABEL || next - at > LONGEST {
            return None;
        }
        if length == 0 {
            return Some(next);
        }
    }
}

/// Where the name that begins at `at` ends in the message. A pointer ends it; it must point backwards, and is not
/// followed.
pub(super) fn end_of(message: &[u8], at: usize) -> Option<usize> {
    let mut next = at;
    loop {
        let length = *message.get(next)?;
        if length & POINTER == POINTER {
            let to = usize::from(word(message, next)? & 0x3fff);
            return (to < next).then_some(next + 2);
        }
        next += 1 + usize::from(length);
        if usize::from(length) > LONGEST_LABEL || next - at > LONGEST {
            return None;
        }
        if length == 0 {
            return Some(next);
        }
    }
}

/// The labels of a name that is written out, joined by dots, in small letters, without the last dot. `None` when it
/// has a character that no name of a container has.
pub(crate) fn text(name: &[u8]) -> Option<String> {
    let mut all = String::with_capacity(name.len());
    let mut rest = name;
    while let [length, after @ ..] = rest {
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        if label.is_empty() {
            break;
        }
        if !all.is_empty() {
            all.push('.');
        }
        for byte in label {
            if !byte.is_ascii_graphic() || *byte == b'.' {
                return None;
            }
            all.push(char::from(byte.to_ascii_lowercase()));
        }
        rest = after;
    }
    Some(all)
}

/// A text as labels with their end; `None` when it is too long, or has an empty label.
pub(super) fn labels(text: &str) -> Option<Vec<u8>> {
    let mut all = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        let length =
            u8::try_from(label.len()).ok().filter(|length| (1..=LONGEST_LABEL).contains(&usize::from(*length)))?;
        all.push(length);
        all.extend_from_slice(label.as_bytes());
    }
    all.push(0);
    (all.len() <= LONGEST).then_some(all)
}

/// The address that a name of `in-addr.arpa` or `ip6.arpa` asks for.
pub(crate) fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = digits.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut bits: u128 = 0;
    let mut count = 0;
    for digit in digits.split('.').collect::<Vec<_>>().into_iter().rev() {
        let [digit] = digit.as_bytes() else { return None };
        bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then_some(IpAddr::V6(Ipv6Addr::from(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let wire = labels("Web.example.com").unwrap();
        assert_eq!(wire, b"\x03Web\x07example\x03com\0");
        assert_eq!(text(&wire).unwrap(), "web.example.com");
        assert_eq!(end_of_plain(&wire, 0), Some(wire.len()));
        assert_eq!(end_of(&wire, 0), Some(wire.len()));
        assert_eq!(text(b"\0").unwrap(), "");
        assert_eq!(text(b"\x03a.b\0"), None);
        assert_eq!(text(b"\x02\xc3\xa9\0"), None);
        assert_eq!(labels("a..b"), None);
        assert_eq!(labels(&"a".repeat(64)), None);
        assert_eq!(labels(&["a"; 128].join(".")), None);
        assert!(labels(&["a"; 127].join(".")).is_some());
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(end_of_plain(b"", 0), None);
        assert_eq!(end_of_plain(b"\x03ab", 0), None);
        assert_eq!(end_of_plain(b"\x03abc", 0), None);
        // A pointer, and what is reserved.
        assert_eq!(end_of_plain(b"\xc0\x00", 0), None);
        assert_eq!(end_of(b"\x40a\0", 0), None);
        // To itself, forwards, cut off.
        assert_eq!(end_of(b"\xc0\x00", 0), None);
        assert_eq!(end_of(b"\xc0\x04\0\0\0\0", 0), None);
        assert_eq!(end_of(b"\0\xc0", 1), None);
        assert_eq!(end_of(b"\0\xc0\0", 1), Some(3));
        let long: Vec<u8> = [1, b'a'].repeat(200);
        assert_eq!(end_of(&long, 0), None);
        assert_eq!(end_of_plain(&long, 0), None);
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reversed("2.0.18.172.in-addr.arpa"), Some("172.18.0.2".parse().unwrap()));
        let six = format!("1.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(reversed(&six), Some("fd00::1".parse().unwrap()));
        for wrong in
            ["0.18.172.in-addr.arpa", "9.2.0.18.172.in-addr.arpa", "256.0.18.172.in-addr.arpa", "1.ip6.arpa", "x"]
        {
            assert_eq!(reversed(wrong), None, "{wrong}");
        }
    }
}
