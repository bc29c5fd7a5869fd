use std::fmt;
use std::path::PathBuf;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path`.
    Unix(PathBuf),
    /// `ssh://[user@]host[:port][/socket]`: the engine of another machine, reached by its `docker system dial-stdio`.
    Ssh {
        /// Name on the other machine; the program's own choice without one.
        user: Option<String>,
        /// Name, as ssh knows it.
        host: String,
        /// Port; ssh's own choice without one.
        port: Option<u16>,
        /// The engine's socket there, an absolute path; the program's own choice without one.
        socket: Option<String>,
    },
    /// `tcp://host:port`; with TLS when the client has been given the material for it.
    Tcp {
        /// Name or literal; IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
        /// What follows the authority, put before each path.
        prefix: String,
    },
}

/// The text is not an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// No scheme, or none we know.
    #[error("invalid bind address format: {0}")]
    Format(String),
    /// The port is not a number of 16 bits.
    #[error("invalid port in address: {0}")]
    Port(String),
    /// It is no address that ssh is to be called with.
    #[error("ssh host connection is not valid: invalid SSH URL: {0}")]
    Ssh(String),
}

const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;
/// What `unix://` alone stands for.
const UNIX_SOCKET: &str = "/var/run/docker.sock";

impl Address {
    /// Reads an address as `-H` and `DOCKER_HOST` have it: `unix://…`, `tcp://…`, `host:port`.
    ///
    /// # Errors
    ///
    /// The text has another scheme or is no address.
    pub fn parse(text: &str, tls: bool) -> Result<Self, AddressError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(PathBuf::from(if path.is_empty() { UNIX_SOCKET } else { path })));
        }
        if let Some(rest) = text.strip_prefix("ssh://") {
            return ssh(text, rest);
        }
        let rest = ["tcp://", "http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let rest = match rest {
            Some(rest) => rest,
            None if text.contains("://") || text.is_empty() => return Err(AddressError::Format(text.to_owned())),
            None => text,
        };
        let (authority, prefix) = match rest.find('/') {
            Some(at) => (&rest[..at], rest[at..].trim_end_matches('/').to_owned()),
            None => (rest, String::new()),
        };
        let default = if tls { TLS_PORT } else { PORT };
        let (host, port) = split(authority).ok_or_else(|| AddressError::Format(text.to_owned()))?;
        let port = match port {
            None | Some("") => default,
            Some(port) => port.parse().map_err(|_| AddressError::Port(text.to_owned()))?,
        };
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Self::Tcp { host: host.to_owned(), port, prefix })
    }
}

/// With Docker's words for what is wrong.
fn ssh(text: &str, rest: &str) -> Result<Address, AddressError> {
    let wrong = |what: &str| AddressError::Ssh(what.to_owned());
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (place, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let socket = Some(path.trim_end_matches('/').to_owned()).filter(|path| !path.is_empty());
    let (user, authority) = match place.rsplit_once('@') {
        Some((user, authority)) => (Some(user.to_owned()).filter(|user| !user.is_empty()), authority),
        None => (None, place),
    };
    if user.as_ref().is_some_and(|user| user.contains(':')) {
        return Err(wrong("plain-text password is not supported"));
    }
    let (host, port) = split(authority).ok_or_else(|| AddressError::Format(text.to_owned()))?;
    if host.is_empty() {
        return Err(wrong("hostname is empty"));
    }
    for (what, text) in [("query parameters", query), ("fragments", fragment)] {
        if !text.is_empty() {
            return Err(wrong(&format!("{what} are not allowed: {text:?}")));
        }
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().map_err(|_| AddressError::Port(text.to_owned()))?),
    };
    // What begins with a dash would be an option of ssh's.
    let plain = |part: &str| !part.starts_with('-') && !part.contains(['/', ' ']);
    if !plain(host) || user.as_deref().is_some_and(|user| !plain(user)) {
        return Err(AddressError::Format(text.to_owned()));
    }
    Ok(Address::Ssh { user, host: host.to_owned(), port, socket })
}

fn split(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return Some((host, rest.strip_prefix(':')));
    }
    match authority.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Ssh { user, host, port, socket } => {
                let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "ssh://{user}{host}{port}{}", socket.as_deref().unwrap_or_default())
            }
            Self::Tcp { host, port, prefix } if host.contains(':') => write!(f, "tcp://[{host}]:{port}{prefix}"),
            Self::Tcp { host, port, prefix } => write!(f, "tcp://{host}:{port}{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, tls, shown) in [
            ("unix:///run/x.sock", false, "unix:///run/x.sock"),
            ("unix://", false, "unix:///var/run/docker.sock"),
            ("ssh://me@host:22", false, "ssh://me@host:22"),
            ("ssh://host", false, "ssh://host"),
            ("ssh://me@host:22/run/user/1000/docker.sock", false, "ssh://me@host:22/run/user/1000/docker.sock"),
            ("ssh://c/", false, "ssh://c"),
            ("ssh://@c", false, "ssh://c"),
            ("tcp://", false, "tcp://localhost:2375"),
            ("h", false, "tcp://h:2375"),
            ("tcp://h", true, "tcp://h:2376"),
            ("tcp://h:1/api/", false, "tcp://h:1/api"),
            ("tcp://[::1]:7", false, "tcp://[::1]:7"),
            ("127.0.0.1:2375", false, "tcp://127.0.0.1:2375"),
            (":2375", false, "tcp://localhost:2375"),
        ] {
            assert_eq!(Address::parse(text, tls).map(|a| a.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for text in ["", "ssh://-oProxyCommand=x", "ssh://a:b@c", "fd://x", "tcp://h:99999", "tcp://a:b:1"] {
            assert!(Address::parse(text, false).is_err(), "{text}");
        }
        for (text, what) in [
            ("ssh://a:b@c", "plain-text password is not supported"),
            ("ssh://a@", "hostname is empty"),
            ("ssh://c?x=1", "query parameters are not allowed: \"x=1\""),
            ("ssh://c/s#f", "fragments are not allowed: \"f\""),
        ] {
            assert_eq!(Address::parse(text, false), Err(AddressError::Ssh(what.into())), "{text}");
        }
    }
}
