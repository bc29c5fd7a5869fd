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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What `xz` and `bzip2` make of `hello\n`.
    const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a301000568656c6c6f0a000000a56097f194f6fde0\
                      00011e06c12fa41d1fb6f37d010000000004595a";
    const BZIP2: &str = "425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn each_kind_is_told_and_read() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello\n").unwrap();
        for (input, kind) in [
            (b"hello\n".to_vec(), Compression::None),
            (gzip.finish().unwrap(), Compression::Gzip),
            (zstd::encode_all(&b"hello\n"[..], 1).unwrap(), Compression::Zstd),
            (bytes(XZ), Compression::Xz),
        ] {
            let (found, mut reader) = decompressed(input.as_slice()).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!((found, text.as_str()), (kind, "hello\n"));
        }
        assert_eq!(decompressed(bytes(BZIP2).as_slice()).err().unwrap().kind(), io::ErrorKind::Unsupported);
        let (kind, mut reader) = decompressed(io::empty()).unwrap();
        assert_eq!((kind, reader.read(&mut [0]).unwrap()), (Compression::None, 0));
    }
}
