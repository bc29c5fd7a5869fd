//! Capabilities by name (capabilities(7)).

use oci_spec::runtime::Capabilities;
use rustix::thread::CapabilitySet;

use crate::{Result, RuntimeError};

/// Every capability, at the index that is its number.
pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The set as bits; an absent set is empty.
pub(crate) fn bits(set: Option<&Capabilities>) -> Result<u64> {
    let mut all = 0;
    for capability in set.into_iter().flatten() {
        let name = serde_json::to_value(capability).ok();
        let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        let full = if name.starts_with("CAP_") { name.to_owned() } else { format!("CAP_{name}") };
        let number = CAPABILITIES.iter().position(|known| *known == full);
        all |= 1 << number.ok_or_else(|| RuntimeError::Invalid(format!("unknown capability `{name}`")))?;
    }
    Ok(all)
}

/// Those of this process.
pub(crate) fn own() -> Result<u64> {
    let sets = rustix::thread::capabilities(None)
        .map_err(|errno| RuntimeError::Setup { step: "read the capabilities".into(), errno })?;
    Ok(sets.permitted.bits())
}

/// Whether this process may make mounts and namespaces (CAP_SYS_ADMIN), as an ordinary user may not.
pub(crate) fn is_privileged() -> Result<bool> {
    Ok(own()? & CapabilitySet::SYS_ADMIN.bits() != 0)
}
