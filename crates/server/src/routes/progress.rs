//! Progress streams: a JSON object on each line, and what went wrong in the last of them.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError};
use wharf_engine::EngineError;
use wharf_image::{Progress, ProgressSender};

use crate::http::{Answer, ApiError, error_line, line, stream};

const TYPE: &str = "application/json";
/// Lines that may wait for a slow client.
const WAITING: usize = 64;

/// Ends the work of a client that has gone.
struct Working(AbortHandle);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers with the progress of `work`, and at its end with what it gives as `aux`. As Docker, says what went wrong
/// before the first message by a status, and by a line afterwards.
pub(super) async fn progress<F>(work: impl FnOnce(ProgressSender) -> F) -> Answer
where
    F: Future<Output = wharf_engine::Result<Option<Value>>> + Send + 'static,
{
    let (sender, mut messages) = mpsc::unbounded_channel::<Progress>();
    let working = tokio::spawn(work(sender));
    let guard = Working(working.abort_handle());
    // The sender goes with the work: without a message, its result is all there is.
    let Some(first) = messages.recv().await else {
        return match flat(working.await) {
            Ok(_) => stream(TYPE, mpsc::channel(1).1),
            Err(error) => ApiError::from(error).answer(),
        };
    };
    let (lines, chunks) = mpsc::channel::<Bytes>(WAITING);
    tokio::spawn(async move {
        let _guard = guard;
        let mut next = Some(first);
        while let Some(message) = next {
            if lines.send(progress_line(&message)).await.is_err() {
                return;
            }
            next = tokio::select! {
                message = messages.recv() => message,
                () = lines.closed() => return,
            };
        }
        let last = match flat(working.await) {
            Ok(aux) => aux.as_ref().map(aux_line),
            Err(error) => Some(error_line(&error.message)),
        };
        if let Some(last) = last {
            let _ = lines.send(last).await;
        }
    });
    stream(TYPE, chunks)
}

fn aux_line(aux: &Value) -> Bytes {
    line(&json!({ "progressDetail": {}, "aux": aux }))
}

fn flat<T>(done: Result<wharf_engine::Result<T>, JoinError>) -> wharf_engine::Result<T> {
    done.unwrap_or_else(|error| Err(EngineError::system(error.to_string())))
}

/// One message.
pub(super) fn progress_line(message: &Progress) -> Bytes {
    if let Some(aux) = &message.aux {
        return aux_line(aux);
    }
    let mut value = json!({ "status": message.status });
    if let (Some(current), Some(total)) = (message.current, message.total) {
        value["progressDetail"] = json!({ "current": current, "total": total });
        value["progress"] = bar(current, total).into();
    } else if !message.id.is_empty() {
        value["progressDetail"] = json!({});
    }
    if !message.id.is_empty() {
        value["id"] = message.id.as_str().into();
    }
    line(&value)
}

/// The drawn bar that clients before API 1.48 show as it is (moby, `jsonmessage.go`).
fn bar(current: u64, total: u64) -> String {
    if total == 0 || current > total {
        return format!("{:>8}", bytes(current));
    }
    let done = usize::try_from(u128::from(current) * 50 / u128::from(total)).unwrap_or(50);
    format!("[{}>{}] {:>8}/{}", "=".repeat(done), " ".repeat(50 - done), bytes(current), bytes(total))
}

/// Docker's decimal units with four digits.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = match value {
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    format!("{}{}", text.trim_end_matches('0').trim_end_matches('.'), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_docker_s() {
        assert_eq!(bytes(0), "0B");
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(1_536_000), "1.536MB");
        assert_eq!(bytes(28_230_000), "28.23MB");
        assert_eq!(bytes(200_000_000), "200MB");
        assert_eq!(bytes(u64::MAX), "18.45EB");
        assert_eq!(bar(50, 100), format!("[{}>{}]      50B/100B", "=".repeat(25), " ".repeat(25)));
        assert_eq!((bar(7, 0).as_str(), bar(u64::MAX, u64::MAX).len()), ("      7B", 53 + 1 + 8 + 8));
    }

    #[test]
    fn a_message_is_a_line() {
        let message =
            Progress { id: "abc".into(), status: "Downloading".into(), current: Some(1), total: Some(2), aux: None };
        let bytes = progress_line(&message);
        assert!(bytes.ends_with(b"\r\n"));
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&value["id"], &value["progressDetail"]["total"]), (&json!("abc"), &json!(2)));
        let whole: Value = serde_json::from_slice(&progress_line(&Progress::new("", "Digest: x"))).unwrap();
        assert_eq!(whole, json!({ "status": "Digest: x" }));
    }

    #[tokio::test]
    async fn failures_are_a_status_first_and_a_line_later() {
        use http_body_util::BodyExt;
        let early = progress(|_| async { Err(EngineError::not_found("no")) }).await;
        assert_eq!(early.status(), 404);
        let late = progress(|sender| async move {
            let _ = sender.send(Progress::new("", "begun"));
            Err(EngineError::not_found("no"))
        })
        .await;
        assert_eq!(late.status(), 200);
        let body = late.into_body().collect().await.unwrap().to_bytes();
        let last = body.split(|b| *b == b'\n').rfind(|line| !line.is_empty()).unwrap();
        let last: Value = serde_json::from_slice(last).unwrap();
        assert_eq!(last, json!({ "errorDetail": { "message": "no" }, "error": "no" }));
    }
}
