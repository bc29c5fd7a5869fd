//! Containers, as `inspect` and `ps` show them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use wharf_engine::record::{Container, Status};
use wharf_engine::spec::PortBinding;

use super::words;

/// What a rendering needs beside the record.
pub(crate) struct Around<'a> {
    pub(crate) version: (u32, u32),
    pub(crate) exec_ids: Vec<String>,
    pub(crate) data_root: &'a std::path::Path,
    /// Bytes that the container has written, and of all its files.
    pub(crate) size: Option<(u64, u64)>,
}

/// `GET /containers/{id}/json`.
pub(crate) fn inspect(c: &Container, around: &Around<'_>) -> Value {
    let dir = around.data_root.join("containers").join(&c.id);
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let status = c.state.status;
    let mut state = json!({
        "Status": status.as_str(),
        "Running": status.is_active(),
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": c.state.oom_killed,
        "Dead": status == Status::Dead,
        "Pid": c.state.pid,
        "ExitCode": c.state.exit_code,
        "Error": c.state.error,
        "StartedAt": c.state.started_at,
        "FinishedAt": c.state.finished_at,
    });
    if let Some(health) = &c.state.health {
        state["Health"] = json!(health);
    }
    let mut config = json!(c.config);
    if config["Image"].as_str() == Some("") {
        config["Image"] = json!(c.image);
    }
    let mut all = json!({
        "Id": c.id,
        "Created": c.created,
        "Path": c.path,
        "Args": c.args,
        "State": state,
        "Image": c.image,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": c.log_path,
        "Name": format!("/{}", c.name),
        "RestartCount": c.restart_count,
        "Driver": "overlay2",
        "Platform": c.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if around.exec_ids.is_empty() { Value::Null } else { json!(around.exec_ids) },
        "HostConfig": c.host,
        "GraphDriver": { "Name": "overlay2", "Data": { "UpperDir": file("upper"), "WorkDir": file("work") } },
        "Mounts": mounts(c),
        "Config": config,
        "NetworkSettings": networks(c, around.version),
    });
    if let Some((written, root)) = around.size {
        all["SizeRw"] = written.into();
        all["SizeRootFs"] = root.into();
    }
    all
}

fn mounts(c: &Container) -> Vec<Value> {
    c.mounts
        .iter()
        .map(|point| {
            let mut value = json!(point);
            value.as_object_mut().map(|object| object.remove("Anonymous"));
            value
        })
        .collect()
}

fn networks(c: &Container, version: (u32, u32)) -> Value {
    let mut settings = json!({
        "Bridge": "",
        "SandboxID": if c.state.status.is_active() { c.id.as_str() } else { "" },
        "SandboxKey": if c.state.pid > 0 { format!("/proc/{}/ns/net", c.state.pid) } else { String::new() },
        "Ports": ports_map(&c.ports),
        "Networks": c.networks,
    });
    // The fields of one network only went with API 1.52.
    if version < (1, 52) {
        let bridge = c.networks.get("bridge");
        let text = |pick: fn(&wharf_engine::spec::EndpointSettings) -> &String| bridge.map_or("", |e| pick(e).as_str());
        for (key, value) in [
            ("EndpointID", text(|e| &e.endpoint_id)),
            ("Gateway", text(|e| &e.gateway)),
            ("IPAddress", text(|e| &e.ip_address)),
            ("MacAddress", text(|e| &e.mac_address)),
            ("IPv6Gateway", ""),
            ("GlobalIPv6Address", ""),
            ("LinkLocalIPv6Address", ""),
        ] {
            settings[key] = value.into();
        }
        settings["IPPrefixLen"] = bridge.map_or(0, |e| e.ip_prefix_len).into();
        settings["GlobalIPv6PrefixLen"] = 0.into();
        settings["LinkLocalIPv6PrefixLen"] = 0.into();
        settings["HairpinMode"] = false.into();
        settings["SecondaryIPAddresses"] = Value::Null;
        settings["SecondaryIPv6Addresses"] = Value::Null;
    }
    settings
}

fn ports_map(ports: &BTreeMap<String, Option<Vec<PortBinding>>>) -> Value {
    json!(ports)
}

/// One line of `GET /containers/json`.
pub(crate) fn summary(c: &Container, now: Timestamp, size: Option<(u64, u64)>) -> Value {
    let command = std::iter::once(&c.path).chain(&c.args).map(String::as_str).collect::<Vec<_>>().join(" ");
    let created = c.created.parse::<Timestamp>().map_or(0, Timestamp::as_second);
    let mut all = json!({
        "Id": c.id,
        "Names": [format!("/{}", c.name)],
        "Image": if c.config.image.is_empty() { c.image.to_string() } else { c.config.image.clone() },
        "ImageID": c.image,
        "Command": command,
        "Created": created,
        "Ports": ports(c),
        "Labels": c.config.labels.clone().unwrap_or_default(),
        "State": c.state.status.as_str(),
        "Status": words::status(c, now),
        "HostConfig": { "NetworkMode": c.host.network_mode },
        "NetworkSettings": { "Networks": c.networks },
        "Mounts": mounts(c),
    });
    if let Some((written, root)) = size {
        all["SizeRw"] = written.into();
        all["SizeRootFs"] = root.into();
    }
    all
}

/// The ports as a list: published ones with where, exposed ones without.
fn ports(c: &Container) -> Vec<Value> {
    let mut all = Vec::new();
    let exposed = c.config.exposed_ports.iter().flatten().map(|(port, _)| (port, None));
    let published = c.ports.iter().map(|(port, bindings)| (port, bindings.as_ref()));
    let mut seen: BTreeMap<&String, Option<&Vec<PortBinding>>> = exposed.collect();
    if c.state.status.is_active() {
        seen.extend(published);
    } else {
        // Docker lists none for what does not run.
        return all;
    }
    for (port, bindings) in seen {
        let (number, kind) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: u16 = number.parse().unwrap_or(0);
        match bindings {
            Some(bindings) if !bindings.is_empty() => {
                for binding in bindings {
                    let public: u16 = binding.host_port.parse().unwrap_or(0);
                    all.push(json!({
                        "IP": binding.host_ip, "PrivatePort": number, "PublicPort": public, "Type": kind,
                    }));
                }
            }
            _ => all.push(json!({ "PrivatePort": number, "Type": kind })),
        }
    }
    all
}
