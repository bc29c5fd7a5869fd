//! Builds that were, and their steps for other engines: `GET /build/history`, `GET /build/history/REF`, `…/REF/logs` and `…/REF/why-miss`, `DELETE /build/history/REF`.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_build::{BuildError, BuildRecord, CacheForm, ErrorKind};
use wharf_engine::EngineError;

use super::{Call, Result, blocking};
use crate::http::{ApiError, blocking_reader, no_content, ok, stream, tar};
use crate::patient::patiently;

fn render(record: &BuildRecord) -> Value {
    let status = match (&record.error, record.cancelled) {
        (None, _) => "completed",
        (Some(_), true) => "cancelled",
        (Some(_), false) => "error",
    };
    json!({
        "Ref": record.reference,
        "Dockerfile": record.dockerfile,
        "Target": record.target,
        "Tags": record.tags,
        "Status": status,
        "Started": jiff::Timestamp::from_second(record.started).unwrap_or_default().to_string(),
        "DurationMs": record.took,
        "Steps": record.steps,
        "Cached": record.cached,
        "Image": record.image,
        "Error": record.error,
    })
}

fn failed(error: BuildError) -> ApiError {
    let status = match error.kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    ApiError::new(status, error.to_string())
}

pub(super) async fn list(call: Call) -> Result {
    let builder = call.api.builder;
    let all = blocking(move || builder.history().map_err(failed)).await?;
    Ok(ok(&all.iter().map(render).collect::<Vec<_>>()))
}

/// One build; `latest` is the last one.
async fn one(call: Call, reference: &str) -> std::result::Result<(wharf_build::Builder, BuildRecord), ApiError> {
    let (builder, reference) = (call.api.builder, if reference == "latest" { "" } else { reference }.to_owned());
    blocking(move || {
        let record = builder.past(&reference).map_err(failed)?;
        Ok((builder, record))
    })
    .await
}

pub(super) async fn inspect(call: Call, reference: &str) -> Result {
    Ok(ok(&render(&one(call, reference).await?.1)))
}

pub(super) async fn logs(call: Call, reference: &str) -> Result {
    let (builder, record) = one(call, reference).await?;
    let pieces = blocking(move || builder.said(&record).map_err(failed)).await?;
    let (sender, chunks) = mpsc::channel(8);
    tokio::spawn(async move {
        for piece in pieces {
            if sender.send(Bytes::from(piece)).await.is_err() {
                return;
            }
        }
    });
    Ok(stream("text/plain; charset=utf-8", chunks))
}

/// Why the steps of a build were made, beside an earlier one: that of `against`, or the most similar one.
pub(super) async fn why_miss(call: Call, reference: &str) -> Result {
    let against = call.query.get("against").map(str::to_owned);
    let (builder, record) = one(call, reference).await?;
    let why = blocking(move || {
        let against = against.map(|reference| builder.past(&reference)).transpose().map_err(failed)?;
        builder.why_miss(&record, against.as_ref()).map_err(failed)
    })
    .await?;
    let steps = why.misses.iter().map(|miss| json!({ "Line": miss.line, "Step": miss.step, "Reasons": miss.reasons }));
    Ok(ok(&json!({ "Ref": why.build, "Against": why.against, "Steps": steps.collect::<Vec<_>>() })))
}

/// The steps of a build and their layers, as an archive: those of its image, or with `mode=max` all; with `mounts=1` its
/// cache mounts, too.
pub(super) async fn cache(call: Call, reference: &str) -> Result {
    let (all, mounts) = (call.query.get("mode") == Some("max"), call.query.flag("mounts"));
    let form = CacheForm { all, mounts, ..CacheForm::default() };
    let (builder, record) = one(call, reference).await?;
    Ok(tar(move |output| {
        let written = builder.export_cache(&record, form, output);
        written.map_err(|error| EngineError::from_source("the build cache cannot be written", &error))
    }))
}

/// The other way round.
pub(super) async fn take_cache(call: Call) -> Result {
    let (builder, body) = (call.api.builder, blocking_reader(call.request.into_body()));
    let new = patiently(move || builder.import_cache(body).map_err(failed)).await?;
    Ok(ok(&json!({ "New": new })))
}

pub(super) async fn remove(call: Call, reference: &str) -> Result {
    let (builder, record) = one(call, reference).await?;
    blocking(move || builder.forget(&record).map_err(failed)).await?;
    Ok(no_content())
}
