//! Builds, by the classic protocol.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_build::{BuildEvent, BuildRequest, Limits, Ulimit};

use super::images::progress_line;
use super::{Call, Result, blocking};
use crate::filters::Filters;
use crate::http::{ApiError, blocking_reader, error_line, line, ok, stream};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UlimitJson {
    name: String,
    soft: i64,
    hard: i64,
}

pub(super) async fn build(call: Call) -> Result {
    let query = call.query.clone();
    if query.get("version") == Some("2") {
        return Err(ApiError::bad("BuildKit's protocol is not served; set DOCKER_BUILDKIT=0 for this client"));
    }
    if query.get("remote").is_some_and(|remote| remote != "client-session") {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "building from a URL is not supported: send the context",
        ));
    }
    if query.flag("squash") {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "squash is not supported yet"));
    }
    // A value of `null` asks for the daemon's own variable, which is nobody's business.
    let build_args: BTreeMap<String, Option<String>> = query.json::<Option<_>>("buildargs")?.unwrap_or_default();
    // Older clients send `null` where there is nothing.
    let ulimits: Vec<UlimitJson> = query.json::<Option<_>>("ulimits")?.unwrap_or_default();
    let positive =
        |key: &str| -> std::result::Result<Option<i64>, ApiError> { Ok(query.number::<i64>(key)?.filter(|n| *n != 0)) };
    let unsigned = |key: &str| -> std::result::Result<Option<u64>, ApiError> {
        Ok(positive(key)?.and_then(|n| u64::try_from(n).ok()))
    };
    let text = |key: &str| query.get(key).map(str::to_owned);
    let request = BuildRequest {
        context: Box::new(blocking_reader(call.request.into_body())),
        dockerfile: text("dockerfile").unwrap_or_else(|| "Dockerfile".into()),
        tags: query.all("t").into_iter().filter(|tag| !tag.is_empty()).collect(),
        build_args: build_args.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
        labels: query.json::<Option<_>>("labels")?.unwrap_or_default(),
        target: text("target"),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        quiet: query.flag("q"),
        network: text("networkmode").unwrap_or_else(|| "default".into()),
        platform: text("platform"),
        shm_size: unsigned("shmsize")?,
        limits: Limits {
            memory: positive("memory")?,
            memory_swap: positive("memswap")?,
            cpu_shares: unsigned("cpushares")?,
            cpu_period: unsigned("cpuperiod")?,
            cpu_quota: positive("cpuquota")?,
            cpuset_cpus: text("cpusetcpus"),
            cpuset_mems: text("cpusetmems"),
            ulimits: ulimits.into_iter().map(|u| Ulimit { name: u.name, soft: u.soft, hard: u.hard }).collect(),
        },
        extra_hosts: query
            .all("extrahosts")
            .iter()
            .flat_map(|t| t.split(','))
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect(),
        secrets: BTreeMap::new(),
    };
    let quiet = request.quiet;
    let builder = call.api.builder.clone();
    let (events, mut told) = mpsc::channel::<BuildEvent>(64);
    let mut building = tokio::spawn(async move { builder.build(request, events).await });
    // What is wrong before the first word is a status; Docker's client shows both the same.
    let first = tokio::select! {
        biased;
        first = told.recv() => first,
        done = &mut building => return finished(done, quiet),
    };
    let Some(first) = first else { return finished(building.await, quiet) };
    let (sender, chunks) = mpsc::channel::<Bytes>(64);
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(event) = next {
            if sender.send(event_line(&event)).await.is_err() {
                // The client has gone; closing the channel ends the build.
                return;
            }
            next = told.recv().await;
        }
        let last = match building.await {
            Ok(Ok(id)) if quiet => Some(line(&json!({ "stream": format!("{id}\n") }))),
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error_line(&error.to_string())),
            Err(error) => Some(error_line(&error.to_string())),
        };
        if let Some(last) = last {
            let _ = sender.send(last).await;
        }
    });
    Ok(stream("application/json", chunks))
}

fn finished(
    done: std::result::Result<wharf_build::Result<wharf_reference::Digest>, tokio::task::JoinError>,
    quiet: bool,
) -> Result {
    let (sender, chunks) = mpsc::channel(1);
    match done {
        Ok(Ok(id)) if quiet => drop(sender.try_send(line(&json!({ "stream": format!("{id}\n") })))),
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            let status = match error.kind {
                wharf_build::ErrorKind::Invalid => StatusCode::BAD_REQUEST,
                wharf_build::ErrorKind::NotFound => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return Err(ApiError::new(status, error.to_string()));
        }
        Err(error) => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
    Ok(stream("application/json", chunks))
}

fn event_line(event: &BuildEvent) -> Bytes {
    match event {
        BuildEvent::Stream(text) => line(&json!({ "stream": text })),
        BuildEvent::Aux(id) => line(&json!({ "aux": { "ID": id } })),
        BuildEvent::Progress(progress) => progress_line(progress),
    }
}

pub(super) async fn prune(call: Call) -> Result {
    let filters =
        Filters::of(&call.query, &["until", "id", "unused-for", "parent", "type", "inuse", "shared", "private"])?;
    let until = filters.until()?;
    let all = call.query.flag("all");
    let builder = call.api.builder;
    let pruned = blocking(move || {
        let which = |id: &str, record: &wharf_build::CacheRecord| {
            filters.any("id", |wanted| id.starts_with(wanted))
                && until.is_none_or(|until| record.last_used < until.as_second())
        };
        builder.prune(&which, all).map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
    })
    .await?;
    let ids: Value = if pruned.ids.is_empty() { Value::Null } else { json!(pruned.ids) };
    Ok(ok(&json!({ "CachesDeleted": ids, "SpaceReclaimed": pruned.freed })))
}
