//! Which engine a command talks to.

use std::path::PathBuf;

use wharf_client::{Address, LONGEST_SOCKET_PATH, Proxy, TlsOptions, UserPlaces};

use crate::app::Globals;
use crate::config::{self, Config};
use crate::contexts;
use crate::failure::Outcome;

/// Where the engine is, and how it came to be chosen.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) tls: Option<TlsOptions>,
    /// Nobody chose it: a daemon is started when none listens.
    pub(crate) is_default: bool,
}

impl Endpoint {
    /// The HTTP proxy that the environment names for an engine that is reached by TCP.
    pub(crate) fn proxy(&self) -> Outcome<Option<Proxy>> {
        let Address::Tcp { host, port, .. } = &self.address else { return Ok(None) };
        let found = wharf_distribution::proxy_of_environment(self.tls.is_some(), host, *port);
        let found = found.map_err(|error| format!("cannot use the proxy of the environment: {error}"))?;
        Ok(found.map(|proxy| Proxy { host: proxy.host, port: proxy.port, authorization: proxy.authorization }))
    }
}

/// The socket that a daemon of this user listens on when nothing else is said.
pub(crate) fn default_socket() -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return PathBuf::from("/run/wharf/wharf.sock");
    }
    UserPlaces::of(user.as_raw()).socket()
}

/// The host that the environment names.
pub(crate) fn environment_host() -> Option<String> {
    ["DOCKER_HOST", "WHARF_HOST"].into_iter().find_map(|name| std::env::var(name).ok().filter(|host| !host.is_empty()))
}

/// Finds the engine: `-H`, `--context`, the environment, the current context, the default socket.
pub(crate) fn resolve(globals: &Globals, config: &Config) -> Outcome<Endpoint> {
    let name = contexts::current(globals, config);
    if name != contexts::DEFAULT {
        let context = contexts::load(config, &name)?;
        let tls = context.tls.clone();
        let address = parse(&context.host, tls.is_some())?;
        return Ok(Endpoint { address, tls, is_default: false });
    }
    let tls = tls(globals);
    if let Some(options) = tls.as_ref().filter(|options| options.verify) {
        check_authority(options)?;
    }
    let given = match globals.hosts.as_slice() {
        [] => environment_host(),
        [host] => Some(host.clone()),
        _ => return Err("Specify only one -H".into()),
    };
    match given {
        Some(host) => Ok(Endpoint { address: parse(&host, tls.is_some())?, tls, is_default: false }),
        None => {
            let path = default_socket();
            let length = path.as_os_str().len();
            if length > LONGEST_SOCKET_PATH {
                return Err(format!(
                    "the path of the default socket, {}, has {length} bytes, and the kernel takes {LONGEST_SOCKET_PATH}: set \
                     XDG_RUNTIME_DIR to a directory with a shorter path, or name the engine's socket with -H",
                    path.display()
                )
                .into());
            }
            Ok(Endpoint { address: Address::Unix(path), tls: None, is_default: true })
        }
    }
}

fn parse(host: &str, tls: bool) -> Outcome<Address> {
    Ok(Address::parse(host, tls).map_err(|error| error.to_string())?)
}

/// Who is to be verified must have somebody to vouch for it.
fn check_authority(options: &TlsOptions) -> Outcome {
    let path = options.ca.clone().unwrap_or_else(|| cert_dir().join("ca.pem"));
    let opened = std::fs::File::open(&path);
    Ok(opened.map(drop).map_err(|error| wharf_report::path("open", &path, &error))?)
}

/// Where the TLS files are that no flag names.
fn cert_dir() -> PathBuf {
    let given = std::env::var_os("DOCKER_CERT_PATH").filter(|dir| !dir.is_empty());
    given.map_or_else(config::default_dir, PathBuf::from)
}

/// The TLS material of the global flags and the environment.
fn tls(globals: &Globals) -> Option<TlsOptions> {
    if !globals.tls && !globals.tls_verify {
        return None;
    }
    let dir = cert_dir();
    let file = |given: &Option<String>, name: &str| match given {
        Some(path) => Some(PathBuf::from(path)),
        None => Some(dir.join(name)).filter(|path| path.exists()),
    };
    Some(TlsOptions {
        ca: file(&globals.tls_ca, "ca.pem"),
        cert: file(&globals.tls_cert, "cert.pem"),
        key: file(&globals.tls_key, "key.pem"),
        verify: globals.tls_verify,
    })
}
