//! Checks of single values, in Docker's words.

use std::net::IpAddr;

/// `--attach`.
pub(crate) fn attach(text: &str) -> Result<(), String> {
    match text.to_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// `--env`.
pub(crate) fn env(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("invalid environment variable: {text}")),
        None if text.is_empty() => Err(format!("invalid environment variable: {text}")),
        _ => Ok(()),
    }
}

/// `--label`.
pub(crate) fn label(text: &str) -> Result<(), String> {
    let key = text.split('=').next().unwrap_or_default().trim_start();
    match key {
        "" => Err(format!("invalid label '{text}': empty name")),
        key if key.contains([' ', '\t']) => Err(format!("label '{key}' contains whitespaces")),
        _ => Ok(()),
    }
}

/// `--dns`.
pub(crate) fn ip_address(text: &str) -> Result<(), String> {
    match text.trim().parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// `--dns-search`.
pub(crate) fn dns_search(text: &str) -> Result<(), String> {
    let trimmed = text.trim();
    if trimmed == "." {
        return Ok(());
    }
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let has_letter = trimmed.chars().any(|c| c.is_ascii_alphabetic());
    let name = trimmed.strip_suffix('.').unwrap_or(trimmed);
    if has_letter && trimmed.len() < 255 && name.split('.').all(part) {
        Ok(())
    } else {
        Err(format!("{text} is not a valid domain"))
    }
}

/// `--add-host`.
pub(crate) fn extra_host(text: &str) -> Result<(), String> {
    host_and_address(text).map(|_| ())
}

/// `--add-host` as the API takes it: `host:address`.
pub(crate) fn host_and_address(text: &str) -> Result<String, String> {
    let pair = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((host, address)) = pair.filter(|(host, _)| !host.is_empty()) else {
        return Err(format!("bad format for add-host: {text:?}"));
    };
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{host}:{address}"))
}

/// `--link`.
pub(crate) fn link(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("empty string specified for links".to_owned());
    }
    if text.split(':').count() > 2 { Err(format!("bad format for links: {text}")) } else { Ok(()) }
}

/// `--sysctl`.
pub(crate) fn sysctl(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let allowed = text
        .split_once('=')
        .is_some_and(|(key, _)| KNOWN.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue."));
    if allowed { Ok(()) } else { Err(format!("sysctl '{text}' is not allowed")) }
}

/// `--device-cgroup-rule`: `c 1:3 rwm`.
pub(crate) fn device_rule(text: &str) -> Result<(), String> {
    let number = |text: &str| text == "*" || (!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()));
    let words: Vec<&str> = text.split(' ').collect();
    let good = match words.as_slice() {
        [kind, numbers, mode] => {
            matches!(*kind, "a" | "c" | "b")
                && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&mode.len())
                && mode.chars().all(|c| matches!(c, 'r' | 'w' | 'm'))
        }
        _ => false,
    };
    if good { Ok(()) } else { Err(format!("invalid device cgroup format '{text}'")) }
}

/// `--mac-address`.
pub(crate) fn mac_address(text: &str) -> Result<(), String> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let hex = |part: &str| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit());
    if text.split(separator).count() == 6 && text.split(separator).all(hex) {
        Ok(())
    } else {
        Err(format!("address {text}: invalid MAC address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert!(
            extra_host("a:1.2.3.4").is_ok() && extra_host("a=[::1]").is_ok() && extra_host("a:host-gateway").is_ok()
        );
        assert_eq!(host_and_address("h:::1").as_deref(), Ok("h:::1"));
        assert_eq!(extra_host("a").unwrap_err(), r#"bad format for add-host: "a""#);
        assert_eq!(extra_host("a:b").unwrap_err(), r#"invalid IP address in add-host: "b""#);
        assert!(sysctl("net.core.somaxconn=1").is_ok() && sysctl("kernel.x=1").is_err());
        assert!(device_rule("c 1:* rw").is_ok() && device_rule("c 1 rw").is_err());
        assert!(mac_address("02:42:ac:11:00:02").is_ok() && mac_address("02:42").is_err());
        assert!(dns_search("example.com").is_ok() && dns_search("a..b").is_err());
    }
}
