//! A configuration as bytes, read and checked as `create` does it before it looks at the host.

use oci_spec::runtime::Spec;
use serde_json::Value;

use crate::bundle::complete;
use crate::check::check;
use crate::devices;

/// Reads and checks a `config.json`: nothing is opened, asked for or changed. For those who try many and run none.
///
/// # Errors
/// What `create` would say of it.
pub fn review(config: &[u8]) -> Result<(), String> {
    let mut value: Value = serde_json::from_slice(config).map_err(|error| error.to_string())?;
    if let Some(process) = value.get_mut("process") {
        complete(process);
    }
    if let Some(linux) = value.get_mut("linux").filter(|linux| linux.is_object()) {
        devices::complete(linux);
    }
    let spec: Spec = serde_json::from_value(value).map_err(|error| error.to_string())?;
    check(&spec).map_err(|failure| failure.message)?;
    wharf_runtime::review(&spec).map_err(|error| error.to_string())
}
