//! Content digests, `algorithm:hex` (OCI image-spec, "Digests").

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("invalid digest `{0}`: it has no `algorithm:` in front")]
    NoAlgorithm(String),
    #[error("unsupported digest algorithm `{0}`; sha256 and sha512 are known")]
    Algorithm(String),
    #[error("invalid digest `{0}`: lower case hex digits of the algorithm's length must follow the colon")]
    Hex(String),
}

/// A digest whose form has been checked: it is safe as a file name and compares by bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    text: String,
    colon: usize,
}

impl Digest {
    /// Digests `bytes` with SHA-256.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// Wraps a SHA-256 that was computed elsewhere.
    pub fn from_sha256(sum: [u8; 32]) -> Self {
        let mut text = String::with_capacity(7 + 64);
        text.push_str("sha256:");
        for byte in sum {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Self { text, colon: 6 }
    }

    /// Checks and takes a digest.
    ///
    /// # Errors
    /// When the algorithm is not known or the digits are not its.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(clip(text)))?;
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(DigestError::Algorithm(clip(algorithm))),
        };
        if hex.len() != length || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Hex(clip(text)));
        }
        Ok(Self { text: text.to_owned(), colon: algorithm.len() })
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.text[..self.colon]
    }

    /// The digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// The first twelve digits, as tables show IDs.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Hostile text ends in messages: no more of it than a person can read.
fn clip(text: &str) -> String {
    text.chars().take(160).filter(|c| !c.is_control()).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// SHA-256 of what is written to it.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    count: u64,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Hasher {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.count += bytes.len() as u64;
    }

    /// Bytes so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn finish(self) -> Digest {
        Digest::from_sha256(self.state.finalize().into())
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_computed_and_parsed() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert_eq!(Hasher::new().finish().to_string(), EMPTY);
        let digest = Digest::parse(EMPTY).unwrap();
        assert_eq!((digest.algorithm(), digest.short()), ("sha256", "e3b0c44298fc"));
    }

    #[test]
    fn nothing_that_could_be_a_path_passes() {
        for bad in ["", "sha256", "sha256:", "md5:00", "sha256:../../etc", &EMPTY.to_uppercase(), &EMPTY[..70]] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
