//! What a build is allowed beyond the usual (`--allow`).

use crate::error::{BuildError, Result};

const HOST_NETWORK: &str = "network.host";
const INSECURE: &str = "security.insecure";

/// What commands may have. Whoever may talk to the daemon may start a privileged container, so what they ask for
/// themselves is theirs; a Dockerfile alone, which may be anybody's, gets neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// The host's network: it is allowed, or that of the whole build.
    pub(crate) host_network: bool,
    /// All capabilities and devices, no filter and nothing masked.
    pub(crate) insecure: bool,
}

impl Allowed {
    /// What these names allow.
    ///
    /// # Errors
    /// For one that is not known.
    pub(crate) fn of(names: &[String], network: &str) -> Result<Self> {
        let mut allowed = Self { host_network: network == "host", insecure: false };
        for name in names {
            match name.as_str() {
                HOST_NETWORK => allowed.host_network = true,
                INSECURE => allowed.insecure = true,
                other => {
                    let message = format!("unknown entitlement {other:?}: there are {HOST_NETWORK} and {INSECURE}");
                    return Err(BuildError::invalid(message));
                }
            }
        }
        Ok(allowed)
    }
}

/// A command asks for what was not allowed.
fn denied(what: &str) -> BuildError {
    let message = format!(
        "granting entitlement {what} is not allowed by build daemon configuration: give it with --allow {what}"
    );
    BuildError::denied(message)
}

/// A command asks for all rights, and the request does not give them.
pub(crate) fn insecure_denied() -> BuildError {
    denied(INSECURE)
}

/// A command asks for the network of the host, and the request does not give it.
pub(crate) fn host_network_denied() -> BuildError {
    denied(HOST_NETWORK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_allowed_and_nothing_else() {
        let of = |names: &[&str], network: &str| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Allowed::of(&names, network).map(|allowed| (allowed.host_network, allowed.insecure))
        };
        assert_eq!(of(&[], "default").unwrap(), (false, false));
        assert_eq!(of(&[], "host").unwrap(), (true, false));
        assert_eq!(of(&["network.host"], "none").unwrap(), (true, false));
        assert_eq!(of(&["security.insecure"], "none").unwrap(), (false, true));
        assert!(of(&["device"], "none").unwrap_err().message.contains("security.insecure"));
    }
}
