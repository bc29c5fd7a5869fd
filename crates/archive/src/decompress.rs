//! Streams that may be compressed, told by their first bytes: what a name or a media type says is often wrong.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;

/// What the longest mark of a compression has.
const MARK: usize = 10;

/// KiB that the decoder of xz may take: four times what its best preset needs. A stream may ask for gigabytes.
const MAX_XZ_KIB: u32 = 256 << 10;

/// The stream without its compression: none, gzip, zstd, xz or bzip2.
///
/// # Errors
/// When the stream cannot be read.
pub fn decompressed<'a>(input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut input = BufReader::with_capacity(1 << 18, input);
    // A pipe may give its first bytes one by one.
    let mut first = Vec::new();
    (&mut input).take(MARK as u64).read_to_end(&mut first)?;
    let kind = Compression::of(&first);
    // Buffered once more, as a chain gives its first part alone.
    let input = Cursor::new(first).chain(input);
    Ok(match kind {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(gzip(input)),
        Compression::Zstd => zstd(input)?,
        Compression::Xz => Box::new(XzReader::new_mem_limit(Whole(input), true, MAX_XZ_KIB)),
        Compression::Bzip2 => Box::new(MultiBzDecoder::new(input)),
    })
}

/// Members one after another, as gzip(1) reads them: zeros that pad a file to whole blocks are its end.
fn gzip<'a>(input: impl BufRead + 'a) -> impl Read + 'a {
    Members { input: Some(GzDecoder::new(input)) }
}

struct Members<R> {
    input: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.input else { return Ok(0) };
            let count = member.read(bytes)?;
            if count > 0 || bytes.is_empty() {
                return Ok(count);
            }
            let Some(mut rest) = self.input.take().map(GzDecoder::into_inner) else { return Ok(0) };
            if is_over(&mut rest)? {
                return Ok(0);
            }
            self.input = Some(GzDecoder::new(rest));
        }
    }
}

/// Whether nothing follows, or zeros alone.
fn is_over(rest: &mut impl BufRead) -> io::Result<bool> {
    let mut padded = false;
    loop {
        let buffer = rest.fill_buf()?;
        if buffer.is_empty() {
            return Ok(true);
        }
        if buffer.iter().any(|byte| *byte != 0) {
            return if padded || buffer[0] == 0 {
                Err(io::Error::other("there is something behind its end"))
            } else {
                Ok(false)
            };
        }
        padded = true;
        let count = buffer.len();
        rest.consume(count);
    }
}

fn zstd<'a>(input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(Box::new(zstd::Decoder::with_buffer(input)?))
}

/// Gives all that is asked for, if it is there: the decoder of xz takes less for the end.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.0.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame to be skipped, which may be the first one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // With the mark of a block or of the end: a tar may begin with a file that is called `BZh…`.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What `xz` and `bzip2` make of `hello\n`, and `bzip2` of nothing.
    const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a301000568656c6c6f0a000000a56097f194f6fde0\
                      00011e06c12fa41d1fb6f37d010000000004595a";
    const BZIP2: &str = "425a6839314159265359c1c080e2000001410000100244a00030cd00c3462997177245385090c1c080e2";
    const EMPTY_BZIP2: &str = "425a683917724538509000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// Gives a byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let one = bytes.len().min(1);
            self.0.read(&mut bytes[..one])
        }
    }

    fn text(input: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        decompressed(Slow(input))?.read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn each_kind_is_told_and_read() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"hello\n").unwrap();
        let gzip = gzip.finish().unwrap();
        let (padded, members) = ([&gzip[..], &[0; 700_000]].concat(), [&gzip[..], &gzip].concat());
        assert_eq!((text(&padded).unwrap(), text(&members).unwrap()), ("hello\n".into(), "hello\nhello\n".into()));
        text(&[&padded[..], b"x"].concat()).unwrap_err();
        text(&[&gzip[..], b"x"].concat()).unwrap_err();
        text(&gzip[..gzip.len() - 3]).unwrap_err();
        let zstd = zstd::encode_all(&b"hello\n"[..], 1).unwrap();
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0xff][..], &zstd].concat();
        for input in [b"hello\n".to_vec(), gzip, zstd, skipped, bytes(XZ), bytes(BZIP2)] {
            assert_eq!(text(&input).unwrap(), "hello\n");
        }
        let twice = [bytes(BZIP2), bytes(BZIP2)].concat();
        assert_eq!(text(&twice).unwrap(), "hello\nhello\n", "as pbzip2 writes it");
        assert_eq!((text(b"").unwrap(), text(&bytes(EMPTY_BZIP2)).unwrap()), (String::new(), String::new()));
        assert_eq!(text(b"BZh9 is a name").unwrap(), "BZh9 is a name");
    }

    /// What `xz --lzma2=dict=1GiB` makes of `hello\n`: the byte of the dictionary's size is another.
    #[test]
    fn a_stream_that_wants_too_much_memory_is_refused() {
        let mut greedy = bytes(XZ);
        // The block's header, which ends with its checksum.
        assert_eq!(&greedy[14..17], [0x21, 0x01, 0x16]);
        greedy[16] = 40;
        let sum = crc32(&greedy[12..20]);
        greedy[20..24].copy_from_slice(&sum.to_le_bytes());
        let error = text(&greedy).unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }

    #[test]
    fn damage_is_an_error() {
        for good in [XZ, BZIP2] {
            let good = bytes(good);
            assert!(text(&good[..good.len() - 6]).is_err());
            let mut bad = good.clone();
            bad[24] ^= 0x55;
            assert!(text(&bad).is_err());
        }
    }
}
