//! A container as the `run` command that makes another one like it: `inspect --as run`.
//!
//! What the image brings by itself is left out, and so are Docker's defaults.

use serde_json::Value as Json;

use crate::json::{array, int, text, texts};

/// The command line, one flag on each line.
///
/// `image` is what the container was made of; without it all that it might have brought is written out.
pub(crate) fn command_line(program: &str, container: &Json, image: &Json) -> String {
    let mut words = Words::default();
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let own = &image["Config"];
    attaching(&mut words, config, host);
    words.value("name", text(&container["Name"]).trim_start_matches('/'));
    identity(&mut words, container);
    program_s(&mut words, config, own);
    health(&mut words, &config["Healthcheck"], &own["Healthcheck"]);
    words.value("health-on-failure", text(&host["HealthOnFailure"]));
    files(&mut words, config, host, own);
    networks(&mut words, container, own);
    isolation(&mut words, host);
    limits(&mut words, host);
    logging(&mut words, &host["LogConfig"]);
    let mut line = format!("{program} run");
    for flag in &words.flags {
        line.push_str(&format!(" \\\n  {flag}"));
    }
    let mut rest = vec![quoted(text(&config["Image"]))];
    let entrypoint = texts(&config["Entrypoint"]);
    let changed = config["Entrypoint"] != own["Entrypoint"];
    // `--entrypoint` takes one word: the others go before the command.
    rest.extend(entrypoint.iter().skip(1).filter(|_| changed).map(|word| quoted(word)));
    if changed || config["Cmd"] != own["Cmd"] {
        rest.extend(texts(&config["Cmd"]).iter().map(|word| quoted(word)));
    }
    line.push_str(&format!(" \\\n  {}", rest.join(" ")));
    line
}

/// Flags, ready for a shell.
#[derive(Default)]
struct Words {
    flags: Vec<String>,
}

impl Words {
    fn switch(&mut self, on: bool, flag: &str) {
        if on {
            self.flags.push(flag.to_owned());
        }
    }

    /// `--name value`, if there is one.
    fn value(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.flags.push(format!("--{name} {}", quoted(value)));
        }
    }

    fn number(&mut self, name: &str, value: i64) {
        if value != 0 {
            self.flags.push(format!("--{name} {value}"));
        }
    }

    fn list(&mut self, name: &str, values: &Json) {
        texts(values).iter().for_each(|value| self.value(name, value));
    }

    /// `key=value` for each that `own` does not have alike.
    fn pairs(&mut self, name: &str, values: &Json, own: &Json) {
        for (key, value) in values.as_object().into_iter().flatten().filter(|(key, value)| own[key.as_str()] != **value)
        {
            self.value(name, &format!("{key}={}", text(value)));
        }
    }
}

/// A word for sh(1).
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if word.chars().any(|c| c.is_control() && c != '\n') {
        // A terminal that shows it must not obey it (POSIX 2024, "Dollar-Single-Quotes").
        let shown = word.chars().map(|c| match c {
            '\'' | '\\' => format!("\\{c}"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\{byte:03o}")).collect()
            }
            c => c.to_string(),
        });
        return format!("$'{}'", shown.collect::<String>());
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn attaching(words: &mut Words, config: &Json, host: &Json) {
    let on = |key: &str| config[key] == true;
    words.switch(!on("AttachStdin") && !on("AttachStdout") && !on("AttachStderr"), "-d");
    words.switch(on("OpenStdin"), "-i");
    words.switch(on("Tty"), "-t");
    words.switch(host["AutoRemove"] == true, "--rm");
    let policy = &host["RestartPolicy"];
    let name = text(&policy["Name"]);
    match int(&policy["MaximumRetryCount"]) {
        _ if matches!(name, "" | "no") => {}
        0 => words.value("restart", name),
        most => words.value("restart", &format!("{name}:{most}")),
    }
}

fn identity(words: &mut Words, container: &Json) {
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let hostname = text(&config["Hostname"]);
    // What it is called without a word about it.
    let mode = text(&host["NetworkMode"]);
    let given = !text(&container["Id"]).starts_with(hostname) && mode != "host" && !mode.starts_with("container:");
    words.value("hostname", if given { hostname } else { "" });
    words.value("domainname", text(&config["Domainname"]));
    let platform = text(&container["Platform"]);
    words.value("platform", if platform.contains('/') { platform } else { "" });
}

fn program_s(words: &mut Words, config: &Json, own: &Json) {
    for (key, flag) in [("User", "user"), ("WorkingDir", "workdir"), ("StopSignal", "stop-signal")] {
        words.value(flag, if config[key] == own[key] { "" } else { text(&config[key]) });
    }
    if let Some(seconds) = config["StopTimeout"].as_i64() {
        words.flags.push(format!("--stop-timeout {seconds}"));
    }
    let brought = texts(&own["Env"]);
    texts(&config["Env"]).iter().filter(|one| !brought.contains(one)).for_each(|one| words.value("env", one));
    words.pairs("label", &config["Labels"], &own["Labels"]);
    if config["Entrypoint"] != own["Entrypoint"] {
        match texts(&config["Entrypoint"]).first() {
            Some(first) => words.value("entrypoint", first),
            None => words.flags.push("--entrypoint ''".into()),
        }
    }
}

fn health(words: &mut Words, check: &Json, own: &Json) {
    if check == own || check.is_null() {
        return;
    }
    let test = texts(&check["Test"]);
    match test.split_first() {
        Some((&"NONE", _)) => return words.switch(true, "--no-healthcheck"),
        Some((&"CMD-SHELL", command)) => words.value("health-cmd", &command.join(" ")),
        // The flag's command is a shell's.
        Some((&"CMD", command)) => {
            words.value("health-cmd", &command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
        }
        Some((&"HTTP", [url])) => words.value("health-http", url.strip_prefix("http://localhost:").unwrap_or(url)),
        Some((&"TCP", [place])) => words.value("health-tcp", place),
        _ => {}
    }
    for (key, flag) in [
        ("Interval", "health-interval"),
        ("Timeout", "health-timeout"),
        ("StartPeriod", "health-start-period"),
        ("StartInterval", "health-start-interval"),
    ] {
        let nanoseconds = int(&check[key]);
        words.value(flag, &if nanoseconds == 0 { String::new() } else { format!("{nanoseconds}ns") });
    }
    words.number("health-retries", int(&check["Retries"]));
}

/// Without a source, for nobody knows it any more: the variable or the file of that name, unless one is given.
fn secret(secret: &Json) -> String {
    let mut words = format!("id={}", text(&secret["ID"]));
    if let Some(target) = secret["Target"].as_str() {
        words.push_str(&format!(",target={target}"));
    }
    if let Some(mode) = secret["Mode"].as_u64() {
        words.push_str(&format!(",mode={mode:04o}"));
    }
    for (key, name) in [("UID", "uid"), ("GID", "gid")] {
        if int(&secret[key]) != 0 {
            words.push_str(&format!(",{name}={}", int(&secret[key])));
        }
    }
    words
}

fn files(words: &mut Words, config: &Json, host: &Json, own: &Json) {
    words.list("volume", &host["Binds"]);
    let anonymous = config["Volumes"].as_object().into_iter().flatten().map(|(path, _)| path);
    anonymous.filter(|path| own["Volumes"][path.as_str()].is_null()).for_each(|path| words.value("volume", path));
    array(&host["Mounts"]).iter().for_each(|one| words.value("mount", &mount(one)));
    words.list("volumes-from", &host["VolumesFrom"]);
    words.value("volume-driver", text(&host["VolumeDriver"]));
    for (path, options) in host["Tmpfs"].as_object().into_iter().flatten() {
        let options = text(options);
        words.value("tmpfs", &if options.is_empty() { path.clone() } else { format!("{path}:{options}") });
    }
    if let Some(umask) = host["Umask"].as_u64() {
        words.value("umask", &format!("{umask:04o}"));
    }
    array(&host["Secrets"]).iter().for_each(|one| words.value("secret", &secret(one)));
    words.switch(host["ReadonlyRootfs"] == true, "--read-only");
    for device in array(&host["Devices"]) {
        let part = |key: &str| text(&device[key]);
        let device = format!("{}:{}:{}", part("PathOnHost"), part("PathInContainer"), part("CgroupPermissions"));
        words.value("device", device.trim_end_matches(':'));
    }
    words.list("device-cgroup-rule", &host["DeviceCgroupRules"]);
    words.pairs("storage-opt", &host["StorageOpt"], &Json::Null);
}

fn mount(mount: &Json) -> String {
    let mut parts = vec![format!("type={}", text(&mount["Type"]))];
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            parts.push(format!("{key}={value}"));
        }
    };
    add("source", text(&mount["Source"]));
    add("target", text(&mount["Target"]));
    let (bind, volume, tmpfs) = (&mount["BindOptions"], &mount["VolumeOptions"], &mount["TmpfsOptions"]);
    add("bind-propagation", text(&bind["Propagation"]));
    add("idmap", if bind["IDMap"] == true { "true" } else { "" });
    let recursive =
        [("NonRecursive", "disabled"), ("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")];
    add("bind-recursive", recursive.iter().find(|(key, _)| bind[*key] == true).map_or("", |(_, word)| word));
    add("bind-create-src", if bind["CreateMountpoint"] == true { "true" } else { "" });
    add("volume-subpath", text(&volume["Subpath"]));
    add("volume-driver", text(&volume["DriverConfig"]["Name"]));
    add("volume-nocopy", if volume["NoCopy"] == true { "true" } else { "" });
    for (key, value) in volume["Labels"].as_object().into_iter().flatten() {
        add("volume-label", &format!("{key}={}", text(value)));
    }
    for (key, value) in volume["DriverConfig"]["Options"].as_object().into_iter().flatten() {
        add("volume-opt", &format!("{key}={}", text(value)));
    }
    add("image-subpath", text(&mount["ImageOptions"]["Subpath"]));
    let number = |value: &Json, radix: fn(i64) -> String| match int(value) {
        0 => String::new(),
        number => radix(number),
    };
    add("tmpfs-size", &number(&tmpfs["SizeBytes"], |bytes| bytes.to_string()));
    add("tmpfs-mode", &number(&tmpfs["Mode"], |mode| format!("{mode:o}")));
    if mount["ReadOnly"] == true {
        parts.push("readonly".into());
    }
    fields(&parts)
}

/// As encoding/csv has it: what is quoted may hold commas.
fn fields(parts: &[String]) -> String {
    let field = |part: &String| match part.contains([',', '"', '\n']) {
        true => format!("\"{}\"", part.replace('"', "\"\"")),
        false => part.clone(),
    };
    parts.iter().map(field).collect::<Vec<_>>().join(",")
}

fn networks(words: &mut Words, container: &Json, own: &Json) {
    let (config, host) = (&container["Config"], &container["HostConfig"]);
    let mode = text(&host["NetworkMode"]);
    let attached = container["NetworkSettings"]["Networks"].as_object();
    let mut names: Vec<&str> = attached.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    // The first one is that of the mode.
    names.sort_by_key(|name| *name != mode);
    let usual = names.len() < 2 && matches!(mode, "" | "default" | "bridge");
    if names.is_empty() || !names.contains(&mode) {
        names.insert(0, mode);
    }
    for name in names {
        let endpoint = &container["NetworkSettings"]["Networks"][name];
        let mut parts = vec![format!("name={name}")];
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                parts.push(format!("{key}={value}"));
            }
        };
        add("ip", text(&endpoint["IPAMConfig"]["IPv4Address"]));
        add("ip6", text(&endpoint["IPAMConfig"]["IPv6Address"]));
        texts(&endpoint["IPAMConfig"]["LinkLocalIPs"]).iter().for_each(|ip| add("link-local-ip", ip));
        for alias in texts(&endpoint["Aliases"]) {
            // Its own short ID is given to it anyway.
            add("alias", if text(&container["Id"]).starts_with(alias) { "" } else { alias });
        }
        for (key, value) in endpoint["DriverOpts"].as_object().into_iter().flatten() {
            add("driver-opt", &format!("{key}={}", text(value)));
        }
        add(
            "gw-priority",
            &endpoint["GwPriority"].as_i64().filter(|one| *one != 0).map_or(String::new(), |one| one.to_string()),
        );
        if usual && parts.len() == 1 {
            continue;
        }
        let long = fields(&parts);
        words.value("network", if parts.len() == 1 { name } else { &long });
    }
    words.value("mac-address", text(&config["MacAddress"]));
    words.switch(host["PublishAllPorts"] == true, "-P");
    let bindings = host["PortBindings"].as_object();
    for (port, places) in bindings.into_iter().flatten() {
        for place in array(places) {
            let (ip, outside) = (text(&place["HostIp"]), text(&place["HostPort"]));
            let ip = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            let inside = port.strip_suffix("/tcp").unwrap_or(port);
            words.value(
                "publish",
                &match (ip.is_empty(), outside.is_empty()) {
                    (true, true) => inside.to_owned(),
                    (true, false) => format!("{outside}:{inside}"),
                    (false, _) => format!("{ip}:{outside}:{inside}"),
                },
            );
        }
    }
    for (port, _) in config["ExposedPorts"].as_object().into_iter().flatten() {
        let published = bindings.is_some_and(|bindings| bindings.contains_key(port));
        words.value("expose", if published || !own["ExposedPorts"][port.as_str()].is_null() { "" } else { port });
    }
    for (key, flag) in
        [("Dns", "dns"), ("DnsOptions", "dns-option"), ("DnsSearch", "dns-search"), ("ExtraHosts", "add-host")]
    {
        words.list(flag, &host[key]);
    }
    // On the default bridge `/other:/this/alias`; on the user's own network, the first of them, `other:alias`.
    let of_network = texts(&container["NetworkSettings"]["Networks"][mode]["Links"]);
    for link in texts(&host["Links"]).into_iter().chain(of_network) {
        let (from, to) = link.split_once(':').unwrap_or((link, link));
        let alias = to.rsplit('/').next().unwrap_or(to);
        words.value("link", &format!("{}:{alias}", from.trim_start_matches('/')));
    }
}

fn isolation(words: &mut Words, host: &Json) {
    let privileged = host["Privileged"] == true;
    words.switch(privileged, "--privileged");
    for (key, flag) in
        [("CapAdd", "cap-add"), ("CapDrop", "cap-drop"), ("SecurityOpt", "security-opt"), ("GroupAdd", "group-add")]
    {
        words.list(flag, &host[key]);
    }
    let shows = |key: &str| host[key].as_array().is_some_and(Vec::is_empty);
    if !privileged && shows("MaskedPaths") && shows("ReadonlyPaths") {
        words.value("security-opt", "systempaths=unconfined");
    }
    for (key, flag, default) in [
        ("IpcMode", "ipc", "private"),
        ("PidMode", "pid", ""),
        ("UTSMode", "uts", ""),
        ("UsernsMode", "userns", ""),
        ("Runtime", "runtime", "runc"),
        ("CgroupParent", "cgroup-parent", ""),
    ] {
        let value = text(&host[key]);
        words.value(flag, if value == default { "" } else { value });
    }
    let groups = text(&host["CgroupnsMode"]);
    words.value("cgroupns", if groups == "private" || privileged { "" } else { groups });
    words.pairs("sysctl", &host["Sysctls"], &Json::Null);
    words.pairs("annotation", &host["Annotations"], &Json::Null);
    match host["Init"].as_bool() {
        Some(true) => words.switch(true, "--init"),
        Some(false) => words.switch(true, "--init=false"),
        None => {}
    }
}

fn limits(words: &mut Words, host: &Json) {
    let number = |key: &str| int(&host[key]);
    words.number("memory", number("Memory"));
    // Twice the memory is what it is without a word about it.
    let swap = number("MemorySwap");
    words.number("memory-swap", if swap == number("Memory").saturating_mul(2) { 0 } else { swap });
    words.number("memory-reservation", number("MemoryReservation"));
    if let Some(swappiness) = host["MemorySwappiness"].as_i64().filter(|one| *one >= 0) {
        words.flags.push(format!("--memory-swappiness {swappiness}"));
    }
    words.switch(host["OomKillDisable"] == true, "--oom-kill-disable");
    words.number("oom-score-adj", number("OomScoreAdj"));
    let cpus = host["NanoCpus"].as_f64().filter(|nano| *nano > 0.0).map(|nano| (nano / 1e9).to_string());
    words.value("cpus", &cpus.unwrap_or_default());
    for (key, flag) in [
        ("CpuShares", "cpu-shares"),
        ("CpuPeriod", "cpu-period"),
        ("CpuQuota", "cpu-quota"),
        ("CpuRealtimePeriod", "cpu-rt-period"),
        ("CpuRealtimeRuntime", "cpu-rt-runtime"),
        ("BlkioWeight", "blkio-weight"),
        ("PidsLimit", "pids-limit"),
    ] {
        words.number(flag, number(key));
    }
    words.value("cpuset-cpus", text(&host["CpusetCpus"]));
    words.value("cpuset-mems", text(&host["CpusetMems"]));
    for (key, flag, value) in [
        ("BlkioWeightDevice", "blkio-weight-device", "Weight"),
        ("BlkioDeviceReadBps", "device-read-bps", "Rate"),
        ("BlkioDeviceWriteBps", "device-write-bps", "Rate"),
        ("BlkioDeviceReadIOps", "device-read-iops", "Rate"),
        ("BlkioDeviceWriteIOps", "device-write-iops", "Rate"),
    ] {
        for device in array(&host[key]) {
            words.value(flag, &format!("{}:{}", text(&device["Path"]), int(&device[value])));
        }
    }
    const SHM: i64 = 64 << 20;
    words.number("shm-size", if number("ShmSize") == SHM { 0 } else { number("ShmSize") });
    for limit in array(&host["Ulimits"]) {
        words.value("ulimit", &format!("{}={}:{}", text(&limit["Name"]), int(&limit["Soft"]), int(&limit["Hard"])));
    }
    for request in array(&host["DeviceRequests"]) {
        let ids = texts(&request["DeviceIDs"]);
        words.value(
            "gpus",
            &match (int(&request["Count"]), ids.is_empty()) {
                (-1, _) => "all".to_owned(),
                (_, false) => format!("\"device={}\"", ids.join(",")),
                (count, true) => count.to_string(),
            },
        );
    }
}

fn logging(words: &mut Words, log: &Json) {
    let driver = text(&log["Type"]);
    words.value("log-driver", if driver == "json-file" { "" } else { driver });
    words.pairs("log-opt", &log["Config"], &Json::Null);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_a_shell_s() {
        for (word, shown) in [
            ("a-b=1", "a-b=1"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$X", "'$X'"),
            ("\x1b[1'\u{9b}", "$'\\033[1\\'\\302\\233'"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }

    #[test]
    fn what_the_image_brings_and_what_is_so_anyway_is_left_out() {
        let own = json!({ "Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/srv", "Labels": { "of": "image" } });
        let mut config = own.clone();
        config["Image"] = json!("app");
        config["Hostname"] = json!("0123456789ab");
        let host = json!({ "NetworkMode": "bridge", "ShmSize": 64 << 20, "IpcMode": "private", "Runtime": "runc",
            "CgroupnsMode": "private", "RestartPolicy": { "Name": "no" }, "LogConfig": { "Type": "json-file" } });
        let mut container = json!({ "Id": "0123456789abcdef", "Name": "/web", "Config": config, "HostConfig": host });
        let image = json!({ "Config": own });
        assert_eq!(command_line("docker", &container, &image), "docker run \\\n  -d \\\n  --name web \\\n  app");
        container["NetworkSettings"] = json!({ "Networks": { "bridge": { "IPAMConfig": null,
            "DriverOpts": { "dev.wharf.bandwidth.up": "1mbit" } } } });
        let shown = "--network name=bridge,driver-opt=dev.wharf.bandwidth.up=1mbit \\";
        let line = command_line("docker", &container, &image);
        assert!(line.contains(shown), "{line}");
        container["NetworkSettings"] = json!({ "Networks": { "bridge": { "IPAMConfig": null } } });
        let mut linked = container.clone();
        linked["HostConfig"]["NetworkMode"] = json!("own");
        linked["NetworkSettings"] = json!({ "Networks": { "own": { "IPAMConfig": null, "Links": ["db:store"] } } });
        let line = command_line("docker", &linked, &image);
        assert!(line.contains("--network own \\\n  --link db:store \\\n"), "{line}");
        // Whose network and name it has is said once.
        let mut joined = container.clone();
        joined["HostConfig"]["NetworkMode"] = json!("container:other");
        joined["NetworkSettings"] = json!({});
        joined["Config"]["Hostname"] = json!("cafecafecafe");
        joined["HostConfig"]["MaskedPaths"] = json!([]);
        joined["HostConfig"]["ReadonlyPaths"] = json!([]);
        let line = command_line("docker", &joined, &image);
        assert!(
            line.contains("--network container:other \\\n  --security-opt systempaths=unconfined \\\n  app"),
            "{line}"
        );
        assert!(!line.contains("hostname"), "{line}");
        container["Config"]["Entrypoint"] = json!(["nginx", "-g"]);
        container["Config"]["Cmd"] = json!(["daemon off;"]);
        container["HostConfig"]["PortBindings"] = json!({ "80/tcp": [{ "HostIp": "::1", "HostPort": "8080" }] });
        let line = command_line("docker", &container, &image);
        assert!(
            line.ends_with("  --entrypoint nginx \\\n  --publish '[::1]:8080:80' \\\n  app -g 'daemon off;'"),
            "{line}"
        );
    }
}
