//! `GET /system/df`.

use serde_json::{Value, json};
use wharf_engine::EngineError;

use super::container_list::sizes;
use super::{Call, Result, blocking};
use crate::http::{ApiError, ok};
use crate::render::container::summary;
use crate::render::disk::{Sharing, Sizes, build_cache};
use crate::render::{image, network};

const TYPES: &[&str] = &["container", "image", "volume", "build-cache"];

pub(super) async fn usage(call: Call) -> Result {
    let asked = call.query.all("type");
    if let Some(bad) = asked.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
        return Err(ApiError::bad(format!("unknown object type: {bad}")));
    }
    let wanted = |kind: &str| asked.is_empty() || asked.iter().any(|asked| asked == kind);
    let mut answer = json!({});
    if wanted("image") || wanted("build-cache") {
        let (with_images, with_cache) = (wanted("image"), wanted("build-cache"));
        let (api, version) = (call.api.clone(), call.version);
        let (layers, images, cache) = blocking(move || {
            let engine = &api.engine;
            let all = engine.images().list()?;
            let sizes: Sizes = engine
                .images()
                .layers()
                .list()
                .map_err(EngineError::from)?
                .into_iter()
                .map(|layer| (layer.diff_id, layer.size))
                .collect();
            let sharing = Sharing::new(&all, &sizes);
            let line = |one: &wharf_image::ImageRecord| {
                let users = i64::try_from(engine.users(&one.id).len()).unwrap_or(0);
                image::summary(one, users, i64::try_from(sharing.shared(one)).unwrap_or(-1), version)
            };
            let images: Vec<Value> = if with_images { all.iter().map(line).collect() } else { Vec::new() };
            let records = if with_cache { api.builder.records() } else { Ok(Vec::new()) };
            let records = records.map_err(|e| EngineError::system(e.to_string()))?;
            let cache: Vec<Value> = records.iter().map(|(id, record)| build_cache(id, record, &sharing)).collect();
            Ok((sharing.total(), images, cache))
        })
        .await?;
        if with_images {
            answer["LayersSize"] = layers.into();
            answer["Images"] = images.into();
        }
        if with_cache {
            answer["BuildCache"] = cache.into();
        }
    }
    if wanted("container") {
        let now = jiff::Timestamp::now();
        let mut lines = Vec::new();
        for container in call.api.engine.list() {
            let size = sizes(&call.api.engine, &container).await;
            lines.push(summary(&container, &container.config.image, now, size, call.version));
        }
        answer["Containers"] = lines.into();
    }
    if wanted("volume") {
        let engine = call.api.engine.clone();
        let lines = blocking(move || {
            let volumes = engine.volumes().list().map_err(EngineError::from)?;
            let line = |volume: &wharf_volume::Volume| {
                // One that goes meanwhile takes no room.
                let size = engine.volumes().size(&volume.name).unwrap_or(0);
                network::volume(volume, Some((size, engine.volume_users(&volume.name).len())))
            };
            Ok(volumes.iter().map(line).collect::<Vec<Value>>())
        })
        .await?;
        answer["Volumes"] = lines.into();
    }
    Ok(ok(&answer))
}
