//! Docker's multiplexed stream: a header of eight bytes (stream, three zeros, length) before each piece.

use bytes::{BufMut, Bytes, BytesMut};

const HEAD: usize = 8;

/// Which stream a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 1,
}

/// One piece with its header.
pub(crate) fn frame(stream: Stream, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + bytes.len());
    out.put_u8(stream as u8);
    out.put_bytes(0, 3);
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
    out.freeze()
}

/// Takes the headers out of a stream, wherever it is cut.
#[derive(Debug, Default)]
pub(crate) struct Unframer {
    head: [u8; HEAD],
    have: usize,
    /// Bytes of the piece that are still to come.
    left: usize,
}

impl Unframer {
    /// The content of the next bytes of a stream.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if self.left > 0 {
                let (own, rest) = bytes.split_at(self.left.min(bytes.len()));
                out.extend_from_slice(own);
                self.left -= own.len();
                bytes = rest;
                continue;
            }
            let (own, rest) = bytes.split_at((HEAD - self.have).min(bytes.len()));
            self.head[self.have..self.have + own.len()].copy_from_slice(own);
            self.have += own.len();
            bytes = rest;
            if self.have == HEAD {
                let [.., a, b, c, d] = self.head;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                self.have = 0;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_go_wherever_the_stream_is_cut() {
        let mut all = frame(Stream::Stdout, b"hello ").to_vec();
        all.extend_from_slice(&frame(Stream::Stdout, b""));
        all.extend_from_slice(&frame(Stream::Stdout, b"world"));
        for size in 1..all.len() {
            let mut unframer = Unframer::default();
            let out: Vec<u8> = all.chunks(size).flat_map(|chunk| unframer.push(chunk)).collect();
            assert_eq!(out, b"hello world", "{size}");
        }
    }
}
