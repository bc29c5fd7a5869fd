//! `--device`, `--device-cgroup-rule` and the devices of `--privileged`: nodes in `/dev`, and who may use them.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, lstat};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::error::{EngineError, Result};
use crate::spec::{DeviceMapping, HostConfig};

/// Where the host's devices are.
const DEV: &str = "/dev";
/// Directories below it that are no place of devices, or another container's (runc, `devices.GetDevices`).
const NO_DEVICES: &[&str] = &["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
/// What every container has of its own.
const OWN: &[&str] = &["console", "ptmx"];

/// A device node of the host.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: &'static str,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Node {
    fn at(&self, path: &Path) -> Value {
        json!({ "path": path, "type": self.kind, "major": self.major, "minor": self.minor,
                "fileMode": self.mode, "uid": self.uid, "gid": self.gid })
    }
}

/// The node that a path is itself.
pub(crate) fn node_of(path: &Path) -> io::Result<Node> {
    look(path)?.ok_or_else(no_node)
}

/// The node at a path, links followed.
pub(crate) fn find(path: &str) -> Result<Node> {
    let found = std::fs::canonicalize(path).and_then(|real| look(&real));
    found.and_then(|node| node.ok_or_else(no_node)).map_err(|error| gathering(path, &error))
}

fn no_node() -> io::Error {
    io::Error::other("not a device node")
}

fn gathering(path: &str, error: &io::Error) -> EngineError {
    let reason = wharf_report::os(error);
    EngineError::invalid(format!("error gathering device information while adding custom device \"{path}\": {reason}"))
}

/// What a path is itself; `None` when it is no device.
fn look(path: &Path) -> io::Result<Option<Node>> {
    let found = lstat(path)?;
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return Ok(None),
    };
    Ok(Some(Node {
        kind,
        major: rustix::fs::major(found.st_rdev),
        minor: rustix::fs::minor(found.st_rdev),
        mode: Mode::from_raw_mode(found.st_mode).bits() & 0o777,
        uid: found.st_uid,
        gid: found.st_gid,
    }))
}

/// A device of the host, where it is in the container, and what may be done with it.
#[derive(Debug)]
struct Shown {
    path: PathBuf,
    node: Node,
    access: String,
}

/// The devices of one mapping: a node, or all that are in a directory.
fn mapped(mapping: &DeviceMapping) -> Result<Vec<Shown>> {
    let from = mapping.path_on_host.as_str();
    let to = if mapping.path_in_container.is_empty() { from } else { &mapping.path_in_container };
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    let show = |path: PathBuf, node: Node| Shown { path, node, access: access.to_owned() };
    let fail = |error: io::Error| gathering(from, &error);
    let real = std::fs::canonicalize(from).map_err(fail)?;
    if let Some(node) = look(&real).map_err(fail)? {
        return Ok(vec![show(PathBuf::from(to), node)]);
    }
    let mut found = Vec::new();
    if real.is_dir() {
        walk(&real, &[], &mut |path, node| {
            if let Ok(below) = path.strip_prefix(&real) {
                found.push(show(Path::new(to).join(below), node));
            }
        })
        .map_err(fail)?;
    }
    if found.is_empty() {
        return Err(fail(no_node()));
    }
    Ok(found)
}

/// Every node below a directory, the names of `skip` left out. What goes while we look was not there.
fn walk(dir: &Path, skip: &[&str], each: &mut dyn FnMut(&Path, Node)) -> io::Result<()> {
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if skip.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let path = entry.path();
            match look(&path) {
                Ok(Some(node)) => each(&path, node),
                Ok(None) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => left.push(path),
                Ok(None) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Nodes that are made in `/dev` beside the standard ones: those that were asked for, and for `--privileged` all.
pub(crate) fn nodes(host: &HostConfig) -> Result<Value> {
    let mut all: Vec<Value> = Vec::new();
    if host.privileged {
        let skip = [NO_DEVICES, OWN].concat();
        walk(Path::new(DEV), &skip, &mut |path, node| all.push(node.at(path)))
            .map_err(|e| EngineError::from_source("cannot list the host's devices", &e))?;
    }
    for mapping in host.resources.devices.iter().flatten() {
        for shown in mapped(mapping)? {
            // The runtime makes one node at a path.
            all.retain(|node| node["path"] != json!(shown.path));
            all.push(shown.node.at(&shown.path));
        }
    }
    Ok(all.into())
}

/// Docker's device policy: everything denied, a short list allowed.
pub(crate) fn rules(host: &HostConfig) -> Result<Value> {
    if host.privileged {
        return Ok(json!([{ "allow": true, "access": "rwm" }]));
    }
    let mut rules = vec![
        json!({ "allow": false, "access": "rwm" }),
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    // null, zero, full, random, urandom, tty, console, ptmx, and the container's own terminals.
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    for device in host.resources.devices.iter().flatten() {
        for Shown { node, access, .. } in mapped(device)? {
            rules.push(
                json!({ "allow": true, "type": node.kind, "major": node.major, "minor": node.minor, "access": access }),
            );
        }
    }
    for rule in host.resources.device_cgroup_rules.iter().flatten() {
        rules.push(parse_rule(rule)?);
    }
    Ok(rules.into())
}

/// `c 1:3 rwm`, with `*` for any number.
pub(crate) fn parse_rule(rule: &str) -> Result<Value> {
    let bad = || EngineError::invalid(format!("invalid device cgroup rule format: '{rule}'"));
    let mut words = rule.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    if !matches!(kind, "a" | "b" | "c") || access.is_empty() || access.contains(|c| !"rwm".contains(c)) {
        return Err(bad());
    }
    let mut value = json!({ "allow": true, "type": kind, "access": access });
    for (key, text) in [("major", major), ("minor", minor)] {
        if text != "*" {
            value[key] = text.parse::<u32>().map_err(|_| bad())?.into();
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Resources;

    #[test]
    fn device_rules_are_parsed_strictly() {
        assert_eq!(parse_rule("c 10:* rw").unwrap()["major"], 10);
        for bad in ["c 10 rw", "x 1:1 r", "c 1:1 q", "c 1:1", "c a:b r"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    fn with(path: &str, inside: &str) -> HostConfig {
        let device =
            DeviceMapping { path_on_host: path.into(), path_in_container: inside.into(), ..Default::default() };
        let resources = Resources { devices: Some(vec![device]), ..Resources::default() };
        HostConfig { resources, ..HostConfig::default() }
    }

    fn paths(host: &HostConfig) -> Vec<String> {
        let nodes = nodes(host).unwrap();
        let paths = nodes.as_array().unwrap().iter().map(|node| node["path"].as_str().unwrap().to_owned());
        paths.collect()
    }

    #[test]
    fn privileged_means_all_nodes_and_nothing_else() {
        let all = paths(&HostConfig { privileged: true, ..HostConfig::default() });
        for there in ["/dev/null", "/dev/zero", "/dev/tty"] {
            assert!(all.iter().any(|path| path == there), "{there}");
        }
        assert!(all.iter().all(|path| !path.starts_with("/dev/pts") && path != "/dev/ptmx" && path != "/dev/console"));
    }

    #[test]
    fn a_mapping_is_a_node_or_the_nodes_of_a_directory() {
        assert_eq!(paths(&with("/dev/null", "/dev/nothing")), ["/dev/nothing"]);
        assert!(paths(&with("/dev", "/host")).iter().any(|path| path == "/host/null"));
        let empty = tempfile::tempdir().unwrap();
        let error = nodes(&with(empty.path().to_str().unwrap(), "")).unwrap_err().message;
        assert!(error.ends_with("not a device node"), "{error}");
        let error = nodes(&with("/dev/nosuch", "")).unwrap_err().message;
        assert!(error.ends_with("\"/dev/nosuch\": no such file or directory"), "{error}");
    }
}
