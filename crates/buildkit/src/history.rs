//! Builds that were, as clients of BuildKit know them: by the names that they gave them, with what was told of them.
//!
//! What our own command line shows of builds (`wharf_build`'s history) is beside this, and has no names of clients.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use wharf_store::{Store, StoreError, Table, WriteTx};

use crate::BuildKit;
use crate::control::blocking;
use crate::grpc::{Code, Sender, Status};
use crate::job::Job;
use crate::options::Options;
use crate::progress::Progress;
use crate::proto::control::{Exporter, StatusResponse};
use crate::proto::history::{
    COMPLETE, DELETED, HistoryEvent, HistoryRecord, HistoryRequest, STARTED, UpdateHistoryRequest,
};
use crate::proto::{RpcStatus, Timestamp};
use crate::remembered::{self, Contents};

const BUILDS: Table = Table::new("buildkit-history");
/// What was told of them, in pieces: `REFERENCE/NUMBER`.
const SAID: Table = Table::new("buildkit-history-said");
/// So many are remembered, as by BuildKit.
const MOST: usize = 50;
/// And so many are pinned.
const MOST_PINNED: usize = 50;
/// Bytes of what clients have said in one record; of one text of it; and how many exporters there are in it.
const MOST_RECORD: usize = 128 << 10;
const MOST_TEXT: usize = 16 << 10;
const MOST_EXPORTERS: usize = 64;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Events that wait for who listens; one that is slower misses some.
const WAITING: usize = 256;
/// Clients show how long a build has been under way by this header, and cannot do without.
pub(crate) const NOW: &str = "buildkit-current-timestamp";

/// A build as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Seconds since the epoch, and nanoseconds.
    created: (i64, i32),
    pinned: bool,
    /// The record, in base64.
    record: String,
}

/// Of a build that is kept, what tells whether it goes: the record is not read for it.
#[derive(Deserialize)]
struct Age {
    created: (i64, i32),
    pinned: bool,
}

impl Kept {
    fn of(record: &HistoryRecord) -> Self {
        let created = record.created_at.unwrap_or_default();
        let text = STANDARD.encode(record.encode_to_vec());
        Self { created: (created.seconds, created.nanos), pinned: record.pinned, record: text }
    }

    fn record(&self) -> Option<HistoryRecord> {
        let bytes = STANDARD.decode(&self.record).ok()?;
        let mut record = HistoryRecord::decode(bytes.as_slice()).ok()?;
        record.pinned = self.pinned;
        Some(record)
    }
}

/// Who listens.
#[derive(Debug)]
pub(crate) struct Listeners(broadcast::Sender<HistoryEvent>);

impl Default for Listeners {
    fn default() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }
}

impl Listeners {
    fn tell(&self, kind: i32, record: HistoryRecord) {
        let _ = self.0.send(HistoryEvent { kind, record: Some(record) });
    }
}

/// Options of a frontend without the values of arguments: one may be a password.
fn without_values(options: &Options) -> impl Iterator<Item = (&str, &str)> {
    options.iter().map(|(name, value)| {
        let known = name
            .strip_prefix("build-arg:")
            .is_none_or(|argument| argument.starts_with("BUILDKIT_") || argument == "SOURCE_DATE_EPOCH");
        (name.as_str(), if known { value.as_str() } else { "***" })
    })
}

/// The bytes that what a client has said may still take in a record: all of them are read for a list.
struct Room(usize);

impl Room {
    /// A text, as far as there is room for it.
    fn text(&mut self, text: &str) -> String {
        let mut end = text.len().min(MOST_TEXT).min(self.0);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0 -= end;
        let cut = if end < text.len() { "…" } else { "" };
        format!("{}{cut}", &text[..end])
    }

    /// Pairs, as far as there is room for them; names are whole or not there.
    fn pairs<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> HashMap<String, String> {
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        let mut kept = HashMap::new();
        for (name, value) in pairs {
            // With what a pair takes beside its texts.
            let taken = name.len() + 16;
            if name.len() <= MOST_TEXT && taken <= self.0 {
                self.0 -= taken;
                kept.insert(name.to_owned(), self.text(value));
            }
        }
        kept
    }

    fn error(&mut self, error: &RpcStatus) -> RpcStatus {
        let message = self.text(&error.message);
        let mut details = error.details.clone();
        details.retain(|one| {
            let taken = one.encoded_len();
            let fits = taken <= self.0;
            self.0 -= if fits { taken } else { 0 };
            fits
        });
        RpcStatus { code: error.code, message, details }
    }

    fn exporters(&mut self, exporters: &[Exporter]) -> Vec<Exporter> {
        let one = |exporter: &Exporter| Exporter {
            kind: self.text(&exporter.kind),
            attrs: self.pairs(texts(&exporter.attrs)),
        };
        exporters.iter().take(MOST_EXPORTERS).map(one).collect()
    }
}

fn texts(map: &HashMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// How many steps there are, have ended and were known, and how many warnings.
fn counted(progress: &Progress) -> (i32, i32, i32, i32) {
    let (mut steps, mut warnings) = (HashMap::new(), 0);
    for message in progress.all() {
        for vertex in &message.vertexes {
            steps.insert(vertex.digest.clone(), (vertex.completed.is_some(), vertex.cached));
        }
        warnings += message.warnings.len();
    }
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let ended = steps.values().filter(|(ended, _)| *ended).count();
    let cached = steps.values().filter(|(_, cached)| *cached).count();
    (count(steps.len()), count(ended), count(cached), count(warnings))
}

/// A build as it is now, or has ended.
fn record(job: &Job, ended: Option<&Result<HashMap<String, String>, Status>>) -> HistoryRecord {
    let (total_steps, completed_steps, cached_steps, warnings) = counted(&job.progress);
    let mut room = Room(MOST_RECORD);
    HistoryRecord {
        reference: job.request.reference.clone(),
        frontend: match job.request.frontend.is_empty() {
            true => "dockerfile.v0".into(),
            false => room.text(&job.request.frontend),
        },
        error: ended.and_then(|ended| ended.as_ref().err()).map(|status| room.error(&status.0)),
        exporter_response: ended
            .and_then(|ended| ended.as_ref().ok())
            .map(|response| room.pairs(texts(response)))
            .unwrap_or_default(),
        exporters: room.exporters(&job.exporters),
        frontend_attrs: room.pairs(without_values(&job.request.frontend_attrs)),
        created_at: Some(job.began),
        completed_at: ended.map(|_| Timestamp::now()),
        result: None,
        results: HashMap::new(),
        external_error: None,
        generation: if ended.is_some() { 2 } else { 1 },
        pinned: false,
        cached_steps,
        total_steps,
        completed_steps,
        warnings,
    }
}

/// Writes what was told, and the record behind it; forgets the oldest that nobody has pinned.
fn keep(
    store: &Store,
    record: &HistoryRecord,
    told: &[std::sync::Arc<StatusResponse>],
    contents: &Contents,
) -> Result<(), StoreError> {
    let mut pieces = vec![Vec::new()];
    for message in told {
        if pieces.last().is_some_and(|piece| piece.len() >= PIECE) {
            pieces.push(Vec::new());
        }
        if let Some(piece) = pieces.last_mut() {
            // A vector takes everything.
            let _ = message.encode_length_delimited(piece);
        }
    }
    let reference = &record.reference;
    store.write_soon(|tx| {
        forget(tx, reference)?;
        for (number, piece) in pieces.iter().enumerate() {
            tx.put(SAID, &format!("{reference}/{number:06}"), &STANDARD.encode(piece))?;
        }
        contents.keep(tx, reference)?;
        tx.put(BUILDS, reference, &Kept::of(record))?;
        let mut all: Vec<(String, Age)> = tx.list(BUILDS)?;
        all.retain(|(_, kept)| !kept.pinned);
        all.sort_by_key(|(_, kept)| kept.created);
        for (old, _) in all.iter().take(all.len().saturating_sub(MOST)) {
            forget(tx, old)?;
        }
        Ok(())
    })
}

fn forget(tx: &WriteTx, reference: &str) -> Result<(), StoreError> {
    let pieces: Vec<(String, String)> = tx.list_prefix(SAID, &format!("{reference}/"))?;
    for (key, _) in pieces {
        tx.delete(SAID, &key)?;
    }
    remembered::forget(tx, reference)?;
    tx.delete(BUILDS, reference)?;
    Ok(())
}

/// Forgets a build, pins it, or lets it go with the others. The value is what it was; nothing when it is not there.
fn update(store: &Store, request: &UpdateHistoryRequest) -> Result<Option<HistoryRecord>, Status> {
    let reference = &request.reference;
    let done = store.write(|tx| {
        let kept: Option<Kept> = tx.get(BUILDS, reference)?;
        let Some(mut kept) = kept else { return Ok(Ok(None)) };
        if request.delete {
            forget(tx, reference)?;
        } else if kept.pinned != request.pinned {
            let all: Vec<(String, Age)> = tx.list(BUILDS)?;
            if request.pinned && all.iter().filter(|(_, age)| age.pinned).count() >= MOST_PINNED {
                let message = format!("{MOST_PINNED} builds are pinned already: remove one, or let it go, first");
                return Ok(Err(Status::new(Code::FailedPrecondition, message)));
            }
            kept.pinned = request.pinned;
            tx.put(BUILDS, reference, &kept)?;
        }
        Ok(Ok(kept.record()))
    });
    done.map_err(|e: StoreError| failing(&e))?
}

fn failing(error: &StoreError) -> Status {
    Status::new(Code::Unknown, wharf_report::chain(error))
}

impl BuildKit {
    fn store(&self) -> Store {
        self.inner.builder.store().clone()
    }

    /// Tells that a build has begun.
    pub(crate) fn tell_begun(&self, job: &Job) {
        if !job.request.internal {
            self.inner.listeners.tell(STARTED, record(job, None));
        }
    }

    /// Remembers a build that has ended. What cannot be kept is not worth a failed build.
    pub(crate) async fn remember(&self, job: &Job, ended: &Result<HashMap<String, String>, Status>) {
        if job.request.internal {
            return;
        }
        let (mut record, told, store) = (record(job, Some(ended)), job.progress.all(), self.store());
        let contents = Contents::of(job, ended.as_ref().err().map(|status| &*status.0), &mut record);
        let kept = record.clone();
        let done = blocking(move || keep(&store, &kept, &told, &contents).map_err(|e| failing(&e))).await;
        if let Err(status) = done {
            tracing::warn!("the build {} is not remembered: {}", record.reference, status.message());
        }
        self.inner.listeners.tell(COMPLETE, record);
    }

    pub(crate) async fn remembered(&self) -> Result<Vec<HistoryRecord>, Status> {
        let store = self.store();
        let all: Vec<(String, Kept)> =
            blocking(move || store.read(|tx| tx.list(BUILDS)).map_err(|e: StoreError| failing(&e))).await?;
        Ok(all.iter().filter_map(|(_, kept)| kept.record()).collect())
    }

    /// `ListenBuildHistory`: builds under way and those that were, and then what happens, unless only what is now is asked for.
    pub(crate) async fn listen_history(&self, request: HistoryRequest, sender: Sender) -> Result<(), Status> {
        let mut events = self.inner.listeners.0.subscribe();
        let is_meant = |record: &HistoryRecord| record.reference.starts_with(&request.reference);
        let under_way = self.inner.jobs.under_way();
        let running = under_way.iter().filter(|job| !job.request.internal).map(|job| (STARTED, record(job, None)));
        let mut all: Vec<(i32, HistoryRecord)> = running.collect();
        if !request.active_only {
            let known: Vec<String> = all.iter().map(|(_, record)| record.reference.clone()).collect();
            let kept = self.remembered().await?.into_iter().filter(|record| !known.contains(&record.reference));
            all.extend(kept.map(|record| (COMPLETE, record)));
        }
        all.retain(|(_, record)| is_meant(record));
        all.sort_by_key(|(_, record)| {
            let created = record.created_at.unwrap_or_default();
            std::cmp::Reverse((created.seconds, created.nanos))
        });
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        for (kind, record) in all.into_iter().take(limit) {
            if !sender.send(&HistoryEvent { kind, record: Some(record) }).await {
                return Ok(());
            }
        }
        if request.early_exit {
            return Ok(());
        }
        loop {
            match events.recv().await {
                Ok(event) if request.active_only && event.kind == DELETED => {}
                Ok(event) if !event.record.as_ref().is_some_and(is_meant) => {}
                Ok(event) => {
                    if !sender.send(&event).await {
                        return Ok(());
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// `UpdateBuildHistory`: forgets one, or keeps it from being forgotten.
    pub(crate) async fn update_history(&self, request: UpdateHistoryRequest) -> Result<(), Status> {
        let (store, asked) = (self.store(), request.clone());
        let found = blocking(move || update(&store, &asked)).await?;
        match found {
            Some(record) => {
                if request.delete {
                    self.inner.listeners.tell(DELETED, record);
                }
                Ok(())
            }
            // One that is under way has its name; to be finalized is nothing here.
            None if self.inner.jobs.known(&request.reference).is_some() => Ok(()),
            None => Err(Status::new(Code::NotFound, format!("no build {} is remembered", request.reference))),
        }
    }

    /// What was told of a build that was; nothing when none of this name is remembered.
    pub(crate) async fn told(&self, reference: &str) -> Result<Option<Vec<StatusResponse>>, Status> {
        let (store, reference) = (self.store(), reference.to_owned());
        let pieces = blocking(move || {
            let read = store.read(|tx| {
                let kept: Option<Kept> = tx.get(BUILDS, &reference)?;
                let Some(_) = kept else { return Ok(None) };
                let pieces: Vec<(String, String)> = tx.list_prefix(SAID, &format!("{reference}/"))?;
                Ok(Some(pieces))
            });
            read.map_err(|e: StoreError| failing(&e))
        })
        .await?;
        let Some(pieces) = pieces else { return Ok(None) };
        let mut told = Vec::new();
        for (_, piece) in pieces {
            let bytes = STANDARD.decode(&piece).unwrap_or_default();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let Ok(message) = StatusResponse::decode_length_delimited(&mut rest) else { break };
                told.push(message);
            }
        }
        Ok(Some(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Jobs;
    use crate::proto::Any;
    use crate::proto::control::SolveRequest;

    fn pairs(all: &[(&str, &str)]) -> HashMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_remembered_of_a_request_is_bounded() {
        let long = "ä".repeat(1 << 20);
        let mut frontend_attrs = pairs(&[("build-arg:A", &long), ("filename", "Dockerfile"), ("label:a", &long)]);
        frontend_attrs.extend((0..100_000).map(|number| (format!("label:z{number}"), "1".to_owned())));
        let request = SolveRequest { reference: "a".into(), frontend_attrs, ..SolveRequest::default() };
        let exporter = Exporter { kind: "moby".into(), attrs: pairs(&[("name", "a"), ("annotation.a", &long)]) };
        let job = Jobs::default().begin(request, vec![exporter; 3]).unwrap();
        let details = vec![Any { type_url: "a".into(), value: vec![0; 1 << 20] }];
        let failed = Status(Box::new(RpcStatus { code: 2, message: long, details }));
        let record = record(&job, Some(&Err(failed)));
        assert!(record.encoded_len() < 2 * MOST_RECORD, "{}", record.encoded_len());
        assert_eq!((record.exporters.len(), record.exporters[0].attrs["name"].as_str()), (3, "a"));
        assert_eq!(record.frontend_attrs["build-arg:A"], "***");
        assert_eq!(record.frontend_attrs["filename"], "Dockerfile");
        let error = record.error.unwrap();
        assert!(error.details.is_empty() && error.message.ends_with("ä…") && error.message.len() <= MOST_TEXT + 3);
    }

    #[test]
    fn the_oldest_goes_that_nobody_has_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let of = |number: usize| HistoryRecord {
            reference: format!("b{number:03}"),
            created_at: Some(Timestamp { seconds: i64::try_from(number).unwrap(), nanos: 0 }),
            ..HistoryRecord::default()
        };
        let update = |number: usize, pinned: bool, delete: bool| {
            update(&store, &UpdateHistoryRequest { reference: of(number).reference, pinned, delete })
        };
        let kept = || -> Vec<String> {
            let all = store.read(|tx| tx.list::<Age>(BUILDS)).unwrap();
            all.into_iter().map(|(reference, _)| reference).collect()
        };
        for number in 0..MOST + 2 {
            keep(&store, &of(number), &[], &Contents::default()).unwrap();
            if number < MOST {
                assert!(update(number, true, false).unwrap().is_some());
            }
        }
        assert_eq!(kept().len(), MOST + 2);
        assert!(update(MOST, true, false).unwrap_err().message().contains("pinned already"));
        update(0, false, false).unwrap();
        update(1, true, true).unwrap();
        (MOST + 2..2 * MOST + 1).for_each(|number| keep(&store, &of(number), &[], &Contents::default()).unwrap());
        let kept = kept();
        assert!(!kept.contains(&of(0).reference) && !kept.contains(&of(1).reference), "{kept:?}");
        assert!(kept.contains(&of(2).reference) && kept.contains(&of(MOST + 1).reference), "{kept:?}");
    }
}
