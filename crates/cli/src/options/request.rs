//! The body of `POST /containers/create`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use wharf_client::Address;

use super::{
    bandwidth, blkio, checks, device, env, gpus, health, mount, network, publish, secret, security, ulimit, volume,
};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::parse::Matches;
use crate::values;

/// The flags that `run` and `create` share.
pub(crate) const FLAGS: &[Flag] = &[
    Flag::list("add-host", "Add a custom host-to-IP mapping (host:ip)").check(checks::extra_host),
    Flag::map("annotation", "Add an annotation to the container (passed through to the OCI runtime)"),
    Flag::list("attach", "Attach to STDIN, STDOUT or STDERR").short('a').check(checks::attach),
    Flag::one("bandwidth", "limits", bandwidth::check, bandwidth::HELP),
    Flag::one(
        "blkio-weight",
        "uint16",
        values::check_uint16,
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    Flag::many("blkio-weight-device", "list", blkio::check_weight, "Block IO weight (relative device weight)")
        .default("[]"),
    Flag::list("cap-add", "Add Linux capabilities"),
    Flag::list("cap-drop", "Drop Linux capabilities"),
    Flag::text("cgroup-parent", "Optional parent cgroup for the container"),
    Flag::text(
        "cgroupns",
        "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup \
         namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup \
         namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)",
    ),
    Flag::text("cidfile", "Write the container ID to the file"),
    Flag::int("cpu-count", "CPU count (Windows only)").hidden(),
    Flag::int("cpu-percent", "CPU percent (Windows only)").hidden(),
    Flag::int("cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag::int("cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag::int("cpu-rt-period", "Limit CPU real-time period in microseconds"),
    Flag::int("cpu-rt-runtime", "Limit CPU real-time runtime in microseconds"),
    Flag::int("cpu-shares", "CPU shares (relative weight)").short('c'),
    Flag::one("cpus", "decimal", values::check_cpus, "Number of CPUs"),
    Flag::text("cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::text("cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::list("device", "Add a host device to the container"),
    Flag::list("device-cgroup-rule", "Add a rule to the cgroup allowed devices list").check(checks::device_rule),
    Flag::many("device-read-bps", "list", blkio::check_bytes, "Limit read rate (bytes per second) from a device")
        .default("[]"),
    Flag::many("device-read-iops", "list", blkio::check_operations, "Limit read rate (IO per second) from a device")
        .default("[]"),
    Flag::many("device-write-bps", "list", blkio::check_bytes, "Limit write rate (bytes per second) to a device")
        .default("[]"),
    Flag::many("device-write-iops", "list", blkio::check_operations, "Limit write rate (IO per second) to a device")
        .default("[]"),
    Flag::switch("disable-content-trust", "Skip image verification").default("true"),
    Flag::list("dns", "Set custom DNS servers").check(checks::ip_address),
    Flag::list("dns-opt", "Set DNS options").hidden(),
    Flag::list("dns-option", "Set DNS options"),
    Flag::list("dns-search", "Set custom DNS search domains").check(checks::dns_search),
    Flag::text("domainname", "Container NIS domain name"),
    Flag::text("entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    Flag::list("env", "Set environment variables").short('e').check(checks::env),
    Flag::list("env-file", "Read in a file of environment variables"),
    Flag::list("expose", "Expose a port or a range of ports"),
    Flag::many("gpus", "gpu-request", gpus::check, "GPU devices to add to the container ('all' to pass all GPUs)"),
    Flag::list("group-add", "Add additional groups to join"),
    Flag::text("health-cmd", "Command to run to check health"),
    Flag::one("health-http", "PORT[/PATH]", health::check_http, "Ask this by HTTP to check health; no program is run"),
    Flag::duration("health-interval", "Time between running the check (ms|s|m|h) (default 0s)"),
    Flag::one(
        "health-on-failure",
        "action",
        health::check_action,
        "What is done once it is unhealthy (none, kill, restart, stop) (default none)",
    ),
    Flag::int("health-retries", "Consecutive failures needed to report unhealthy"),
    Flag::duration(
        "health-start-interval",
        "Time between running the check during the start period (ms|s|m|h) (default 0s)",
    ),
    Flag::duration(
        "health-start-period",
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
    ),
    Flag::text("health-tcp", "Connect to this [HOST:]PORT to check health; no program is run"),
    Flag::duration("health-timeout", "Maximum time to allow one check to run (ms|s|m|h) (default 0s)"),
    Flag::switch("help", "Print usage"),
    Flag::text("hostname", "Container host name").short('h'),
    Flag::switch("init", "Run an init inside the container that forwards signals and reaps processes"),
    Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
    Flag::bytes("io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)").hidden(),
    Flag::one("io-maxiops", "uint", values::check_uint64, "Maximum IOps limit for the system drive (Windows only)")
        .hidden(),
    Flag::text("ip", "IPv4 address (e.g., 172.30.100.104)"),
    Flag::text("ip6", "IPv6 address (e.g., 2001:db8::33)"),
    Flag::text("ipc", "IPC mode to use"),
    Flag::text("isolation", "Container isolation technology"),
    Flag::bytes("kernel-memory", "Kernel memory limit").hidden(),
    Flag::list("label", "Set meta data on a container").short('l').check(checks::label),
    Flag::list("label-file", "Read in a line delimited file of labels"),
    Flag::list("link", "Add link to another container").check(checks::link),
    Flag::list("link-local-ip", "Container IPv4/IPv6 link-local addresses"),
    Flag::text("log-driver", "Logging driver for the container"),
    Flag::list("log-opt", "Log driver options"),
    Flag::text("mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag::bytes("memory", "Memory limit").short('m'),
    Flag::bytes("memory-reservation", "Memory soft limit"),
    Flag::bytes("memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
        .check(values::check_swap),
    Flag::int("memory-swappiness", "Tune container memory swappiness (0 to 100)").default("-1"),
    Flag::many("mount", "mount", mount::check, "Attach a filesystem mount to the container"),
    Flag::text("name", "Assign a name to the container"),
    Flag::many("net", "network", network::check, "Connect a container to a network").hidden(),
    Flag::list("net-alias", "Add network-scoped alias for the container").hidden(),
    Flag::many("network", "network", network::check, "Connect a container to a network"),
    Flag::list("network-alias", "Add network-scoped alias for the container"),
    Flag::switch("no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    Flag::switch("oom-kill-disable", "Disable OOM Killer"),
    Flag::int("oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)"),
    Flag::text("pid", "PID namespace to use"),
    Flag::int("pids-limit", "Tune container pids limit (set -1 for unlimited)"),
    Flag::text("platform", "Set platform if server is multi-platform capable"),
    Flag::switch("privileged", "Give extended privileges to this container"),
    Flag::list("publish", "Publish a container's port(s) to the host").short('p'),
    Flag::switch("publish-all", "Publish all exposed ports to random ports").short('P'),
    Flag::switch("quiet", "Suppress the pull output").short('q'),
    Flag::switch("read-only", "Mount the container's root filesystem as read only"),
    Flag::text("restart", "Restart policy to apply when a container exits").default("no"),
    Flag::switch("rm", "Automatically remove the container and its associated anonymous volumes when it exits"),
    Flag::text("runtime", "Runtime to use for this container"),
    Flag::many(
        "secret",
        "secret",
        secret::check,
        "Give the container a file that nobody is told of (id=NAME[,src=FILE|env=VAR][,target=PATH][,mode=0444])",
    ),
    Flag::list("security-opt", "Security Options"),
    Flag::bytes("shm-size", "Size of /dev/shm"),
    Flag::text("stop-signal", "Signal to stop the container"),
    Flag::int("stop-timeout", "Timeout (in seconds) to stop a container"),
    Flag::list("storage-opt", "Storage driver options for the container"),
    Flag::map("sysctl", "Sysctl options").check(checks::sysctl),
    Flag::list("tmpfs", "Mount a tmpfs directory"),
    Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
    Flag::many("ulimit", "ulimit", ulimit::check, "Ulimit options").default("[]"),
    Flag::one("umask", "octal", values::check_umask, "Initial umask of the container's processes, as 0027"),
    Flag::switch("use-api-socket", "Bind mount Docker API socket and required auth"),
    Flag::text("user", "Username or UID (format: <name|uid>[:<group|gid>])").short('u'),
    Flag::text("userns", "User namespace to use"),
    Flag::text("uts", "UTS namespace to use"),
    Flag::list("volume", "Bind mount a volume").short('v'),
    Flag::text("volume-driver", "Optional volume driver for the container"),
    Flag::list("volumes-from", "Mount volumes from the specified container(s)"),
    Flag::text("workdir", "Working directory inside the container").short('w'),
];

/// What is to be created, and what the command needs to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) config: Map<String, Value>,
    pub(crate) host: Map<String, Value>,
    pub(crate) endpoints: Map<String, Value>,
    pub(crate) attach: Attach,
    pub(crate) tty: bool,
    /// `SecretData`.
    pub(crate) secrets: Map<String, Value>,
}

/// The streams that are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attach {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// Puts the request together. `proxies`: variables that the configuration gives to every container; `socket`: where the
/// engine is.
///
/// # Errors
///
/// Options that contradict each other, or values that cannot be read.
pub(crate) fn build(matches: &Matches, proxies: &[String], socket: &Address) -> Outcome<Request> {
    if let Some(address) = matches.some("mac-address") {
        checks::mac_address(address.trim()).map_err(|_| format!("{address} is not a valid mac address"))?;
    }
    let swappiness = matches.int("memory-swappiness");
    if !(-1..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100").into());
    }
    let attach = attach(matches);
    let (image, arguments) = matches.arguments.split_first().ok_or("no image")?;
    let volumes = volume::parse(matches.all("volume"))?;
    let ports = publish::parse(matches.all("publish"), matches.all("expose"))?;
    let given: Vec<String> = proxies.iter().chain(matches.all("env")).cloned().collect();
    let variables = env::variables(matches.all("env-file"), &given)?;
    let labels = env::labels(matches.all("label-file"), matches.all("label"))?;
    let (host, open_stdin) = (host(matches, &volumes, &ports)?, matches.on("interactive"));
    let (mode, endpoints) = network::endpoints(matches)?;
    let entrypoint = match matches.some("entrypoint") {
        Some(program) => json!([program]),
        // `--entrypoint=` takes the image's away.
        None if matches.changed("entrypoint") => json!([""]),
        None => Value::Null,
    };
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let mut config = object(json!({
        "Hostname": matches.text("hostname"),
        "Domainname": matches.text("domainname"),
        "User": matches.text("user"),
        "AttachStdin": attach.stdin,
        "AttachStdout": attach.stdout,
        "AttachStderr": attach.stderr,
        "ExposedPorts": ports.exposed,
        "Tty": matches.on("tty"),
        "OpenStdin": open_stdin,
        "StdinOnce": open_stdin && attach.stdin,
        "Env": list(&variables),
        "Cmd": list(arguments),
        "Image": image,
        "Volumes": volumes.anonymous,
        "WorkingDir": matches.text("workdir"),
        "Entrypoint": entrypoint,
        "OnBuild": null,
        "Labels": labels,
    }));
    if ports.exposed.is_empty() {
        config.remove("ExposedPorts");
    }
    if let Some(health) = health::of(matches)? {
        config.insert("Healthcheck".to_owned(), health);
    }
    if matches.changed("stop-signal") {
        config.insert("StopSignal".to_owned(), json!(matches.text("stop-signal")));
    }
    if let Some(timeout) = matches.int_given("stop-timeout") {
        config.insert("StopTimeout".to_owned(), json!(timeout));
    }
    let mut host = host;
    if matches.on("use-api-socket") {
        use_api_socket(&mut host, socket)?;
    }
    host.insert("NetworkMode".to_owned(), json!(mode));
    let (files, secrets) = secret::read(matches.all("secret"))?;
    if !files.is_empty() {
        host.insert("Secrets".to_owned(), Value::Array(files));
    }
    Ok(Request { config, host, endpoints, attach, tty: matches.on("tty"), secrets })
}

/// Gives the container the engine's socket where programs look for it.
fn use_api_socket(host: &mut Map<String, Value>, socket: &Address) -> Outcome {
    let Address::Unix(path) = socket else {
        return Err("flag --use-api-socket can't be used with a remote daemon: its socket is not a file here".into());
    };
    let mount = json!({
        "Type": "bind",
        "Source": path.display().to_string(),
        "Target": "/var/run/docker.sock",
        "BindOptions": {},
    });
    let mounts = host.entry("Mounts").or_insert_with(|| json!([]));
    if let Some(mounts) = mounts.as_array_mut() {
        mounts.push(mount);
    }
    Ok(())
}

/// Without `-a`, output is attached; `-i` attaches input.
fn attach(matches: &Matches) -> Attach {
    let given = matches.all("attach");
    let has = |stream: &str| given.iter().any(|name| name.eq_ignore_ascii_case(stream));
    let all = given.is_empty();
    Attach {
        stdin: has("stdin") || matches.on("interactive"),
        stdout: all || has("stdout"),
        stderr: all || has("stderr"),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn host(matches: &Matches, volumes: &volume::Volumes, ports: &publish::Ports) -> Outcome<Map<String, Value>> {
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let security = security::parse(matches.all("security-opt"))?;
    let open = if security.open_paths { json!([]) } else { Value::Null };
    let restart = security::restart(matches.text("restart"))?;
    let restarts = !matches!(restart["Name"].as_str(), Some("no" | "") | None);
    if matches.on("rm") && restarts {
        return Err("conflicting options: cannot specify both --restart and --rm".into());
    }
    let driver = matches.text("log-driver");
    if driver == "none" && matches.changed("log-opt") {
        return Err(format!("invalid logging opts for driver {driver}").into());
    }
    let dns_options: Vec<&String> = matches.all("dns-option").iter().chain(matches.all("dns-opt")).collect();
    let hosts: Result<Vec<String>, String> =
        matches.all("add-host").iter().map(|text| checks::host_and_address(text)).collect();
    let hosts = hosts?;
    let mut host = object(json!({
        "Binds": list(&unique(&volumes.binds)),
        "ContainerIDFile": matches.text("cidfile"),
        "LogConfig": {"Type": driver, "Config": env::map(matches.all("log-opt"))},
        "NetworkMode": "default",
        "PortBindings": ports.bindings,
        "RestartPolicy": restart,
        "AutoRemove": matches.on("rm"),
        "VolumeDriver": matches.text("volume-driver"),
        "VolumesFrom": list(matches.all("volumes-from")),
        "ConsoleSize": [0, 0],
        "CapAdd": list(&capabilities(matches.all("cap-add"))),
        "CapDrop": list(&capabilities(matches.all("cap-drop"))),
        "CgroupnsMode": mode(matches, "cgroupns", "CGROUP", &["", "private", "host"])?,
        "Dns": matches.all("dns"),
        "DnsOptions": dns_options,
        "DnsSearch": matches.all("dns-search"),
        "ExtraHosts": list(&hosts),
        "GroupAdd": list(matches.all("group-add")),
        "IpcMode": matches.text("ipc"),
        "Cgroup": "",
        "Links": list(matches.all("link")),
        "OomScoreAdj": matches.int("oom-score-adj"),
        "PidMode": pid_mode(matches)?,
        "Privileged": matches.on("privileged"),
        "PublishAllPorts": matches.on("publish-all"),
        "ReadonlyRootfs": matches.on("read-only"),
        "SecurityOpt": list(&security.options),
        "UTSMode": mode(matches, "uts", "UTS", &["", "host"])?,
        "UsernsMode": mode(matches, "userns", "USER", &["", "host", "auto"])?,
        "ShmSize": matches.bytes("shm-size"),
        "Isolation": matches.text("isolation"),
        "MaskedPaths": open,
        "ReadonlyPaths": open,
    }));
    let mut optional = |key: &str, map: Map<String, Value>| {
        if !map.is_empty() {
            host.insert(key.to_owned(), Value::Object(map));
        }
    };
    optional("Annotations", env::map(matches.all("annotation")));
    optional("StorageOpt", security::storage(matches.all("storage-opt"))?);
    optional("Tmpfs", tmpfs(matches.all("tmpfs")));
    optional("Sysctls", env::map(matches.all("sysctl")));
    if matches.changed("init") {
        host.insert("Init".to_owned(), json!(matches.on("init")));
    }
    if let Some(action) = matches.some("health-on-failure") {
        host.insert("HealthOnFailure".to_owned(), json!(action));
    }
    if let Some(umask) = matches.some("umask") {
        host.insert("Umask".to_owned(), json!(values::parse_umask(umask)?));
    }
    if let Some(runtime) = matches.some("runtime") {
        host.insert("Runtime".to_owned(), json!(runtime));
    }
    let mounts: Result<Vec<Value>, String> = matches.all("mount").iter().map(|text| mount::parse(text)).collect();
    let mounts = mounts?;
    if !mounts.is_empty() {
        host.insert("Mounts".to_owned(), Value::Array(mounts));
    }
    host.extend(resources(matches)?);
    Ok(host)
}

/// Capabilities in their canonical form, each once.
fn capabilities(given: &[String]) -> Vec<String> {
    let canonical = |name: &String| {
        let upper = name.trim().to_uppercase();
        if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
    };
    let mut names: Vec<String> = given.iter().map(canonical).collect();
    names.sort();
    names.dedup();
    names
}

fn tmpfs(texts: &[String]) -> Map<String, Value> {
    let split = |text: &String| {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        (path.to_owned(), json!(options))
    };
    texts.iter().map(split).collect()
}

fn mode<'a>(matches: &'a Matches, flag: &str, what: &str, known: &[&str]) -> Outcome<&'a str> {
    let value = matches.text(flag);
    if known.contains(&value) { Ok(value) } else { Err(format!("--{flag}: invalid {what} mode").into()) }
}

fn pid_mode(matches: &Matches) -> Outcome<&str> {
    let value = matches.text("pid");
    let container = value.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    if matches!(value, "" | "host") || container { Ok(value) } else { Err("--pid: invalid PID mode".into()) }
}

/// Each once, where it is first.
fn unique(all: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    all.iter().filter(|text| seen.insert(text.as_str())).cloned().collect()
}

fn resources(matches: &Matches) -> Outcome<Map<String, Value>> {
    let each = |flag: &str, read: fn(&str) -> Result<Value, String>| -> Outcome<Vec<Value>> {
        let values: Result<Vec<Value>, String> = matches.all(flag).iter().map(|text| read(text)).collect();
        Ok(values?)
    };
    let (devices, mut requests) = device::parse(matches.all("device"))?;
    requests.extend(each("gpus", gpus::parse)?);
    let cpus = match matches.some("cpus") {
        Some(text) => values::parse_cpus(text)?,
        None => 0,
    };
    let rules = matches.all("device-cgroup-rule");
    // Of one name the last counts.
    let ulimits = each("ulimit", ulimit::parse)?;
    let ulimits: BTreeMap<String, Value> =
        ulimits.into_iter().map(|limit| (limit["Name"].as_str().unwrap_or_default().to_owned(), limit)).collect();
    let ulimits: Vec<Value> = ulimits.into_values().collect();
    Ok(object(json!({
        "CpuShares": matches.int("cpu-shares"),
        "Memory": matches.bytes("memory"),
        "NanoCpus": cpus,
        "CgroupParent": matches.text("cgroup-parent"),
        "BlkioWeight": matches.int("blkio-weight"),
        "BlkioWeightDevice": each("blkio-weight-device", blkio::weight)?,
        "BlkioDeviceReadBps": each("device-read-bps", blkio::bytes)?,
        "BlkioDeviceWriteBps": each("device-write-bps", blkio::bytes)?,
        "BlkioDeviceReadIOps": each("device-read-iops", blkio::operations)?,
        "BlkioDeviceWriteIOps": each("device-write-iops", blkio::operations)?,
        "CpuPeriod": matches.int("cpu-period"),
        "CpuQuota": matches.int("cpu-quota"),
        "CpuRealtimePeriod": matches.int("cpu-rt-period"),
        "CpuRealtimeRuntime": matches.int("cpu-rt-runtime"),
        "CpusetCpus": matches.text("cpuset-cpus"),
        "CpusetMems": matches.text("cpuset-mems"),
        "Devices": devices,
        "DeviceCgroupRules": if rules.is_empty() { Value::Null } else { json!(rules) },
        "DeviceRequests": if requests.is_empty() { Value::Null } else { json!(requests) },
        "MemoryReservation": matches.bytes("memory-reservation"),
        "MemorySwap": matches.bytes("memory-swap"),
        "MemorySwappiness": matches.int("memory-swappiness"),
        "OomKillDisable": matches.on("oom-kill-disable"),
        "PidsLimit": matches.int("pids-limit"),
        "Ulimits": ulimits,
        "CpuCount": matches.int("cpu-count"),
        "CpuPercent": matches.int("cpu-percent"),
        "IOMaximumIOps": matches.int("io-maxiops"),
        "IOMaximumBandwidth": matches.bytes("io-maxbandwidth"),
    })))
}
