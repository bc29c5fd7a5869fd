//! What a request for a container cannot ask, with Docker's words.

use crate::error::{EngineError, Result};
use crate::spec::{Config, HostConfig};

/// What cannot be, with Docker's words.
pub(crate) fn check(config: &Config, host: &HostConfig) -> Result<()> {
    let bad = |text: String| Err(EngineError::invalid(text));
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return bad(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if let Some(signal) = &config.stop_signal {
        crate::signal::parse(signal)?;
    }
    for pair in config.env.iter().flatten() {
        if pair.is_empty() || pair.starts_with('=') {
            return bad(format!("invalid environment variable: {pair}"));
        }
    }
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "no" | "always" | "unless-stopped" if policy.maximum_retry_count != 0 => {
            return bad("invalid restart policy: maximum retry count can only be used with 'on-failure'".into());
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
    if host.auto_remove && policy.name != "no" {
        return bad("can't create 'AutoRemove' container with restart policy".into());
    }
    match host.log_config.driver.as_str() {
        "json-file" | "local" | "none" => {}
        other => return bad(format!("logger: no log driver named '{other}' is registered")),
    }
    log_options(host)?;
    if !matches!(host.runtime.as_str(), "wharf" | "runc" | "io.containerd.runc.v2") {
        return bad(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return bad(format!("invalid isolation '{}' for a Linux container", host.isolation));
    }
    for (what, mode, more) in [
        ("PID", &host.pid_mode, &["", "host"][..]),
        ("UTS", &host.uts_mode, &["", "host"]),
        ("IPC", &host.ipc_mode, &["", "private", "shareable", "none", "host"]),
        ("cgroup namespace", &host.cgroupns_mode, &["", "private", "host"]),
        ("user namespace", &host.userns_mode, &["", "host", "auto"]),
    ] {
        let of_container = matches!(what, "PID" | "IPC") && mode.starts_with("container:");
        if !more.contains(&mode.as_str()) && !of_container {
            return bad(format!("invalid {what} mode: {mode}"));
        }
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return bad("conflicting options: hostname and the UTS mode".into());
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
    if !host.volume_driver.is_empty() && host.volume_driver != "local" {
        return bad(format!("no volume driver named '{}' is here", host.volume_driver));
    }
    if host.resources.device_requests.as_ref().is_some_and(|r| !r.is_empty()) {
        return bad(
            "could not select device driver \"\" with capabilities: [[gpu]]: this engine has no device drivers".into(),
        );
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
    }
    Ok(())
}

/// Size and number of log files.
pub(crate) fn log_options(host: &HostConfig) -> Result<(Option<u64>, u32)> {
    let mut size = None;
    let mut files = 1;
    for (key, value) in &host.log_config.options {
        match key.as_str() {
            "max-size" => size = parse_size(value)?,
            "max-file" => {
                files = value
                    .parse()
                    .ok()
                    .filter(|n| *n >= 1)
                    .ok_or_else(|| EngineError::invalid(format!("max-file cannot be less than 1: {value}")))?;
            }
            "mode" if matches!(value.as_str(), "blocking" | "non-blocking") => {}
            "max-buffer-size" | "compress" | "labels" | "labels-regex" | "env" | "env-regex" | "tag" => {}
            other => {
                let driver = &host.log_config.driver;
                return Err(EngineError::invalid(format!("unknown log opt '{other}' for {driver} log driver")));
            }
        }
    }
    Ok((size, files))
}

/// `10m`, `1g`, `-1`: bytes.
fn parse_size(text: &str) -> Result<Option<u64>> {
    if text == "-1" {
        return Ok(None);
    }
    let bad = || EngineError::invalid(format!("invalid size: '{text}'"));
    let lower = text.to_ascii_lowercase();
    let bare = lower.trim_end_matches('b').trim_end_matches('i');
    let (number, unit) = match bare.char_indices().last() {
        Some((at, 'k')) => (&bare[..at], 1u64 << 10),
        Some((at, 'm')) => (&bare[..at], 1 << 20),
        Some((at, 'g')) => (&bare[..at], 1 << 30),
        Some((at, 't')) => (&bare[..at], 1 << 40),
        _ => (bare, 1),
    };
    let number: u64 = number.trim().parse().map_err(|_| bad())?;
    number.checked_mul(unit).map(Some).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_does() {
        assert_eq!(parse_size("10m").unwrap(), Some(10 << 20));
        assert_eq!(parse_size("1GB").unwrap(), Some(1 << 30));
        assert_eq!(parse_size("17").unwrap(), Some(17));
        assert_eq!(parse_size("-1").unwrap(), None);
        assert!(parse_size("ten").is_err() && parse_size("99999999999999t").is_err());
    }
}
