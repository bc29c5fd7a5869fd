//! Containers' files.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::Value;
use wharf_engine::{EngineError, PathStat, PutOptions};
use wharf_image::StatementFile;
use wharf_reference::Digest;

use super::{Call, Result, blocking};
use crate::http::{Answer, ApiError, blocking_reader_while, empty, ok, tar};
use crate::patient::patiently;

pub(super) async fn changes(call: Call, id: &str) -> Result {
    let (engine, id) = (call.api.engine, id.to_owned());
    let changes = blocking(move || Ok(engine.changes(&id)?)).await?;
    Ok(if changes.is_empty() { ok(&Value::Null) } else { ok(&changes) })
}

pub(super) fn export(call: Call, id: &str) -> Result {
    let (engine, id) = (call.api.engine, id.to_owned());
    engine.inspect(&id)?;
    Ok(tar(move |output| engine.export(&id, output)))
}

/// The files of an image, as its containers would see them before they start, with the times that they have on any other machine.
/// With `index` statements about them are beside them: what that index states about the image, in files whose names begin with
/// `prefix`, and end with `suffix` before the extension.
pub(super) async fn image(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let index = call.query.get("index").filter(|text| !text.is_empty()).map(Digest::parse).transpose();
    let index = index.map_err(|e| ApiError::bad(format!("invalid index: {e}")))?;
    let text = |name: &str| call.query.get(name).unwrap_or_default().to_owned();
    let (prefix, suffix) = (text("prefix"), text("suffix"));
    let (view, statements) = blocking(move || {
        let images = engine.images();
        let image = images.resolve(&name)?;
        let view = images.layers().dated_view(&image.diff_ids);
        let view = view.map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, wharf_report::chain(&e)))?;
        let statements = match index {
            Some(index) => images.statement_files(&index, &image, &view, &prefix, &suffix)?,
            None => Vec::new(),
        };
        Ok((view, statements))
    })
    .await?;
    Ok(tar(move |output| {
        let mut archive = wharf_archive::Writer::new(output);
        let packed = archive.tree_dated(&view, None, &|path, real| view.time_of(path, real)).and_then(|()| {
            let own = |StatementFile { name, bytes, time }: &StatementFile| {
                archive.file_at(name, bytes.len() as u64, *time, &mut bytes.as_slice())
            };
            statements.iter().try_for_each(own)?;
            archive.finish()
        });
        packed.map_err(|e| EngineError::from_source("the image cannot be read", &e))
    }))
}

fn path(call: &Call) -> std::result::Result<String, ApiError> {
    call.query.get("path").map(str::to_owned).ok_or_else(|| ApiError::bad("missing path"))
}

async fn look(call: &Call, id: &str, path: &str) -> std::result::Result<PathStat, ApiError> {
    let (engine, id, path) = (call.api.engine.clone(), id.to_owned(), path.to_owned());
    blocking(move || Ok(engine.path_stat(&id, &path)?)).await
}

/// `X-Docker-Container-Path-Stat`: base64 JSON.
fn with_stat(mut answer: Answer, stat: &PathStat) -> Answer {
    let json = serde_json::to_vec(stat).unwrap_or_default();
    let text = base64::engine::general_purpose::STANDARD.encode(json);
    if let Ok(value) = HeaderValue::from_str(&text) {
        answer.headers_mut().insert("X-Docker-Container-Path-Stat", value);
    }
    answer
}

pub(super) async fn stat(call: Call, id: &str) -> Result {
    let found = look(&call, id, &path(&call)?).await?;
    Ok(with_stat(empty(StatusCode::OK), &found))
}

pub(super) async fn get(call: Call, id: &str) -> Result {
    let path = path(&call)?;
    let found = look(&call, id, &path).await?;
    let (engine, id) = (call.api.engine, id.to_owned());
    Ok(with_stat(tar(move |output| engine.archive_get(&id, &path, output)), &found))
}

pub(super) async fn put(call: Call, id: &str) -> Result {
    let path = path(&call)?;
    let options = PutOptions {
        no_overwrite_dir_non_dir: call.query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: call.query.flag("copyUIDGID"),
    };
    let copy = Arc::new(call.api.engine.copy_in(id)?);
    let watched = Arc::clone(&copy);
    let check = move |silent| watched.check(silent).map_err(|error| io::Error::other(error.message));
    let body = blocking_reader_while(call.request.into_body(), check);
    patiently(move || Ok(copy.put(&path, body, options)?)).await?;
    Ok(empty(StatusCode::OK))
}
