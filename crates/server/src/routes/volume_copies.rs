//! What Docker has not: copies, snapshots and archives of volumes. A volume's name may be `VOLUME@SNAPSHOT` where something
//! is read.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_volume::{CreateVolume, Origin, Snapshot};

use super::{Call, Result, blocking};
use crate::http::{ApiError, blocking_reader, json_answer, no_content, ok, read_json, tar};
use crate::patient::patiently;
use crate::render::network::volume as render;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Clone {
    name: String,
    labels: BTreeMap<String, String>,
    driver_opts: BTreeMap<String, String>,
}

pub(super) async fn clone(mut call: Call, name: &str) -> Result {
    let asked: Clone = read_json(&mut call.request, "volume.CloneRequest").await?;
    let request =
        CreateVolume { name: asked.name, labels: asked.labels, options: asked.driver_opts, ..CreateVolume::default() };
    let (volume, warnings) = call.api.engine.clone_volume(Origin::parse(name), request).await?;
    let mut answer = render(&volume, None);
    answer["Warnings"] = json!(warnings);
    Ok(json_answer(StatusCode::CREATED, &answer))
}

fn shown(snapshot: &Snapshot) -> Value {
    let mut shown = json!({ "Name": snapshot.name, "Volume": snapshot.volume, "CreatedAt": snapshot.created });
    if let Some(size) = snapshot.size {
        shown["Size"] = size.into();
    }
    shown
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Take {
    name: String,
}

pub(super) async fn snapshot(mut call: Call, name: &str) -> Result {
    let asked: Take = read_json(&mut call.request, "volume.SnapshotRequest").await?;
    let made = call.api.engine.snapshot_volume(name.to_owned(), asked.name).await?;
    let mut answer = shown(&made);
    answer["Warnings"] = json!(made.skipped);
    Ok(json_answer(StatusCode::CREATED, &answer))
}

pub(super) async fn snapshots(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let all = blocking(move || Ok(engine.volumes().snapshots(&name).map_err(wharf_engine::EngineError::from)?)).await?;
    Ok(ok(&all.iter().map(shown).collect::<Vec<Value>>()))
}

/// `DELETE /volumes/VOLUME@SNAPSHOT`.
pub(super) async fn remove_snapshot(call: Call, volume: &str, snapshot: &str) -> Result {
    let (engine, name, own) = (call.api.engine.clone(), volume.to_owned(), snapshot.to_owned());
    blocking(move || Ok(engine.volumes().remove_snapshot(&name, &own).map_err(wharf_engine::EngineError::from)?))
        .await?;
    call.api.engine.tell_of("volume", "snapshot-destroy", volume, &[("snapshot", snapshot)]);
    Ok(no_content())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Restore {
    snapshot: String,
}

pub(super) async fn restore(mut call: Call, name: &str) -> Result {
    let asked: Restore = read_json(&mut call.request, "volume.RestoreRequest").await?;
    if asked.snapshot.is_empty() {
        return Err(ApiError::bad("missing Snapshot: the name of the snapshot that the volume gets the content of"));
    }
    let warnings = call.api.engine.restore_volume(name.to_owned(), asked.snapshot).await?;
    Ok(ok(&json!({ "Warnings": warnings })))
}

pub(super) async fn rename(call: Call, name: &str) -> Result {
    let new = call.query.get("name").unwrap_or_default().to_owned();
    if new.is_empty() {
        return Err(ApiError::bad("missing name: the one that the volume gets"));
    }
    call.api.engine.rename_volume(name.to_owned(), new).await?;
    Ok(no_content())
}

pub(super) async fn export(call: Call, name: &str) -> Result {
    let (engine, origin) = (call.api.engine, Origin::parse(name));
    let staged = engine.stage_export(&origin).await?;
    Ok(tar(move |output| engine.export_volume(&origin, staged, output)))
}

pub(super) async fn import(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let mut body = blocking_reader(call.request.into_body());
    let made = patiently(move || Ok(engine.import_volume(&name, &mut body)?)).await?;
    Ok(json_answer(StatusCode::CREATED, &render(&made, None)))
}
