//! Ports of a host whose network namespace is not the daemon's own.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::{Protocol, Result};

type Bind = dyn Fn(Protocol, IpAddr, u16) -> Result<OwnedFd> + Send + Sync;

/// Binds ports where the daemon cannot: for one in a network namespace of its own, by somebody outside of it. What comes
/// there no rule leads to a container, so the relay passes it on.
#[derive(Clone)]
pub struct HostPorts(Arc<Bind>);

impl HostPorts {
    /// `bind` gives a socket as [`bind_for_relay`](crate::bind_for_relay) does.
    pub fn new(bind: impl Fn(Protocol, IpAddr, u16) -> Result<OwnedFd> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bind))
    }

    pub(crate) fn bind(&self, protocol: Protocol, address: IpAddr, port: u16) -> Result<OwnedFd> {
        (self.0)(protocol, address, port)
    }
}

impl fmt::Debug for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostPorts").finish_non_exhaustive()
    }
}
