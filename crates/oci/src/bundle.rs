//! A bundle on the disk (OCI runtime-spec, "Filesystem Bundle").

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::capabilities;
use crate::check;
use crate::devices;
use crate::failure::{Failure, Result};
use crate::keys;

/// More than this is no configuration; the bound is that of the design's parsers.
const MAX_CONFIG: u64 = 8 << 20;

/// A configuration and where it is from.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute.
    pub(crate) dir: PathBuf,
    pub(crate) spec: Spec,
    pub(crate) rootfs: PathBuf,
    /// What is left out of it.
    pub(crate) warnings: Vec<String>,
}

impl Bundle {
    /// Reads and checks it. `config`: the name of the configuration's file, from the bundle's directory on.
    pub(crate) fn read(dir: Option<&str>, config: Option<&str>) -> Result<Self> {
        let dir = Path::new(dir.filter(|dir| !dir.is_empty()).unwrap_or("."));
        let dir = dir.canonicalize().map_err(|error| Failure::file("chdir", dir, &error))?;
        let name = config.filter(|name| !name.is_empty()).unwrap_or("config.json");
        let path = dir.join(name);
        let file = File::open(&path).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return Failure::new(format!("JSON specification file {name} not found"));
            }
            Failure::file("open", &path, &error)
        })?;
        let mut value = read_config(file, &path)?;
        let mut warnings = Vec::new();
        if let Some(process) = value.get_mut("process") {
            complete(process);
            warnings.extend(capabilities::warning(&capabilities::take_unknown(process)));
            listen(process);
        }
        warnings.extend(root_destinations(&mut value));
        root_sources(&mut value, &dir);
        if let Some(config) = value.as_object_mut() {
            // It may be left out: all namespaces are those of the caller then.
            config.entry("linux").or_insert(json!({}));
        }
        devices::add_defaults(&mut value);
        let zero_is_none = value.get("ociVersion").and_then(Value::as_str).is_some_and(is_before_1_3);
        if let Some(resources) = value.pointer_mut("/linux/resources") {
            drop_absent_limit(resources, zero_is_none);
        }
        warnings.extend(take_other_platforms(&mut value));
        let spec: Spec = serde_json::from_value(value).map_err(|error| bad(&path, &error))?;
        check::check(&spec)?;
        let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        let rootfs = if root.is_absolute() { root } else { dir.join(root) };
        // Links above it are followed here, once; what is mounted is what is there now.
        let rootfs = rootfs.canonicalize().map_err(|error| Failure::file("rootfs:", &rootfs, &error))?;
        Ok(Self { dir, spec, rootfs, warnings })
    }
}

/// A process as `exec --process` has it, and what is left out of it.
pub(crate) fn read_process(path: &Path) -> Result<(Process, Option<String>)> {
    let file = File::open(path).map_err(|error| Failure::file("open", path, &error))?;
    let mut value = read_config(file, path)?;
    complete(&mut value);
    let warning = capabilities::warning(&capabilities::take_unknown(&mut value));
    let process = serde_json::from_value(value).map_err(|error| bad(path, &error))?;
    Ok((process, warning))
}

/// A configuration, or a part of one.
pub(crate) fn read_config(from: impl Read, path: &Path) -> Result<Value> {
    let mut value = read_json(from, path)?;
    keys::fold(&mut value);
    Ok(value)
}

/// Reads JSON of a bounded length.
pub(crate) fn read_json<T: DeserializeOwned>(from: impl Read, path: &Path) -> Result<T> {
    let mut bytes = Vec::new();
    from.take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(|error| Failure::file("read", path, &error))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(bad(path, &format!("larger than {MAX_CONFIG} bytes")));
    }
    // serde_json bounds the depth at 128 by itself.
    serde_json::from_slice(&bytes).map_err(|error| bad(path, &error))
}

/// Who leaves the user out means root, for Go's programs.
pub(crate) fn complete(process: &mut Value) {
    if let Some(process) = process.as_object_mut() {
        let user = process.entry("user").or_insert(Value::Null);
        if user.is_null() {
            *user = json!({});
        }
        if let Some(user) = user.as_object_mut() {
            user.entry("uid").or_insert(json!(0));
            user.entry("gid").or_insert(json!(0));
        }
    }
}

/// Destinations of mounts that are not absolute, as old configurations have them, are meant from the root on
/// (runtime-spec 1.1, "Mounts": deprecated); what is told of them.
fn root_destinations(config: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for mount in config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(destination) = mount.get("destination").and_then(Value::as_str) else { continue };
        if !destination.is_empty() && !destination.starts_with('/') {
            warnings.push(format!("mount destination {destination} is not absolute, and is taken from the root on"));
            mount["destination"] = json!(format!("/{destination}"));
        }
    }
    warnings
}

/// Sources of binds are absolute, or meant from the bundle on (runtime-spec, config, "Mounts").
fn root_sources(config: &mut Value, bundle: &Path) {
    for mount in config.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(source) = mount.get("source").and_then(Value::as_str) else { continue };
        if source.is_empty() || source.starts_with('/') {
            continue;
        }
        let options = mount.get("options").and_then(Value::as_array).into_iter().flatten();
        let is_bind = |option: &Value| matches!(option.as_str(), Some("bind" | "rbind"));
        if mount.get("type").and_then(Value::as_str) == Some("bind") || options.into_iter().any(is_bind) {
            mount["source"] = json!(bundle.join(source));
        }
    }
}

/// `pids` without a limit limits nothing (runtime-spec 1.3, config-linux, "PIDs"): the type would make 0 of it, which is
/// a limit.
pub(crate) fn drop_absent_limit(resources: &mut Value, zero_is_none: bool) {
    let none = |limit: &Value| limit.is_null() || zero_is_none && limit.as_i64() == Some(0);
    let absent = |pids: &Value| pids.get("limit").is_none_or(none);
    if let Some(resources) = resources.as_object_mut()
        && resources.get("pids").is_some_and(absent)
    {
        resources.remove("pids");
    }
}

/// There 0 was what a limit is that nobody has given.
fn is_before_1_3(version: &str) -> bool {
    version
        .strip_prefix("1.")
        .and_then(|rest| rest.split('.').next())
        .is_some_and(|minor| matches!(minor, "0" | "1" | "2"))
}

/// Sections for other platforms than Linux (runtime-spec, config, "Platform-specific configuration"); what is told of them.
fn take_other_platforms(config: &mut Value) -> Vec<String> {
    let Some(config) = config.as_object_mut() else { return Vec::new() };
    ["freebsd", "solaris", "vm", "windows", "zos"]
        .into_iter()
        .filter(|name| config.remove(*name).is_some_and(|section| !section.is_null()))
        .map(|name| format!("the section `{name}` is for another platform, and is left out"))
        .collect()
}

/// systemd's sockets are the first process's (sd_listen_fds(3)).
fn listen(process: &mut Value) {
    let Ok(count) = std::env::var("LISTEN_FDS") else { return };
    if let Some(process) = process.as_object_mut()
        && let Some(env) = process.entry("env").or_insert(json!([])).as_array_mut()
    {
        env.extend([json!(format!("LISTEN_FDS={count}")), json!("LISTEN_PID=1")]);
    }
}

fn bad(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<Bundle> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rootfs")).unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        Bundle::read(dir.path().to_str(), None)
    }

    #[test]
    fn the_example_is_a_configuration() {
        for rootless in [false, true] {
            let bundle = read(&crate::spec::example(rootless)).unwrap();
            assert!(bundle.rootfs.ends_with("rootfs"));
            assert!(bundle.spec.linux().as_ref().unwrap().resources().is_some());
        }
    }

    #[test]
    fn what_cannot_be_read_names_the_file() {
        assert!(Bundle::read(Some("/no/such"), None).unwrap_err().message.contains("chdir /no/such: no such file"));
        assert!(read("{").unwrap_err().message.contains("config.json"));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(read(&deep).unwrap_err().message.contains("recursion"));
    }

    #[test]
    fn a_relative_destination_is_below_the_root_and_told() {
        let mut config = json!({ "mounts": [{ "destination": "data" }, { "destination": "/proc" }, {}] });
        assert_eq!(root_destinations(&mut config).len(), 1);
        assert_eq!(config["mounts"][0]["destination"], "/data");
        assert_eq!(config["mounts"][1]["destination"], "/proc");
    }

    #[test]
    fn a_relative_source_is_in_the_bundle() {
        let mut config = json!({ "mounts": [{ "type": "bind", "source": "a/b" }, { "source": "c", "options": ["ro", "rbind"] },
            { "type": "bind", "source": "/d" }, { "type": "tmpfs", "source": "tmpfs" }, { "type": "bind", "source": "" }] });
        root_sources(&mut config, Path::new("/bundle"));
        let sources: Vec<_> =
            config["mounts"].as_array().unwrap().iter().map(|mount| mount["source"].clone()).collect();
        assert_eq!(json!(sources), json!(["/bundle/a/b", "/bundle/c", "/d", "tmpfs", ""]));
    }

    #[test]
    fn no_limit_on_processes_is_told_from_a_limit_of_none() {
        let of = |version: &str, pids: Value| {
            let mut config: Value = serde_json::from_str(&crate::spec::example(false)).unwrap();
            config["linux"]["resources"]["pids"] = pids;
            config["ociVersion"] = json!(version);
            let spec = read(&config.to_string()).unwrap().spec;
            spec.linux().as_ref().unwrap().resources().as_ref().unwrap().pids().map(|pids| pids.limit())
        };
        let with = |pids: Value| of("1.3.0", pids);
        assert_eq!(with(json!({})), None);
        assert_eq!(of("1.2.1", json!({ "limit": 0 })), None);
        assert_eq!(with(json!({ "limit": null })), None);
        assert_eq!(with(json!({ "limit": 0 })), Some(0));
        assert_eq!(with(json!({ "limit": -1 })), Some(-1));
    }

    #[test]
    fn sections_for_other_platforms_are_left_out_and_told() {
        let mut config: Value = serde_json::from_str(&crate::spec::example(false)).unwrap();
        config["freebsd"] = json!({ "jail": { "host": "new" } });
        config["vm"] = json!({ "hwConfig": { "vcpus": 2 } });
        let bundle = read(&config.to_string()).unwrap();
        assert!(bundle.spec.vm().is_none());
        assert_eq!(bundle.warnings.len(), 2, "{:?}", bundle.warnings);
        assert!(bundle.warnings[0].contains("`freebsd`") && bundle.warnings[1].contains("`vm`"));
    }

    #[test]
    fn a_user_may_be_left_out() {
        let config = r#"{"ociVersion":"1.0.0","root":{"path":"rootfs"},"process":{"cwd":"/","args":["a"]},
            "linux":{"namespaces":[{"type":"mount"}]}}"#;
        assert_eq!(read(config).unwrap().spec.process().as_ref().unwrap().user().uid(), 0);
    }
}
