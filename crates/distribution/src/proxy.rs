//! Proxies, by settings or the environment variables that everybody knows.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use hyper::Uri;
use hyper::header::HeaderValue;
use percent_encoding::percent_decode_str;

use crate::address::{Address, Origin};
use crate::error::{DistributionError, Result};

/// A proxy and how to log in to it.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: Address,
    pub(crate) tls: bool,
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Proxy {
    /// Parses `[http://][USER:PASSWORD@]HOST[:PORT][/]`.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let authorization = user.and_then(|user| {
            let plain: Vec<u8> = percent_decode_str(user).collect();
            let mut value =
                HeaderValue::try_from(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain)))
                    .ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Some(Self { address: Address::parse(host).ok()?, tls, authorization })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port.unwrap_or(if self.tls { 443 } else { 80 })
    }
}

/// The HTTP proxy by which a server is reached, for who speaks HTTP without this crate.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpProxy {
    pub host: String,
    pub port: u16,
    /// What the field `Proxy-Authorization` is to say.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Debug for HttpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpProxy({}:{})", self.host, self.port)
    }
}

/// The proxy that `HTTP_PROXY`, or with TLS `HTTPS_PROXY`, names for a server, and `NO_PROXY` does not take back.
///
/// # Errors
/// `Address` when the proxy wants to be spoken to by TLS.
pub fn proxy_of_environment(tls: bool, host: &str, port: u16) -> Result<Option<HttpProxy>> {
    let origin = Origin { tls, host: host.to_ascii_lowercase(), port };
    let proxies = Proxies::of_options(&ProxyOptions::default())?;
    match proxies.for_origin(&origin) {
        None => Ok(None),
        Some(proxy) if proxy.tls => Err(DistributionError::Address(format!("https://{proxy}"))),
        Some(proxy) => Ok(Some(HttpProxy {
            host: proxy.address.host.clone(),
            port: proxy.port(),
            authorization: proxy.authorization.clone(),
        })),
    }
}

/// Proxies as a configuration names them; what is absent is the environment's to say.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    pub http: Option<String>,
    pub https: Option<String>,
    pub no_proxy: Option<String>,
}

impl fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // There may be passwords in the others.
        f.debug_struct("ProxyOptions").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

/// Which origins are reached through a proxy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Except>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Except {
    All,
    /// A domain and all below it; with a leading dot only those below.
    Domain(String, Option<u16>),
    Network(IpAddr, u8),
}

impl Proxies {
    /// By settings, and for what they do not say by `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, in capitals or not.
    ///
    /// # Errors
    /// `Address` for a setting that is no proxy's address. One of the environment is left out with a warning.
    pub(crate) fn of_options(options: &ProxyOptions) -> Result<Self> {
        for text in [&options.http, &options.https].into_iter().flatten().filter(|text| !text.is_empty()) {
            // Not the user and the password.
            let shown = || text.rsplit('@').next().unwrap_or_default().to_owned();
            Proxy::parse(text).ok_or_else(|| DistributionError::Address(shown()))?;
        }
        Ok(Self::from_names(|name| {
            let set = match name {
                "HTTP_PROXY" => &options.http,
                "HTTPS_PROXY" => &options.https,
                _ => &options.no_proxy,
            };
            let of_environment = || std::env::var(name).or_else(|_| std::env::var(name.to_ascii_lowercase())).ok();
            set.clone().or_else(of_environment)
        }))
    }

    #[cfg(test)]
    pub(crate) fn of(http: Option<Proxy>, https: Option<Proxy>) -> Self {
        Self { http, https, except: Vec::new() }
    }

    fn from_names(value: impl Fn(&str) -> Option<String>) -> Self {
        let proxy = |name: &str| {
            let text = value(name).filter(|text| !text.is_empty())?;
            let proxy = Proxy::parse(&text);
            if proxy.is_none() {
                // Not the value: there may be a password in it.
                tracing::warn!("{name} is no address of an HTTP proxy and not used");
            }
            proxy
        };
        let except = value("NO_PROXY").unwrap_or_default();
        let except = except.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()).filter_map(parse_except);
        Self { http: proxy("HTTP_PROXY"), https: proxy("HTTPS_PROXY"), except: except.collect() }
    }

    /// The proxy for `origin`. This machine is never reached through one.
    pub(crate) fn for_origin(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = if origin.tls { self.https.as_ref() } else { self.http.as_ref() }?;
        let direct = origin.is_loopback() || self.except.iter().any(|except| except.matches(origin));
        (!direct).then_some(proxy)
    }

    /// As [`Self::for_origin`] for an address.
    pub(crate) fn for_uri(&self, uri: &Uri) -> Option<&Proxy> {
        self.for_origin(&Origin::of(uri)?)
    }
}

fn parse_except(word: &str) -> Option<Except> {
    if word == "*" {
        return Some(Except::All);
    }
    if let Some((network, length)) = word.split_once('/') {
        let network: IpAddr = network.parse().ok()?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        return Some(Except::Network(network, length.parse().ok().filter(|length| *length <= most)?));
    }
    if let Ok(address) = word.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(Except::Network(address, if address.is_ipv4() { 32 } else { 128 }));
    }
    let (domain, port) = match word.split_once(':') {
        Some((domain, port)) => (domain, Some(port.parse().ok()?)),
        None => (word, None),
    };
    Some(Except::Domain(domain.strip_prefix('*').unwrap_or(domain).to_ascii_lowercase(), port))
}

impl Except {
    fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, length) => {
                origin.host.parse().is_ok_and(|address| in_network(address, *network, *length))
            }
            Self::Domain(domain, port) => {
                let below = if domain.starts_with('.') {
                    origin.host.ends_with(domain.as_str())
                } else {
                    origin.host == *domain
                        || origin.host.strip_suffix(domain.as_str()).is_some_and(|h| h.ends_with('.'))
                };
                below && port.is_none_or(|port| port == origin.port)
            }
        }
    }
}

/// Whether the first `length` bits of both are the same.
pub(crate) fn in_network(address: IpAddr, network: IpAddr, length: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(no: &str) -> Proxies {
        Proxies::from_names(|name| match name {
            "HTTPS_PROXY" => Some("http://ann:p%40ss@proxy.example:3128/".into()),
            "HTTP_PROXY" => Some("plain.example".into()),
            _ => Some(no.into()),
        })
    }

    fn through(proxies: &Proxies, uri: &str) -> Option<String> {
        proxies.for_uri(&uri.parse().unwrap()).map(|proxy| format!("{}:{}", proxy.address.host, proxy.port()))
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let proxies = proxies("");
        assert_eq!(through(&proxies, "https://a.example/").unwrap(), "proxy.example:3128");
        assert_eq!(through(&proxies, "http://a.example/").unwrap(), "plain.example:80");
        assert_eq!(through(&proxies, "http://localhost:5000/"), None);
        assert_eq!(through(&proxies, "https://127.0.0.9/"), None);
        let proxy = proxies.https.as_ref().unwrap();
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic YW5uOnBAc3M=");
        assert!(!format!("{proxies:?}").contains("YW5"), "{proxies:?}");
    }

    #[test]
    fn exceptions_are_direct() {
        let proxies = proxies("a.example, .b.example,10.0.0.0/8, c.example:8443 ,[fd00::1]");
        for direct in [
            "https://a.example/",
            "https://x.a.example/",
            "https://x.b.example/",
            "https://10.1.2.3/",
            "https://c.example:8443/",
            "https://[fd00::1]/",
        ] {
            assert_eq!(through(&proxies, direct), None, "{direct}");
        }
        for proxied in ["https://xa.example/", "https://b.example/", "https://11.0.0.1/", "https://c.example/"] {
            assert!(through(&proxies, proxied).is_some(), "{proxied}");
        }
        assert_eq!(through(&super::tests::proxies("*"), "https://a/"), None);
    }
}
