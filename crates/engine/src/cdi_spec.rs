//! A file of the Container Device Interface (CDI specification 0.8, `specs-go/config.go`), and what it changes of a
//! container's OCI configuration (`pkg/cdi/container-edits.go`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::devices;

/// The versions that there are; those from 0.4 on with what came with them.
const VERSIONS: &[&str] = &["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0"];
/// Where OCI has hooks.
const HOOKS: &[&str] = &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct File {
    cdi_version: String,
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Device {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    device_nodes: Vec<Node>,
    hooks: Vec<Hook>,
    mounts: Vec<Mount>,
    intel_rdt: Option<Value>,
    additional_gids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Node {
    path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    major: u32,
    #[serde(default)]
    minor: u32,
    file_mode: Option<u32>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mount {
    host_path: String,
    container_path: String,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hook {
    hook_name: String,
    path: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<i64>,
}

impl File {
    /// The full names of its devices.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.devices.iter().map(|device| format!("{}={}", self.kind, device.name))
    }

    /// What the specification asks of it.
    ///
    /// # Errors
    /// What is wrong, in the library's words where it has some.
    pub(crate) fn check(&self) -> Result<(), String> {
        let version = self.cdi_version.trim_start_matches('v');
        if !VERSIONS.contains(&version) {
            return Err(format!("invalid version {:?}", self.cdi_version));
        }
        let least = self.least_version();
        if VERSIONS.iter().position(|one| *one == version) < VERSIONS.iter().position(|one| *one == least) {
            return Err(format!("the spec version must be at least v{least}"));
        }
        let kind = self.kind.split_once('/').filter(|(vendor, class)| is_word(vendor, "_-.") && is_word(class, "_-."));
        if kind.is_none() || !self.kind.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(format!("invalid kind {:?}: it has to be vendor/class", self.kind));
        }
        if self.devices.is_empty() {
            return Err("no devices".into());
        }
        self.container_edits.check()?;
        for (at, device) in self.devices.iter().enumerate() {
            if !is_word(&device.name, "_-.:") {
                return Err(format!("invalid device name {:?}", device.name));
            }
            if self.devices[..at].iter().any(|other| other.name == device.name) {
                return Err(format!("multiple device {:?}", device.name));
            }
            device.container_edits.check().map_err(|why| format!("invalid device {:?}: {why}", device.name))?;
        }
        Ok(())
    }

    fn least_version(&self) -> &'static str {
        let edits = || self.devices.iter().map(|device| &device.container_edits).chain([&self.container_edits]);
        let is_annotated = !self.annotations.is_empty() || self.devices.iter().any(|one| !one.annotations.is_empty());
        if edits().any(|edits| edits.intel_rdt.is_some() || !edits.additional_gids.is_empty()) {
            "0.7.0"
        } else if is_annotated || self.kind.split_once('/').is_some_and(|(_, class)| class.contains('.')) {
            "0.6.0"
        } else if edits().any(|edits| edits.device_nodes.iter().any(|node| !node.host_path.is_empty()))
            || self.devices.iter().any(|device| !device.name.starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            "0.5.0"
        } else if edits().any(|edits| edits.mounts.iter().any(|mount| !mount.kind.is_empty())) {
            "0.4.0"
        } else {
            "0.3.0"
        }
    }
}

/// Letters, digits and what else may be in between.
fn is_word(text: &str, between: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(ends) && text.ends_with(ends) && text.chars().all(|c| ends(c) || between.contains(c))
}

impl Edits {
    fn check(&self) -> Result<(), String> {
        if let Some(bad) = self.env.iter().find(|pair| pair.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
            return Err(format!("invalid environment variable {bad:?}"));
        }
        for node in &self.device_nodes {
            if node.path.is_empty() {
                return Err("invalid (empty) device path".into());
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return Err(format!("device {:?}: invalid type {:?}", node.path, node.kind));
            }
            if !node.permissions.chars().all(|c| "rwm".contains(c)) {
                return Err(format!("device {:?}: invalid permissions {:?}", node.path, node.permissions));
            }
        }
        if let Some(hook) = self.hooks.iter().find(|hook| !HOOKS.contains(&hook.hook_name.as_str())) {
            return Err(format!("invalid hook name {:?}", hook.hook_name));
        }
        if let Some(hook) = self.hooks.iter().find(|hook| hook.path.is_empty()) {
            return Err(format!("invalid hook {:?} with empty path", hook.hook_name));
        }
        if self.mounts.iter().any(|mount| mount.host_path.is_empty() || mount.container_path.is_empty()) {
            return Err("invalid mount, empty host or container path".into());
        }
        Ok(())
    }

    /// Changes an OCI configuration so.
    ///
    /// # Errors
    /// When the host has no such device, and for what is not supported.
    pub(crate) fn apply(&self, spec: &mut Value) -> Result<(), String> {
        if self.intel_rdt.is_some() {
            return Err("intelRdt is not supported: resctrl is not managed here".into());
        }
        for pair in &self.env {
            let key = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
            replace(&mut spec["process"]["env"], json!(pair), |have| {
                have.as_str().is_some_and(|h| key(h) == key(pair))
            });
        }
        for node in &self.device_nodes {
            let mut device = node.found()?;
            for id in ["uid", "gid"] {
                let own = spec["process"]["user"][id].clone();
                if device[id].is_null() && own.as_u64().is_some_and(|own| own > 0) {
                    device[id] = own;
                }
            }
            if let Value::Object(fields) = &mut device {
                fields.retain(|_, value| !value.is_null());
            }
            if matches!(device["type"].as_str(), Some("b" | "c")) {
                let access = if node.permissions.is_empty() { "rwm" } else { &node.permissions };
                let rule = json!({ "allow": true, "type": device["type"], "major": device["major"],
                                   "minor": device["minor"], "access": access });
                replace(&mut spec["linux"]["resources"]["devices"], rule, |_| false);
            }
            replace(&mut spec["linux"]["devices"], device, |have| have["path"] == node.path.as_str());
        }
        for mount in &self.mounts {
            let path = mount.container_path.as_str();
            let kind = if mount.kind.is_empty() { Value::Null } else { json!(mount.kind) };
            let mut new =
                json!({ "destination": path, "type": kind, "source": mount.host_path, "options": mount.options });
            if let Value::Object(fields) = &mut new {
                fields.retain(|_, value| !value.is_null());
            }
            let mounts = &mut spec["mounts"];
            mounts.as_array_mut().into_iter().for_each(|all| all.retain(|have| have["destination"] != path));
            replace(mounts, new, |_| false);
            // What is on top of another comes after it.
            let depth = |mount: &Value| Path::new(mount["destination"].as_str().unwrap_or("")).components().count();
            mounts.as_array_mut().into_iter().for_each(|all| all.sort_by_key(depth));
        }
        for hook in &self.hooks {
            if matches!(hook.hook_name.as_str(), "poststart" | "poststop") {
                return Err(format!(
                    "{} hooks are not supported: those of the container's creation are",
                    hook.hook_name
                ));
            }
            let mut new = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
            if let Some(timeout) = hook.timeout {
                new["timeout"] = timeout.into();
            }
            replace(&mut spec["hooks"][&hook.hook_name], new, |_| false);
        }
        for gid in self.additional_gids.iter().filter(|gid| **gid != 0) {
            replace(&mut spec["process"]["user"]["additionalGids"], json!(gid), |have| *have == json!(gid));
        }
        Ok(())
    }
}

/// Puts a value in a list, in the place of one that is the same by `is_same`.
fn replace(list: &mut Value, new: Value, is_same: impl Fn(&Value) -> bool) {
    if !list.is_array() {
        *list = json!([]);
    }
    let Value::Array(all) = list else { return };
    match all.iter_mut().find(|have| is_same(have)) {
        Some(place) => *place = new,
        None => all.push(new),
    }
}

impl Node {
    /// The node in OCI's form, with what the host's has where the file does not say.
    fn found(&self) -> Result<Value, String> {
        let from = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let mut all = json!({ "path": self.path, "type": self.kind, "major": self.major, "minor": self.minor,
                          "fileMode": self.file_mode, "uid": self.uid, "gid": self.gid });
        if !self.kind.is_empty() && (self.major != 0 || self.kind == "p") {
            return Ok(all);
        }
        let host = devices::node_of(Path::new(from))
            .map_err(|error| format!("failed to stat CDI host device {from:?}: {}", wharf_report::os(&error)))?;
        if self.kind.is_empty() {
            all["type"] = host.kind.into();
        } else if self.kind != host.kind {
            let (path, ours, its) = (&self.path, &self.kind, host.kind);
            return Err(format!("CDI device ({path:?}, {from:?}), host type mismatch ({ours}, {its})"));
        }
        if self.major == 0 {
            all["major"] = host.major.into();
            all["minor"] = host.minor.into();
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_change_a_configuration_as_the_librarys_do() {
        let edits: Edits = serde_json::from_value(json!({
            "env": ["A=2", "B=1"],
            "deviceNodes": [{ "path": "/dev/x", "hostPath": "/dev/null", "permissions": "r" },
                            { "path": "/dev/y", "type": "c", "major": 7, "minor": 8, "uid": 9, "fileMode": 432 }],
            "mounts": [{ "hostPath": "/etc", "containerPath": "/m", "options": ["bind", "ro"] }],
            "hooks": [{ "hookName": "createContainer", "path": "/bin/true", "args": ["true"], "timeout": 5 }],
            "additionalGids": [0, 5, 6],
        }))
        .unwrap();
        edits.check().unwrap();
        let mut spec = json!({
            "process": { "env": ["A=1", "C=1"], "user": { "uid": 1000, "gid": 0, "additionalGids": [5] } },
            "mounts": [{ "destination": "/m", "source": "old" }, { "destination": "/m/below", "source": "below" }],
            "linux": { "devices": [{ "path": "/dev/x" }], "resources": {} },
        });
        edits.apply(&mut spec).unwrap();
        assert_eq!(spec["process"]["env"], json!(["A=2", "C=1", "B=1"]));
        assert_eq!(spec["process"]["user"]["additionalGids"], json!([5, 6]));
        assert_eq!(
            spec["linux"]["devices"],
            json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 1000 },
                   { "path": "/dev/y", "type": "c", "major": 7, "minor": 8, "fileMode": 432, "uid": 9 }])
        );
        assert_eq!(
            spec["linux"]["resources"]["devices"],
            json!([{ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "r" },
                   { "allow": true, "type": "c", "major": 7, "minor": 8, "access": "rwm" }])
        );
        assert_eq!(
            spec["mounts"],
            json!([{ "destination": "/m", "source": "/etc", "options": ["bind", "ro"] },
                   { "destination": "/m/below", "source": "below" }])
        );
        assert_eq!(
            spec["hooks"],
            json!({ "createContainer": [{ "path": "/bin/true", "args": ["true"], "env": [], "timeout": 5 }] })
        );
        let fails = |edits: Value, why: &str| {
            let edits: Edits = serde_json::from_value(edits).unwrap();
            let error = edits.apply(&mut json!({ "process": {}, "linux": {} })).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        fails(json!({ "intelRdt": {} }), "intelRdt is not supported");
        fails(json!({ "hooks": [{ "hookName": "poststop", "path": "/x" }] }), "poststop hooks are not supported");
        fails(
            json!({ "deviceNodes": [{ "path": "/dev/nosuch" }] }),
            "failed to stat CDI host device \"/dev/nosuch\": no such file or directory",
        );
        fails(json!({ "deviceNodes": [{ "path": "/dev/null", "type": "b" }] }), "host type mismatch (b, c)");
    }
}
