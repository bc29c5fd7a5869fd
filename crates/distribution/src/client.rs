//! What all repositories share, and logging in.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::HeaderValue;
use wharf_reference::{DEFAULT_DOMAIN, Reference};

use crate::address::Address;
use crate::connector::{Insecure, Network};
use crate::credentials::Credentials;
use crate::dns::Resolver;
use crate::endpoint::{Endpoint, Shared};
use crate::error::{DistributionError, Result};
use crate::proxy::Proxies;
use crate::repository::Repository;
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
    /// Where `HOST[:PORT]/` has certificate authorities (`*.crt`) and client certificates (`*.cert` with `*.key`)
    /// for one registry.
    pub certs_dir: Option<PathBuf>,
    /// Empty: `wharf/VERSION`.
    pub user_agent: String,
}

/// A client of registries. Cheap to clone; all clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    mirrors: Arc<[(Address, bool)]>,
}

impl Client {
    /// Makes a client. Proxies are taken from `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
    ///
    /// # Errors
    /// `Address` when a mirror or the user agent is none.
    pub fn new(options: ClientOptions) -> Result<Self> {
        let network = Network {
            resolver: Resolver::system(),
            trust: Trust::new(options.certs_dir),
            proxies: Proxies::from_env(),
            insecure: Insecure::new(&options.insecure),
        };
        let agent = if options.user_agent.is_empty() { USER_AGENT } else { &options.user_agent };
        let agent = HeaderValue::from_str(agent).map_err(|_| DistributionError::Address(agent.into()))?;
        let mirrors: Result<Vec<_>> = options.mirrors.iter().map(|mirror| parse_mirror(mirror)).collect();
        Ok(Self { shared: Arc::new(Shared::new(Transport::new(network), agent)), mirrors: mirrors?.into() })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The repository that `reference` names. Nothing is sent until something is asked of it.
    pub fn repository(&self, reference: &Reference, auth: Option<Credentials>) -> Repository {
        let endpoint = |address, tls, auth| Arc::new(Endpoint::new(self.shared.clone(), address, tls, auth));
        let mirrors = if reference.domain() == DEFAULT_DOMAIN { &self.mirrors[..] } else { &[] };
        let mirrors = mirrors.iter().map(|(address, tls)| endpoint(address.clone(), Some(*tls), None)).collect();
        let home = Address::of_domain(reference.domain()).map(|address| endpoint(address, None, auth));
        Repository::new(reference.clone(), mirrors, home.map_err(|_| reference.domain().to_owned()))
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
        let endpoint = Endpoint::new(self.shared.clone(), address, None, Some(auth.clone()));
        Ok(endpoint.login().await?.unwrap_or_default())
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
    fn mirrors_are_addresses() {
        assert_eq!(parse_mirror("http://m.example:5000/").unwrap(), (Address::parse("m.example:5000").unwrap(), false));
        assert!(parse_mirror("m.example").unwrap().1);
        for bad in ["ftp://m.example", "https://m.example/path", "https://u:p@m.example", ""] {
            assert!(parse_mirror(bad).is_err(), "{bad}");
        }
    }
}
