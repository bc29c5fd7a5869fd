//! How the daemon wants its networks.

use crate::Ipv4Net;

/// Who may reach a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishPolicy {
    /// As Docker: everybody who reaches the host, whatever the host's input rules say.
    #[default]
    Docker,
    /// A port that is published without an address is the loopback's only; who gives an address opens it.
    Host,
}

/// Settings of [`crate::Networks`].
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// Address and prefix of the default bridge; by default the first pool that is free on this host.
    pub bip: Option<String>,
    /// Where networks that name no subnet get theirs: a pool, and the prefix of a network in it.
    /// Empty means Docker's.
    pub default_pools: Vec<(Ipv4Net, u8)>,
    pub mtu: u32,
    pub publish_policy: PublishPolicy,
    /// Marks what is ours in the kernel: the nft table `wharf-INSTANCE`, and the aliases of links.
    pub instance: String,
    /// Turns on the host's forwarding where it is off.
    pub ip_forward: bool,
    /// The device of the default bridge; by default the one that carries our mark, or the first free of `wharf0`,
    /// `wharf1`….
    pub bridge: Option<String>,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            bip: None,
            default_pools: Vec::new(),
            mtu: 1500,
            publish_policy: PublishPolicy::Docker,
            instance: String::from("00000000"),
            ip_forward: true,
            bridge: None,
        }
    }
}
