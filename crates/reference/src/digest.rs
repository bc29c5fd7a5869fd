//! Content digests, `algorithm:hex` (OCI image-spec, "Digests").

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

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

/// The algorithms of digests that are verified here (OCI image-spec, "Registered algorithms").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    #[default]
    Sha256,
    Sha512,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Algorithm {
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// As in front of a digest's colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm of that name; `None` when it is not known.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A digest whose form has been checked: it is safe as a file name and compares by bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    text: String,
    algorithm: Algorithm,
}

impl Digest {
    /// Digests `bytes` with SHA-256.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// Wraps a SHA-256 that was computed elsewhere.
    pub fn from_sha256(sum: [u8; 32]) -> Self {
        Self::from_sum(Algorithm::Sha256, &sum)
    }

    fn from_sum(algorithm: Algorithm, sum: &[u8]) -> Self {
        let mut text = String::with_capacity(7 + algorithm.digits());
        text.push_str(algorithm.as_str());
        text.push(':');
        for byte in sum {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Self { text, algorithm }
    }

    /// Digests `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::with(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Checks and takes a digest.
    ///
    /// # Errors
    /// When the algorithm is not known or the digits are not its.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or_else(|| DigestError::NoAlgorithm(clip(text)))?;
        let algorithm = Algorithm::of(name).ok_or_else(|| DigestError::Algorithm(clip(name)))?;
        if hex.len() != algorithm.digits() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Hex(clip(text)));
        }
        Ok(Self { text: text.to_owned(), algorithm })
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
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

/// The digest of what is written to it: SHA-256, if nothing else was asked for.
#[derive(Clone, Default)]
pub struct Hasher {
    state: State,
    count: u64,
}

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Default for State {
    fn default() -> Self {
        Self::Sha256(Sha256::default())
    }
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

    pub fn with(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::default(),
            Algorithm::Sha512 => State::Sha512(Sha512::default()),
        };
        Self { state, count: 0 }
    }

    pub fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
        self.count += bytes.len() as u64;
    }

    /// Bytes so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(state) => Digest::from_sha256(state.finalize().into()),
            State::Sha512(state) => Digest::from_sum(Algorithm::Sha512, &state.finalize()),
        }
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
    /// FIPS 180-4, "SHA-512 Example (One-Block Message)": of `abc`.
    const ABC: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    #[test]
    fn digests_are_computed_and_parsed() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert_eq!(Hasher::new().finish().to_string(), EMPTY);
        let digest = Digest::parse(EMPTY).unwrap();
        assert_eq!((digest.algorithm(), digest.short()), (Algorithm::Sha256, "e3b0c44298fc"));
        let digest = Digest::parse(ABC).unwrap();
        assert_eq!((digest.algorithm(), digest.hex().len()), (Algorithm::Sha512, 128));
        assert_eq!(Digest::of(Algorithm::Sha512, b"abc"), digest);
        assert_eq!(Digest::of(Algorithm::Sha256, b""), Digest::sha256(b""));
    }

    #[test]
    fn nothing_that_could_be_a_path_passes() {
        for bad in ["", "sha256", "sha256:", "md5:00", "sha256:../../etc", &EMPTY.to_uppercase(), &EMPTY[..70]] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
