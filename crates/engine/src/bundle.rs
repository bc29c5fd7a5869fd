//! From a container's record to an OCI runtime configuration. Pure: everything of the host is a parameter.

use std::collections::BTreeMap;
use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use wharf_cgroup::is_rootless;
use wharf_runtime::{CAPABILITIES, docker_defaults};

use crate::error::{EngineError, Result};
use crate::record::{Container, MountPoint};
use crate::spec::{BindOptions, Config, ExecConfig, HostConfig};
use crate::user::Identity;
use crate::{devices, mounts, resources, secrets, security, sysctl, tmpfs};

/// What the host adds to a record to make a bundle of it.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Who the process is, looked up in the image.
    pub identity: &'a Identity,
    /// Where the `hostname`, `hosts` and `resolv.conf` are that it gets; none when the host's network and files are used.
    pub etc: Option<&'a Path>,
    /// A `/dev/shm` that is shared with others; without it, the container gets its own.
    pub shm: Option<&'a Path>,
    /// The control group, e.g. `/wharf/ID`.
    pub cgroup: &'a str,
    /// Paths of namespaces of others to join, by OCI type.
    pub joined: &'a BTreeMap<&'static str, String>,
    /// Whether the container has a network namespace of its own or a joined one.
    pub own_network: bool,
    /// Whether this kernel has time namespaces.
    pub time_namespaces: bool,
    /// First host ID and number of IDs when it gets a user namespace.
    pub id_range: Option<(u32, u32)>,
    /// Destinations of those mounts whose files belong to the IDs that they have on the disk, inside too.
    pub mapped: &'a [String],
    /// The default profile unless the user chose; `None` is unconfined.
    pub seccomp: Option<&'a Value>,
    pub rights: Rights,
    /// Where its secrets are, if it has any.
    pub secrets: Option<&'a Path>,
    /// Variables that tell of linked containers.
    pub linked: &'a [String],
}

/// What this daemon can give, and what it gives those that do not say.
#[derive(Clone, Copy, Debug)]
pub struct Rights {
    /// Capabilities that the bounding set of this very process lacks cannot be given.
    pub bounding: u64,
    /// Whether a program gets no more than its caller has (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
    pub no_new_privileges: bool,
    /// How many processes a container has that was given no number.
    pub processes: Option<i64>,
}

/// Builds the configuration.
///
/// # Errors
/// When a value of the record cannot be expressed: an unknown capability, a bad device, a bad sysctl.
pub fn spec(record: &Container, around: &Surroundings<'_>) -> Result<Spec> {
    let (config, host) = (&record.config, &record.host);
    let capabilities = capabilities(host, around.rights.bounding)?;
    // A user other than root has its capabilities only in the bounding set, as in Docker.
    let held = if around.identity.uid == 0 { capabilities.clone() } else { Vec::new() };
    let mut args = vec![record.path.clone()];
    args.extend(record.args.iter().cloned());
    let cwd = if config.working_dir.is_empty() { "/" } else { &config.working_dir };

    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": config.tty,
            "user": {
                "uid": around.identity.uid,
                "gid": around.identity.gid,
                "additionalGids": around.identity.groups,
            },
            "args": args,
            "env": environment(config, config.tty, around.linked, &[], around.identity),
            "cwd": cwd,
            "capabilities": {
                "bounding": capabilities,
                "effective": held,
                "permitted": held,
                "inheritable": [],
                "ambient": [],
            },
            "rlimits": resources::rlimits(host)?,
            "noNewPrivileges": security::no_new_privileges(host, around.rights.no_new_privileges)?,
            "oomScoreAdj": host.oom_score_adj,
        },
        "root": { "path": "rootfs", "readonly": host.readonly_rootfs },
        "hostname": config.hostname,
        "domainname": config.domainname,
        "mounts": mount_list(record, around)?,
        "linux": {
            "namespaces": namespaces(host, around),
            "cgroupsPath": around.cgroup,
            "resources": resources::limits(host, around.rights.processes)?,
            "devices": devices::nodes(host)?,
            "maskedPaths": host.masked_paths.clone().unwrap_or_default(),
            "readonlyPaths": host.readonly_paths.clone().unwrap_or_default(),
            "sysctl": sysctl::of(host, around.own_network)?,
            "rootfsPropagation": "rprivate",
        },
        "annotations": host.annotations.clone().unwrap_or_default(),
    });
    if let Some(umask) = host.umask {
        spec["process"]["user"]["umask"] = umask.into();
    }
    let [rows, columns] = host.console_size;
    if config.tty && rows > 0 && columns > 0 {
        spec["process"]["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    if host.uts_mode == "host" {
        for key in ["hostname", "domainname"] {
            spec.as_object_mut().map(|s| s.remove(key));
        }
    }
    if let Some(seccomp) = &around.seccomp {
        spec["linux"]["seccomp"] = (*seccomp).clone();
    }
    if let Some((first, size)) = around.id_range {
        let map = json!([{ "containerID": 0, "hostID": first, "size": size }]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
    }
    serde_json::from_value(spec)
        .map_err(|e| EngineError::from_source("the container's configuration cannot be expressed for the runtime", &e))
}

/// The process of an exec: the container's confinement, with the user, directory and variables of the request.
///
/// # Errors
/// As [`spec`].
pub fn exec_process(
    record: &Container,
    identity: &Identity,
    rights: Rights,
    exec: &ExecConfig,
    linked: &[String],
    size: Option<(u16, u16)>,
) -> Result<Process> {
    let mut host = record.host.clone();
    host.privileged |= exec.privileged;
    let capabilities = capabilities(&host, rights.bounding)?;
    let held = if identity.uid == 0 { capabilities.clone() } else { Vec::new() };
    let cwd = [&exec.working_dir, &record.config.working_dir].into_iter().find(|dir| !dir.is_empty());
    let mut process = json!({
        "terminal": exec.tty,
        "user": { "uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups },
        "args": exec.cmd,
        "env": environment(&record.config, exec.tty, linked, exec.env.as_deref().unwrap_or_default(), identity),
        "cwd": cwd.map_or("/", String::as_str),
        "capabilities": {
            "bounding": capabilities,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": resources::rlimits(&host)?,
        "noNewPrivileges": security::no_new_privileges(&host, rights.no_new_privileges)?,
        "oomScoreAdj": host.oom_score_adj,
    });
    if let Some(umask) = host.umask {
        process["user"]["umask"] = umask.into();
    }
    if let Some((rows, columns)) = size.filter(|(rows, columns)| *rows > 0 && *columns > 0) {
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    serde_json::from_value(process)
        .map_err(|e| EngineError::from_source("the exec's configuration cannot be expressed for the runtime", &e))
}

/// What programs are looked for in where neither image nor user says.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The engine's variables, then the image's and the user's, then `more`; a later one takes an earlier one's place.
fn environment(config: &Config, tty: bool, linked: &[String], more: &[String], identity: &Identity) -> Vec<String> {
    let key = |pair: &str| pair.split('=').next().unwrap_or("").to_owned();
    let mut env = vec![PATH.to_owned()];
    if !config.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", config.hostname));
    }
    if tty {
        env.push("TERM=xterm".into());
    }
    env.extend_from_slice(linked);
    for pair in config.env.iter().flatten().chain(more) {
        let place = env.iter().position(|have| key(have) == key(pair));
        match place {
            // A variable without a value was asked to be absent.
            Some(at) if !pair.contains('=') => drop(env.remove(at)),
            None if !pair.contains('=') => {}
            Some(at) => env[at].clone_from(pair),
            None => env.push(pair.clone()),
        }
    }
    // One that is empty says no more than none (runc).
    if !env.iter().any(|pair| key(pair) == "HOME" && pair != "HOME=") {
        env.retain(|pair| pair != "HOME=");
        env.push(format!("HOME={}", identity.home));
    }
    env
}

/// The default set, changed by `--cap-add`, `--cap-drop` and `--privileged`.
pub fn capabilities(host: &HostConfig, bounding: u64) -> Result<Vec<String>> {
    let index = |name: &str| CAPABILITIES.iter().position(|c| *c == name);
    let normal = |name: &str, option: &str| -> Result<String> {
        let upper = name.to_ascii_uppercase();
        let full = if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if full == "ALL" || index(&full).is_some() {
            return Ok(full);
        }
        Err(EngineError::invalid(format!("invalid {option}: unknown capability: \"{full}\"")))
    };
    let list = |names: &Option<Vec<String>>, option: &str| {
        names.iter().flatten().map(|name| normal(name, option)).collect::<Result<Vec<_>>>()
    };
    let (add, drop) = (list(&host.cap_add, "CapAdd")?, list(&host.cap_drop, "CapDrop")?);
    let all = |set: &[String]| set.iter().any(|c| c == "ALL");
    let keep = |name: &&str| {
        let asked = add.iter().any(|c| c == name);
        let dropped = drop.iter().any(|c| c == name);
        let base = if host.privileged || all(&add) {
            true
        } else if all(&drop) {
            false
        } else {
            docker_defaults::CAPABILITIES.contains(name)
        };
        host.privileged || asked || (base && !dropped)
    };
    let held = |name: &&str| index(name).is_some_and(|bit| bounding & (1 << bit) != 0);
    Ok(CAPABILITIES.iter().copied().filter(keep).filter(held).map(str::to_owned).collect())
}

fn namespaces(host: &HostConfig, around: &Surroundings<'_>) -> Vec<Value> {
    let mut list = vec![json!({ "type": "mount" })];
    let mut push = |kind: &'static str, own: bool| {
        if let Some(path) = around.joined.get(kind) {
            list.push(json!({ "type": kind, "path": path }));
        } else if own {
            list.push(json!({ "type": kind }));
        }
    };
    push("uts", host.uts_mode != "host");
    push("ipc", host.ipc_mode != "host");
    push("pid", host.pid_mode != "host");
    push("network", around.own_network);
    push("cgroup", host.cgroupns_mode == "private");
    push("time", around.time_namespaces);
    push("user", around.id_range.is_some());
    list
}

fn mount_list(record: &Container, around: &Surroundings<'_>) -> Result<Vec<Value>> {
    let host = &record.host;
    let cgroup_mode = if host.privileged || security::writable_cgroups(host) { "rw" } else { "ro" };
    let sys_mode = if host.privileged { "rw" } else { "ro" };
    let proc = match host.pid_mode == "host" && is_rootless() {
        // Who is not root of the host shows its processes by what shows them already.
        true => json!({ "destination": "/proc", "type": "bind", "source": "/proc",
                        "options": ["rbind", "nosuid", "noexec", "nodev"] }),
        false => {
            json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] })
        }
    };
    let mut list = vec![
        proc,
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": docker_defaults::terminals() }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", sys_mode] }),
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", cgroup_mode] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"] }),
    ];
    match around.shm {
        Some(shared) => list.push(json!({ "destination": "/dev/shm", "type": "bind", "source": shared,
                                          "options": ["rbind", "rprivate"] })),
        None if host.ipc_mode == "none" => {}
        None => list.push(json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                                  "options": ["nosuid", "noexec", "nodev", "mode=1777", format!("size={}", host.shm_size)] })),
    }
    list.append(&mut own_mounts(record, around.etc, around.secrets, around.id_range.is_some(), around.mapped)?);
    Ok(list)
}

/// Whether hostname, hosts and resolv.conf are the engine's; not when the host's network and files are used.
pub(crate) fn has_etc_files(host: &HostConfig) -> bool {
    host.network_mode != "host" || host.uts_mode != "host"
}

/// What only this container has mounted: the engine's files for `/etc`, from its directory `etc`, its secrets, and what was asked for.
/// `mapped` are as in [`Surroundings`]. What is below another comes after it.
///
/// # Errors
/// As [`spec`].
pub(crate) fn own_mounts(
    record: &Container,
    etc: Option<&Path>,
    secrets: Option<&Path>,
    has_user_namespace: bool,
    mapped: &[String],
) -> Result<Vec<Value>> {
    let host = &record.host;
    let mut own = Vec::new();
    if let Some(etc) = etc {
        let mode = host.readonly_rootfs.then_some("ro");
        for (file, target) in
            [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")]
        {
            if record.mounts.iter().all(|m| m.destination != target) {
                // The container's root may write to them, as to a file of its image.
                let map = has_user_namespace.then_some("idmap");
                let options: Vec<&str> = ["rbind", "rprivate"].into_iter().chain(mode).chain(map).collect();
                own.push(json!({ "destination": target, "type": "bind",
                                 "source": etc.join(file), "options": options }));
            }
        }
    }
    for point in &record.mounts {
        own.push(match point.kind.as_str() {
            "tmpfs" => json!({ "destination": point.destination, "type": "tmpfs", "source": "tmpfs",
                               "options": tmpfs::options(host, &point.destination) }),
            _ => json!({ "destination": point.destination, "type": "bind", "source": point.source,
                         "options": bind_options(host, point, mapped) }),
        });
    }
    own.extend(secrets.into_iter().flat_map(|dir| secrets::mount_list(host, dir)));
    // What is on /etc comes before what is in it.
    own.sort_by_key(|mount| mount["destination"].as_str().map_or(0, |path| path.matches('/').count()));
    Ok(own)
}

/// Docker's rules since its version 25: what is mounted read-only is so with all that is mounted below it.
fn bind_options(host: &HostConfig, point: &MountPoint, mapped: &[String]) -> Vec<String> {
    let mut requests = host.mounts.iter().flatten();
    let request = requests.find(|m| m.kind == "bind" && mounts::clean(&m.target) == point.destination);
    let asked = request.and_then(|m| m.bind_options.as_ref());
    let is = |pick: fn(&BindOptions) -> bool| asked.is_some_and(pick);
    let kind = if is(|o| o.non_recursive) { "bind" } else { "rbind" };
    let propagation = if point.propagation.is_empty() { "rprivate" } else { &point.propagation };
    let mode = match (point.rw, is(|o| o.read_only_non_recursive)) {
        // `rw` would take a read-only one's flag away, and with it all others of its source.
        (true, _) => None,
        // Nothing is mounted in an image.
        (false, _) if point.image.is_some() => Some("ro"),
        (false, true) => Some("ro"),
        (false, false) => Some("rro"),
    };
    let mapped = mapped.contains(&point.destination).then_some("idmap");
    [kind, propagation].into_iter().chain(mode).chain(mapped).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::MountRequest;

    fn host(add: &[&str], drop: &[&str], privileged: bool) -> HostConfig {
        let list = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect());
        HostConfig { cap_add: list(add), cap_drop: list(drop), privileged, ..HostConfig::default() }
    }

    #[test]
    fn capabilities_follow_add_and_drop() {
        let all = u64::MAX;
        assert_eq!(capabilities(&host(&[], &[], false), all).unwrap().len(), 14);
        assert_eq!(capabilities(&host(&[], &["all"], false), all).unwrap().len(), 0);
        assert_eq!(capabilities(&host(&["net_admin"], &["ALL"], false), all).unwrap(), ["CAP_NET_ADMIN"]);
        assert_eq!(capabilities(&host(&[], &[], true), all).unwrap().len(), CAPABILITIES.len());
        let all_but = capabilities(&host(&["ALL"], &["MKNOD"], false), all).unwrap();
        assert!(!all_but.iter().any(|c| c == "CAP_MKNOD"));
        assert!(capabilities(&host(&["CAP_NONSENSE"], &[], false), all).is_err());
    }

    #[test]
    fn what_this_process_may_not_give_is_left_out() {
        let without_chown = capabilities(&host(&[], &[], false), !1).unwrap();
        assert!(!without_chown.iter().any(|c| c == "CAP_CHOWN"));
    }

    #[test]
    fn binds_are_read_only_with_all_below_unless_asked_otherwise() {
        let point = |rw| MountPoint { kind: "bind".into(), destination: "/d".into(), rw, ..MountPoint::default() };
        let with = |options: BindOptions| {
            let request = MountRequest {
                kind: "bind".into(),
                target: "/d/".into(),
                read_only: true,
                bind_options: Some(options),
                ..MountRequest::default()
            };
            HostConfig { mounts: Some(vec![request]), ..HostConfig::default() }
        };
        let plain = HostConfig::default();
        assert_eq!(bind_options(&plain, &point(true), &[]), ["rbind", "rprivate"]);
        assert_eq!(bind_options(&plain, &point(false), &[]), ["rbind", "rprivate", "rro"]);
        assert_eq!(bind_options(&plain, &point(true), &["/d".into()]), ["rbind", "rprivate", "idmap"]);
        let only_itself = with(BindOptions { read_only_non_recursive: true, ..BindOptions::default() });
        assert_eq!(bind_options(&only_itself, &point(false), &[]), ["rbind", "rprivate", "ro"]);
        let forced = with(BindOptions { read_only_force_recursive: true, ..BindOptions::default() });
        assert_eq!(bind_options(&forced, &point(false), &[]), ["rbind", "rprivate", "rro"]);
        let alone = with(BindOptions { non_recursive: true, ..BindOptions::default() });
        assert_eq!(bind_options(&alone, &point(false), &[]), ["bind", "rprivate", "rro"]);
    }

    #[test]
    fn the_engine_s_variables_come_first_and_give_way() {
        let identity = Identity { uid: 0, gid: 0, groups: vec![0], home: "/root".into() };
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let config = Config {
            hostname: "box".into(),
            env: Some(words(&["A=1", "PATH=/bin", "DB_NAME=own"])),
            ..Config::default()
        };
        let linked = words(&["DB_NAME=/a/db", "DB_PORT=1"]);
        assert_eq!(
            environment(&config, true, &linked, &words(&["A=2", "DB_PORT", "B="]), &identity),
            ["PATH=/bin", "HOSTNAME=box", "TERM=xterm", "DB_NAME=own", "A=2", "B=", "HOME=/root"]
        );
    }
}
