//! Text of a request that reaches files and system calls, where a control character would end a line or a word.

use std::net::IpAddr;

use crate::error::{EngineError, Result};
use crate::spec::{Config, HostConfig};

pub(crate) fn check(config: &Config, host: &HostConfig) -> Result<()> {
    let list = |names: &Option<Vec<String>>| names.clone().unwrap_or_default();
    // These come to be lines of /etc/hosts, /etc/hostname and /etc/resolv.conf.
    for (what, values) in [
        ("hostname", vec![config.hostname.clone()]),
        ("domainname", vec![config.domainname.clone()]),
        ("DNS server", list(&host.dns)),
        ("DNS search domain", list(&host.dns_search)),
        ("DNS option", list(&host.dns_options)),
        ("extra host", list(&host.extra_hosts)),
    ] {
        if let Some(bad) = values.iter().find(|text| text.contains(char::is_control)) {
            return Err(EngineError::invalid(format!("invalid {what}: {bad:?} has a control character in it")));
        }
    }
    for server in host.dns.iter().flatten() {
        // `fe80::1%eth0`
        let address = server.split('%').next().unwrap_or_default();
        if address.parse::<IpAddr>().is_err() {
            return Err(EngineError::invalid(format!("invalid DNS server: {server:?} is not an IP address")));
        }
    }
    for line in host.extra_hosts.iter().flatten() {
        extra_host(line)?;
    }
    for (what, values) in [
        ("command", list(&config.cmd)),
        ("entrypoint", list(&config.entrypoint)),
        ("environment variable", list(&config.env)),
        ("user", vec![config.user.clone()]),
        ("working directory", vec![config.working_dir.clone()]),
        ("bind", list(&host.binds)),
        ("group", list(&host.group_add)),
    ] {
        if let Some(bad) = values.iter().find(|text| text.contains('\0')) {
            return Err(EngineError::invalid(format!("invalid {what}: {bad:?} has a NUL in it")));
        }
    }
    let mounts = host.mounts.iter().flatten();
    if let Some(bad) = mounts.flat_map(|m| [&m.source, &m.target]).find(|text| text.contains('\0')) {
        return Err(EngineError::invalid(format!("invalid mount config: {bad:?} has a NUL in it")));
    }
    Ok(())
}

/// `NAME:ADDRESS` (docker, `opts.ValidateExtraHost`).
fn extra_host(line: &str) -> Result<()> {
    let bad = || EngineError::invalid(format!("bad format for add-host: {line:?}"));
    let (name, address) = line.split_once(':').ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if address != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(EngineError::invalid(format!("invalid IP address in add-host: {address:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<Vec<String>> {
        Some(vec![text.to_owned()])
    }

    #[test]
    fn nothing_can_add_a_line_to_a_file() {
        let good = Config { hostname: "a b".into(), ..Config::default() };
        check(&good, &HostConfig::default()).unwrap();
        for bad in ["a\nb", "a\rb", "\u{1b}[1m", "a\0", "\u{85}"] {
            for config in [
                Config { hostname: bad.into(), ..Config::default() },
                Config { domainname: bad.into(), ..Config::default() },
            ] {
                assert!(check(&config, &HostConfig::default()).is_err(), "{bad:?}");
            }
            for host in [
                HostConfig { dns: list(bad), ..HostConfig::default() },
                HostConfig { dns_search: list(bad), ..HostConfig::default() },
                HostConfig { dns_options: list(bad), ..HostConfig::default() },
                HostConfig { extra_hosts: list(&format!("{bad}:1.2.3.4")), ..HostConfig::default() },
            ] {
                assert!(check(&Config::default(), &host).is_err(), "{bad:?}");
            }
        }
    }

    #[test]
    fn no_word_of_the_command_has_a_nul() {
        for config in [
            Config { cmd: list("a\0b"), ..Config::default() },
            Config { entrypoint: list("a\0b"), ..Config::default() },
            Config { env: list("A=\0"), ..Config::default() },
        ] {
            let error = check(&config, &HostConfig::default()).unwrap_err();
            assert!(error.message.contains("has a NUL in it"), "{error}");
        }
        let fine = Config { cmd: list("line\nfeed"), ..Config::default() };
        check(&fine, &HostConfig::default()).unwrap();
    }

    #[test]
    fn hosts_and_servers_are_addresses() {
        for good in ["a:1.2.3.4", "a:[::1]", "a:::1", "a:host-gateway"] {
            extra_host(good).unwrap();
        }
        for bad in ["a", ":1.2.3.4", "a:b", "a:1.2.3.4 b"] {
            assert!(extra_host(bad).is_err(), "{bad}");
        }
        let dns = |text| check(&Config::default(), &HostConfig { dns: list(text), ..HostConfig::default() });
        assert!(dns("fe80::1%eth0").is_ok() && dns("9.9.9.9").is_ok() && dns("name").is_err());
    }
}
