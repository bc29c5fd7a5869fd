//! Volumes.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_engine::EngineError;
use wharf_volume::{CreateVolume, Volume};

use super::{Call, NO_MANAGER, Result, blocking, dry_run, prune_stream, pruned_event};
use crate::filters::Filters;
use crate::http::{ApiError, json_answer, no_content, ok, read_json};
use crate::render::network::{labels_of, volume as render};

pub(super) async fn list(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["dangling", "driver", "label", "name"])?;
    let dangling = filters.flag("dangling")?;
    let names = filters.patterns("name");
    let engine = call.api.engine;
    let (all, warnings) = blocking(move || {
        let fits = |v: &Volume| {
            filters.any("driver", |driver| v.driver == driver)
                && names.fit(&v.name)
                && dangling.is_none_or(|wanted| wanted == engine.volume_users(&v.name).is_empty())
                && filters.labels(Some(&labels_of(v)))
        };
        let (all, warnings) = engine.volumes().list_all().map_err(EngineError::from)?;
        Ok((all.iter().filter(|v| fits(v)).map(|v| render(v, None)).collect::<Vec<Value>>(), warnings))
    })
    .await?;
    let warnings = if warnings.is_empty() { Value::Null } else { json!(warnings) };
    Ok(ok(&json!({ "Volumes": all, "Warnings": warnings })))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Create {
    name: String,
    driver: String,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    cluster_volume_spec: Option<Value>,
}

pub(super) async fn create(mut call: Call) -> Result {
    let create: Create = read_json(&mut call.request, "volume.CreateRequest").await?;
    if create.cluster_volume_spec.is_some() {
        // A volume of a swarm, of which this engine is no part.
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_MANAGER));
    }
    let request = CreateVolume {
        name: create.name,
        driver: create.driver,
        labels: create.labels,
        options: create.driver_opts,
        ..CreateVolume::default()
    };
    let engine = call.api.engine.clone();
    let (made, is_new) = blocking(move || {
        let is_new = request.name.is_empty() || engine.volumes().get(&request.name).is_err();
        Ok((engine.volumes().create(&request).map_err(EngineError::from)?, is_new))
    })
    .await?;
    if is_new {
        call.api.engine.tell_of("volume", "create", &made.name, &[("driver", &made.driver)]);
    }
    Ok(json_answer(StatusCode::CREATED, &render(&made, None)))
}

pub(super) async fn inspect(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let (found, used) = blocking(move || {
        let found = engine.volumes().inspect(&name).map_err(EngineError::from)?;
        let used = engine.volumes().used(&found);
        Ok((found, used))
    })
    .await?;
    let mut shown = render(&found, None);
    if let (Some(limit), Some(used)) = (found.limit, used) {
        let by = if limit.project.is_some() { "project quota" } else { "file system in a file" };
        shown["Status"] = json!({ "SizeLimit": limit.bytes, "SizeUsed": used, "LimitedBy": by });
    }
    Ok(ok(&shown))
}

pub(super) async fn remove(call: Call, name: &str) -> Result {
    let force = call.query.flag("force");
    let (engine, own) = (call.api.engine.clone(), name.to_owned());
    let driver = blocking(move || {
        let users = |name: &str| engine.volume_users(name);
        let driver = engine.volumes().get(&own).map_or_else(|_| "local".into(), |volume| volume.driver);
        engine.volumes().remove(&own, force, &users).map_err(EngineError::from)?;
        Ok(driver)
    })
    .await?;
    call.api.engine.tell_of("volume", "destroy", name, &[("driver", &driver)]);
    Ok(no_content())
}

pub(super) async fn prune(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["all", "label", "label!"])?;
    // Since API 1.42 only anonymous ones, unless all are asked for.
    let all = filters.flag("all")?.unwrap_or(call.version < (1, 42));
    let gone = dry_run::gone(&call, &filters)?;
    let engine = call.api.engine.clone();
    let users = move |name: &str| -> Vec<String> {
        engine.volume_users(name).into_iter().filter(|id| !gone.contains(id)).collect()
    };
    let engine = call.api.engine.clone();
    if dry_run::is_asked(&call) {
        let found = blocking(move || {
            let unwanted = |volume: &Volume| filters.labels(Some(&labels_of(volume)));
            Ok(engine.volumes().prunable(all, &unwanted, &users).map_err(EngineError::from)?)
        })
        .await?;
        let names: Vec<&str> = found.iter().map(|(volume, _)| volume.name.as_str()).collect();
        let bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
        return Ok(ok(&json!({ "DryRun": true, "VolumesDeleted": names, "SpaceReclaimed": bytes })));
    }
    prune_stream::answer(&call, |told| async move {
        let own = engine.clone();
        let (names, freed) = blocking(move || {
            let unwanted = |volume: &Volume| filters.labels(Some(&labels_of(volume)));
            let told = |name: &str| told.deleted(name);
            Ok(own.volumes().prune_and_tell(all, &unwanted, &users, &told).map_err(EngineError::from)?)
        })
        .await?;
        for name in &names {
            engine.tell_of("volume", "destroy", name, &[("driver", "local")]);
        }
        pruned_event(&engine, "volume", freed);
        Ok(json!({ "VolumesDeleted": names, "SpaceReclaimed": freed }))
    })
    .await
}
