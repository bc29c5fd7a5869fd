//! What all repositories share, and logging in.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use hyper::header::HeaderValue;
use wharf_reference::{DEFAULT_DOMAIN, Reference};

use crate::address::Address;
use crate::connector::{Insecure, Network};
use crate::credentials::Credentials;
use crate::dns::Resolver;
use crate::endpoint::{Endpoint, Shared};
use crate::error::{DistributionError, Result};
use crate::hosts::{self, Capabilities, Host};
use crate::proxy::{Proxies, ProxyOptions};
use crate::repository::{Repository, Unusable};
use crate::retry::ATTEMPTS;
use crate::tls::Trust;
use crate::transport::Transport;

const USER_AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));

/// Settings of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Registries (`HOST[:PORT]` or `ADDRESS/BITS`) that may speak plain HTTP and whose certificates are not
    /// verified. Those on this machine may always.
    pub insecure: Vec<String>,
    /// Mirrors of Docker Hub (`https://HOST[:PORT]`), which are asked before it. They get no credentials.
    pub mirrors: Vec<String>,
    /// Folders where `HOST[:PORT]/` has certificate authorities (`*.crt`) and client certificates (`*.cert` with
    /// `*.key`) for one registry, or a `hosts.toml` as containerd's; that of `_default/` is for all others.
    pub certs_dirs: Vec<PathBuf>,
    /// Instead of those of the environment.
    pub proxies: ProxyOptions,
    /// Empty: `wharf/VERSION`.
    pub user_agent: String,
    /// How often a blob is asked for while nothing of it comes; Docker's five when not given.
    pub download_attempts: Option<u32>,
}

/// A client of registries. Cheap to clone; all clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct Client {
    /// What is under way goes on with what it began with.
    now: Arc<RwLock<Now>>,
}

/// A client as it is configured now.
#[derive(Clone, Debug)]
struct Now {
    shared: Arc<Shared>,
    mirrors: Arc<[(Address, bool)]>,
    /// What it was made with.
    options: Arc<ClientOptions>,
}

impl Client {
    /// Makes a client. Proxies that the options do not name are taken from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// `Address` when a mirror, a proxy or the user agent is none.
    pub fn new(options: ClientOptions) -> Result<Self> {
        Ok(Self { now: Arc::new(RwLock::new(Now::new(options)?)) })
    }

    /// Gives it, and all its clones, other settings.
    ///
    /// # Errors
    /// As [`Self::new`]: then nothing changes.
    pub fn configure(&self, options: ClientOptions) -> Result<()> {
        let now = Now::new(options)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    /// One with the same settings, but that `registry` is one of those of [`ClientOptions::insecure`], too. It shares nothing
    /// with this one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_insecure(&self, registry: &str) -> Result<Self> {
        let mut options = ClientOptions::clone(&self.now().options);
        options.insecure.push(registry.to_owned());
        Self::new(options)
    }

    fn now(&self) -> Now {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.now().shared
    }

    /// The repository that `reference` names. Nothing is sent until something is asked of it.
    pub fn repository(&self, reference: &Reference, auth: Option<Credentials>) -> Repository {
        self.now().repository(reference, auth)
    }

    /// Shows credentials to the registry `server`: a name as in references, or an address as in Docker's
    /// configuration (`https://index.docker.io/v1/`).
    ///
    /// Gives the identity token that is to be kept instead of the password; empty when the registry gives none.
    ///
    /// # Errors
    /// `Unauthorized` when the registry does not take them; all of a request.
    pub async fn login(&self, server: &str, auth: &Credentials) -> Result<String> {
        let address = Address::of_server(server)?;
        let endpoint = Endpoint::new(self.shared(), address, None, Some(auth.clone()));
        Ok(endpoint.login().await?.unwrap_or_default())
    }
}

impl Now {
    fn new(options: ClientOptions) -> Result<Self> {
        let kept = Arc::new(options.clone());
        let network = Network {
            resolver: Resolver::system(),
            trust: Trust::new(options.certs_dirs),
            proxies: Proxies::of_options(&options.proxies)?,
            insecure: Insecure::new(&options.insecure),
        };
        let agent = if options.user_agent.is_empty() { USER_AGENT } else { &options.user_agent };
        let agent = HeaderValue::from_str(agent).map_err(|_| DistributionError::Address(agent.into()))?;
        let mirrors: Result<Vec<_>> = options.mirrors.iter().map(|mirror| parse_mirror(mirror)).collect();
        Ok(Self {
            shared: Arc::new(Shared::new(
                Transport::new(Arc::new(network), None),
                agent,
                options.download_attempts.unwrap_or(ATTEMPTS),
            )),
            mirrors: mirrors?.into(),
            options: kept,
        })
    }

    fn repository(&self, reference: &Reference, auth: Option<Credentials>) -> Repository {
        let domain = reference.domain();
        let address = match Address::of_domain(domain) {
            Ok(address) => address,
            Err(_) => return Repository::unusable(reference.clone(), Unusable::Domain(domain.to_owned())),
        };
        let endpoint = |address, tls, auth| Arc::new(Endpoint::new(self.shared.clone(), address, tls, auth));
        let mirrors = if domain == DEFAULT_DOMAIN { &self.mirrors[..] } else { &[] };
        let mirrors = mirrors.iter().map(|(address, tls)| {
            let mut endpoint = Endpoint::new(self.shared.clone(), address.clone(), Some(*tls), None);
            endpoint.capabilities = Capabilities::READ;
            Arc::new(endpoint)
        });
        let mut mirrors: Vec<_> = mirrors.collect();
        let folders = self.shared.transport.network.trust.certs_dirs();
        let hosts = match hosts::of_registry(folders, domain, &address) {
            Ok(hosts) => hosts.unwrap_or_default(),
            Err(DistributionError::Hosts { path, reason }) => {
                return Repository::unusable(reference.clone(), Unusable::Hosts { path, reason });
            }
            Err(error) => {
                let (path, reason) = ("hosts.toml".into(), error.message());
                return Repository::unusable(reference.clone(), Unusable::Hosts { path, reason });
            }
        };
        // Credentials are the registry's own, wherever else its images are.
        let of_host = |host: Host| {
            let itself = host.address == address;
            let stands_for = (!itself).then(|| domain.to_owned());
            Arc::new(Endpoint::of_host(self.shared.clone(), host, stands_for, auth.clone().filter(|_| itself)))
        };
        mirrors.extend(hosts.mirrors.into_iter().map(of_host));
        let home = match hosts.server {
            Some(server) => of_host(server),
            None => endpoint(address.clone(), None, auth.clone()),
        };
        Repository::new(reference.clone(), mirrors.into(), home)
    }
}

fn parse_mirror(text: &str) -> Result<(Address, bool)> {
    let (tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        None => (true, text),
        Some(_) => return Err(DistributionError::Address(text.into())),
    };
    // A path would have to go before /v2/, where no registry looks.
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    Ok((Address::parse(rest).map_err(|_| DistributionError::Address(text.into()))?, tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_with_an_insecure_registry_has_the_other_settings() {
        let proxies = ProxyOptions { https: Some("http://p.example:3128".into()), ..ProxyOptions::default() };
        let options = ClientOptions {
            insecure: vec!["a.example".into()],
            mirrors: vec!["m.example".into()],
            certs_dirs: vec!["/certs".into()],
            proxies,
            user_agent: "agent/1".into(),
            download_attempts: Some(2),
        };
        let client = Client::new(ClientOptions::default()).unwrap();
        client.configure(options.clone()).unwrap();
        let other = client.with_insecure("b.example").unwrap().now().options;
        // Not all of proxies is shown.
        assert!(other.proxies == options.proxies);
        let insecure = vec!["a.example".into(), "b.example".into()];
        assert_eq!(format!("{other:?}"), format!("{:?}", ClientOptions { insecure, ..options }));
        assert_eq!(client.now().options.insecure, ["a.example"]);
    }

    #[test]
    fn mirrors_are_addresses() {
        assert_eq!(parse_mirror("http://m.example:5000/").unwrap(), (Address::parse("m.example:5000").unwrap(), false));
        assert!(parse_mirror("m.example").unwrap().1);
        for bad in ["ftp://m.example", "https://m.example/path", "https://u:p@m.example", ""] {
            assert!(parse_mirror(bad).is_err(), "{bad}");
        }
    }
}
