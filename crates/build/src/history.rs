//! Builds that were, with what they have said.

use serde::{Deserialize, Serialize};
use wharf_reference::Digest;
use wharf_store::{Store, Table};

use crate::error::{BuildError, ErrorKind, Result};
use crate::request::BuildEvent;
use crate::why::{self, Noted};

const BUILDS: Table = Table::new("build-history");
/// What they have said, in pieces: `REFERENCE/NUMBER`.
const LOGS: Table = Table::new("build-logs");
/// So many are remembered, as by BuildKit.
const MOST: usize = 50;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Of one build no more is kept than this; the rest was told and is not remembered.
const MOST_SAID: usize = 16 << 20;

/// One build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Names the build. Later ones sort behind earlier ones.
    pub reference: String,
    pub dockerfile: String,
    pub target: Option<String>,
    pub tags: Vec<String>,
    /// Seconds since the epoch.
    pub started: i64,
    /// Milliseconds.
    pub took: u64,
    pub steps: u64,
    /// Steps that were not made again.
    pub cached: u64,
    /// The image; none when it failed.
    pub image: Option<String>,
    /// All that were made, where it was built for several platforms.
    #[serde(default)]
    pub images: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
    pub cancelled: bool,
    /// Its steps in the cache.
    #[serde(default)]
    pub keys: Vec<Digest>,
    /// Names of the cache mounts that its commands ask for.
    #[serde(default)]
    pub mounts: Vec<String>,
}

/// A build while it is under way.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) record: BuildRecord,
    began: std::time::Instant,
    pieces: Vec<String>,
    bytes: usize,
}

impl Recorder {
    pub(crate) fn new(id: &str, dockerfile: &str, target: Option<&str>, tags: &[String]) -> Self {
        let now = jiff::Timestamp::now();
        let record = BuildRecord {
            reference: format!("{:011x}{}", now.as_millisecond(), &id[..8.min(id.len())]),
            dockerfile: dockerfile.to_owned(),
            target: target.filter(|target| !target.is_empty()).map(str::to_owned),
            tags: tags.to_vec(),
            started: now.as_second(),
            took: 0,
            steps: 0,
            cached: 0,
            image: None,
            images: Vec::new(),
            error: None,
            cancelled: false,
            keys: Vec::new(),
            mounts: Vec::new(),
        };
        Self { record, began: std::time::Instant::now(), pieces: Vec::new(), bytes: 0 }
    }

    /// Notes what is told.
    pub(crate) fn hear(&mut self, event: &mut BuildEvent) {
        if let BuildEvent::Made { id, reference, .. } = event {
            reference.clone_from(&self.record.reference);
            self.record.images.push(id.clone());
        }
        let BuildEvent::Stream(text) = event else { return };
        if text == " ---> Using cache\n" {
            self.record.cached += 1;
        } else if text.starts_with("Step ") && text.contains(" : ") {
            self.record.steps += 1;
        }
        self.say(text);
    }

    fn say(&mut self, text: &str) {
        if self.bytes + text.len() > MOST_SAID {
            return;
        }
        self.bytes += text.len();
        match self.pieces.last_mut().filter(|last| last.len() + text.len() <= PIECE) {
            Some(last) => last.push_str(text),
            None => self.pieces.push(text.to_owned()),
        }
    }

    /// Keeps it, and forgets the oldest. What cannot be kept is not worth a failed build.
    pub(crate) fn keep(mut self, store: &Store, result: &Result<Digest>, noted: &Noted) {
        self.record.took = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(id) => self.record.image = Some(id.to_string()),
            Err(error) => {
                self.record.cancelled = error.kind == ErrorKind::Cancelled;
                self.record.error = Some(error.to_string());
                self.say(&format!("{error}\n"));
            }
        }
        let reference = self.record.reference.clone();
        let kept = store.write_soon(|tx| {
            for (number, piece) in self.pieces.iter().enumerate() {
                tx.put(LOGS, &format!("{reference}/{number:06}"), piece)?;
            }
            tx.put(BUILDS, &reference, &self.record)?;
            noted.keep(tx, &reference)?;
            let all: Vec<(String, BuildRecord)> = tx.list(BUILDS)?;
            for (old, _) in all.iter().take(all.len().saturating_sub(MOST)) {
                forget(tx, old)?;
            }
            Ok::<_, BuildError>(())
        });
        if let Err(error) = kept {
            tracing::warn!("the build {reference} is not remembered: {error}");
        }
    }
}

fn forget(tx: &wharf_store::WriteTx, reference: &str) -> Result<()> {
    let pieces: Vec<(String, String)> = tx.list_prefix(LOGS, &format!("{reference}/"))?;
    for (key, _) in pieces {
        tx.delete(LOGS, &key)?;
    }
    tx.delete(BUILDS, reference)?;
    why::forget(tx, reference)?;
    Ok(())
}

impl crate::Builder {
    /// Builds that were, the last first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn history(&self) -> Result<Vec<BuildRecord>> {
        let all: Vec<(String, BuildRecord)> = self.shared.options.store.read(|tx| tx.list(BUILDS))?;
        Ok(all.into_iter().rev().map(|(_, record)| record).collect())
    }

    /// One of them, by its reference or its beginning; the last one when that is empty.
    ///
    /// # Errors
    /// `NotFound`, and for a beginning of several.
    pub fn past(&self, reference: &str) -> Result<BuildRecord> {
        let mut found = self.history()?.into_iter().filter(|record| record.reference.starts_with(reference));
        let first = found.next();
        if !reference.is_empty() && found.next().is_some() {
            return Err(BuildError::invalid(format!("several builds begin with {reference}")));
        }
        first.ok_or_else(|| BuildError::new(ErrorKind::NotFound, format!("No such build: {reference}")))
    }

    /// What it has said, in pieces.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn said(&self, record: &BuildRecord) -> Result<Vec<String>> {
        let prefix = format!("{}/", record.reference);
        let pieces: Vec<(String, String)> = self.shared.options.store.read(|tx| tx.list_prefix(LOGS, &prefix))?;
        Ok(pieces.into_iter().map(|(_, piece)| piece).collect())
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn forget(&self, record: &BuildRecord) -> Result<()> {
        self.shared.options.store.write(|tx| forget(tx, &record.reference))
    }
}
