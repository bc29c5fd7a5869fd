//! What steps need of a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_dockerfile::Platform;

use crate::agent::Agents;
use crate::asked::{Asked, Client};
use crate::entitlements::Allowed;
use crate::request::{BuildRequest, Limits, RegistryCredentials};

/// It is the same for all stages.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) no_cache: bool,
    /// Names and numbers of stages.
    pub(crate) no_cache_filter: Vec<String>,
    pub(crate) pull: bool,
    pub(crate) network: String,
    /// A command may have the host's network.
    pub(crate) host_network: bool,
    /// A command may have all rights of the daemon's.
    pub(crate) insecure: bool,
    pub(crate) platform: Option<Platform>,
    pub(crate) shm_size: Option<u64>,
    pub(crate) limits: Limits,
    pub(crate) extra_hosts: Vec<String>,
    pub(crate) cgroup_parent: Option<String>,
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    pub(crate) agents: Agents,
    /// Who is asked for more of these: [`Common::client`].
    pub(crate) asked: Asked,
    pub(crate) credentials: RegistryCredentials,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) squash: bool,
    /// [`BuildRequest::classic`].
    pub(crate) classic: bool,
    /// [`BuildRequest::keeps_mounts`].
    pub(crate) keeps_mounts: bool,
    /// Something is to be stated about the result.
    pub(crate) attested: bool,
}

impl Options {
    pub(crate) fn of(
        request: &BuildRequest,
        allowed: &Allowed,
        platform: Option<Platform>,
        client: Option<Arc<dyn Client>>,
    ) -> Self {
        Self {
            no_cache: request.no_cache,
            no_cache_filter: request.no_cache_filter.clone(),
            pull: request.pull,
            host_network: allowed.host_network,
            insecure: allowed.insecure,
            network: request.network.clone(),
            platform,
            shm_size: request.shm_size,
            limits: request.limits.clone(),
            extra_hosts: request.extra_hosts.clone(),
            cgroup_parent: request.cgroup_parent.clone().filter(|path| !path.is_empty()),
            secrets: request.secrets.clone(),
            agents: Agents(request.agents.clone()),
            asked: Asked(client),
            credentials: request.credentials.clone(),
            labels: request.labels.clone(),
            squash: request.squash,
            classic: request.classic,
            keeps_mounts: request.keeps_mounts,
            attested: !request.attestations.is_empty(),
        }
    }
}
