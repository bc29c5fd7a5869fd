//! Containers: answers that go on for a while.

use bytes::Bytes;
use hyper::header::UPGRADE;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_engine::{AttachOptions, Attached, Condition, LogOptions};

use super::{Call, Result};
use crate::detach;
use crate::hijack::{Streams, content_type, hijack};
use crate::http::{ApiError, ok, stream};
use crate::moment::moment;
use crate::websocket;

/// Docker's interval between two readings.
const STATS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// The head of the answer goes out at once: clients open the wait, and start the container when they see it.
pub(super) fn wait(call: Call, id: &str) -> Result {
    // There were no others before API 1.30.
    let condition = if call.version < (1, 30) { String::new() } else { call.query.text("condition") };
    let condition = Condition::parse(&condition)?;
    let ended = call.api.engine.wait(id, condition)?;
    let (sender, chunks) = mpsc::channel(1);
    tokio::spawn(async move {
        let value = tokio::select! {
            ended = ended => match ended {
                Ok(exit) => json!({ "StatusCode": exit.code }),
                Err(error) => json!({ "StatusCode": -1, "Error": { "Message": error.message } }),
            },
            () = sender.closed() => return,
        };
        let _ = sender.send(Bytes::from(format!("{value}\n"))).await;
    });
    Ok(stream("application/json", chunks))
}

/// The streams that a request asks for, or all, and what of the log comes before them.
async fn open(call: &Call, id: &str, all: bool) -> std::result::Result<(Attached, mpsc::Receiver<Bytes>), ApiError> {
    let query = &call.query;
    let options = AttachOptions {
        stdin: all || query.flag("stdin"),
        stdout: all || query.flag("stdout"),
        stderr: all || query.flag("stderr"),
        stream: query.flag("stream"),
        logs: query.flag("logs"),
        detach_keys: query.get("detachKeys").map(str::to_owned),
    };
    let engine = &call.api.engine;
    engine.inspect(id)?;
    detach::check(options.detach_keys.as_deref().unwrap_or_default())?;
    let attached = engine.attach(id, options.clone()).await?;
    if !options.logs || !(options.stdout || options.stderr) {
        return Ok((attached, mpsc::channel(1).1));
    }
    let (stdout, stderr) = (options.stdout, options.stderr);
    let logs = LogOptions { stdout, stderr, until: attached.since, ..LogOptions::default() };
    Ok((attached, engine.logs(id, logs)?.chunks))
}

/// As [`attach`], over a websocket.
pub(super) async fn attach_websocket(call: Call, id: &str) -> Result {
    // A container that is not there is said before the request is looked at, as Docker does.
    call.api.engine.inspect(id)?;
    let accept = websocket::handshake(call.request.headers())?;
    // Before API 1.42 nobody could choose.
    let (attached, before) = open(&call, id, call.version < (1, 42)).await?;
    let output = websocket::Output { framed: !attached.tty, text: call.version < (1, 28) };
    Ok(websocket::attach(call.request, &accept, attached.stream, before, output))
}

pub(super) async fn attach(call: Call, id: &str) -> Result {
    let (attached, before) = match open(&call, id, false).await {
        Ok(opened) => opened,
        // Docker has taken the connection over by then.
        Err(error) => return Ok(error.into_text("application/vnd.docker.raw-stream")),
    };
    let upgrades = call.request.headers().contains_key(UPGRADE);
    let kind = content_type(attached.tty || !upgrades, call.version);
    Ok(match attached.stream {
        Some(stream) => {
            let mut streams = Streams::new(Some(stream), before);
            let (engine, id) = (call.api.engine.clone(), id.to_owned());
            streams.settled = Box::pin(async move { engine.end_is_known(&id).await });
            hijack(call.request, kind, std::future::ready(streams))
        }
        None if upgrades => hijack(call.request, kind, std::future::ready(Streams::new(None, before))),
        None => stream(kind, before),
    })
}

pub(super) async fn logs(call: Call, id: &str) -> Result {
    let query = &call.query;
    if !query.flag("stdout") && !query.flag("stderr") {
        return Err(ApiError::bad("Bad parameters: you must choose at least one stream"));
    }
    let time = |key: &str| query.get(key).filter(|text| *text != "0").map(moment).transpose();
    let tail = match query.get("tail") {
        None | Some("all") => None,
        // Docker's: what is no number is all.
        Some(text) => text.parse::<i64>().ok().and_then(|n| u64::try_from(n).ok()),
    };
    let options = LogOptions {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: time("since")?,
        until: time("until")?,
        timestamps: query.flag("timestamps"),
        tail,
        follow: query.flag("follow"),
        details: query.flag("details"),
        first_words: true,
    };
    let mut log = call.api.engine.logs(id, options)?;
    // Why it cannot be read is told by its end.
    let _ = (&mut log.begun).await;
    Ok(stream(content_type(log.tty, call.version), log.chunks))
}

pub(super) async fn stats(call: Call, id: &str) -> Result {
    let engine = call.api.engine.clone();
    let id = engine.inspect(id)?.id.clone();
    if !call.query.flag_or("stream", true) {
        let first = engine.stats(&id).await?;
        if call.query.flag("one-shot") && call.version >= (1, 41) {
            return Ok(ok(&first));
        }
        tokio::time::sleep(STATS_INTERVAL).await;
        return Ok(ok(&with_previous(engine.stats(&id).await?, &first)));
    }
    if call.query.flag("one-shot") && call.version >= (1, 41) {
        return Err(ApiError::bad("cannot have stream=true and one-shot=true"));
    }
    let (sender, chunks) = mpsc::channel(2);
    tokio::spawn(async move {
        let mut previous: Option<Value> = None;
        while let Ok(reading) = engine.stats(&id).await {
            let value = match &previous {
                Some(previous) => with_previous(reading.clone(), previous),
                None => reading.clone(),
            };
            previous = Some(reading);
            if sender.send(Bytes::from(format!("{value}\n"))).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(STATS_INTERVAL) => {}
                () = sender.closed() => return,
            }
        }
    });
    Ok(stream("application/json", chunks))
}

/// A reading with the one before it: clients compute the processor's use from both.
fn with_previous(mut reading: Value, previous: &Value) -> Value {
    reading["precpu_stats"] = previous["cpu_stats"].clone();
    reading["preread"] = previous["read"].clone();
    reading
}
