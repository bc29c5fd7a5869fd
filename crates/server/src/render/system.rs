//! The engine itself, as `version` and `info` show it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wharf_engine::{EngineOptions, Info, Told};

use crate::{API_VERSION, MIN_API_VERSION};

/// `1.51`.
pub(crate) fn dotted((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// The Docker Engine whose behaviour and API this engine has. Tools compare it, and refuse what is older than 20.10.
const ENGINE: &str = "29.8.0";
/// Clients parse it as a time.
const BUILT: &str = "2026-01-01T00:00:00.000000000+00:00";
/// Clients show these, and some cannot have them empty.
const COMMIT: &str = match option_env!("WHARF_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
const GO: &str = "none";

/// `GET /version`.
pub(crate) fn version(kernel: &str) -> Value {
    let own = env!("CARGO_PKG_VERSION");
    let (api, oldest) = (dotted(API_VERSION), dotted(MIN_API_VERSION));
    json!({
        "Platform": { "Name": format!("Wharf {own}") },
        "Components": [{
            "Name": "Engine",
            "Version": ENGINE,
            "Details": {
                "ApiVersion": api, "MinAPIVersion": oldest, "Os": "linux", "Arch": architecture(),
                "KernelVersion": kernel, "Experimental": "false", "GitCommit": COMMIT, "GoVersion": GO, "BuildTime": BUILT,
            },
        }, {
            "Name": "wharf",
            "Version": own,
            "Details": { "GitCommit": COMMIT },
        }],
        "Version": ENGINE,
        "ApiVersion": api,
        "MinAPIVersion": oldest,
        "GitCommit": COMMIT,
        "GoVersion": GO,
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel,
        "BuildTime": BUILT,
    })
}

/// In Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// What the process itself has, for `info`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) files: usize,
    pub(crate) threads: usize,
    pub(crate) listeners: usize,
}

/// `GET /info`.
pub(crate) fn info(info: &Info, options: &EngineOptions, told: &Told, process: Process, version: (u32, u32)) -> Value {
    let mut all = json!({
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Layers", info.layers], ["Supports d_type", "true"]],
        "Plugins": {
            "Volume": info.volume_drivers, "Network": ["bridge", "host", "ipvlan", "macvlan", "null"], "Authorization": null,
            "Log": ["fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"],
        },
        "MemoryLimit": info.memory_limit,
        "SwapLimit": info.swap_limit,
        "CpuCfsPeriod": info.cpu_quota,
        "CpuCfsQuota": info.cpu_quota,
        "CPUShares": info.cpu_quota,
        "CPUSet": info.cpuset,
        "PidsLimit": info.pids_limit,
        "OomKillDisable": info.memory_limit && info.cgroup_version == "1",
        "IPv4Forwarding": true,
        "Debug": told.debug,
        "NFd": process.files,
        "NGoroutines": process.threads,
        "NEventsListener": process.listeners,
        "SystemTime": info.time,
        "LoggingDriver": options.log.driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": info.cgroup_version,
    });
    let host = json!({
        "KernelVersion": info.kernel,
        "OperatingSystem": info.operating_system,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": info.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registries(told),
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "GenericResources": null,
        "DockerRootDir": options.data_root,
        "HttpProxy": told.http_proxy,
        "HttpsProxy": told.https_proxy,
        "NoProxy": told.no_proxy,
        "Name": info.name,
        "Labels": told.labels,
        "ExperimentalBuild": false,
        "ServerVersion": ENGINE,
        // All names of the one runtime; clients look for Docker's.
        "Runtimes": {
            "io.containerd.runc.v2": { "path": "wharf" }, "runc": { "path": "wharf" }, "wharf": { "path": "wharf" },
        },
        "DefaultRuntime": "runc",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "wharf",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": security_options(told),
        "CDISpecDirs": options.cdi_dirs.as_deref().unwrap_or_default(),
        "Warnings": info.warnings,
    });
    if let (Value::Object(all), Value::Object(host)) = (&mut all, host) {
        all.extend(host);
    }
    if version < (1, 50) {
        // Clients of then warn when they are not true.
        all["BridgeNfIptables"] = true.into();
        all["BridgeNfIp6tables"] = true.into();
    }
    if version >= (1, 50) && !info.named_devices.is_empty() {
        let device = |name: &String| json!({ "Source": "cdi", "ID": name });
        all["DiscoveredDevices"] = info.named_devices.iter().map(device).collect();
    }
    if version >= (1, 49) {
        all["FirewallBackend"] = json!({ "Driver": "nftables" });
    }
    all
}

fn security_options(told: &Told) -> Vec<String> {
    // One that was told of nothing, in tests.
    let profile = if told.seccomp_profile.is_empty() { "builtin" } else { &told.seccomp_profile };
    let more = [
        (told.rootless, "name=rootless"),
        (told.own_cgroupns, "name=cgroupns"),
        (told.no_new_privileges, "name=no-new-privileges"),
    ];
    let more = more.into_iter().filter(|(is, _)| *is).map(|(_, name)| name.to_owned());
    std::iter::once(format!("name=seccomp,profile={profile}")).chain(more).collect()
}

fn registries(told: &Told) -> Value {
    let index = |name: &str, secure: bool, mirrors: &[String]| json!({ "Name": name, "Mirrors": mirrors, "Secure": secure, "Official": name == "docker.io" });
    let mut configs = BTreeMap::from([("docker.io", index("docker.io", true, &told.registry_mirrors))]);
    let mut networks = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
    for name in &told.insecure_registries {
        if name.contains('/') {
            networks.push(name.clone());
        } else {
            configs.insert(name, index(name, false, &[]));
        }
    }
    json!({ "InsecureRegistryCIDRs": networks, "IndexConfigs": configs, "Mirrors": told.registry_mirrors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_names_the_range_of_the_api() {
        let all = version("6.1");
        assert_eq!((all["ApiVersion"].as_str(), all["MinAPIVersion"].as_str()), (Some("1.56"), Some("1.24")));
        assert_eq!(all["Components"][0]["Details"]["KernelVersion"], "6.1");
        assert_eq!((&all["Version"], &all["Components"][0]["Version"]), (&json!(ENGINE), &json!(ENGINE)));
        assert_eq!(all["Components"][1]["Version"], env!("CARGO_PKG_VERSION"));
        assert!(all["BuildTime"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    }
}
