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

/// The kinds by their fields up to API 1.52, and since.
const NEW_FIELDS: [(&str, &str); 4] = [
    ("Images", "ImageUsage"),
    ("Containers", "ContainerUsage"),
    ("Volumes", "VolumeUsage"),
    ("BuildCache", "BuildCacheUsage"),
];

/// Answers in bounded time; with `exact`, which is Wharf's, all that is written to is walked first. `DataRoot`, also
/// Wharf's, has every byte by who has it.
pub(super) async fn usage(call: Call) -> Result {
    // Nobody could choose before API 1.42.
    let asked = if call.version < (1, 42) { Vec::new() } else { call.query.all("type") };
    if let Some(bad) = asked.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
        return Err(ApiError::bad(format!("unknown object type: {bad}")));
    }
    let asked: Vec<String> = asked.into_iter().map(|kind| kind.to_owned()).collect();
    let exact = call.query.flag("exact");
    // Since API 1.52 how much there is of each kind; the objects themselves when they are asked for.
    let verbose = call.query.flag("verbose");
    let (api, version) = (call.api, call.version);
    let answer = blocking(move || {
        let wanted = |kind: &str| asked.is_empty() || asked.iter().any(|asked| asked == kind);
        let engine = &api.engine;
        let usage = engine.disk_usage(if exact { std::time::Duration::MAX } else { PATIENCE })?;
        let sizes: Sizes = usage.layers.iter().map(|layer| (layer.diff_id.clone(), layer.size)).collect();
        let sharing = Sharing::new(&usage.images, &sizes);
        let containers = engine.list();
        // What nobody has asked for is there all the same, up to API 1.51.
        let mut answer = match version < (1, 52) {
            true => json!({ "LayersSize": 0, "Images": null, "Containers": null, "Volumes": null, "BuildCache": null }),
            false => json!({}),
        };
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
            let failing = |e: wharf_build::BuildError| EngineError::system(e.to_string());
            let mut records = api.builder.records().map_err(failing)?;
            let until = (!exact).then(|| std::time::Instant::now() + PATIENCE);
            records.extend(api.builder.mounts(until).map_err(failing)?);
            answer["BuildCache"] =
                records.iter().map(|(id, record)| build_cache(id, record, &sharing)).collect::<Vec<Value>>().into();
        }
        if wanted("container") {
            let now = jiff::Timestamp::now();
            let line = |container: &std::sync::Arc<wharf_engine::record::Container>| {
                let written = usage.containers.get(&container.id).copied().unwrap_or(0);
                let below: u64 = container.layers.iter().filter_map(|layer| sizes.get(layer)).sum();
                let size = Some((written, written + below));
                json!(summary(container, &[], &container.config.image, now, size, version))
            };
            answer["Containers"] = containers.iter().map(line).collect::<Vec<Value>>().into();
        }
        if wanted("volume") {
            let volumes = engine.volumes().list().map_err(EngineError::from)?;
            // What a plugin has is on no disk of this engine's.
            let volumes = volumes.into_iter().filter(wharf_volume::Volume::is_local);
            let line = |volume: &wharf_volume::Volume| {
                let size = usage.volumes.get(&volume.name).copied().unwrap_or(0);
                network::volume(volume, Some((size, engine.volume_users(&volume.name).len())))
            };
            answer["Volumes"] = volumes.map(|volume| line(&volume)).collect::<Vec<Value>>().into();
        }
        if version >= (1, 52) {
            let legacy = version < (1, 53) && !verbose;
            let in_use = |kind: &str, item: &Value| match kind {
                "Images" => item["Containers"].as_i64() > Some(0),
                "Containers" => matches!(item["State"].as_str(), Some("running" | "paused" | "restarting")),
                "Volumes" => item["UsageData"]["RefCount"].as_i64() > Some(0),
                _ => item["InUse"] == true,
            };
            for (old, new) in NEW_FIELDS {
                let Some(items) = answer[old].as_array().cloned() else { continue };
                let size = |item: &Value| match old {
                    "Containers" => item["SizeRw"].as_u64(),
                    "Volumes" => item["UsageData"]["Size"].as_u64(),
                    _ => item["Size"].as_u64(),
                };
                let (active, idle): (Vec<&Value>, Vec<&Value>) = items.iter().partition(|item| in_use(old, item));
                let sum = |items: &[&Value]| items.iter().filter_map(|item| size(item)).sum::<u64>();
                let (total, reclaimable) = match old {
                    // Layers that several have count once; those of an image that is in use stay.
                    "Images" => {
                        let stay =
                            usage.images.iter().filter(|one| active.iter().any(|item| item["Id"] == json!(one.id)));
                        let stay: std::collections::BTreeSet<_> = stay.flat_map(|one| &one.diff_ids).collect();
                        let stay: u64 = stay.into_iter().filter_map(|layer| sizes.get(layer)).sum();
                        (sharing.total(), sharing.total().saturating_sub(stay))
                    }
                    // What images have, too, would not go with it.
                    "BuildCache" => {
                        let own: Vec<&Value> = idle.iter().filter(|item| item["Shared"] != true).copied().collect();
                        (sum(&active) + sum(&idle), sum(&own))
                    }
                    _ => (sum(&active) + sum(&idle), sum(&idle)),
                };
                let mut all = json!({
                    "ActiveCount": active.len(), "TotalCount": items.len(), "TotalSize": total,
                    "Reclaimable": reclaimable,
                });
                if verbose {
                    all["Items"] = items.clone().into();
                }
                answer[new] = all;
                if !legacy && let Some(answer) = answer.as_object_mut() {
                    answer.remove(old);
                    answer.remove(if old == "Images" { "LayersSize" } else { old });
                }
            }
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
