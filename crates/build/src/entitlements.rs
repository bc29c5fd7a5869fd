//! What a build is allowed beyond the usual (`--allow`).

use crate::error::{BuildError, Result};

const HOST_NETWORK: &str = "network.host";
const INSECURE: &str = "security.insecure";

/// Whether commands may have the host's network: it is allowed, or that of the whole build. Docker's daemon gives it to
/// whoever asks, and nobody what is insecure, as this one.
///
/// # Errors
/// `Denied` for what nobody is given; for one that is not known.
pub(crate) fn host_network(allowed: &[String], network: &str) -> Result<bool> {
    for name in allowed {
        match name.as_str() {
            HOST_NETWORK => {}
            INSECURE => {
                return Err(BuildError::denied(format!(
                    "granting entitlement {INSECURE} is not allowed by build daemon configuration"
                )));
            }
            other => {
                let message = format!("unknown entitlement {other:?}: there are {HOST_NETWORK} and {INSECURE}");
                return Err(BuildError::invalid(message));
            }
        }
    }
    Ok(network == "host" || !allowed.is_empty())
}
