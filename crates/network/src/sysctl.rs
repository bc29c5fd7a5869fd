//! The host's network settings (`/proc/sys/net`), of the network namespace of the calling thread.

use std::fs;

use crate::{NetworkError, Result};

/// Reads a setting, without its newline. The name has slashes.
pub(crate) fn read(name: &str) -> Result<String> {
    let path = format!("/proc/sys/net/{name}");
    let text = fs::read_to_string(&path).map_err(NetworkError::host(format!("read `{path}`")))?;
    Ok(text.trim_end().to_owned())
}

/// Whether the kernel has IPv6 at all (it can be told not to: `ipv6.disable=1`).
pub(crate) fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

/// Whether a link of this MTU has IPv6: the kernel gives it to none below 1280 bytes (RFC 8200, section 5).
pub(crate) fn link_has_ipv6(mtu: u32) -> bool {
    mtu >= 1280 && has_ipv6()
}

/// Sets what is not set so already: on a read-only `/proc/sys` that is enough.
pub(crate) fn ensure(name: &str, value: &str) -> Result<bool> {
    if read(name)? == value {
        return Ok(false);
    }
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(NetworkError::host(format!("write `{value}` to `{path}`")))?;
    Ok(true)
}
