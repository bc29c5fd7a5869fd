//! A container's end of a link: its name, its place among the ways out, and its kernel parameters.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use wharf_netlink::namespace;
use wharf_netlink::route::{Connection, RouteEntry};

use crate::connect::KERNELS_METRIC;
use crate::create::PREFIX;
use crate::networks::Inner;
use crate::{EndpointRequest, NetworkError, Result};

/// The longest name of an interface (`IFNAMSIZ` without its zero byte).
const MAX_NAME: usize = 15;

/// Whether the kernel takes this for the name of an interface (`dev_valid_name()`). A `%` is refused, too: there the
/// kernel would put a number.
pub fn is_interface_name(name: &str) -> bool {
    let bad = |c: char| c.is_ascii_control() || c.is_whitespace() || matches!(c, '/' | ':' | '%');
    !name.is_empty() && name.len() <= MAX_NAME && name != "." && name != ".." && !name.contains(bad)
}

/// A kernel parameter of an interface in the container, whatever that will be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSysctl {
    /// `ipv4`, `ipv6` or `mpls`.
    protocol: String,
    /// `conf` or `neigh`.
    kind: String,
    name: String,
    value: String,
}

impl FromStr for InterfaceSysctl {
    type Err = String;

    /// Reads `net.X.Y.IFNAME.Z=V`.
    ///
    /// # Errors
    /// In Docker's words (moby, `validateEndpointSettings`).
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let words = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !text.is_empty();
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("expected sysctl '{text}' to have format name=value"))?;
        if let ["net", protocol @ ("ipv4" | "ipv6" | "mpls"), kind @ ("conf" | "neigh"), "IFNAME" | "ifname", name] =
            key.splitn(5, '.').collect::<Vec<_>>()[..]
            && words(name)
            && !value.contains(['\n', '\0'])
        {
            let [protocol, kind, name, value] = [protocol, kind, name, value].map(str::to_owned);
            return Ok(Self { protocol, kind, name, value });
        }
        Err(format!(
            "unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' \
             must be 'ipv4', 'ipv6' or 'mpls'"
        ))
    }
}

impl InterfaceSysctl {
    /// Whether it leaves the interface without IPv6.
    pub fn disables_ipv6(&self) -> bool {
        [&self.protocol, &self.kind, &self.name] == ["ipv6", "conf", "disable_ipv6"] && self.value.trim() != "0"
    }

    /// Sets it, in the network namespace of the calling thread.
    pub(crate) fn set(&self, interface: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{}/{}/{interface}/{}", self.protocol, self.kind, self.name);
        if !Path::new(&path).is_file() {
            return Err(NetworkError::Invalid(format!("{path} is not a sysctl file")));
        }
        // Where it cannot be written, it may be so already.
        if fs::read_to_string(&path).is_ok_and(|now| now.trim() == self.value.trim()) {
            return Ok(());
        }
        fs::write(&path, &self.value).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => {
                NetworkError::Invalid(format!("unable to write to '{path}': {} is not a value of it", self.value))
            }
            _ => NetworkError::host(format!("write `{}` to `{path}`", self.value))(error),
        })
    }
}

impl Inner {
    /// The name of a new interface: that which is asked for; or the network's prefix with the number that is asked for,
    /// or the next that no interface in the namespace has.
    pub(crate) fn interface_name(&self, request: &EndpointRequest<'_>) -> Result<String> {
        let (prefix, is_first) = {
            let state = self.state();
            let name = if request.network == "default" { "bridge" } else { request.network };
            let prefix = state.resolve(name)?.record.options.get(PREFIX).cloned();
            let is_first = state.networks.values().all(|network| !network.endpoints.contains_key(request.container));
            (prefix.unwrap_or_else(|| "eth".into()), is_first)
        };
        // Nothing is there yet.
        if is_first && request.index == 0 && request.interface.is_none() {
            return Ok(format!("{prefix}0"));
        }
        let links = namespace::within(request.netns, || Connection::open()?.links())??;
        let taken: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        match request.interface {
            Some(name) if taken.contains(name) => Err(NetworkError::InterfaceTaken(name.to_owned())),
            Some(name) => Ok(name.to_owned()),
            None => {
                let mut names = (request.index..).map(|number| format!("{prefix}{number}"));
                names.find(|name| !taken.contains(name.as_str())).ok_or_else(|| NetworkError::InterfaceTaken(prefix))
            }
        }
    }
}

/// The place of a new way out behind all that are there.
pub(crate) fn last_rank(route: &Connection) -> Result<u32> {
    let is_default = |entry: &&RouteEntry| entry.destination.1 == 0 && entry.destination.0.is_unspecified();
    let routes = route.routes()?;
    // Beyond are the container's own.
    let ranks = routes.iter().filter(is_default).filter_map(|entry| match entry.destination.0.is_ipv4() {
        true => Some(entry.metric).filter(|metric| *metric < KERNELS_METRIC),
        false => entry.metric.checked_sub(KERNELS_METRIC).filter(|rank| *rank < KERNELS_METRIC),
    });
    Ok(ranks.max().map_or(0, |last| last + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel() {
        for good in ["foo0", "a", "eth0.100", "abcdefghijklmno", "wän"] {
            assert!(is_interface_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:b", "eth%d", "abcdefghijklmnop", "a\nb"] {
            assert!(!is_interface_name(bad), "{bad}");
        }
    }

    #[test]
    fn sysctls_are_those_of_the_interface() {
        let read = |text: &str| text.parse::<InterfaceSysctl>();
        let martians = read("net.ipv4.conf.IFNAME.log_martians=1").unwrap();
        assert_eq!((martians.name.as_str(), martians.value.as_str()), ("log_martians", "1"));
        assert_eq!(read("net.ipv4.conf.ifname.log_martians=1").unwrap(), martians);
        assert!(read("net.ipv6.conf.IFNAME.disable_ipv6=1").unwrap().disables_ipv6());
        assert!(!read("net.ipv6.conf.IFNAME.disable_ipv6=0").unwrap().disables_ipv6() && !martians.disables_ipv6());
        assert!(read("net.ipv4.neigh.IFNAME.gc_stale_time=9").is_ok() && read("net.mpls.conf.IFNAME.input=1").is_ok());
        for bad in [
            "net.ipv4.conf.eth0.log_martians=1",
            "net.core.conf.IFNAME.x=1",
            "kernel.ipv4.conf.IFNAME.x=1",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.IFNAME.../x=1",
            "net.ipv4.route.IFNAME.flush=1",
            "net.ipv4.conf.IFNAME.=1",
            "net.ipv4.conf.IFNAME.x=1\n",
        ] {
            assert!(read(bad).unwrap_err().starts_with("unrecognised network interface sysctl"), "{bad}");
        }
        let bare = "net.ipv4.conf.IFNAME.log_martians";
        assert_eq!(read(bare).unwrap_err(), format!("expected sysctl '{bare}' to have format name=value"));
    }
}
