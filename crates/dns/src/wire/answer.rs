//! What we say ourselves.

use std::net::IpAddr;

use super::{
    A, AAAA, AUTHENTIC, CODE, Code, HEADER, INTERNET, MAX, OPCODE, OPT, PTR, Query, RECURSION_AVAILABLE,
    RECURSION_DESIRED, RESPONSE, SAFE_LIMIT, TRUNCATED, name, word,
};

/// A pointer to the name of the question.
const THE_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// Length of our OPT record.
const OPT_LENGTH: usize = 11;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    /// With dots, without the last.
    Name(String),
}

/// An answer in the making.
#[derive(Debug)]
pub(crate) struct Answer {
    message: Vec<u8>,
    limit: usize,
    edns: bool,
    records: u16,
    truncated: bool,
}

impl Answer {
    /// An answer without records that fits into `limit` bytes.
    pub(crate) fn new(query: &Query, code: Code, limit: usize) -> Self {
        let mut message = Vec::with_capacity(HEADER + query.question.len() + 64);
        // What we say ourselves nobody has signed.
        let flags = query.flags & !AUTHENTIC;
        for word in [query.id, RESPONSE | RECURSION_AVAILABLE | flags | code as u16, 1, 0, 0, 0] {
            message.extend(word.to_be_bytes());
        }
        message.extend(&query.question);
        Self { message, limit: limit.min(MAX), edns: query.edns.is_some(), records: 0, truncated: false }
    }

    /// The answer to what was not understood: the header alone. `message` has at least one.
    pub(crate) fn refusal(message: &[u8], code: Code) -> Vec<u8> {
        let mut answer: Vec<u8> = message.iter().copied().take(HEADER).collect();
        let flags = word(message, 2).unwrap_or(0) & (OPCODE | RECURSION_DESIRED) | RESPONSE | (code as u16 & CODE);
        answer.resize(HEADER, 0);
        answer[2..4].copy_from_slice(&flags.to_be_bytes());
        answer[4..].fill(0);
        answer
    }

    /// Adds a record of the question's name. What does not fit is left out, and the answer says so.
    pub(crate) fn add(&mut self, ttl: u32, data: &Data) {
        let (kind, bytes) = match data {
            Data::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            Data::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            Data::Name(text) => match name::labels(text) {
                Some(labels) => (PTR, labels),
                None => return,
            },
        };
        let reserved = if self.edns { OPT_LENGTH } else { 0 };
        if self.truncated || self.message.len() + 12 + bytes.len() + reserved > self.limit {
            self.truncated = true;
            return;
        }
        self.message.extend(THE_NAME);
        self.message.extend(kind.to_be_bytes());
        self.message.extend(INTERNET.to_be_bytes());
        self.message.extend(ttl.to_be_bytes());
        // No longer than a name.
        self.message.extend((bytes.len() as u16).to_be_bytes());
        self.message.extend(bytes);
        self.records += 1;
    }

    /// Says that there is more than fits.
    pub(crate) fn truncate(mut self) -> Self {
        self.truncated = true;
        self
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.message[6..8].copy_from_slice(&self.records.to_be_bytes());
        if self.truncated {
            let [high, _] = TRUNCATED.to_be_bytes();
            self.message[2] |= high;
        }
        if self.edns {
            self.message.push(0);
            self.message.extend(OPT.to_be_bytes());
            self.message.extend(SAFE_LIMIT.to_be_bytes());
            self.message.extend([0; 6]);
            self.message[11] = 1;
        }
        self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Response;
    use crate::wire::query::tests::query;

    #[test]
    fn an_answer_has_its_records() {
        let mut bytes = query("Web", None);
        bytes[3] = 0x30;
        let parsed = Query::parse(&bytes).unwrap();
        let mut answer = Answer::new(&parsed, Code::Done, 512);
        answer.add(600, &Data::Address("172.18.0.2".parse().unwrap()));
        let bytes = answer.finish();
        assert_eq!(bytes[..12], [0x12, 0x34, 0x81, 0x90, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(bytes[21..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 172, 18, 0, 2]);
        let read = Response::parse(&bytes, &parsed.question).unwrap();
        assert_eq!((read.code, read.lifetime, read.end), (0, Some(600), bytes.len()));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        for edns in [None, Some(&[][..])] {
            let parsed = Query::parse(&query("web", edns)).unwrap();
            let mut answer = Answer::new(&parsed, Code::Done, 512);
            for number in 0..100 {
                answer.add(600, &Data::Address(std::net::Ipv4Addr::from_bits(number).into()));
            }
            let bytes = answer.finish();
            assert!(bytes.len() <= 512 && bytes.len() > 480, "{}", bytes.len());
            assert!(Response::parse(&bytes, &parsed.question).unwrap().truncated);
        }
    }

    #[test]
    fn a_refusal_is_a_header() {
        let bytes = query("web", None);
        assert_eq!(Answer::refusal(&bytes, Code::Malformed), [0x12, 0x34, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
