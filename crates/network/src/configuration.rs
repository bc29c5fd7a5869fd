//! Configuration networks (`network create --config-only`): what other networks are made of (`--config-from`), and no networks
//! themselves. They have a row and nothing in the kernel; the texts are Docker's (moby, `validateConfiguration`).

use serde::{Deserialize, Serialize};

use crate::state::NETWORKS;
use crate::{CreateNetwork, IpamRequest, NetworkError, NetworkOptions, NetworkRecord, Networks, Result, create};

/// What a configuration network says of IPv6; all else is in its record, as for any network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Whether networks that are made of it have IPv6.
    pub ipv6: bool,
}

/// Checks what a request says of configurations.
///
/// # Errors
/// `Forbidden`.
pub(crate) fn check(request: &CreateNetwork) -> Result<()> {
    let forbidden = |text: &str| Err(NetworkError::Forbidden(text.into()));
    if request.config_only && (request.internal || request.attachable || !request.scope.is_empty() || request.ingress) {
        return forbidden(
            "configuration network can only contain network specific fields. Network operator fields like [ ingress | \
             internal | attachable | scope ] are not supported.",
        );
    }
    if request.config_from.is_empty() {
        return Ok(());
    }
    if request.config_only {
        return forbidden("a configuration network cannot depend on another configuration network");
    }
    let ipam = &request.ipam;
    let says_more = !matches!(ipam.driver.as_str(), "" | "default")
        || request.ipv4 == Some(false)
        || request.ipv6 == Some(true)
        || !request.labels.is_empty()
        || !ipam.options.is_empty()
        || !ipam.config.is_empty();
    if says_more {
        return forbidden(
            "user-specified configurations are not supported if the network depends on a configuration network",
        );
    }
    if !request.options.is_empty() {
        return forbidden("network driver options are not supported if the network depends on a configuration network");
    }
    Ok(())
}

/// The row of a configuration network. Options and subnets are read when a network is made of them, by its driver.
pub(crate) fn record(request: &CreateNetwork, defaults: &NetworkOptions) -> Result<NetworkRecord> {
    let mut record = create::predefined(&request.name, "null")?;
    record.predefined = false;
    record.labels.clone_from(&request.labels);
    record.options = create::options_of(request, defaults);
    let enabled = create::families(request, &record.options)?;
    (record.ipv4, record.configuration) = (enabled.ipv4, Some(Configuration { ipv6: enabled.ipv6 }));
    if !request.ipam.driver.is_empty() {
        record.ipam_driver.clone_from(&request.ipam.driver);
    }
    record.ipam_options.clone_from(&request.ipam.options);
    record.unused_pools.clone_from(&request.ipam.config);
    Ok(record)
}

/// A request that is completed by a configuration network.
pub(crate) fn applied(request: &CreateNetwork, configuration: &NetworkRecord) -> CreateNetwork {
    CreateNetwork {
        labels: configuration.labels.clone(),
        options: configuration.options.clone(),
        ipam: IpamRequest {
            driver: configuration.ipam_driver.clone(),
            options: configuration.ipam_options.clone(),
            config: configuration.unused_pools.clone(),
        },
        ipv4: Some(configuration.ipv4),
        ipv6: configuration.configuration.map(|configuration| configuration.ipv6),
        ..request.clone()
    }
}

impl Networks {
    /// The configuration network of this very name.
    pub(crate) fn configuration(&self, name: &str) -> Result<NetworkRecord> {
        let state = self.inner.state();
        let found = state.named(name).map(|network| &network.record).filter(|record| record.configuration.is_some());
        found.cloned().ok_or_else(|| NetworkError::NoConfiguration(name.to_owned()))
    }

    /// Writes the row of a configuration network, which is all there is of it.
    pub(crate) fn keep_configuration(&self, record: NetworkRecord) -> Result<NetworkRecord> {
        self.inner.store.write::<_, NetworkError>(|tx| Ok(tx.put(NETWORKS, &record.id, &record)?))?;
        self.inner.state().networks.insert(record.id.clone(), crate::state::Network::new(record.clone()));
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PoolRequest;

    #[test]
    fn what_does_not_go_together_is_refused() {
        let only = CreateNetwork { name: "c".into(), config_only: true, ..CreateNetwork::default() };
        let from = CreateNetwork { name: "n".into(), config_from: "c".into(), ..CreateNetwork::default() };
        assert!(check(&only).is_ok() && check(&from).is_ok());
        let pool = PoolRequest { subnet: "10.0.0.0/24".into(), ..PoolRequest::default() };
        let config = IpamRequest { config: vec![pool], ..IpamRequest::default() };
        let options = [("parent".to_owned(), "eth0".to_owned())];
        let refused = [
            (CreateNetwork { internal: true, ..only.clone() }, "specific fields"),
            (CreateNetwork { attachable: true, ..only.clone() }, "specific fields"),
            (CreateNetwork { scope: "local".into(), ..only.clone() }, "specific fields"),
            (CreateNetwork { config_from: "d".into(), ..only }, "cannot depend on another"),
            (CreateNetwork { ipam: config, ..from.clone() }, "user-specified"),
            (CreateNetwork { ipv6: Some(true), ..from.clone() }, "user-specified"),
            (CreateNetwork { ipv4: Some(false), ..from.clone() }, "user-specified"),
            (CreateNetwork { options: options.into(), ..from.clone() }, "driver options"),
        ];
        for (request, words) in refused {
            let error = check(&request).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.kind(), crate::ErrorKind::Forbidden);
        }
        assert!(check(&CreateNetwork { internal: true, attachable: true, ..from }).is_ok());
    }
}
