//! Streams that may be compressed, told by their first bytes.

use std::io::{self, BufRead, BufReader, Read};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

const MAGIC: &[(&[u8], Compression)] = &[
    (b"\x1f\x8b\x08", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
];

impl Compression {
    fn of(first: &[u8]) -> Self {
        MAGIC.iter().find(|(magic, _)| first.starts_with(magic)).map_or(Self::None, |(_, kind)| *kind)
    }
}

/// The stream as it was before it was compressed.
///
/// # Errors
/// When it cannot be read, and for bzip2, which this does not read.
pub(crate) fn decompressed<'a>(input: impl Read + Send + 'a) -> io::Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut input = BufReader::with_capacity(1 << 18, input);
    // A pipe may give its first bytes one by one.
    let mut first = Vec::new();
    while first.len() < 6 {
        let more = input.fill_buf()?;
        if more.is_empty() {
            break;
        }
        let taken = more.len().min(6 - first.len());
        first.extend_from_slice(&more[..taken]);
        input.consume(taken);
    }
    let kind = Compression::of(&first);
    let input = BufReader::with_capacity(1 << 18, io::Cursor::new(first).chain(input));
    let reader: Box<dyn Read + Send> = match kind {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(input, true)),
        Compression::Bzip2 => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "bzip2-compressed archives are not supported"));
        }
    };
    Ok((kind, reader))
}
