//! Containers, as `inspect` and `ps` show them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use wharf_engine::record::{Container, NEVER, Status};
use wharf_engine::spec::EndpointSettings;
use wharf_reference::Digest;

use super::words;

/// What a rendering needs beside the record.
#[derive(Debug)]
pub(crate) struct Around<'a> {
    pub(crate) version: (u32, u32),
    pub(crate) exec_ids: Vec<String>,
    pub(crate) links: Vec<String>,
    pub(crate) data_root: &'a Path,
    /// Where its files of `/etc` are.
    pub(crate) etc_dir: &'a Path,
    /// Bytes that the container has written, and of all its files.
    pub(crate) size: Option<(u64, u64)>,
}

/// `GET /containers/{id}/json`.
pub(crate) fn inspect(c: &Container, around: &Around<'_>) -> Value {
    let dir = around.data_root.join("containers").join(&c.id);
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let etc = |name: &str| around.etc_dir.join(name).to_string_lossy().into_owned();
    let layers = around.data_root.join("layers");
    // Topmost first, as overlayfs takes them.
    let lower = |place: std::path::PathBuf| {
        let image = place.join("image");
        if image.exists() { image } else { place.join("root") }
    };
    let lowers: Vec<String> =
        c.layers.iter().rev().map(|id| lower(layers.join(id.hex())).to_string_lossy().into_owned()).collect();
    let mut data = json!({ "UpperDir": file("upper"), "WorkDir": file("work") });
    if !lowers.is_empty() {
        data["LowerDir"] = lowers.join(":").into();
    }
    let mut all = json!({
        "Id": c.id,
        "Created": c.created,
        "Path": c.path,
        "Args": c.args,
        "State": state(c),
        "Image": c.image,
        "ResolvConfPath": etc("resolv.conf"),
        "HostnamePath": etc("hostname"),
        "HostsPath": etc("hosts"),
        "LogPath": if c.host.log_config.driver == "json-file" { &*c.log_path } else { "" },
        "Name": format!("/{}", c.name),
        "RestartCount": c.restart_count,
        "Driver": "overlay2",
        "Platform": c.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if around.exec_ids.is_empty() { Value::Null } else { json!(around.exec_ids) },
        "HostConfig": host_config(c, &around.links),
        "GraphDriver": { "Name": "overlay2", "Data": data },
        "Mounts": mounts(c),
        "Config": config(c, around.version),
        "NetworkSettings": network_settings(c, around.version),
    });
    if let Some((written, root)) = around.size {
        all["SizeRw"] = written.into();
        all["SizeRootFs"] = root.into();
    }
    all
}

fn state(c: &Container) -> Value {
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
    if let Some(group) = &c.state.oom_group {
        // Beyond Docker's: whose limit it was.
        state["OOMCgroup"] = json!(group);
    }
    if let Some(health) = &c.state.health {
        state["Health"] = json!(health);
        state["Health"]["Status"] = c.state.health_status().into();
    }
    state
}

fn host_config(c: &Container, links: &[String]) -> Value {
    let mut host = json!(c.host);
    host["Links"] = if links.is_empty() { Value::Null } else { json!(links) };
    // Docker counts swap in when only the memory is limited.
    if c.host.resources.memory > 0 && c.host.resources.memory_swap == 0 {
        host["MemorySwap"] = (c.host.resources.memory * 2).into();
    }
    for key in ["PortBindings"] {
        if host[key].is_null() {
            host[key] = json!({});
        }
    }
    host
}

fn config(c: &Container, version: (u32, u32)) -> Value {
    let mut config = json!(c.config);
    if c.config.image.is_empty() {
        config["Image"] = json!(c.image);
    }
    if config["Labels"].is_null() {
        config["Labels"] = json!({});
    }
    if version < (1, 52) && config.get("OnBuild").is_none() {
        config["OnBuild"] = Value::Null;
    }
    // One address for all of a container's endpoints went with API 1.44; that which was asked for was shown up to 1.51.
    let main = c.host.network_mode.as_str();
    let has = c.networks.get(main).map(|endpoint| &endpoint.mac_address).filter(|_| version < (1, 44));
    let mac = has.filter(|mac| !mac.is_empty()).or_else(|| c.asked_macs.get(main));
    // The networks of the host and of nobody give none.
    if let Some(mac) = mac.filter(|_| version < (1, 52) && !matches!(main, "host" | "none")) {
        config["MacAddress"] = mac.as_str().into();
    }
    config
}

fn mounts(c: &Container) -> Vec<Value> {
    // What `--tmpfs` asks for is listed with the host's configuration alone.
    let asked = |target: &str| {
        let of_mounts = c.host.mounts.iter().flatten().any(|m| m.target.trim_end_matches('/') == target);
        of_mounts || c.host.tmpfs.iter().flatten().all(|(path, _)| path.trim_end_matches('/') != target)
    };
    let shown = c.mounts.iter().filter(|point| point.kind != "tmpfs" || asked(&point.destination));
    shown
        .map(|point| {
            let mut value = json!(point);
            if let Some(object) = value.as_object_mut() {
                // Of our own.
                ["Anonymous", "Subpath", "Image"].iter().for_each(|key| drop(object.remove(*key)));
            }
            value
        })
        .collect()
}

fn network_settings(c: &Container, version: (u32, u32)) -> Value {
    let mut settings = json!({
        "SandboxID": if c.state.status.is_active() { c.id.as_str() } else { "" },
        "SandboxKey": if c.state.pid > 0 { format!("/proc/{}/ns/net", c.state.pid) } else { String::new() },
        "Ports": c.ports,
        "Networks": networks(c, version),
    });
    // The fields of one network only went with API 1.52.
    if version < (1, 52) {
        let none = EndpointSettings::default();
        let bridge = c.networks.get("bridge").unwrap_or(&none);
        for (key, value) in [
            ("Bridge", json!("")),
            ("EndpointID", json!(bridge.endpoint_id)),
            ("Gateway", json!(bridge.gateway)),
            ("IPAddress", json!(bridge.ip_address)),
            ("IPPrefixLen", json!(bridge.ip_prefix_len)),
            ("MacAddress", json!(bridge.mac_address)),
            ("IPv6Gateway", json!(bridge.ipv6_gateway)),
            ("GlobalIPv6Address", json!(bridge.global_ipv6_address)),
            ("GlobalIPv6PrefixLen", json!(bridge.global_ipv6_prefix_len)),
            ("LinkLocalIPv6Address", json!("")),
            ("LinkLocalIPv6PrefixLen", json!(0)),
            ("HairpinMode", json!(false)),
            ("SecondaryIPAddresses", Value::Null),
            ("SecondaryIPv6Addresses", Value::Null),
        ] {
            settings[key] = value;
        }
    }
    settings
}

/// Endpoints by network. The container's short ID was among its aliases up to API 1.44.
fn networks(c: &Container, version: (u32, u32)) -> BTreeMap<&String, Endpoint<'_>> {
    let predefined = |name: &str| matches!(name, "bridge" | "host" | "none" | "default");
    // What it will be on is told of by the name alone until it has been there.
    let is_new = c.state.started_at == NEVER;
    let one = |name: &String, endpoint| {
        if version >= (1, 45) || predefined(name) {
            let unseen = || EndpointSettings { network_id: String::new(), ..EndpointSettings::clone(endpoint) };
            return if is_new { Endpoint::New(Box::new(unseen())) } else { Endpoint::Whole(endpoint) };
        }
        let mut aliases = endpoint.aliases.clone().unwrap_or_default();
        for alias in [c.id.get(..12).unwrap_or(&c.id), c.config.hostname.as_str()] {
            if !alias.is_empty() && !aliases.iter().any(|have| have == alias) {
                aliases.push(alias.to_owned());
            }
        }
        let mut value = json!(endpoint);
        value["Aliases"] = json!(aliases);
        if is_new {
            value["NetworkID"] = "".into();
        }
        Endpoint::Older(value)
    };
    c.networks.iter().map(|(name, endpoint)| (name, one(name, endpoint))).collect()
}

/// One line of `GET /containers/json`; a thousand of them are asked for often, so it is written as it is and no tree of JSON
/// is made of it before.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Summary<'a> {
    id: &'a str,
    names: Vec<Cow<'a, str>>,
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a Digest,
    command: String,
    created: i64,
    ports: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
    #[serde(serialize_with = "or_empty")]
    labels: Option<&'a BTreeMap<String, String>>,
    state: &'a str,
    status: String,
    host_config: SummaryHost<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<SummaryHealth<'a>>,
    network_settings: SummaryNetworks<'a>,
    mounts: Vec<Value>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryHost<'a> {
    network_mode: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryHealth<'a> {
    status: &'a str,
    failing_streak: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SummaryNetworks<'a> {
    networks: BTreeMap<&'a String, Endpoint<'a>>,
}

/// An endpoint as it is, without what a container that has never run shows, or with what an old client wants.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Endpoint<'a> {
    Whole(&'a EndpointSettings),
    New(Box<EndpointSettings>),
    Older(Value),
}

fn or_empty<S: Serializer>(labels: &Option<&BTreeMap<String, String>>, serializer: S) -> Result<S::Ok, S::Error> {
    match labels {
        Some(labels) => labels.serialize(serializer),
        None => serializer.serialize_map(Some(0))?.end(),
    }
}

/// `links` are its names in others' links, `image` is what the container's image is called now.
pub(crate) fn summary<'a>(
    c: &'a Container,
    links: &'a [String],
    image: &'a str,
    now: Timestamp,
    size: Option<(u64, u64)>,
    version: (u32, u32),
) -> Summary<'a> {
    let own = std::iter::once(Cow::Owned(format!("/{}", c.name)));
    let health = c.state.health.as_ref();
    Summary {
        id: &c.id,
        names: own.chain(links.iter().map(|link| Cow::Borrowed(link.as_str()))).collect(),
        image,
        image_id: &c.image,
        command: command(c),
        created: c.created.parse::<Timestamp>().map_or(0, Timestamp::as_second),
        ports: ports(c),
        size_rw: size.map(|(written, _)| written),
        size_root_fs: size.map(|(_, all)| all),
        labels: c.config.labels.as_ref(),
        state: c.state.status.as_str(),
        status: words::status(c, now),
        host_config: SummaryHost {
            network_mode: &c.host.network_mode,
            annotations: c.host.annotations.as_ref().filter(|_| version >= (1, 46)),
        },
        health: (version >= (1, 52)).then(|| SummaryHealth {
            status: c.state.health_status(),
            failing_streak: health.map_or(0, |health| health.failing_streak),
        }),
        network_settings: SummaryNetworks { networks: networks(c, version) },
        mounts: mounts(c),
    }
}

/// The program and its arguments; those with a space in quotes.
fn command(c: &Container) -> String {
    c.args.iter().fold(c.path.clone(), |all, word| match word.contains(' ') {
        true => format!("{all} '{word}'"),
        false => format!("{all} {word}"),
    })
}

/// The ports as a list: published ones with where, exposed ones without; none of what does not run.
fn ports(c: &Container) -> Vec<Value> {
    if !c.state.status.is_active() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for (port, bindings) in c.ports.iter().map(|(port, bindings)| (port, bindings.as_ref())) {
        let (number, kind) = port.split_once('/').unwrap_or((port, "tcp"));
        let number: u16 = number.parse().unwrap_or(0);
        match bindings.filter(|bindings| !bindings.is_empty()) {
            Some(bindings) => all.extend(bindings.iter().map(|binding| {
                let public: u16 = binding.host_port.parse().unwrap_or(0);
                json!({ "IP": binding.host_ip, "PrivatePort": number, "PublicPort": public, "Type": kind })
            })),
            None => all.push(json!({ "PrivatePort": number, "Type": kind })),
        }
    }
    all
}

/// A container for tests.
#[cfg(test)]
pub(crate) fn sample() -> Container {
    let digest = |text: &str| wharf_reference::Digest::sha256(text.as_bytes());
    let json = json!({
        "id": "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2",
        "name": "web", "created": "2026-01-02T03:00:00.000000001Z", "path": "sh", "args": ["-c", "echo a b"],
        "image": digest("image"), "layers": [digest("base"), digest("top")],
        "config": { "Image": "debian", "Hostname": "4fa6e0f0c678", "ExposedPorts": { "80/tcp": {}, "53/udp": {} } },
        "host": { "NetworkMode": "bridge" },
        "state": { "status": "running", "pid": 77, "exit_code": 0, "error": "", "oom_killed": false,
                   "started_at": "2026-01-02T03:00:01Z", "finished_at": wharf_engine::record::NEVER, "health": null },
        "restart_count": 0,
        "mounts": [{ "Type": "volume", "Name": "v", "Source": "/s", "Destination": "/d", "Driver": "local",
                     "Mode": "", "RW": true, "Propagation": "", "Anonymous": true }],
        "networks": { "bridge": { "IPAddress": "172.17.0.2", "IPPrefixLen": 16, "Gateway": "172.17.0.1",
                                  "NetworkID": "abc", "MacAddress": "02:42:ac:11:00:02" },
                      "own": { "Aliases": ["db"], "NetworkID": "def" } },
        "ports": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }] },
        "log_path": "/x-json.log", "platform": "linux", "stopped_by_user": false,
    });
    serde_json::from_value(json).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(version: (u32, u32)) -> Value {
        let around = Around {
            version,
            exec_ids: Vec::new(),
            links: Vec::new(),
            data_root: Path::new("/data"),
            etc_dir: Path::new("/data/containers/0123"),
            size: None,
        };
        inspect(&sample(), &around)
    }

    #[test]
    fn inspect_has_docker_s_fields() {
        let all = shown((1, 51));
        assert_eq!((all["Name"].as_str(), all["State"]["Running"].as_bool()), (Some("/web"), Some(true)));
        assert_eq!(all["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(all["NetworkSettings"]["Networks"]["own"]["Aliases"], json!(["db"]));
        assert_eq!(all["HostConfig"]["PortBindings"], json!({}));
        assert!(all["Mounts"][0].get("Anonymous").is_none() && all["ExecIDs"].is_null());
        let lower = all["GraphDriver"]["Data"]["LowerDir"].as_str().unwrap();
        assert!(lower.starts_with("/data/layers/") && lower.ends_with("/root") && lower.contains(":/data/layers/"));
    }

    #[test]
    fn old_clients_get_what_they_know() {
        assert_eq!(shown((1, 51))["NetworkSettings"]["IPAddress"], "172.17.0.2");
        assert!(shown((1, 52))["NetworkSettings"].get("IPAddress").is_none());
        let old = shown((1, 43));
        assert_eq!(old["NetworkSettings"]["Networks"]["own"]["Aliases"], json!(["db", "4fa6e0f0c678"]));
        assert_eq!(old["Config"]["MacAddress"], "02:42:ac:11:00:02");
        assert!(shown((1, 44))["Config"].get("MacAddress").is_none());
    }

    #[test]
    fn a_line_of_ps() {
        let now = "2026-01-02T03:00:05Z".parse().unwrap();
        let shown = |c: &Container| json!(summary(c, &[], "debian", now, None, (1, 51)));
        let mut running = sample();
        running.ports.insert("53/udp".into(), None);
        let line = shown(&running);
        assert_eq!(
            (line["Command"].as_str(), line["Status"].as_str()),
            (Some("sh -c 'echo a b'"), Some("Up 4 seconds"))
        );
        let ports = json!([
            { "PrivatePort": 53, "Type": "udp" },
            { "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" },
        ]);
        assert_eq!(line["Ports"], ports);
        let mut stopped = sample();
        stopped.state.status = Status::Exited;
        assert_eq!(shown(&stopped)["Ports"], json!([]));
    }
}
