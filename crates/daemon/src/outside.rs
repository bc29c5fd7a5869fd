//! What builds need of the daemon: images that are not here, and a network for commands.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use std::os::fd::AsFd;

use flate2::write::MultiGzDecoder;
use wharf_build::{BuildError, ErrorKind, Fetch, NetworkSource, Pending, RegistryCredentials, StepNetwork};
use wharf_engine::Engine;
use wharf_engine::etc::ResolvConf;
use wharf_image::registry::{Client, Credentials};
use wharf_image::{ImageRecord, ProgressSender};
use wharf_network::{Bandwidth, EndpointRequest, Networks};

/// Base images come from where `pull` gets them, files over the same connections.
pub(crate) struct Outside {
    pub(crate) engine: Engine,
    pub(crate) client: Client,
}

impl Fetch for Outside {
    fn image<'a>(
        &'a self,
        reference: &'a str,
        platform: Option<&'a str>,
        credentials: &'a RegistryCredentials,
        progress: ProgressSender,
    ) -> Pending<'a, ImageRecord> {
        Box::pin(async move {
            let parsed = Engine::parse_reference(reference).map_err(|e| failed(&e))?;
            let credentials = of_registry(credentials, parsed.domain()).cloned();
            self.engine.pull(&parsed, platform, credentials, progress).await.map_err(|e| failed(&e))
        })
    }

    fn download<'a>(&'a self, url: &'a str, to: File) -> Pending<'a, Option<i64>> {
        Box::pin(async move {
            let fail = |reason: String| BuildError::invalid(format!("ADD failed: {reason}"));
            let mut document = self.client.document(url).await.map_err(|e| fail(e.message()))?;
            let mut plain = Some(to.try_clone().map_err(|e| fail(wharf_report::os(&e)))?);
            let mut gzip = document.is_gzip_encoded().then(|| plain.take()).flatten().map(MultiGzDecoder::new);
            while let Some(bytes) = document.chunk().await.map_err(|e| fail(e.message()))? {
                let written = match (&mut plain, &mut gzip) {
                    (Some(file), _) => file.write_all(&bytes),
                    (None, Some(gzip)) => gzip.write_all(&bytes),
                    (None, None) => Ok(()),
                };
                written.map_err(|e| fail(wharf_report::os(&e)))?;
            }
            gzip.map(MultiGzDecoder::finish).transpose().map_err(|e| fail(wharf_report::os(&e)))?;
            Ok(document.modified())
        })
    }
}

/// Those for a registry: of its name, or of an address with it (moby, `registry.ResolveAuthConfig`).
fn of_registry<'a>(all: &'a RegistryCredentials, registry: &str) -> Option<&'a Credentials> {
    const HUB: &str = "index.docker.io";
    let host = |name: &str| {
        let name = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://")).unwrap_or(name);
        let host = name.split('/').next().unwrap_or(name);
        if matches!(host, "docker.io" | "registry-1.docker.io") { HUB.to_owned() } else { host.to_owned() }
    };
    all.get(registry).or_else(|| all.iter().find(|(name, _)| host(name) == host(registry)).map(|(_, found)| found))
}

fn failed(error: &wharf_engine::EngineError) -> BuildError {
    let kind = match error.kind {
        wharf_engine::ErrorKind::NotFound => ErrorKind::NotFound,
        wharf_engine::ErrorKind::Forbidden | wharf_engine::ErrorKind::Unauthorized => ErrorKind::Denied,
        wharf_engine::ErrorKind::InvalidParameter => ErrorKind::Invalid,
        _ => ErrorKind::System,
    };
    BuildError::new(kind, error.message.clone())
}

/// A namespace on the network for each command, with the host's resolvers, or on networks of the user's the names there.
pub(crate) fn source(engine: Engine, networks: Networks) -> NetworkSource {
    Arc::new(move |id: &str, name: &str| {
        let fail = |e: wharf_network::NetworkError| io::Error::other(wharf_report::chain(&e));
        let name = if matches!(name, "" | "default") { "bridge" } else { name };
        if let Some(of) = name.strip_prefix("container:") {
            let (namespace, resolv_conf) = engine.network_of(of).map_err(|e| io::Error::other(e.message))?;
            return Ok(StepNetwork { namespace, resolv_conf, addresses: Vec::new(), guard: Box::new(()) });
        }
        let namespace = networks.namespace().map_err(fail)?;
        if name == "none" || (name == "bridge" && networks.resolve(name).is_err()) {
            let (resolv_conf, addresses) = (String::new(), Vec::new());
            return Ok(StepNetwork { namespace: namespace.into(), resolv_conf, addresses, guard: Box::new(()) });
        }
        let network = networks.resolve(name).map_err(fail)?;
        let request = EndpointRequest {
            network: &network.id,
            container: id,
            name: id,
            netns: namespace.as_fd(),
            unused: Some(&namespace),
            index: 0,
            interface: None,
            sysctls: &[],
            rank: None,
            ip: None,
            ip6: None,
            link_local: &[],
            no_ipv6: false,
            mac: None,
            bandwidth: Bandwidth::default(),
            aliases: &[],
        };
        let endpoint = networks.connect(&request).map_err(fail)?;
        // Dropped, it takes back what follows, too.
        let guard = Leave {
            engine: engine.clone(),
            networks: networks.clone(),
            network: network.id.clone(),
            container: id.to_owned(),
        };
        let ipv6 = endpoint.ip6.is_some();
        let answered = engine.answer_step(id, &network, namespace.as_fd(), ipv6);
        let answered = answered.map_err(|e| io::Error::other(e.message))?;
        let dns = &engine.options().dns;
        let resolv = ResolvConf::of_host().with(&dns.servers, &dns.search, &dns.options);
        let resolv_conf = if answered { resolv.render(true) } else { resolv.reachable(ipv6).render(false) };
        Ok(StepNetwork {
            namespace: namespace.into(),
            resolv_conf,
            addresses: endpoint.addresses(),
            guard: Box::new(guard),
        })
    })
}

/// Gives the address back.
struct Leave {
    engine: Engine,
    networks: Networks,
    network: String,
    container: String,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.engine.forget_step(&self.container);
        if let Err(error) = self.networks.disconnect(&self.network, &self.container) {
            tracing::warn!("cannot free the network of build step {}: {error}", self.container);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_the_registry_s_host() {
        let all: RegistryCredentials = ["https://index.docker.io/v1/", "example.com", "https://example.org:5000/v2/"]
            .map(|name| (name.to_owned(), Credentials::new(name, "x")))
            .into();
        let found = |registry: &str| of_registry(&all, registry).map(|found| found.username.as_str());
        assert_eq!(found("docker.io"), Some("https://index.docker.io/v1/"));
        assert_eq!(found("example.com"), Some("example.com"));
        assert_eq!(found("example.org:5000"), Some("https://example.org:5000/v2/"));
        assert_eq!((found("example.org"), found("example.com:5000")), (None, None));
    }
}
