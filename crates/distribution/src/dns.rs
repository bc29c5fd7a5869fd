//! Host names to addresses, without the C library: a static binary must not load the host's name service modules.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::name_server::TokioConnectionProvider;

use crate::error::ConnectError;

/// More of a hosts file than this is not read.
const MAX_HOSTS: u64 = 16 * 1024 * 1024;

/// Which state of a file was read.
type Stamp = (u64, u64, i64, i64);

/// Resolves by `/etc/hosts` and `/etc/resolv.conf` as they are at the time: laptops change networks.
pub struct Resolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    current: Mutex<Option<(Stamp, Arc<TokioResolver>)>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("resolv_conf", &self.resolv_conf).finish_non_exhaustive()
    }
}

impl Resolver {
    /// By this host's files.
    pub fn system() -> Self {
        Self::of_files(Path::new("/etc/hosts"), Path::new("/etc/resolv.conf"))
    }

    fn of_files(hosts: &Path, resolv_conf: &Path) -> Self {
        Self { hosts: hosts.to_owned(), resolv_conf: resolv_conf.to_owned(), current: Mutex::new(None) }
    }

    /// All addresses of `host`, which may be an address itself; never none.
    ///
    /// # Errors
    /// `NoSuchHost`, `Lookup`.
    pub async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        // RFC 6761, section 6.3: it never leaves this machine, whatever files and servers say.
        if host == "localhost" || host.ends_with(".localhost") {
            return Ok(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        }
        let listed = self.in_hosts(host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let failed = |reason: String| ConnectError::Lookup { host: host.to_owned(), reason };
        let resolver = self.resolver().map_err(failed)?;
        match resolver.lookup_ip(host).await {
            Ok(found) => {
                let addresses: Vec<IpAddr> = found.iter().collect();
                if addresses.is_empty() {
                    Err(ConnectError::NoSuchHost { host: host.to_owned() })
                } else {
                    Ok(addresses)
                }
            }
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
                Err(ConnectError::NoSuchHost { host: host.to_owned() })
            }
            Err(error) => Err(failed(in_go_s_words(&error.to_string()))),
        }
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let mut text = String::new();
        // Without the file, or with one that is no text, the servers are asked.
        let read = File::open(&self.hosts).and_then(|file| file.take(MAX_HOSTS).read_to_string(&mut text));
        if read.is_err() { Vec::new() } else { find_host(&text, host) }
    }

    fn resolver(&self) -> Result<Arc<TokioResolver>, String> {
        let stamp = stamp(&self.resolv_conf);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, resolver)) = current.as_ref().filter(|(of, _)| *of == stamp) {
            return Ok(resolver.clone());
        }
        let mut text = fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        if !text.lines().any(|line| line.trim_start().starts_with("nameserver")) {
            // resolv.conf(5): the server is on this machine then.
            text.push_str("\nnameserver 127.0.0.1\n");
        }
        let (config, mut options) =
            hickory_resolver::system_conf::parse_resolv_conf(text).map_err(|error| error.to_string())?;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Read above, each time anew.
        options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioConnectionProvider::default());
        *builder.options_mut() = options;
        let resolver = Arc::new(builder.build());
        *current = Some((stamp, resolver.clone()));
        Ok(resolver)
    }
}

fn stamp(path: &Path) -> Stamp {
    fs::metadata(path).map_or((0, 0, 0, 0), |found| (found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// hosts(5): an address, then its names.
fn find_host(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// The resolver's reason without its own layers' names.
fn in_go_s_words(reason: &str) -> String {
    let bare =
        ["proto error: ", "io error: "].iter().fold(reason, |text, layer| text.strip_prefix(layer).unwrap_or(text));
    if bare == "request timed out" { "i/o timeout".into() } else { bare.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_hosts_file_is_read() {
        let text = "# x\n127.0.0.1 localhost\n10.0.0.1\tA.example a # b\nnonsense b\n::2 a\n10.0.0.1 a\n";
        assert_eq!(find_host(text, "a"), ["10.0.0.1".parse::<IpAddr>().unwrap(), "::2".parse().unwrap()]);
        assert_eq!(find_host(text, "a.EXAMPLE").len(), 1);
        assert!(find_host(text, "b").is_empty());
    }

    /// Answers one name with one address, and all else with "no such name".
    fn name_server(socket: &UdpSocket) {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let query = &packet[..length];
            // The question ends with the root label, the type and the class; further records are left out.
            let end = 12 + query[12..].iter().position(|b| *b == 0).unwrap() + 5;
            let is_a = query[end - 3] == 1;
            let known = query[12..].starts_with(b"\x08registry\x04test\x00");
            let mut answer = query[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
            if known && is_a {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, 3]);
            } else if !known {
                answer[3] |= 3;
            }
            socket.send_to(&answer, from).unwrap();
        }
    }

    #[tokio::test]
    async fn servers_are_asked() {
        // Name servers in resolv.conf have port 53, so the test has an address of its own.
        let Ok(socket) = UdpSocket::bind("127.0.153.53:53") else { return };
        std::thread::spawn(move || name_server(&socket));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 127.0.153.53\noptions timeout:1 attempts:1\n").unwrap();
        let resolver = Resolver::of_files(&dir.path().join("hosts"), &path);
        assert_eq!(resolver.lookup("registry.test").await.unwrap(), ["10.1.2.3".parse::<IpAddr>().unwrap()]);
        assert!(matches!(resolver.lookup("other.test").await, Err(ConnectError::NoSuchHost { .. })));
        // A file that changes is read again.
        fs::write(dir.path().join("hosts"), "10.9.9.9 other.test\n").unwrap();
        assert_eq!(resolver.lookup("other.test").await.unwrap(), ["10.9.9.9".parse::<IpAddr>().unwrap()]);
        assert!(resolver.lookup("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn reasons_are_plain() {
        assert_eq!(in_go_s_words("proto error: io error: network is unreachable"), "network is unreachable");
        assert_eq!(in_go_s_words("proto error: request timed out"), "i/o timeout");
        assert_eq!(in_go_s_words("no connections"), "no connections");
    }
}
