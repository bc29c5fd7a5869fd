//! What a client asks.

use super::{
    AUTHENTIC, CHECKING_DISABLED, Code, HEADER, INTERNET, MAX, OPCODE, OPT, PLAIN_LIMIT, RECURSION_DESIRED, RESPONSE,
    SAFE_LIMIT, TRANSFER, long, name, word,
};

/// Bits that a client sets and a server should see.
const PASSED_ON: u16 = RECURSION_DESIRED | AUTHENTIC | CHECKING_DISABLED;
/// A client that wants signatures (`DO`, RFC 3225).
const WANTS_SIGNATURES: u32 = 0x8000;
/// Records behind the question that a query may have; there is a use for two.
const MAX_RECORDS: u16 = 8;
/// Options that are between us and the client: keep-alive, cookie, padding (RFC 7828, 7873, 7830).
const FOR_US: [u16; 3] = [11, 10, 12];

/// A question that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: u16,
    /// Only those that are passed on.
    pub(crate) flags: u16,
    /// As the client spells it: name, type and class.
    pub(crate) question: Box<[u8]>,
    pub(crate) kind: u16,
    pub(crate) edns: Option<Edns>,
}

/// What a client that knows RFC 6891 says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    size: u16,
    version: u8,
    signatures: bool,
    /// As they are on the wire, without those that are for us.
    options: Box<[u8]>,
}

/// Why a query gets no answer, or none but a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// What may be an answer of somebody else must not be answered, or two servers would go on for ever.
    Silent,
    Code(Code),
}

impl Query {
    /// # Errors
    /// What to do with a message that is not one that we answer.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Refusal> {
        let header = |at| word(message, at).filter(|_| message.len() >= HEADER).ok_or(Refusal::Silent);
        let (id, flags) = (header(0)?, header(2)?);
        if flags & RESPONSE != 0 {
            return Err(Refusal::Silent);
        }
        if flags & OPCODE != 0 {
            return Err(Refusal::Code(Code::NotImplemented));
        }
        let malformed = Refusal::Code(Code::Malformed);
        let records = header(10)?;
        if (header(4)?, header(6)?, header(8)?) != (1, 0, 0) || records > MAX_RECORDS {
            return Err(malformed);
        }
        let name_end = name::end_of_plain(message, HEADER).ok_or(malformed)?;
        let kind = word(message, name_end).ok_or(malformed)?;
        let class = word(message, name_end + 2).ok_or(malformed)?;
        let question: Box<[u8]> = message.get(HEADER..name_end + 4).ok_or(malformed)?.into();
        let edns = edns(message, name_end + 4, records).ok_or(malformed)?;
        if class != INTERNET || TRANSFER.contains(&kind) || kind == OPT {
            return Err(Refusal::Code(Code::Refused));
        }
        Ok(Self { id, flags: flags & PASSED_ON, question, kind, edns })
    }

    /// The name as it is on the wire.
    pub(crate) fn name(&self) -> &[u8] {
        // The question has its type and class behind the name, by `parse`.
        self.question.len().checked_sub(4).map_or(&[], |end| &self.question[..end])
    }

    /// What the client takes over UDP.
    pub(crate) fn limit(&self) -> usize {
        self.edns.as_ref().map_or(PLAIN_LIMIT, |edns| usize::from(edns.size).max(PLAIN_LIMIT))
    }

    /// Whether the answer is for others with the same question too.
    pub(crate) fn is_common(&self) -> bool {
        self.edns.as_ref().is_none_or(|edns| edns.options.is_empty() && edns.version == 0)
    }

    /// What decides on the answer of a server: the question, and the bits that it is asked with.
    pub(crate) fn key(&self) -> Vec<u8> {
        let signatures = self.edns.as_ref().map_or(0, |edns| 1 + u8::from(edns.signatures));
        let mut key = Vec::with_capacity(self.question.len() + 24);
        key.extend(self.flags.to_be_bytes());
        key.push(signatures);
        key.extend(self.question.iter().map(u8::to_ascii_lowercase));
        // Type and class are numbers, not letters.
        let end = key.len();
        key[end - 4..].copy_from_slice(&self.question[self.question.len() - 4..]);
        key
    }

    /// The query as we send it to a server; its number is still 0.
    pub(crate) fn to_forward(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + self.question.len() + 11);
        for word in [0, self.flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            message.extend(word.to_be_bytes());
        }
        message.extend(&self.question);
        if let Some(edns) = &self.edns {
            message.push(0);
            message.extend(OPT.to_be_bytes());
            message.extend(SAFE_LIMIT.to_be_bytes());
            message.extend([0, edns.version]);
            message.extend(if edns.signatures { [0x80, 0] } else { [0, 0] });
            message.extend(u16::try_from(edns.options.len()).unwrap_or(0).to_be_bytes());
            message.extend(&edns.options);
        }
        message
    }
}

/// The one OPT record among those that begin at `at`; `None` when they are malformed or there are two.
fn edns(message: &[u8], mut at: usize, records: u16) -> Option<Option<Edns>> {
    let mut found = None;
    for _ in 0..records {
        let name_end = name::end_of(message, at)?;
        let kind = word(message, name_end)?;
        let start = name_end + 10;
        let length = usize::from(word(message, name_end + 8)?);
        let data = message.get(start..start + length)?;
        if kind == OPT {
            if found.is_some() || name_end != at + 1 {
                return None;
            }
            let flags = long(message, name_end + 4)?;
            found = Some(Edns {
                size: word(message, name_end + 2)?,
                version: message[name_end + 5],
                signatures: flags & WANTS_SIGNATURES != 0,
                options: options(data)?,
            });
        }
        at = start + length;
    }
    Some(found.filter(|_| at <= MAX))
}

/// The options that are not for us.
fn options(mut data: &[u8]) -> Option<Box<[u8]>> {
    let mut kept = Vec::new();
    while !data.is_empty() {
        let (code, length) = (word(data, 0)?, usize::from(word(data, 2)?));
        let (option, rest) = data.split_at_checked(4 + length)?;
        if !FOR_US.contains(&code) {
            kept.extend(option);
        }
        data = rest;
    }
    Some(kept.into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::A;

    /// A query for addresses, without and with EDNS.
    pub(crate) fn query(name: &str, edns: Option<&[u8]>) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        message.extend(name::labels(name).unwrap());
        message.extend([0, 1, 0, 1]);
        if let Some(options) = edns {
            message.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0]);
            message.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
            message.extend(options);
        }
        message
    }

    #[test]
    fn a_query_is_understood() {
        let parsed = Query::parse(&query("Example.com", None)).unwrap();
        assert_eq!((parsed.id, parsed.flags, parsed.kind), (0x1234, RECURSION_DESIRED, A));
        assert_eq!(parsed.name(), b"\x07Example\x03com\0");
        assert_eq!((parsed.limit(), parsed.edns.is_some(), parsed.is_common()), (512, false, true));
        assert_eq!(parsed.key(), Query::parse(&query("eXAMPLE.com", None)).unwrap().key());
        let parsed = Query::parse(&query("example.com", Some(&[]))).unwrap();
        assert_eq!((parsed.limit(), parsed.is_common()), (4096, true));
        assert_ne!(parsed.key(), Query::parse(&query("example.com", None)).unwrap().key());
    }

    #[test]
    fn what_is_forwarded_is_the_same_question() {
        let with_cookie = [&[0, 10, 0, 2, 7, 7][..], &[0, 8, 0, 1, 9]].concat();
        let parsed = Query::parse(&query("example.com", Some(&with_cookie))).unwrap();
        let again = Query::parse(&parsed.to_forward()).unwrap();
        let edns = again.edns.clone().unwrap();
        assert_eq!((edns.size, edns.signatures, &*edns.options), (SAFE_LIMIT, true, &[0, 8, 0, 1, 9][..]));
        assert_eq!((again.question, again.flags), (parsed.question.clone(), parsed.flags));
        assert!(!parsed.is_common());
    }

    #[test]
    fn what_is_no_query_is_refused() {
        let good = query("example.com", Some(&[]));
        let changed = |at: usize, value: u8| {
            let mut message = good.clone();
            message[at] = value;
            Query::parse(&message).unwrap_err()
        };
        assert_eq!(Query::parse(&[]), Err(Refusal::Silent));
        assert_eq!(Query::parse(&good[..11]), Err(Refusal::Silent));
        assert_eq!(changed(2, 0x81), Refusal::Silent);
        assert_eq!(changed(2, 0x29), Refusal::Code(Code::NotImplemented));
        for (at, value) in [(5, 0), (5, 2), (7, 1), (9, 1), (11, 2), (11, 200), (12, 0xc0), (12, 64)] {
            assert_eq!(changed(at, value), Refusal::Code(Code::Malformed), "{at} {value}");
        }
        for length in HEADER..good.len() {
            assert_eq!(Query::parse(&good[..length]), Err(Refusal::Code(Code::Malformed)), "{length}");
        }
        let mut chaos = query("version.bind", None);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(Query::parse(&chaos), Err(Refusal::Code(Code::Refused)));
        let mut transfer = query("example.com", None);
        let kind = transfer.len() - 3;
        transfer[kind] = 252;
        assert_eq!(Query::parse(&transfer), Err(Refusal::Code(Code::Refused)));
    }
}
