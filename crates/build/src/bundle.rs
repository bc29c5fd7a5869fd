//! The OCI configuration of a RUN: confined as a container is by default, and no more allowed than one. Pure, but for the names of the host's
//! processors and its room for processes.

use std::path::PathBuf;
use std::sync::OnceLock;

use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};
use wharf_runtime::{CAPABILITIES, DefaultFilter, docker_defaults};

use crate::error::{BuildError, Result};
use crate::identity::Identity;
use crate::request::{Limits, Ulimit};

/// null, zero, full, random, urandom, tty, console, ptmx.
const DEVICES: &[(u32, u32)] = &[(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// As Docker has it when nobody says otherwise.
const SHM_SIZE: u64 = 64 << 20;

/// One command that is to run.
#[derive(Debug)]
pub(crate) struct Command<'a> {
    pub(crate) args: &'a [String],
    pub(crate) env: &'a [String],
    pub(crate) cwd: &'a str,
    pub(crate) identity: &'a Identity,
    /// Of the image, by Go's name.
    pub(crate) architecture: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) cgroup: &'a str,
    pub(crate) network: Network,
    /// As a container with `--privileged` has it, but for the nodes of the host's devices: it may make its own.
    pub(crate) insecure: bool,
    pub(crate) shm_size: Option<u64>,
    pub(crate) limits: &'a Limits,
    /// Files of ours that are mounted, by their place.
    pub(crate) files: &'a [(PathBuf, &'static str)],
    pub(crate) mounts: &'a [Mounted],
    /// What the bounding set of this very process lacks cannot be given.
    pub(crate) bounding: u64,
}

/// The network of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// A namespace of its own: a given one, or an empty one.
    Own,
    Host,
}

/// One mount of `RUN --mount`, its source opened.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) target: String,
    pub(crate) source: MountSource,
    pub(crate) read_only: bool,
}

#[derive(Debug)]
pub(crate) enum MountSource {
    /// A directory or file, by a path that does not change its meaning.
    Path(PathBuf),
    Tmpfs(Option<u64>),
}

/// What of its system calls a command is held to; `None` for one that is trusted.
pub(crate) fn filter(command: &Command<'_>) -> Option<DefaultFilter> {
    (!command.insecure).then(|| DefaultFilter::new(command.architecture, bounding(command)))
}

fn bounding(command: &Command<'_>) -> Vec<&'static str> {
    let given = if command.insecure { CAPABILITIES } else { docker_defaults::CAPABILITIES };
    given.iter().copied().filter(|name| held(name, command.bounding)).collect()
}

/// Builds the configuration, without the filter.
///
/// # Errors
/// For limits that cannot be expressed.
pub(crate) fn spec(command: &Command<'_>) -> Result<Spec> {
    let bounding = bounding(command);
    // A user other than root has its capabilities only in the bounding set, as in Docker.
    let effective = if command.identity.uid == 0 { bounding.clone() } else { Vec::new() };
    let mut namespaces = vec![json!({ "type": "mount" }), json!({ "type": "uts" }), json!({ "type": "ipc" })];
    namespaces.extend([json!({ "type": "pid" }), json!({ "type": "cgroup" })]);
    let mut sysctl = Map::new();
    if command.network == Network::Own {
        namespaces.push(json!({ "type": "network" }));
        sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        sysctl.insert("net.ipv4.ping_group_range".into(), docker_defaults::ping_groups().into());
    }
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": {
                "uid": command.identity.uid,
                "gid": command.identity.gid,
                "additionalGids": command.identity.groups,
            },
            "args": command.args,
            "env": command.env,
            "cwd": command.cwd,
            "capabilities": {
                "bounding": bounding,
                "effective": effective,
                "permitted": effective,
                "inheritable": [],
                "ambient": [],
            },
            "rlimits": command.limits.ulimits.iter().map(rlimit).collect::<Result<Vec<_>>>()?,
            "noNewPrivileges": false,
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": command.hostname,
        "mounts": mounts(command),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": command.cgroup,
            "resources": resources(command),
            "sysctl": sysctl,
            "rootfsPropagation": "rprivate",
        },
    });
    if !command.insecure {
        let linux = &mut spec["linux"];
        linux["maskedPaths"] = json!(docker_defaults::masked());
        linux["readonlyPaths"] = json!(docker_defaults::READ_ONLY);
    }
    serde_json::from_value(spec)
        .map_err(|e| BuildError::system("the command's configuration cannot be expressed for the runtime", &e))
}

fn held(name: &str, bounding: u64) -> bool {
    let number = CAPABILITIES.iter().position(|known| *known == name);
    number.is_some_and(|number| bounding & (1 << number) != 0)
}

fn mounts(command: &Command<'_>) -> Vec<Value> {
    let mode = if command.insecure { "rw" } else { "ro" };
    let mut list = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": docker_defaults::terminals() }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", mode] }),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", mode] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777",
                            format!("size={}", command.shm_size.filter(|size| *size > 0).unwrap_or(SHM_SIZE))] }),
    ];
    for (path, target) in command.files {
        list.push(json!({ "destination": target, "type": "bind", "source": path, "options": ["rbind", "rprivate"] }));
    }
    for mount in command.mounts {
        let mode = if mount.read_only { "ro" } else { "rw" };
        list.push(match &mount.source {
            MountSource::Path(path) => json!({ "destination": mount.target, "type": "bind", "source": path,
                                               "options": ["rbind", "rprivate", mode] }),
            MountSource::Tmpfs(size) => {
                // As /tmp: the command may be anybody's.
                let mut options = vec!["nosuid".to_owned(), "nodev".into(), "mode=1777".into(), mode.into()];
                options.extend(size.map(|size| format!("size={size}")));
                json!({ "destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options })
            }
        });
    }
    list
}

/// Docker's device policy, and what the request limits.
fn resources(command: &Command<'_>) -> Value {
    let limits = command.limits;
    let mut rules = vec![
        json!({ "allow": false, "access": "rwm" }),
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    for (major, minor) in DEVICES {
        rules.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    if command.insecure {
        rules = vec![json!({ "allow": true, "access": "rwm" })];
    }
    let mut all = json!({ "devices": rules });
    let mut memory = Map::new();
    if let Some(limit) = limits.memory.filter(|limit| *limit > 0) {
        memory.insert("limit".into(), limit.into());
        // Docker's rule: as much swap again, unless told otherwise.
        let swap = limits.memory_swap.filter(|swap| *swap != 0).unwrap_or(limit.saturating_mul(2));
        memory.insert("swap".into(), swap.into());
    }
    let mut cpu = Map::new();
    let mut put = |key: &str, value: Option<Value>| drop(value.map(|value| cpu.insert(key.into(), value)));
    put("shares", limits.cpu_shares.filter(|n| *n > 0).map(Into::into));
    put("period", limits.cpu_period.filter(|n| *n > 0).map(Into::into));
    put("quota", limits.cpu_quota.filter(|n| *n > 0).map(Into::into));
    put("cpus", limits.cpuset_cpus.clone().filter(|text| !text.is_empty()).map(Into::into));
    put("mems", limits.cpuset_mems.clone().filter(|text| !text.is_empty()).map(Into::into));
    for (key, section) in [("memory", memory), ("cpu", cpu)] {
        if !section.is_empty() {
            all[key] = Value::Object(section);
        }
    }
    if let Some(limit) = processes(command.cgroup) {
        all["pids"] = json!({ "limit": limit });
    }
    all
}

/// How many processes a command may have; asked of the host once, as all groups are made in the same place.
fn processes(cgroup: &str) -> Option<i64> {
    static SHARE: OnceLock<Option<i64>> = OnceLock::new();
    let above = cgroup.rsplit_once('/').map_or("/", |(above, _)| above);
    *SHARE.get_or_init(|| wharf_cgroup::fair_share(&wharf_cgroup::Hierarchies::usable(above).ok()?))
}

fn rlimit(limit: &Ulimit) -> Result<Value> {
    let known = !limit.name.is_empty() && limit.name.bytes().all(|b| b.is_ascii_lowercase());
    if !known {
        return Err(BuildError::invalid(format!("invalid ulimit type: {}", limit.name)));
    }
    // -1 is RLIM_INFINITY: all bits set.
    Ok(json!({ "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
               "hard": limit.hard.cast_unsigned(), "soft": limit.soft.cast_unsigned() }))
}

/// The bounding set of this process.
pub(crate) fn own_bounding() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command<'a>(identity: &'a Identity, limits: &'a Limits, mounts: &'a [Mounted]) -> Command<'a> {
        Command {
            args: &[],
            env: &[],
            cwd: "/",
            identity,
            architecture: "amd64",
            hostname: "h",
            cgroup: "/wharf/x",
            network: Network::Own,
            insecure: false,
            shm_size: None,
            limits,
            files: &[],
            mounts,
            bounding: u64::MAX,
        }
    }

    fn identity(uid: u32) -> Identity {
        Identity { uid, gid: 0, groups: Vec::new(), home: "/".into() }
    }

    #[test]
    fn a_command_is_confined_as_a_container_is() {
        let limits = Limits {
            memory: Some(64 << 20),
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 10, hard: -1 }],
            ..Limits::default()
        };
        let mounts = [Mounted { target: "/t".into(), source: MountSource::Tmpfs(Some(1 << 20)), read_only: false }];
        let (root, user) = (identity(0), identity(1000));
        let spec = serde_json::to_value(spec(&command(&root, &limits, &mounts)).unwrap()).unwrap();
        assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), 14);
        assert_eq!(spec["process"]["capabilities"]["effective"].as_array().unwrap().len(), 14);
        assert!(filter(&command(&root, &limits, &mounts)).is_some());
        assert_eq!(spec["linux"]["resources"]["memory"]["swap"], 128 << 20);
        assert_eq!(spec["process"]["rlimits"][0]["hard"], u64::MAX);
        let kinds: Vec<_> =
            spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["mount", "uts", "ipc", "pid", "cgroup", "network"]);
        let spec = super::spec(&Command { network: Network::Host, ..command(&user, &limits, &[]) }).unwrap();
        let spec = serde_json::to_value(spec).unwrap();
        assert!(spec["process"]["capabilities"]["effective"].as_array().is_none_or(Vec::is_empty));
        assert_eq!(spec["linux"]["namespaces"].as_array().unwrap().len(), 5);
        let trusted = Command { insecure: true, ..command(&root, &limits, &[]) };
        let spec = serde_json::to_value(super::spec(&trusted).unwrap()).unwrap();
        assert!(filter(&trusted).is_none() && spec["linux"]["maskedPaths"].as_array().is_none_or(Vec::is_empty));
        assert_eq!(spec["process"]["capabilities"]["effective"].as_array().unwrap().len(), CAPABILITIES.len());
    }

    #[test]
    fn ulimits_have_names() {
        let limits = Limits { ulimits: vec![Ulimit { name: "NO FILE".into(), soft: 1, hard: 1 }], ..Limits::default() };
        assert!(spec(&command(&identity(0), &limits, &[])).is_err());
    }
}
