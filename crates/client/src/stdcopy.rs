use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::{ClientError, Result};

/// Which of the container's streams bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input, echoed.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The engine's own error, said in the stream.
    System,
}

/// A piece of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it came from.
    pub source: Source,
    /// The bytes.
    pub bytes: Bytes,
}

/// Takes apart the stream of attach, exec and logs: 8 bytes of header (stream, 3 zeros, length) before each piece.
///
/// Frames are handed on as their bytes arrive: a long one comes in several pieces.
#[derive(Debug, Default)]
pub struct Demultiplexer {
    header: BytesMut,
    /// The stream and the rest of the frame we are in.
    current: Option<(Source, usize)>,
}

const HEADER: usize = 8;

impl Demultiplexer {
    /// Takes a chunk and gives the pieces in it.
    ///
    /// # Errors
    ///
    /// A header names a stream that does not exist: the stream is not multiplexed.
    pub fn push(&mut self, mut chunk: Bytes) -> Result<VecDeque<Frame>> {
        let mut frames = VecDeque::new();
        while !chunk.is_empty() {
            let Some((source, left)) = self.current else {
                let wanted = (HEADER - self.header.len()).min(chunk.len());
                self.header.extend_from_slice(&chunk.split_to(wanted));
                if self.header.len() == HEADER {
                    let source = source(self.header[0])?;
                    self.header.advance(4);
                    let size = self.header.get_u32() as usize;
                    self.current = (size > 0).then_some((source, size));
                }
                continue;
            };
            let bytes = chunk.split_to(left.min(chunk.len()));
            let left = left - bytes.len();
            self.current = (left > 0).then_some((source, left));
            frames.push_back(Frame { source, bytes });
        }
        Ok(frames)
    }
}

fn source(number: u8) -> Result<Source> {
    match number {
        0 => Ok(Source::Stdin),
        1 => Ok(Source::Stdout),
        2 => Ok(Source::Stderr),
        3 => Ok(Source::System),
        other => Err(ClientError::Protocol(format!("Unrecognized input header: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_give_the_same_bytes() {
        let stream = b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\x01!";
        for size in 1..=stream.len() {
            let mut demultiplexer = Demultiplexer::default();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                for frame in demultiplexer.push(Bytes::copy_from_slice(chunk)).unwrap() {
                    if frame.source == Source::Stdout { &mut out } else { &mut err }.extend_from_slice(&frame.bytes);
                }
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"hello!"[..], &b"err"[..]), "{size}");
        }
        assert!(Demultiplexer::default().push(Bytes::from_static(b"plain text")).is_err());
    }
}
