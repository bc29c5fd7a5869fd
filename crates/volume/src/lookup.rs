//! Names of hosts, which somebody else looks up: nothing here waits for servers by itself.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

type Found = Result<Vec<IpAddr>, String>;
type Find = dyn Fn(&str) -> Found + Send + Sync;

/// Looks up names of hosts, for file systems and plugins on other hosts.
#[derive(Clone, Default)]
pub struct Lookup(Option<Arc<Find>>);

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lookup").field(&self.0.is_some()).finish()
    }
}

impl Lookup {
    /// By a function that may block, and gives all addresses of a host, or says why there are none.
    pub fn new(find: impl Fn(&str) -> Found + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(find)))
    }

    /// One address of a host, which may be an address itself: the first of IPv4, or else of IPv6, as Go's
    /// `net.ResolveIPAddr` has it.
    pub(crate) fn address(&self, host: &str) -> Result<IpAddr, String> {
        if let Ok(address) = host.parse() {
            return Ok(address);
        }
        let Some(find) = &self.0 else { return Err(format!("lookup {host}: names of hosts are not looked up here")) };
        let all = find(host)?;
        let first = all.iter().find(|address| address.is_ipv4()).or(all.first());
        first.copied().ok_or_else(|| format!("lookup {host}: no such host"))
    }
}
