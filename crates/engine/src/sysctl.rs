//! `--sysctl`: kernel parameters of the container's own namespaces.

use std::collections::BTreeMap;

use crate::error::{EngineError, Result};
use crate::spec::HostConfig;

/// Namespaced parameters only: anything else would change the host.
pub(crate) fn of(host: &HostConfig, own_network: bool) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    if own_network && host.network_mode != "host" && !host.network_mode.starts_with("container:") {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        all.insert("net.ipv4.ping_group_range".to_owned(), wharf_runtime::docker_defaults::ping_groups());
    }
    for (key, value) in host.sysctls.iter().flatten() {
        let network = key.starts_with("net.");
        let ipc = key.starts_with("fs.mqueue.")
            || matches!(
                key.as_str(),
                "kernel.msgmax"
                    | "kernel.msgmnb"
                    | "kernel.msgmni"
                    | "kernel.sem"
                    | "kernel.shmall"
                    | "kernel.shmmax"
                    | "kernel.shmmni"
                    | "kernel.shm_rmid_forced"
            );
        if !network && !ipc {
            return Err(EngineError::invalid(format!(
                "sysctl '{key}' is not allowed: it is not in a namespace, so it would change the host"
            )));
        }
        if network && (!own_network || host.network_mode == "host") {
            return Err(EngineError::invalid(format!("sysctl '{key}' not allowed in host network namespace")));
        }
        if ipc && host.ipc_mode == "host" {
            return Err(EngineError::invalid(format!("sysctl '{key}' not allowed in host ipc namespace")));
        }
        if value.contains(['\n', '\0']) {
            return Err(EngineError::invalid(format!("the value of sysctl '{key}' has a control character in it")));
        }
        all.insert(key.clone(), value.clone());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_host_are_refused() {
        let with = |key: &str, value: &str| HostConfig {
            sysctls: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
            ..HostConfig::default()
        };
        assert!(of(&with("kernel.core_pattern", "|/x"), true).is_err());
        assert!(of(&with("net.ipv4.ip_forward", "1\n2"), true).is_err());
        assert!(of(&with("net.ipv4.ip_forward", "1"), false).is_err());
        assert!(of(&with("net.ipv4.ip_forward", "1"), true).is_ok());
    }
}
