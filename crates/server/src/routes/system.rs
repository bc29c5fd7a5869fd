//! The engine itself: ping, version, info, events, disk usage, credentials.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_engine::event::Event;

use super::{Call, Result};
use crate::auth::AuthConfig;
use crate::filters::{Filters, moment};
use crate::http::{Answer, ok, read_json, stream, text};
use crate::render;

const KERNEL_UNKNOWN: &str = "unknown";

pub(super) fn ping() -> Answer {
    let mut answer = text(StatusCode::OK, "OK");
    let headers = answer.headers_mut();
    // The classic builder: BuildKit's protocol is not served.
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    headers.insert("Cache-Control", HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert("Pragma", HeaderValue::from_static("no-cache"));
    answer
}

pub(super) fn version() -> Answer {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| KERNEL_UNKNOWN.into());
    let kernel = kernel.trim();
    let version = env!("CARGO_PKG_VERSION");
    ok(&json!({
        "Platform": { "Name": "Wharf" },
        "Components": [{
            "Name": "Engine",
            "Version": version,
            "Details": {
                "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux", "Arch": architecture(),
                "KernelVersion": kernel, "Experimental": "false", "GitCommit": "", "GoVersion": "", "BuildTime": "",
            },
        }],
        "Version": version,
        "ApiVersion": "1.51",
        "MinAPIVersion": "1.24",
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel,
        "BuildTime": "",
    }))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) async fn info(call: Call) -> Result {
    let engine = &call.api.engine;
    let info = engine.info().await?;
    let options = engine.options();
    let mut registries =
        BTreeMap::from([("docker.io".to_owned(), index("docker.io", true, &options.registry_mirrors))]);
    for name in &options.insecure_registries {
        registries.insert(name.clone(), index(name, false, &[]));
    }
    Ok(ok(&json!({
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs"], ["Layers", "dirs"]],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null,
                     "Log": ["json-file", "local", "none"] },
        "MemoryLimit": info.memory_limit,
        "SwapLimit": info.swap_limit,
        "CpuCfsPeriod": info.cpu_quota,
        "CpuCfsQuota": info.cpu_quota,
        "CPUShares": info.cpu_quota,
        "CPUSet": info.cpuset,
        "PidsLimit": info.pids_limit,
        "IPv4Forwarding": true,
        "Debug": options.debug,
        "NFd": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        "OomKillDisable": false,
        "NGoroutines": std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count),
        "SystemTime": info.time,
        "LoggingDriver": options.log.driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": info.cgroup_version,
        "NEventsListener": engine.events().listeners(),
        "KernelVersion": info.kernel,
        "OperatingSystem": info.operating_system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": info.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "IndexConfigs": registries,
            "Mirrors": options.registry_mirrors,
        },
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "GenericResources": null,
        "DockerRootDir": options.data_root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": info.name,
        "Labels": options.labels,
        "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Runtimes": { "wharf": { "path": "wharf" } },
        "DefaultRuntime": "wharf",
        "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
                   "RemoteManagers": null },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "wharf",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Warnings": info.warnings,
        "CDISpecDirs": [],
    })))
}

fn index(name: &str, secure: bool, mirrors: &[String]) -> Value {
    json!({ "Name": name, "Mirrors": mirrors, "Secure": secure, "Official": name == "docker.io" })
}

pub(super) async fn auth(call: Call) -> Result {
    let config: AuthConfig = read_json(call.request.into_body()).await?;
    let server = match config.serveraddress.as_str() {
        "" => "https://index.docker.io/v1/".to_owned(),
        address => address.to_owned(),
    };
    let credentials =
        config.credentials().ok_or_else(|| crate::http::ApiError::bad("username and password are required"))?;
    let token = call.api.engine.login(&server, &credentials).await?;
    Ok(ok(&json!({ "Status": "Login Succeeded", "IdentityToken": token })))
}

const EVENT_FILTERS: &[&str] = &[
    "type",
    "event",
    "container",
    "image",
    "volume",
    "network",
    "plugin",
    "daemon",
    "label",
    "scope",
    "node",
    "service",
    "secret",
    "config",
];

pub(super) async fn events(call: Call) -> Result {
    let filters = Filters::of(&call.query, EVENT_FILTERS)?;
    let since = call.query.get("since").map(moment).transpose()?;
    let until = call.query.get("until").map(moment).transpose()?;
    let (past, mut live) = call.api.engine.events().subscribe();
    let (sender, chunks) = mpsc::channel(64);
    tokio::spawn(async move {
        let old = call.version < (1, 52);
        let wanted = |event: &Event| {
            let at = i128::from(event.time_nano);
            since.is_none_or(|since| at >= since.as_nanosecond())
                && until.is_none_or(|until| at <= until.as_nanosecond())
                && fits(event, &filters)
        };
        // Past events only for those who ask from when on.
        if since.is_some() || until.is_some() {
            for event in past.iter().filter(|event| wanted(event)) {
                if sender.send(event_line(event, old)).await.is_err() {
                    return;
                }
            }
        }
        let end = async {
            match until {
                Some(until) => {
                    let left = until.duration_since(jiff::Timestamp::now());
                    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                event = live.recv() => event,
                () = &mut end => return,
                () = sender.closed() => return,
            };
            match event {
                Ok(event) if wanted(&event) => {
                    if sender.send(event_line(&event, old)).await.is_err() {
                        return;
                    }
                }
                // A client that is too slow misses some, as with Docker.
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(_) => return,
            }
        }
    });
    Ok(stream("application/json", chunks))
}

fn event_line(event: &Event, old: bool) -> Bytes {
    let mut value = json!(event);
    if old && event.kind == "container" || event.kind == "image" {
        value["status"] = event.action.as_str().into();
        value["id"] = event.actor.id.as_str().into();
        if let Some(image) = event.actor.attributes.get("image") {
            value["from"] = image.as_str().into();
        }
    }
    Bytes::from(format!("{value}\n"))
}

fn fits(event: &Event, filters: &Filters) -> bool {
    let named = |kind: &str, text: &str| {
        event.kind == kind
            && (event.actor.id.starts_with(text) || event.actor.attributes.get("name").is_some_and(|name| name == text))
    };
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("type", |kind| event.kind == kind)
        && filters.any("event", |wanted| action == wanted || event.action == wanted)
        && filters.any("container", |text| named("container", text))
        && filters.any("network", |text| named("network", text))
        && filters.any("volume", |text| named("volume", text))
        && filters.any("image", |text| {
            named("image", text) || event.actor.attributes.get("image").is_some_and(|image| image == text)
        })
        && filters.any("scope", |scope| event.scope == scope)
        && filters.labels(Some(&event.actor.attributes))
}

pub(super) async fn disk_usage(call: Call) -> Result {
    let usage = call.api.engine.disk_usage().await?;
    let engine = &call.api.engine;
    let images: Vec<Value> = usage
        .images
        .iter()
        .map(|image| {
            let users = i64::try_from(engine.users(&image.id).len()).unwrap_or(0);
            render::image::summary(image, users, call.version)
        })
        .collect();
    let now = jiff::Timestamp::now();
    let containers: Vec<Value> = usage
        .containers
        .iter()
        .map(|(container, written)| render::container::summary(container, now, Some((*written, *written))))
        .collect();
    let volumes = engine.volumes().list().map_err(wharf_engine::EngineError::from)?;
    let volumes: Vec<Value> = volumes
        .iter()
        .map(|volume| {
            let size = usage.volumes.iter().find(|(name, _)| *name == volume.name).map_or(0, |(_, size)| *size);
            render::network::volume(volume, Some((size, engine.volume_users(&volume.name).len())))
        })
        .collect();
    Ok(ok(&json!({
        "LayersSize": usage.layers,
        "Images": images,
        "Containers": containers,
        "Volumes": volumes,
        "BuildCache": [],
    })))
}
