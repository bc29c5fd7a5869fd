//! Frames of RFC 6455, section 5.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A client's frame is no larger than this: input of a terminal is small, and a file that is piped in comes in pieces.
const MAX_PAYLOAD: u64 = 4 << 20;
/// Control frames are short (section 5.5).
const MAX_CONTROL: u64 = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn parse(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A client's frame, unmasked. Whether it is the last of its message does not matter: the streams have no messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) payload: Bytes,
}

/// Why a connection is closed (section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseCode {
    Normal,
    Protocol,
    TooBig,
}

impl CloseCode {
    fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Protocol => 1002,
            Self::TooBig => 1009,
        }
    }
}

/// Takes the next whole frame off `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// What the connection is to be closed with, for a frame that no client may send.
pub(super) fn next(buffer: &mut BytesMut) -> Result<Option<Frame>, CloseCode> {
    let [first, second, ..] = buffer[..] else { return Ok(None) };
    let (fin, reserved) = (first & 0x80 != 0, first & 0x70);
    let opcode = Opcode::parse(first & 0x0f).ok_or(CloseCode::Protocol)?;
    // No extension was agreed on, and clients mask all that they send.
    if reserved != 0 || second & 0x80 == 0 || (opcode.is_control() && !fin) {
        return Err(CloseCode::Protocol);
    }
    let (length, head) = match second & 0x7f {
        126 => match buffer[2..] {
            [a, b, ..] => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match buffer[2..] {
            [a, b, c, d, e, f, g, h, ..] => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10),
            _ => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if opcode.is_control() && length > MAX_CONTROL {
        return Err(CloseCode::Protocol);
    }
    if length > MAX_PAYLOAD {
        return Err(CloseCode::TooBig);
    }
    let length = usize::try_from(length).map_err(|_| CloseCode::TooBig)?;
    if buffer.len() < head + 4 + length {
        return Ok(None);
    }
    buffer.advance(head);
    let mask = [buffer[0], buffer[1], buffer[2], buffer[3]];
    buffer.advance(4);
    let mut payload = buffer.split_to(length);
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok(Some(Frame { opcode, payload: payload.freeze() }))
}

/// A whole message in one frame, as servers send it: not masked.
pub(super) fn encode(opcode: Opcode, payload: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(payload.len() + 10);
    bytes.put_u8(0x80 | opcode.bits());
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => bytes.put_u8(short),
        (_, Ok(length)) => {
            bytes.put_u8(126);
            bytes.put_u16(length);
        }
        _ => {
            bytes.put_u8(127);
            bytes.put_u64(payload.len() as u64);
        }
    }
    bytes.put_slice(payload);
    bytes
}

/// A close frame.
pub(super) fn close(code: CloseCode) -> BytesMut {
    encode(Opcode::Close, &code.number().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a client sends it.
    fn masked(first: u8, payload: &[u8]) -> BytesMut {
        let server = encode(Opcode::Binary, payload);
        let head = server.len() - payload.len();
        let mut bytes = BytesMut::from(&server[..head]);
        (bytes[0], bytes[1]) = (first, bytes[1] | 0x80);
        let mask = [1u8, 2, 3, 4];
        bytes.put_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    #[test]
    fn frames_come_apart_wherever_they_are_cut() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let whole = masked(0x82, &payload);
            for cut in [1, 2, 3, 5, 9, 13, whole.len() - 1] {
                let cut = cut.min(whole.len() - 1);
                let mut buffer = BytesMut::from(&whole[..cut]);
                assert_eq!(next(&mut buffer), Ok(None), "{size} {cut}");
                buffer.extend_from_slice(&whole[cut..]);
                let frame = next(&mut buffer).unwrap().unwrap();
                assert_eq!((frame.opcode, &frame.payload[..]), (Opcode::Binary, &payload[..]));
                assert!(buffer.is_empty());
            }
        }
    }

    #[test]
    fn what_no_client_may_send_closes_the_connection() {
        // Not masked; reserved bits; an unknown opcode; a ping in parts; a ping that is too long.
        assert_eq!(next(&mut encode(Opcode::Text, b"x")), Err(CloseCode::Protocol));
        for first in [0xc2, 0x83, 0x09] {
            assert_eq!(next(&mut masked(first, b"x")), Err(CloseCode::Protocol), "{first:x}");
        }
        assert_eq!(next(&mut masked(0x89, &[0; 126])), Err(CloseCode::Protocol));
        let mut huge = BytesMut::from(&[0x82u8, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4][..]);
        assert_eq!(next(&mut huge), Err(CloseCode::TooBig));
    }

    #[test]
    fn closing_says_why() {
        assert_eq!(close(CloseCode::Normal)[..], [0x88, 2, 0x03, 0xe8]);
    }
}
