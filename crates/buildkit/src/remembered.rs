//! Contents that records of builds name: where results come from, and errors with their lines. Clients read them by
//! containerd's service of contents.
//!
//! Source: moby/buildkit `solver/llbsolver/history.go`; containerd `api/services/content/v1/content.proto`.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use wharf_reference::Digest;
use wharf_store::{Store, StoreError, Table, WriteTx};

use crate::BuildKit;
use crate::control::blocking;
use crate::grpc::server::{Answer, Call, failed};
use crate::grpc::{Code, Sender, Status};
use crate::job::Job;
use crate::proto::RpcStatus;
use crate::proto::content::{Info, InfoRequest, InfoResponse, ReadRequest, ReadResponse};
use crate::proto::history::{Descriptor, HistoryRecord, ResultInfo};

/// By `REFERENCE/DIGEST`, in base64.
const CONTENTS: Table = Table::new("buildkit-history-contents");
/// Of one build; what is larger is not remembered.
const MOST: usize = 4 << 20;
/// Sent at once.
const CHUNK: usize = 64 << 10;
const PREDICATE: &str = "in-toto.io/predicate-type";
const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";
const STATEMENT: &str = "application/vnd.in-toto+json";
/// With the mistake that it has in BuildKit.
const ERROR: &str = "application/vnd.googeapis.google.rpc.status+proto";

/// What a record names.
#[derive(Debug, Default)]
pub(crate) struct Contents(Vec<(Digest, Vec<u8>)>);

impl Contents {
    fn add(&mut self, media_type: &str, bytes: &[u8], annotations: HashMap<String, String>) -> Option<Descriptor> {
        let taken: usize = self.0.iter().map(|(_, bytes)| bytes.len()).sum();
        let size = i64::try_from(bytes.len()).ok().filter(|_| taken + bytes.len() <= MOST)?;
        let digest = Digest::sha256(bytes);
        self.0.push((digest.clone(), bytes.to_vec()));
        Some(Descriptor { media_type: media_type.into(), digest: digest.to_string(), size, annotations })
    }

    /// Notes in the record of a build that has ended what is remembered with it.
    pub(crate) fn of(job: &Job, error: Option<&RpcStatus>, record: &mut HistoryRecord) -> Self {
        let mut own = Self::default();
        let built = job.all_built();
        for one in &built {
            let Some(provenance) = &one.provenance else { continue };
            let kind = HashMap::from([(PREDICATE.to_owned(), PROVENANCE.to_owned())]);
            let attestations = own.add(STATEMENT, provenance.as_bytes(), kind).into_iter().collect();
            let info = ResultInfo { attestations };
            match &one.platform {
                Some(platform) if built.len() > 1 => drop(record.results.insert(platform.clone(), info)),
                _ => record.result = Some(info),
            }
        }
        record.external_error = error.and_then(|error| own.add(ERROR, &error.encode_to_vec(), HashMap::new()));
        own
    }

    pub(crate) fn keep(&self, tx: &WriteTx, reference: &str) -> Result<(), StoreError> {
        let mut all = self.0.iter();
        all.try_for_each(|(digest, bytes)| tx.put(CONTENTS, &format!("{reference}/{digest}"), &STANDARD.encode(bytes)))
    }
}

pub(crate) fn forget(tx: &WriteTx, reference: &str) -> Result<(), StoreError> {
    let all: Vec<(String, String)> = tx.list_prefix(CONTENTS, &format!("{reference}/"))?;
    all.iter().try_for_each(|(key, _)| tx.delete(CONTENTS, key).map(drop))
}

/// The content of this digest that any of these builds has.
fn find(store: &Store, references: &[String], digest: &str) -> Result<Option<Bytes>, StoreError> {
    store.read(|tx| {
        for reference in references {
            let text: Option<String> = tx.get(CONTENTS, &format!("{reference}/{digest}"))?;
            if let Some(bytes) = text.and_then(|text| STANDARD.decode(text).ok()) {
                return Ok(Some(bytes.into()));
            }
        }
        Ok(None)
    })
}

impl BuildKit {
    /// The service `containerd.services.content.v1.Content`, as far as records of builds lead to it.
    pub(crate) async fn contents(&self, call: Call, method: &str) -> Answer {
        let own = self.clone();
        match method {
            "Info" => {
                call.unary(move |asked: InfoRequest| async move {
                    let found = own.content(&asked.digest).await?;
                    let info = Info { digest: asked.digest, size: i64::try_from(found.len()).unwrap_or(i64::MAX) };
                    Ok(InfoResponse { info: Some(info) })
                })
                .await
            }
            "Read" => call.streamed(move |asked, sender| async move { own.read_content(asked, sender).await }).await,
            _ => failed(Status::unimplemented(format!("unknown method {method} of Content"))),
        }
    }

    async fn content(&self, digest: &str) -> Result<Bytes, Status> {
        let (own, digest) = (self.clone(), digest.to_owned());
        let references: Vec<String> = own.remembered().await?.into_iter().map(|record| record.reference).collect();
        blocking(move || {
            let found = find(own.inner.builder.store(), &references, &digest);
            let found = found.map_err(|e| Status::new(Code::Unknown, wharf_report::chain(&e)))?;
            found.ok_or_else(|| Status::new(Code::NotFound, format!("content {digest}: not found")))
        })
        .await
    }

    async fn read_content(&self, asked: ReadRequest, sender: Sender) -> Result<(), Status> {
        let content = self.content(&asked.digest).await?;
        let range = || {
            let from = usize::try_from(asked.offset).ok()?;
            let size = usize::try_from(asked.size).ok()?;
            let until = if size == 0 { content.len() } else { from.checked_add(size)?.min(content.len()) };
            (from <= until).then(|| (from, content.slice(from..until)))
        };
        let (mut offset, mut rest) = range().ok_or_else(|| Status::invalid("no such range of a content"))?;
        while !rest.is_empty() {
            let data = rest.split_to(rest.len().min(CHUNK));
            let read = data.len();
            if !sender.send(&ReadResponse { offset: i64::try_from(offset).unwrap_or(i64::MAX), data }).await {
                break;
            }
            offset += read;
        }
        Ok(())
    }
}
