//! `stream=true` of the prunes, since API 1.56: a line for each thing that has gone, and the report at the end.

use std::future::Future;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc::{self, UnboundedSender};

use super::{Call, Result};
use crate::http::{ApiError, ok, stream};

/// Whom a prune tells of what has gone; nobody, where the answer is the report alone.
///
/// What waits for a slow client is no more than the report, which is made anyway, and holds up no prune.
#[derive(Clone, Debug)]
pub(super) struct Told(Option<UnboundedSender<Value>>);

impl Told {
    pub(super) fn deleted(&self, id: &str) {
        self.tell(id, "deleted");
    }

    pub(super) fn tell(&self, id: &str, status: &str) {
        if let Some(sender) = &self.0 {
            // A client that has gone needs to know nothing.
            let _ = sender.send(json!({ "id": id, "status": status }));
        }
    }
}

/// Answers with what `prune` reports, in the form that the request asks for. What goes wrong before anything has gone
/// is the answer's status, afterwards a line.
pub(super) async fn answer<Work>(call: &Call, prune: impl FnOnce(Told) -> Work) -> Result
where
    Work: Future<Output = std::result::Result<Value, ApiError>> + Send + 'static,
{
    if call.version < (1, 56) || !call.query.flag("stream") {
        return Ok(ok(&prune(Told(None)).await?));
    }
    let (sender, mut messages) = mpsc::unbounded_channel();
    let pruning = tokio::spawn(prune(Told(Some(sender))));
    let ended = async move {
        pruning.await.unwrap_or_else(|e| Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())))
    };
    // The sender goes with the prune.
    let Some(first) = messages.recv().await else {
        let report = ended.await?;
        let (sender, lines) = mpsc::channel(1);
        let _ = sender.send(line(&json!({ "aux": report }))).await;
        return Ok(stream("application/jsonl", lines));
    };
    let (sender, lines) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(message) = next {
            if sender.send(line(&message)).await.is_err() {
                return;
            }
            next = messages.recv().await;
        }
        let last = match ended.await {
            Ok(report) => json!({ "aux": report }),
            Err(error) => json!({ "errorDetail": { "message": wharf_report::words(error.message) } }),
        };
        let _ = sender.send(line(&last)).await;
    });
    Ok(stream("application/jsonl", lines))
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}
