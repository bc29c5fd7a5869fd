//! Who may not come where everybody may: pages of the World Wide Web, by way of a browser on a host that reaches this one.
//!
//! A page may have a browser send requests to other hosts. They say so in `Origin` (RFC 6454); unless the page's own name
//! has become an address of this host ("DNS rebinding"): then that name is in `Host` (RFC 9110, section 7.2). So requests
//! are refused that are for a name that a stranger can have.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{StatusCode, Uri};

use crate::http::ApiError;

/// The names by which this host is called, besides addresses, those of the loopback, and names of one word: these are
/// given by who runs the network, as that of a service of a CI job is, and nobody else can have them.
#[derive(Clone, Debug)]
pub(crate) struct Names(Arc<Vec<String>>);

impl Names {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self(Arc::new(names))
    }

    /// Whether a request may be one of a client that its user has told to come here.
    ///
    /// # Errors
    /// 403 for a page's.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let hosts = headers.get_all(HOST).iter().map(text);
        let hosts: Vec<&str> = hosts.chain(uri.authority().map(hyper::http::uri::Authority::as_str)).collect();
        for host in &hosts {
            if !self.know(name_and_port(host).0) {
                return Err(refused(format!(
                    "`{}` is none of the names of this host: call it by one of its addresses, or give the daemon the \
                     name with --tcp-name",
                    name_and_port(host).0
                )));
            }
        }
        for origin in headers.get_all(ORIGIN).iter().map(text) {
            if !hosts.iter().any(|host| is_same(origin, host)) {
                return Err(refused(format!("requests of pages of `{origin}` are not for this host")));
            }
        }
        Ok(())
    }

    fn know(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        // With its zone (RFC 6874), which is its sender's own.
        let address = address.split_once('%').map_or(address, |(address, _)| address);
        // RFC 6761, section 6.3: `.localhost` is the loopback.
        let is_local = name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"));
        address.parse::<IpAddr>().is_ok()
            || is_local
            || !name.contains('.')
            || self.0.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

fn refused(why: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, why)
}

/// What is no text is nobody's name.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?.?")
}

/// `example.org:80`, `[::1]`.
fn name_and_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

/// Whether an origin, `http://example.org:80`, is that of the pages of `host`.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, place)) = origin.split_once("://") else { return false };
    let default = match scheme {
        "http" | "ws" => "80",
        "https" | "wss" => "443",
        _ => return false,
    };
    let port = |port: &str| if port.is_empty() { default.to_owned() } else { port.to_owned() };
    let ((a, a_port), (b, b_port)) = (name_and_port(place), name_and_port(host));
    a.eq_ignore_ascii_case(b) && port(a_port) == port(b_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>) -> Option<String> {
        let names = Names::new(vec!["build.example.org".into()]);
        let mut headers = HeaderMap::new();
        if !host.is_empty() {
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        names.check(&Uri::from_static("/info"), &headers).err().map(|error| error.message)
    }

    #[test]
    fn clients_come_by_names_that_no_stranger_can_have() {
        for host in [
            "",
            "127.0.0.1:2375",
            "192.0.2.1",
            "[::1]:2375",
            "[fe80::1%25eth0]:2375",
            "localhost:2375",
            "api.moby.localhost",
            "docker:2375",
            "Build.Example.org:2375",
            "build.example.org.",
        ] {
            assert_eq!(check(host, None), None, "{host}");
        }
        for host in ["evil.example", "evil.example:2375", "127.0.0.1.evil.example", "localhost.evil.example:1", "é.x"]
        {
            assert!(check(host, None).is_some_and(|why| why.contains("--tcp-name")), "{host}");
        }
    }

    #[test]
    fn pages_come_from_this_host_alone() {
        for origin in ["http://192.0.2.1:2375", "ws://192.0.2.1:2375"] {
            assert_eq!(check("192.0.2.1:2375", Some(origin)), None, "{origin}");
        }
        assert_eq!(check("docker", Some("http://docker:80")), None);
        for origin in ["http://evil.example", "null", "http://192.0.2.1", "https://192.0.2.1", "http://192.0.2.1:1", ""]
        {
            let why = check("192.0.2.1:2375", Some(origin));
            assert!(why.is_some_and(|why| why.contains("requests of pages")), "{origin}");
        }
        assert!(check("", Some("http://evil.example")).is_some());
    }
}
