//! Where a registry is: its host and port as a name gives them, its origin as the Web does.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

use crate::error::{DistributionError, Result};

/// What Docker's default registry is called, and where it is.
const DEFAULT_DOMAIN: &str = wharf_reference::DEFAULT_DOMAIN;
const DEFAULT_HOST: &str = "registry-1.docker.io";

/// The host, and the port if one is given: `registry.example`, `[::1]:5000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// In lower case; an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl Address {
    /// Parses `HOST[:PORT]`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || DistributionError::Address(text.chars().take(256).collect());
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => {
                host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                (host, rest.strip_prefix(':').or_else(|| (!rest.is_empty()).then_some("")))
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        // The name is a folder's too, of certificates: no `..` in it.
        let dots = host.starts_with('.') || host.contains("..");
        if host.is_empty() || host.len() > 255 || dots || !host.bytes().all(letter) {
            return Err(wrong());
        }
        let port = port.map(|port| port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)).transpose()?;
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// The address of the registry that a reference names `domain`.
    pub(crate) fn of_domain(domain: &str) -> Result<Self> {
        Self::parse(if domain == DEFAULT_DOMAIN { DEFAULT_HOST } else { domain })
    }

    /// The address of the registry that a user logs in to. The default registry has had other names.
    pub(crate) fn of_server(server: &str) -> Result<Self> {
        let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
        let domain = rest.split('/').next().unwrap_or_default();
        match domain {
            "" | "index.docker.io" | "registry-1.docker.io" => Self::of_domain(DEFAULT_DOMAIN),
            _ => Self::of_domain(domain),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// `localhost`, a name in it, or a loopback address.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What credentials are bound to: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    pub(crate) fn new(tls: bool, address: &Address) -> Self {
        let port = address.port.unwrap_or(if tls { 443 } else { 80 });
        Self { tls, host: address.host.clone(), port }
    }

    /// The origin of an absolute address; `None` when it is of neither scheme, has no host or names a user.
    pub(crate) fn of(uri: &Uri) -> Option<Self> {
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str();
        if authority.contains('@') {
            return None;
        }
        let address = Address::parse(authority).ok()?;
        Some(Self::new(tls, &address))
    }

    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }

    /// The address of `path` (with a query) at this origin.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri> {
        format!("{self}{path}").parse().map_err(|_| DistributionError::Address(format!("{self}{path}")))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "https://" } else { "http://" })?;
        write_host(f, &self.host)?;
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

/// Resolves a `Location` or `Link` against the address that it was answered from (RFC 3986, section 5.3, without
/// dot segments, which no registry sends).
pub(crate) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.trim();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let text = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else if location.split(['/', '?', '#']).next()?.contains(':') {
        // Another scheme.
        return None;
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    text.parse().ok()
}

/// A value in a query (RFC 3986, section 2.3: what is not unreserved is escaped).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        for (text, again) in [
            ("registry.example", "registry.example"),
            ("Registry.Example:5000", "registry.example:5000"),
            ("[::1]:5000", "[::1]:5000"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), again);
        }
        for bad in
            ["", ":5000", "a:", "a:0", "a:65536", "a:b", "a/b", "a b", "[::1]x", "[::g]:1", "u@h", "a:1:2", "..", ".a"]
        {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_default_registry_has_many_names() {
        for name in ["docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io", ""] {
            assert_eq!(Address::of_server(name).unwrap().host, "registry-1.docker.io", "{name}");
        }
        assert_eq!(Address::of_server("http://localhost:5000/v2/").unwrap().to_string(), "localhost:5000");
    }

    #[test]
    fn origins_are_compared_with_their_ports() {
        let of = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(of("https://a/x"), of("https://A:443/y?z"));
        assert_ne!(of("https://a/"), of("http://a/"));
        assert_ne!(of("https://a/"), of("https://a:444/"));
        assert_eq!(of("https://user@a/"), None);
        assert_eq!(of("ftp://a/"), None);
        assert_eq!(of("https://[::1]:5000/").unwrap().to_string(), "https://[::1]:5000");
    }

    #[test]
    fn locations_are_joined() {
        let base: Uri = "https://a:1/v2/x/blobs/uploads/".parse().unwrap();
        let joined = |location: &str| join(&base, location).map(|uri| uri.to_string());
        assert_eq!(joined("/v2/y?z=1").unwrap(), "https://a:1/v2/y?z=1");
        assert_eq!(joined("http://b/c").unwrap(), "http://b/c");
        assert_eq!(joined("//b/c").unwrap(), "https://b/c");
        assert_eq!(joined("id").unwrap(), "https://a:1/v2/x/blobs/uploads/id");
        assert_eq!(joined("file:///etc/passwd"), None);
        assert_eq!(joined("javascript:x"), None);
        assert_eq!(escape("a b/c:ü"), "a%20b%2Fc%3A%C3%BC");
    }
}
