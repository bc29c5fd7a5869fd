//! Names of hosts for volumes: those of NFS and CIFS servers, and of plugins.

use std::error::Error as _;

use tokio::runtime::Handle;
use wharf_image::registry::Resolver;
use wharf_volume::Lookup;

/// By this host's files and name servers, as for registries.
pub(crate) fn system() -> Lookup {
    let (handle, resolver) = (Handle::current(), Resolver::system());
    Lookup::new(move |host| {
        // A thread of its own: whoever asks may be one of the runtime's, which must not wait in it.
        let found = std::thread::scope(|scope| scope.spawn(|| handle.block_on(resolver.lookup(host))).join());
        let found = found.map_err(|_| format!("lookup {host}: failed"))?;
        found.map_err(|error| {
            let text = error.source().map_or_else(|| error.to_string(), |_| wharf_report::chain(&error));
            text.trim_start_matches("dial tcp: ").to_owned()
        })
    })
}
