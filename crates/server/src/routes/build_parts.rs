//! A build's request with more than a context in it, for Wharf's own client.
//!
//! ```text
//! Content-Type: application/vnd.wharf.build
//! length (u32, big endian), JSON: Secrets, Contexts, Agents, Token
//! for the context, unless `remote=` names it, and for each of Contexts without Image and Remote:
//!     length (u32), so many bytes of a tar archive, or with Listed of a listing; again and again; 0
//! for each line {"aux":{"Wanted":{"Listing":N,"Entries":[[FIRST,COUNT],…]}}} of the answer:
//!     length (u32), so many bytes of the contents of these entries, as listings have them, one behind the other; again and again; 0
//! ```
//!
//! Listings are what `wharf_build` says of them; that of the context is number 0, those of Contexts follow. Where the first is
//! a part and all of the context is needed after all, the line has the number behind these and no entries, and what comes is
//! the listing of all of it.
//!
//! Secrets are in no query and no header, which proxies and logs like to keep.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio::sync::mpsc;
use wharf_build::{Answers, BuildError, BuildEvent};

use crate::http::ApiError;

pub(super) const MEDIA_TYPE: &str = "application/vnd.wharf.build";
/// More is no listing.
const MAX_LISTING: u64 = 1 << 30;
/// BuildKit takes secrets of 500 KiB each.
const MAX_HEAD: u32 = 16 << 20;

/// What comes first.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Head {
    /// Contents by ID, in base64.
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) contexts: Vec<Named>,
    /// IDs of SSH agents, whose connections come by `POST /build/agent` with this token.
    pub(super) agents: Vec<String>,
    pub(super) token: String,
    /// The context comes as a listing.
    pub(super) listed: bool,
}

/// A named context.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Named {
    pub(super) name: String,
    /// It is an image.
    pub(super) image: Option<String>,
    /// It comes as an archive of an OCI layout, in which the image has this name.
    pub(super) layout: Option<String>,
    /// It is at this address.
    pub(super) remote: Option<String>,
    /// It comes as a listing.
    #[serde(default)]
    pub(super) listed: bool,
}

type Input = Box<dyn Read + Send>;

/// Reads what comes first. The value behind it gives the archives, in their order.
pub(super) fn read(mut input: Input) -> std::result::Result<(Head, Parts), ApiError> {
    let broken = |e: io::Error| ApiError::bad(format!("the build's request cannot be read: {e}"));
    let length = number(&mut input).map_err(broken)?;
    if length > MAX_HEAD {
        return Err(ApiError::bad(format!("the build's request begins with more than {MAX_HEAD} bytes")));
    }
    let mut json = vec![0; length as usize];
    input.read_exact(&mut json).map_err(broken)?;
    // What is wrong with it may be a secret.
    let head = serde_json::from_slice(&json).map_err(|e| {
        ApiError::bad(format!("the build's request makes no sense at column {} of its JSON", e.column()))
    })?;
    let stream = Stream { input, part: 0, left: 0 };
    Ok((head, Parts { stream: Arc::new(Mutex::new(stream)), next: 0 }))
}

fn number(input: &mut Input) -> io::Result<u32> {
    let mut bytes = [0; 4];
    input.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

struct Stream {
    input: Input,
    /// The archive that comes now.
    part: usize,
    /// Bytes of its piece.
    left: u32,
}

/// The archives of a request.
pub(super) struct Parts {
    stream: Arc<Mutex<Stream>>,
    next: usize,
}

impl Parts {
    /// The next one. They have to be read in their order; what is not read of one is passed over.
    pub(super) fn next(&mut self) -> Input {
        self.next += 1;
        Box::new(Part { stream: Arc::clone(&self.stream), number: self.next - 1 })
    }
}

/// Asks the client for what it has listed: the question goes with the answer to its request, and the contents come as
/// further parts of that.
pub(super) struct Asking {
    parts: Mutex<Parts>,
    events: mpsc::Sender<BuildEvent>,
}

impl Asking {
    /// `parts` with nothing to come but contents.
    pub(super) fn new(parts: Parts, events: mpsc::Sender<BuildEvent>) -> Self {
        Self { parts: Mutex::new(parts), events }
    }
}

impl Answers for Asking {
    fn ask(
        &self,
        listing: usize,
        wanted: &[Range<u32>],
        read: &mut dyn FnMut(&mut dyn Read) -> wharf_build::Result<()>,
    ) -> wharf_build::Result<()> {
        // As long as this is held nobody else asks, and the next part is the answer.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let event = BuildEvent::Wanted { listing, entries: wanted.to_vec() };
        self.events.blocking_send(event).map_err(|_| BuildError::cancelled())?;
        read(&mut parts.next())
    }

    fn ask_whole(&self, number: usize) -> wharf_build::Result<Box<dyn Read + Send>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let event = BuildEvent::Wanted { listing: number, entries: Vec::new() };
        self.events.blocking_send(event).map_err(|_| BuildError::cancelled())?;
        // Read whole before anybody else may ask: what comes next would be taken for a part of it.
        let mut bytes = Vec::new();
        let read = parts.next().take(MAX_LISTING).read_to_end(&mut bytes);
        read.map_err(|_| BuildError::cancelled())?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }
}

struct Part {
    stream: Arc<Mutex<Stream>>,
    number: usize,
}

impl Read for Part {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut passed = [0; 8192];
        loop {
            if stream.part > self.number {
                return Ok(0);
            }
            if stream.left == 0 {
                stream.left = number(&mut stream.input)?;
                if stream.left == 0 {
                    stream.part += 1;
                }
                continue;
            }
            let into: &mut [u8] = if stream.part == self.number { bytes } else { &mut passed };
            let most = into.len().min(stream.left as usize);
            let count = stream.input.read(&mut into[..most])?;
            if count == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            stream.left -= count as u32;
            if stream.part == self.number {
                return Ok(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(parts: &[&[&str]]) -> Vec<u8> {
        let json = br#"{"Secrets":{"a":"eA=="},"Contexts":[{"Name":"n"},{"Name":"i","Image":"x"}]}"#;
        let piece = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        let mut all = piece(json);
        for pieces in parts {
            pieces.iter().for_each(|text| all.extend(piece(text.as_bytes())));
            all.extend([0; 4]);
        }
        all
    }

    #[test]
    fn archives_come_one_after_another() {
        let (head, mut parts) = read(Box::new(io::Cursor::new(framed(&[&["ab", "c"], &[], &["de"]])))).ok().unwrap();
        assert_eq!((head.secrets["a"].as_str(), head.contexts.len()), ("eA==", 2));
        let mut all = [parts.next(), parts.next(), parts.next()];
        let mut text = String::new();
        // What is not read of the first is passed over.
        all[0].read_exact(&mut [0; 1]).unwrap();
        for part in &mut all[1..] {
            part.read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "de");
    }

    #[test]
    fn a_part_of_a_request_is_an_error() {
        let whole = framed(&[&["abc"]]);
        let (_, mut parts) = read(Box::new(io::Cursor::new(whole[..whole.len() - 5].to_vec()))).ok().unwrap();
        assert!(parts.next().read_to_end(&mut Vec::new()).is_err());
        assert!(read(Box::new(io::Cursor::new(u32::MAX.to_be_bytes().to_vec()))).is_err());
        assert!(read(Box::new(io::Cursor::new(whole[..9].to_vec()))).is_err());
    }
}
