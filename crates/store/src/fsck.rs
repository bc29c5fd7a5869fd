//! What `system fsck` says: the words for it, shared by all who look after a part of the data root.

use std::fmt;
use std::fs;
use std::io;

use serde::Serialize;
use wharf_reference::{Digest, Hasher};

use crate::{Blobs, Result, StoreError};

/// What is wrong with a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// Its bytes are not what its name, its digest or its row says.
    Damaged,
    /// A row has it, and it is not on the disk.
    Missing,
    /// It is on the disk, and no row has it.
    Unowned,
    /// A row that leads nowhere.
    Dangling,
    /// It is there, and the disk does not give it.
    Unreadable,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Repaired,
    /// Nothing was done, as nothing was to be done.
    Found,
    /// It could not be repaired; the text says why.
    Left,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    pub problem: Problem,
    /// What it is, with its name: `blob sha256:…`.
    pub what: String,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// What was done, or would be, or why nothing was.
    pub repair: String,
    pub outcome: Outcome,
}

/// Something that is as it should be and still worth a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Note {
    pub what: String,
    pub bytes: u64,
    pub why: String,
}

/// A look at the data root that is under way.
#[derive(Debug, Default)]
pub struct Fsck {
    dry_run: bool,
    deep: bool,
    findings: Vec<Finding>,
    notes: Vec<Note>,
    looked_at: u64,
    bytes_read: u64,
}

impl Fsck {
    /// With `dry_run` nothing is changed; `deep` reads each layer whole.
    pub fn new(dry_run: bool, deep: bool) -> Self {
        Self { dry_run, deep, ..Self::default() }
    }

    pub fn dry_run(&self) -> bool {
        self.dry_run
    }

    pub fn deep(&self) -> bool {
        self.deep
    }

    /// All that is wrong, in the order in which it was found.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// All of it as the API answers, and `wharf system fsck` reads.
    pub fn report(&self) -> serde_json::Value {
        serde_json::json!({
            "DryRun": self.dry_run,
            "Deep": self.deep,
            "LookedAt": self.looked_at,
            "BytesRead": self.bytes_read,
            "Findings": self.findings,
            "Notes": self.notes,
        })
    }

    /// How many things were looked at.
    pub fn looked_at(&self) -> u64 {
        self.looked_at
    }

    /// Bytes that were read to compare them with their digests.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// One more thing is looked at, with so many bytes read.
    pub fn look(&mut self, bytes: u64) {
        self.looked_at += 1;
        self.bytes_read += bytes;
    }

    /// Something is wrong and `mend` repairs it, unless nothing is to be changed. Each repair is one that may be cut off
    /// at any point: what is left of it is found by the next look.
    pub fn repair<E: std::error::Error>(
        &mut self,
        problem: Problem,
        what: impl fmt::Display,
        bytes: u64,
        repair: impl Into<String>,
        mend: impl FnOnce() -> std::result::Result<(), E>,
    ) {
        let mut repair = repair.into();
        let outcome = match self.dry_run {
            true => Outcome::Found,
            false => match mend() {
                Ok(()) => Outcome::Repaired,
                Err(error) => {
                    repair = format!("{repair}: {}", words(&error));
                    Outcome::Left
                }
            },
        };
        self.findings.push(Finding { problem, what: what.to_string(), bytes, repair, outcome });
    }

    /// Something was wrong, and looking at it has repaired it.
    pub fn mended(&mut self, problem: Problem, what: impl fmt::Display, repair: impl Into<String>) {
        let (what, repair) = (what.to_string(), repair.into());
        self.findings.push(Finding { problem, what, bytes: 0, repair, outcome: Outcome::Repaired });
    }

    /// Something is wrong and cannot be repaired now.
    pub fn leave(&mut self, problem: Problem, what: impl fmt::Display, bytes: u64, why: impl Into<String>) {
        let outcome = if self.dry_run { Outcome::Found } else { Outcome::Left };
        self.findings.push(Finding { problem, what: what.to_string(), bytes, repair: why.into(), outcome });
    }

    pub fn note(&mut self, what: impl fmt::Display, bytes: u64, why: impl Into<String>) {
        self.notes.push(Note { what: what.to_string(), bytes, why: why.into() });
    }
}

/// An error with its causes, in one line.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

impl Blobs {
    /// Reads a blob whole and tells whether its bytes have its digest, with how many there are; `None` when there is no
    /// such blob. What is no file has nobody's digest, and is not opened: a FIFO would never give its end.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn verify(&self, digest: &Digest) -> Result<Option<(bool, u64)>> {
        match fs::metadata(self.path(digest)) {
            Ok(found) if !found.is_file() => return Ok(Some((false, 0))),
            Ok(_) => {}
            // A link to nothing is none, either.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.path(digest).symlink_metadata().is_ok().then_some((false, 0)));
            }
            Err(error) => return Err(StoreError::file("read", self.path(digest))(error)),
        }
        let mut file = match self.reader(digest) {
            Err(StoreError::NoBlob(_)) => return Ok(None),
            opened => opened?,
        };
        let mut hasher = Hasher::with(digest.algorithm());
        let bytes = io::copy(&mut file, &mut hasher).map_err(StoreError::file("read", self.path(digest)))?;
        Ok(Some((hasher.finish() == *digest, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_repairs_nothing_and_a_repair_that_fails_says_why() {
        let mut dry = Fsck::new(true, false);
        dry.repair(Problem::Unowned, "blob x", 7, "deleted", || -> io::Result<()> { panic!("not in a dry run") });
        assert_eq!(dry.findings()[0].outcome, Outcome::Found);
        let mut wet = Fsck::new(false, false);
        wet.repair(Problem::Unowned, "blob x", 7, "deleted", || Ok::<_, io::Error>(()));
        wet.repair(Problem::Unowned, "blob y", 7, "deleted", || Err(io::Error::other("the disk is gone")));
        assert_eq!(wet.findings()[0].outcome, Outcome::Repaired);
        assert_eq!(wet.findings()[1].outcome, Outcome::Left);
        assert_eq!(wet.findings()[1].repair, "deleted: the disk is gone");
    }
}
