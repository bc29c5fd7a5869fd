//! Streams that may be compressed.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use lzma_rust2::XzReader;

use crate::{ImageError, Result};

/// What the longest mark of a compression has.
const MARK: usize = 6;

/// The stream without its compression, which its first bytes tell: none, gzip, zstd or xz.
///
/// # Errors
/// `Invalid` for bzip2; when the stream cannot be read.
pub fn decompressed<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let fail = |e| ImageError::Io("the archive cannot be read", e);
    let mut input = BufReader::with_capacity(1 << 18, input);
    // A pipe may give its first bytes one by one.
    let mut start = Vec::new();
    (&mut input).take(MARK as u64).read_to_end(&mut start).map_err(fail)?;
    let kind = match start.as_slice() {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return Ok(Box::new(XzReader::new(Cursor::new(start).chain(input), true))),
        [b'B', b'Z', b'h', ..] => {
            let text = "archives compressed with bzip2 are not supported: use gzip, zstd or xz";
            return Err(ImageError::Invalid(text.into()));
        }
        _ => "",
    };
    by_name(Cursor::new(start).chain(input), kind).map_err(fail)
}

/// The tar stream of a blob, by the end of its media type (OCI image-spec, "Media Types"; Docker's).
///
/// # Errors
/// When the stream cannot be read.
pub(crate) fn by_name<'a>(input: impl BufRead + 'a, media_type: &str) -> io::Result<Box<dyn Read + 'a>> {
    Ok(if media_type.ends_with("gzip") {
        Box::new(flate2::bufread::MultiGzDecoder::new(input))
    } else if media_type.ends_with("zstd") {
        Box::new(zstd::Decoder::with_buffer(input)?)
    } else {
        Box::new(input)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What `printf text | xz` writes.
    #[rustfmt::skip]
    const XZ: &[u8] = &[
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01,
        0x16, 0x00, 0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x03, 0x74, 0x65, 0x78, 0x74, 0x00,
        0x55, 0xcd, 0xe8, 0x33, 0xff, 0x4a, 0x0c, 0x17, 0x00, 0x01, 0x1c, 0x04, 0x6f, 0x2c, 0x9c, 0xc1,
        0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
    ];

    /// Gives a byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let one = bytes.len().min(1);
            self.0.read(&mut bytes[..one])
        }
    }

    #[test]
    fn what_it_is_shows_in_its_first_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"text").unwrap();
        let zstd = zstd::encode_all(&b"text"[..], 1).unwrap();
        for bytes in [b"text".to_vec(), gzip.finish().unwrap(), zstd, XZ.to_vec()] {
            let mut text = String::new();
            decompressed(Slow(&bytes)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
        }
        assert_eq!(io::copy(&mut decompressed(&b""[..]).unwrap(), &mut io::sink()).unwrap(), 0);
        assert!(decompressed(&b"BZh91AY"[..]).is_err());
    }
}
