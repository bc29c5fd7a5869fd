//! What a request for a container cannot ask, with Docker's words.

use crate::error::{EngineError, Result};
use crate::spec::{Config, HostConfig, RestartPolicy};
use crate::{log_options, security, text};

/// Refuses a working directory of the request's, before the image's may take its place.
pub(crate) fn working_dir(config: &Config) -> Result<()> {
    let dir = &config.working_dir;
    if dir.is_empty() || dir.starts_with('/') {
        return Ok(());
    }
    Err(EngineError::invalid(format!("the working directory '{dir}' is invalid, it needs to be an absolute path")))
}

/// What cannot be, with Docker's words.
pub(crate) fn check(config: &Config, host: &HostConfig) -> Result<()> {
    let bad = |text: String| Err(EngineError::invalid(text));
    if let Some(signal) = &config.stop_signal {
        crate::signal::parse(signal)?;
    }
    for pair in config.env.iter().flatten() {
        if pair.is_empty() || pair.starts_with('=') {
            return bad(format!("invalid environment variable: {pair}"));
        }
    }
    restart_policy(&host.restart_policy)?;
    if host.auto_remove && host.restart_policy.name != "no" {
        return bad("can't create 'AutoRemove' container with restart policy".into());
    }
    log_options::check(&host.log_config)?;
    security::check(host)?;
    text::check(config, host)?;
    if host.storage_opt.as_ref().is_some_and(|options| !options.is_empty()) {
        // Layers are directories of a file system that is not asked for quotas.
        return bad("--storage-opt is supported only for overlay over xfs with 'pquota' mount option".into());
    }
    if host.umask.is_some_and(|umask| umask > 0o777) {
        return bad(format!("invalid umask {:#o}: it has the bits of 0777 alone", host.umask.unwrap_or_default()));
    }
    if host.shm_size < 0 {
        return bad("SHM size can not be less than 0".into());
    }
    cgroup_parent(&host.resources.cgroup_parent)?;
    if !matches!(host.runtime.as_str(), "wharf" | "runc" | "io.containerd.runc.v2") {
        return bad(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    if !matches!(host.isolation.to_ascii_lowercase().as_str(), "" | "default") {
        return bad(format!("invalid isolation ({}): linux only supports 'default'", host.isolation));
    }
    if host.annotations.as_ref().is_some_and(|all| all.contains_key("")) {
        return bad("invalid Annotations: the empty string is not permitted as an annotation key".into());
    }
    for (given, what) in [(host.resources.io_maximum_bandwidth, "bandwidth"), (host.resources.io_maximum_iops, "IOPs")]
    {
        if given > 0 {
            return bad(format!("invalid option: QoS maximum {what} configuration is not supported on linux"));
        }
    }
    for (what, mode, more) in [
        ("PID", &host.pid_mode, &["", "host"][..]),
        ("UTS", &host.uts_mode, &["", "host"]),
        ("IPC", &host.ipc_mode, &["", "private", "shareable", "none", "host"]),
        ("cgroup namespace", &host.cgroupns_mode, &["", "private", "host"]),
        ("user namespace", &host.userns_mode, &["", "host", "auto"]),
    ] {
        let of_container =
            matches!(what, "PID" | "IPC") && mode.strip_prefix("container:").is_some_and(|of| !of.is_empty());
        if !more.contains(&mode.as_str()) && !of_container {
            return bad(format!("invalid {what} mode: {mode}"));
        }
    }
    if host.annotations.iter().flatten().any(|(key, _)| key.is_empty()) {
        return bad("invalid Annotations: the empty string is not permitted as an annotation key".into());
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return bad("conflicting options: hostname and the UTS mode".into());
    }
    if matches!(host.network_mode.as_str(), "container" | "container:") {
        return bad("invalid network mode: invalid container format container:<name|id>".into());
    }
    if host.network_mode.starts_with("container:") {
        for (given, what) in [
            (!config.hostname.is_empty(), "hostname and the network mode"),
            (
                host.port_bindings.as_ref().is_some_and(|p| !p.is_empty()),
                "port publishing and the container type network mode",
            ),
            (host.publish_all_ports, "port publishing and the container type network mode"),
            (host.dns.as_ref().is_some_and(|d| !d.is_empty()), "dns and the network mode"),
            (
                host.extra_hosts.as_ref().is_some_and(|h| !h.is_empty()),
                "custom host-to-IP mapping and the network mode",
            ),
        ] {
            if given {
                return bad(format!("conflicting options: {what}"));
            }
        }
    }
    if host.userns_mode == "auto" && host.privileged {
        return bad("conflicting options: --privileged and a user namespace of its own".into());
    }
    if let Some(check) = &config.healthcheck {
        for (what, value) in [
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
        ] {
            if value != 0 && value < 1_000_000 {
                return bad(format!("{what} in Healthcheck cannot be less than 1ms"));
            }
        }
        if check.retries < 0 {
            return bad("Retries in Healthcheck cannot be negative".into());
        }
        wharf_monitor::check_probe(check.test.as_deref().unwrap_or_default()).map_err(EngineError::invalid)?;
    }
    let remedy = host.health_on_failure.as_deref().unwrap_or("none");
    if !matches!(remedy, "none" | "kill" | "restart" | "stop") {
        return bad(format!("invalid HealthOnFailure {remedy:?}: give none, kill, restart or stop"));
    }
    Ok(())
}

/// # Errors
/// `InvalidParameter` for a policy that is none.
pub(crate) fn restart_policy(policy: &RestartPolicy) -> Result<()> {
    let bad = |text: String| Err(EngineError::invalid(text));
    match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            let negative = if policy.maximum_retry_count < 0 { " and cannot be negative" } else { "" };
            return bad(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
            ));
        }
        "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return bad(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'"
            ));
        }
    }
    if policy.maximum_retry_count < 0 {
        return bad("invalid restart policy: maximum retry count cannot be negative".into());
    }
    Ok(())
}

/// A path below the root of the hierarchies.
fn cgroup_parent(path: &str) -> Result<()> {
    let plain = path.split('/').all(|part| part != "..") && !path.contains(char::is_control);
    if plain { Ok(()) } else { Err(EngineError::invalid(format!("invalid cgroup parent: {path:?}"))) }
}

/// Refuses what only a driver of devices gives, of which there is that for names alone, if `has_names`: at the start, as
/// moby does.
pub(crate) fn device_requests(host: &HostConfig, has_names: bool) -> Result<()> {
    let requests = host.resources.device_requests.iter().flatten();
    let mut others = requests.filter(|request| !has_names || request.driver != "cdi");
    let Some(request) = others.next() else { return Ok(()) };
    let all: Vec<String> = request.capabilities.iter().flatten().map(|all| format!("[{}]", all.join(" "))).collect();
    let driver = &request.driver;
    Err(EngineError::system(format!(
        "could not select device driver {driver:?} with capabilities: [{}]",
        all.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_stays_in_its_hierarchy() {
        for good in ["", "/", "a", "/a/b", "a..b"] {
            cgroup_parent(good).unwrap();
        }
        for bad in ["..", "../x", "/a/../../x", "a\nb", "a\0"] {
            assert!(cgroup_parent(bad).is_err(), "{bad:?}");
        }
    }
}
