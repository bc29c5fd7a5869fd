//! `GET /system/df`.

use serde_json::{Value, json};
use wharf_engine::{Accounts, EngineError, PATIENCE};
use wharf_image::ImageSummary;

use super::{Call, Result, blocking};
use crate::http::{ApiError, ok};
use crate::render::container::summary;
use crate::render::disk::{Sharing, Sizes, build_cache};
use crate::render::{image, network};

const TYPES: &[&str] = &["container", "image", "volume", "build-cache"];

/// Answers in bounded time; with `exact`, which is Wharf's, all that is written to is walked first. `DataRoot`, also
/// Wharf's, has every byte by who has it.
pub(super) async fn usage(call: Call) -> Result {
    let asked = call.query.all("type");
    if let Some(bad) = asked.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
        return Err(ApiError::bad(format!("unknown object type: {bad}")));
    }
    let asked: Vec<String> = asked.into_iter().map(|kind| kind.to_owned()).collect();
    let exact = call.query.flag("exact");
    let (api, version) = (call.api, call.version);
    let answer = blocking(move || {
        let wanted = |kind: &str| asked.is_empty() || asked.iter().any(|asked| asked == kind);
        let engine = &api.engine;
        let usage = engine.disk_usage(if exact { std::time::Duration::MAX } else { PATIENCE })?;
        let sizes: Sizes = usage.layers.iter().map(|layer| (layer.diff_id.clone(), layer.size)).collect();
        let sharing = Sharing::new(&usage.images, &sizes);
        let containers = engine.list();
        let mut answer = json!({});
        if wanted("image") {
            let mut users = std::collections::BTreeMap::new();
            for container in &containers {
                *users.entry(&container.image).or_insert(0i64) += 1;
            }
            let line = |one: &ImageSummary| {
                let shared = i64::try_from(sharing.shared(one)).unwrap_or(-1);
                image::summary(one, users.get(&one.id).copied().unwrap_or(0), shared, version)
            };
            answer["LayersSize"] = sharing.total().into();
            answer["Images"] = usage.images.iter().map(line).collect();
        }
        if wanted("build-cache") {
            let records = api.builder.records().map_err(|e| EngineError::system(e.to_string()))?;
            answer["BuildCache"] =
                records.iter().map(|(id, record)| build_cache(id, record, &sharing)).collect::<Vec<Value>>().into();
        }
        if wanted("container") {
            let now = jiff::Timestamp::now();
            let line = |container: &std::sync::Arc<wharf_engine::record::Container>| {
                let written = usage.containers.get(&container.id).copied().unwrap_or(0);
                let below: u64 = container.layers.iter().filter_map(|layer| sizes.get(layer)).sum();
                summary(container, &container.config.image, now, Some((written, written + below)), version)
            };
            answer["Containers"] = containers.iter().map(line).collect::<Vec<Value>>().into();
        }
        if wanted("volume") {
            let volumes = engine.volumes().list().map_err(EngineError::from)?;
            let line = |volume: &wharf_volume::Volume| {
                let size = usage.volumes.get(&volume.name).copied().unwrap_or(0);
                network::volume(volume, Some((size, engine.volume_users(&volume.name).len())))
            };
            answer["Volumes"] = volumes.iter().map(line).collect::<Vec<Value>>().into();
        }
        if asked.is_empty() {
            answer["DataRoot"] = data_root(&usage.accounts);
        }
        Ok(answer)
    })
    .await?;
    Ok(ok(&answer))
}

fn data_root(accounts: &Accounts) -> Value {
    let mut all = json!(accounts);
    all["Total"] = accounts.total().into();
    all
}
