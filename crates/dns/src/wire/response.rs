//! What a server said.

use super::{A, CODE, HEADER, OPCODE, OPT, RESPONSE, SOA, TRUNCATED, long, name, set_id, word};

/// The highest TTL; above it the number is to be taken as 0 (RFC 2181, 8).
const HIGHEST_TTL: u32 = i32::MAX.cast_unsigned();
/// Type of a record that gives the name another one.
const CNAME: u16 = 5;

/// A response to our question, checked from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) code: u16,
    pub(crate) truncated: bool,
    /// Where it ends; what is behind that is nothing of it.
    pub(crate) end: usize,
    /// Where its TTLs are.
    pub(crate) ttls: Vec<u16>,
    /// For how many seconds it is true; `None` when it does not say.
    pub(crate) lifetime: Option<u32>,
}

impl Response {
    /// `None` when it is malformed, or an answer to another question than `question`.
    pub(crate) fn parse(message: &[u8], question: &[u8]) -> Option<Self> {
        let flags = word(message, 2)?;
        if flags & RESPONSE == 0 || flags & OPCODE != 0 || word(message, 4)? != 1 {
            return None;
        }
        let start = HEADER + question.len();
        let (name, kind) = question.split_at_checked(question.len().checked_sub(4)?)?;
        let asked = message.get(HEADER..start)?;
        if !asked[..name.len()].eq_ignore_ascii_case(name) || &asked[name.len()..] != kind {
            return None;
        }
        let (code, truncated) = (flags & CODE, flags & TRUNCATED != 0);
        if truncated {
            // It may be cut anywhere, and is of no more use than to say so.
            return Some(Self { code, truncated, end: start, ttls: Vec::new(), lifetime: None });
        }
        let mut walk = Walk { message, at: start, ttls: Vec::new(), lowest: None };
        let kind = word(kind, 0)?;
        let mut answered = false;
        for _ in 0..word(message, 6)? {
            answered |= walk.record()? == kind;
        }
        let mut negative = None;
        for _ in 0..word(message, 8)? {
            let before = walk.at;
            if walk.record()? == SOA && walk.at - before > 20 {
                negative = long(message, walk.at - 4);
            }
        }
        for _ in 0..word(message, 10)? {
            walk.record()?;
        }
        let Walk { at: end, ttls, lowest, .. } = walk;
        // That there is nothing holds as long as the zone says (RFC 2308, 5), and not at all when no zone does.
        let lifetime =
            if code == 0 && answered { lowest } else { negative.and_then(|limit| lowest.map(|low| low.min(limit))) };
        Some(Self { code, truncated, end, ttls, lifetime })
    }
}

struct Walk<'a> {
    message: &'a [u8],
    at: usize,
    ttls: Vec<u16>,
    lowest: Option<u32>,
}

impl Walk<'_> {
    /// Goes over one record; its type.
    fn record(&mut self) -> Option<u16> {
        let fixed = name::end_of(self.message, self.at)?;
        let kind = word(self.message, fixed)?;
        let ttl = long(self.message, fixed + 4)?;
        let length = usize::from(word(self.message, fixed + 8)?);
        let end = fixed + 10 + length;
        let data = self.message.get(fixed + 10..end)?;
        match kind {
            // An address that is none, or a name that runs out of its record, is for nobody's parser.
            A if data.len() != 4 => return None,
            CNAME if name::end_of(self.message, fixed + 10)? != end => return None,
            // Where others have their TTL it has flags.
            OPT => {}
            _ => {
                self.ttls.push(u16::try_from(fixed + 4).ok()?);
                let ttl = if ttl > HIGHEST_TTL { 0 } else { ttl };
                self.lowest = Some(self.lowest.map_or(ttl, |low| low.min(ttl)));
            }
        }
        self.at = end;
        Some(kind)
    }
}

/// Makes a response that was kept for `age` seconds one to a client: its number, its spelling, what is left of its
/// TTLs.
pub(crate) fn restore(message: &mut [u8], ttls: &[u16], age: u32, id: u16, question: &[u8]) {
    set_id(message, id);
    if let Some(place) = message.get_mut(HEADER..HEADER + question.len()) {
        place.copy_from_slice(question);
    }
    if age == 0 {
        return;
    }
    for at in ttls {
        let at = usize::from(*at);
        if let (Some(ttl), Some(place)) = (long(message, at), message.get_mut(at..at + 4)) {
            place.copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::query::tests::query;
    use crate::wire::{Answer, Code, Data, Query};

    fn with_records(flags: [u8; 2], answers: &[&[u8]], authority: &[&[u8]]) -> (Vec<u8>, Box<[u8]>) {
        let mut message = query("example.com", None);
        message[2..4].copy_from_slice(&flags);
        message[7] = u8::try_from(answers.len()).unwrap();
        message[9] = u8::try_from(authority.len()).unwrap();
        let question = message[HEADER..].into();
        message.extend(answers.concat());
        message.extend(authority.concat());
        (message, question)
    }

    const ADDRESS: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 1, 2, 3, 4];
    const ALIAS: &[u8] = &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12];
    const ZONE: &[u8] =
        &[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 90, 0, 22, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 30];

    #[test]
    fn lifetimes() {
        let lifetime = |flags, answers: &[&[u8]], authority: &[&[u8]]| {
            let (message, question) = with_records(flags, answers, authority);
            Response::parse(&message, &question).unwrap().lifetime
        };
        assert_eq!(lifetime([0x81, 0x80], &[ADDRESS], &[]), Some(256));
        assert_eq!(lifetime([0x81, 0x80], &[ALIAS, ADDRESS], &[]), Some(60));
        assert_eq!(lifetime([0x81, 0x80], &[], &[ZONE]), Some(30));
        assert_eq!(lifetime([0x81, 0x83], &[], &[ZONE]), Some(30));
        assert_eq!(lifetime([0x81, 0x83], &[ALIAS], &[ZONE]), Some(30));
        assert_eq!(lifetime([0x81, 0x83], &[], &[]), None);
        assert_eq!(lifetime([0x81, 0x80], &[ALIAS], &[]), None);
    }

    #[test]
    fn what_is_kept_becomes_an_answer_to_another() {
        let (mut message, question) = with_records([0x81, 0x80], &[ADDRESS, ADDRESS], &[]);
        let read = Response::parse(&message, &question).unwrap();
        let other = Query::parse(&query("EXAMPLE.com", None)).unwrap();
        restore(&mut message, &read.ttls, 56, 9, &other.question);
        assert_eq!(message[..2], [0, 9]);
        assert_eq!(message[HEADER + 1..HEADER + 8], *b"EXAMPLE");
        assert_eq!(Response::parse(&message, &question).unwrap().lifetime, Some(200));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_none() {
        let (good, question) = with_records([0x81, 0x80], &[ALIAS, ADDRESS], &[ZONE]);
        for length in 0..good.len() {
            assert_eq!(Response::parse(&good[..length], &question), None, "{length}");
        }
        let longer = [&good[..], b"trailing"].concat();
        assert_eq!(Response::parse(&longer, &question).unwrap().end, good.len());
        for (at, value) in [(2, 1), (2, 0x99), (5, 0), (5, 2), (14, b'z'), (HEADER + 14, 28), (7, 9), (11, 1)] {
            let mut message = good.clone();
            message[at] = value;
            assert_eq!(Response::parse(&message, &question), None, "{at} {value}");
        }
        // A truncated one may be cut.
        let mut cut = good[..good.len() - 3].to_vec();
        cut[2] |= 2;
        assert!(Response::parse(&cut, &question).unwrap().truncated);
    }

    /// Xorshift: the same sequence in every run.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        usize::try_from(*state >> 33).unwrap()
    }

    #[test]
    fn nothing_that_is_received_breaks_anything() {
        let (response, question) = with_records([0x81, 0x80], &[ALIAS, ADDRESS], &[ZONE]);
        let cookie = [0, 10, 0, 2, 7, 7];
        let seeds = [response, query("a.b.example.com", Some(&cookie)), query("x", None), vec![0; 64], vec![0xc0; 64]];
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for round in 0..60_000 {
            let mut message = seeds[round % seeds.len()].clone();
            for _ in 0..=random(&mut state) % 6 {
                let at = random(&mut state) % message.len();
                match random(&mut state) % 4 {
                    0 => message[at] = u8::try_from(random(&mut state) % 256).unwrap(),
                    1 => message[at] ^= 1 << (random(&mut state) % 8),
                    2 => message.truncate(at.max(1)),
                    _ => message.insert(at, [0, 0xc0, 0xff, 12][random(&mut state) % 4]),
                }
            }
            if let Ok(parsed) = Query::parse(&message) {
                let again = Query::parse(&parsed.to_forward()).expect("what we forward is a query");
                assert_eq!(again.question, parsed.question);
                let _ = (crate::wire::text(parsed.name()), parsed.key());
                let mut answer = Answer::new(&parsed, Code::Done, 512);
                answer.add(600, &Data::Address([1, 2, 3, 4].into()));
                let bytes = answer.finish();
                assert!(Response::parse(&bytes, &parsed.question).is_some());
            }
            if let Some(read) = Response::parse(&message, &question) {
                assert!(read.end <= message.len());
                restore(&mut message[..read.end], &read.ttls, 7, 1, &question);
            }
        }
    }
}
