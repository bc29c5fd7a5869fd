//! What goes to the builder beside the context: secrets and named contexts. Only Wharf's own engine takes them.
//!
//! The form is that of `application/vnd.wharf.build`: JSON behind its length, then each archive in pieces, each behind
//! its length, with a length of 0 at its end.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Map, Value, json};
use wharf_dockerfile::{Ignore, Needs};
use wharf_git::Repository;

use super::agent::Agents;
use super::checkout::Checkout;
use super::context::{self, Context};
use super::layout::Layout;
use super::listing::Listing;
use crate::failure::Outcome;
use crate::options::secret;
use crate::parse::Matches;
use crate::tar::{Pack, PackError, pack};

pub(super) const MEDIA_TYPE: &str = "application/vnd.wharf.build";

/// All of it.
#[derive(Debug)]
pub(super) struct Parts {
    head: Value,
    /// Those of named contexts that are sent, by their numbers.
    sent: Vec<(usize, Sent)>,
    contexts: usize,
}

#[derive(Debug)]
enum Sent {
    Directory(Directory),
    Layout(Layout),
}

#[derive(Debug)]
struct Directory {
    dir: PathBuf,
    ignore: Ignore,
    checkout: Option<Checkout>,
}

/// Refuses what is no `NAME=WHERE`.
pub(super) fn check_context(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, place)) if !name.is_empty() && !place.is_empty() => Ok(()),
        _ => Err(format!("invalid context value: {text}, expected key=value")),
    }
}

impl Parts {
    /// Nothing of the kind.
    pub(super) fn none() -> Self {
        Self { head: json!({}), sent: Vec::new(), contexts: 0 }
    }

    /// What the flags ask for; nothing when they ask for nothing of the kind.
    pub(super) fn of(matches: &Matches, agents: &Agents) -> Outcome<Option<Self>> {
        let (given, secrets) = (matches.all("build-context"), matches.all("secret"));
        if given.is_empty() && secrets.is_empty() && agents.is_empty() {
            return Ok(None);
        }
        let (_, secrets): (_, Map<String, Value>) = secret::read(secrets)?;
        let (mut contexts, mut sent) = (Vec::new(), Vec::new());
        for text in given {
            let (name, place) = text.split_once('=').unwrap_or((text, ""));
            if let Some(image) = place.strip_prefix("docker-image://") {
                crate::references::parse(image)?;
                contexts.push(json!({ "Name": name, "Image": image }));
            } else if let Some(place) = place.strip_prefix("oci-layout://") {
                let layout = Layout::find(name, place)?;
                contexts.push(json!({ "Name": name, "Layout": layout.name }));
                sent.push((contexts.len() - 1, Sent::Layout(layout)));
            } else if place.starts_with("target:") {
                return Err(format!(
                    "the build context {name}={place} is for bake alone: name the stage in the Dockerfile"
                )
                .into());
            } else if Repository::is_address(place) {
                let checkout = Checkout::get(place, context::keeps_git_dir(matches))?;
                let dir = checkout.dir.clone();
                let directory = Directory { ignore: context::ignore_of(&dir)?, dir, checkout: Some(checkout) };
                sent.push((contexts.len(), Sent::Directory(directory)));
                contexts.push(json!({ "Name": name }));
            } else if place.starts_with("http://") || place.starts_with("https://") {
                contexts.push(json!({ "Name": name, "Remote": place }));
            } else {
                let wrong = |error: io::Error| {
                    format!(
                        "failed to get build context {name}: {}",
                        wharf_report::path("stat", place.as_ref(), &error)
                    )
                };
                let dir = std::fs::canonicalize(place).map_err(wrong)?;
                if !dir.is_dir() {
                    return Err(format!("failed to get build context {name}: {place} is not a directory").into());
                }
                let directory = Directory { ignore: context::ignore_of(&dir)?, dir, checkout: None };
                sent.push((contexts.len(), Sent::Directory(directory)));
                contexts.push(json!({ "Name": name }));
            }
        }
        let contexts_given = contexts.len();
        let mut head = json!({ "Secrets": secrets, "Contexts": contexts });
        agents.tell(&mut head);
        Ok(Some(Self { head, sent, contexts: contexts_given }))
    }

    /// Writes all: directories as listings, unless they are to be compressed or will be gone. The listings by number:
    /// that of the context, then those of the named ones.
    pub(super) fn write<W: Write>(
        mut self,
        context: &Context,
        compress: bool,
        output: &mut W,
    ) -> Result<Vec<Option<Listing>>, PackError> {
        let mut listings: Vec<Option<Listing>> = (0..=self.contexts).map(|_| None).collect();
        if !compress {
            listings[0] = context.listing(false)?;
            for (number, sent) in &self.sent {
                let Sent::Directory(directory) = sent else { continue };
                listings[number + 1] = directory.listing()?;
                self.head["Contexts"][number]["Listed"] = listings[number + 1].is_some().into();
            }
        }
        self.head["Listed"] = listings[0].is_some().into();
        let head = serde_json::to_vec(&self.head).unwrap_or_default();
        output.write_all(&length(head.len())?)?;
        output.write_all(&head)?;
        if let Some(listing) = &mut listings[0] {
            in_pieces(&listing.take_bytes(), output)?;
        } else if context.remote().is_none() {
            let mut pieces = Pieces::new(output);
            if compress {
                let gzip = flate2::write::GzEncoder::new(&mut pieces, flate2::Compression::default());
                context.write(gzip)?.finish()?;
            } else {
                context.write(&mut pieces)?;
            }
            pieces.finish()?;
        }
        for (number, sent) in &self.sent {
            if let Some(listing) = &mut listings[number + 1] {
                in_pieces(&listing.take_bytes(), output)?;
                continue;
            }
            let mut pieces = Pieces::new(output);
            match sent {
                Sent::Directory(Directory { dir, ignore, .. }) => {
                    pack(dir, &Pack { ignore: Some(ignore), as_root: true, ..Pack::default() }, &mut pieces)?;
                }
                Sent::Layout(layout) => drop(layout.write(&mut pieces)?),
            }
            pieces.finish()?;
        }
        Ok(listings)
    }
}

impl Directory {
    /// A checkout is another one each time.
    fn listing(&self) -> Result<Option<Listing>, PackError> {
        match self.checkout {
            Some(_) => Ok(None),
            None => Listing::of(&self.dir, &self.ignore, &[], &[], &Needs::All).map(Some),
        }
    }
}

/// Writes bytes as a part of the request.
pub(super) fn in_pieces<W: Write>(bytes: &[u8], output: &mut W) -> io::Result<()> {
    let mut pieces = Pieces::new(output);
    bytes.chunks(PIECE).try_for_each(|chunk| pieces.write_all(chunk))?;
    pieces.finish()
}

fn length(count: usize) -> io::Result<[u8; 4]> {
    let count = u32::try_from(count).map_err(|_| io::Error::other("a piece is too long"))?;
    Ok(count.to_be_bytes())
}

/// An archive in pieces.
#[derive(Debug)]
pub(super) struct Pieces<'a, W: Write> {
    output: &'a mut W,
    piece: Vec<u8>,
}

const PIECE: usize = 256 * 1024;

impl<'a, W: Write> Pieces<'a, W> {
    pub(super) fn new(output: &'a mut W) -> Self {
        Self { output, piece: Vec::with_capacity(PIECE) }
    }

    fn put(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.output.write_all(&length(self.piece.len())?)?;
            self.output.write_all(&self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.put()?;
        self.output.write_all(&length(0)?)
    }
}

impl<W: Write> Write for Pieces<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.put()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_behind_their_lengths() {
        let mut output = Vec::new();
        let mut pieces = Pieces::new(&mut output);
        pieces.write_all(b"ab").unwrap();
        pieces.write_all(b"c").unwrap();
        pieces.finish().unwrap();
        assert_eq!(output, b"\0\0\0\x03abc\0\0\0\0");
        assert!(check_context("a=.").is_ok() && check_context("a").is_err() && check_context("=x").is_err());
    }
}
