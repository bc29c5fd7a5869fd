//! The three files under `/etc` that the engine writes for a container: `hostname`, `hosts`, `resolv.conf`.
//!
//! They are files of ours outside of the container's root, mounted over its own; nothing in the container
//! decides where we write. But what is in them the container may write, and who has a file open may hold up others
//! (fcntl(2), "Leases"): so they are read with a bound, and opened without waiting.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use wharf_rooted_path::RootDir;

use crate::error::{EngineError, Result};
use crate::record::Container;

/// A larger file is none of ours any more, and an attack on our memory.
const MAX_FILE: u64 = 1 << 20;

/// Where the embedded resolver listens inside a container.
pub const EMBEDDED_DNS: &str = "127.0.0.11";

/// What the network adds.
#[derive(Debug, Default)]
pub struct Names {
    /// The container's own addresses.
    pub own: Vec<IpAddr>,
    /// What `host-gateway` stands for in `--add-host`.
    pub host_gateway: Vec<IpAddr>,
    /// The embedded resolver answers: a user-defined network.
    pub embedded: bool,
    /// Addresses of linked containers with their names, separated by blanks.
    pub links: Vec<(IpAddr, String)>,
}

/// Writes the three files.
pub fn write(dir: &Path, record: &Container, names: &Names, resolv: &ResolvConf) -> Result<()> {
    let put = |file: &str, text: String| {
        put(dir, file, &text).map_err(|e| EngineError::from_source(&format!("cannot write the container's {file}"), &e))
    };
    put("hostname", format!("{}\n", record.config.hostname))?;
    put("hosts", hosts(record, names)?)?;
    put("resolv.conf", resolv.render(names.embedded))
}

fn hosts(record: &Container, names: &Names) -> Result<String> {
    // Who has the host's network has its names, too.
    let of_host = (record.host.network_mode == "host").then(|| std::fs::read_to_string("/etc/hosts").ok()).flatten();
    let mut text = of_host.map(|text| if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" });
    let text = text.get_or_insert_with(|| {
        String::from(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        )
    });
    for line in record.host.extra_hosts.iter().flatten() {
        let (host, address) = line.split_once(':').unwrap_or((line, ""));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address == "host-gateway" {
            if names.host_gateway.is_empty() {
                return Err(EngineError::invalid(
                    "unable to derive the IP value for host-gateway: there is no default network; give the daemon --host-gateway-ip",
                ));
            }
            for gateway in &names.host_gateway {
                text.push_str(&format!("{gateway}\t{host}\n"));
            }
            continue;
        }
        if address.parse::<IpAddr>().is_err() {
            return Err(EngineError::invalid(format!("invalid IP address in add-host: \"{address}\"")));
        }
        text.push_str(&format!("{address}\t{host}\n"));
    }
    for (address, name) in &names.links {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    let words = own_words(record);
    for address in &names.own {
        text.push_str(&format!("{address}\t{words}\n"));
    }
    Ok(std::mem::take(text))
}

/// What a container is called at its own addresses: its whole name, and the first word of that.
fn own_words(record: &Container) -> String {
    let (host, domain) = (&record.config.hostname, &record.config.domainname);
    let full = if domain.is_empty() { host.clone() } else { format!("{host}.{domain}") };
    match full.split_once('.') {
        Some((short, _)) => format!("{full} {short}"),
        None => full,
    }
}

/// Gives a container that runs other addresses of its own, in a file that was written before. What it has added itself stays.
///
/// # Errors
/// As [`move_link`].
pub(crate) fn move_own(dir: &Path, record: &Container, gone: &[IpAddr], come: &[IpAddr]) -> std::io::Result<()> {
    let text = get(dir, "hosts")?;
    let words = own_words(record);
    let line = |address: &IpAddr| format!("{address}\t{words}");
    let lost: Vec<String> = gone.iter().map(line).collect();
    let kept = text.lines().filter(|line| !lost.iter().any(|lost| lost == line)).map(str::to_owned);
    let new: String = kept.chain(come.iter().map(line)).map(|line| line + "\n").collect();
    if new == text { Ok(()) } else { put(dir, "hosts", &new) }
}

/// Writes one of the files. It stays the same file: the container has it mounted.
///
/// # Errors
/// `EAGAIN` when somebody in the container has a lease on it, besides those of writing.
pub(crate) fn put(dir: &Path, file: &str, text: &str) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK;
    let opened = RootDir::open(dir).and_then(|root| root.open_at(file, flags, Mode::from_raw_mode(0o644)));
    File::from(opened.map_err(std::io::Error::other)?).write_all(text.as_bytes())
}

/// What is in a file that the container may have written to.
fn get(dir: &Path, file: &str) -> std::io::Result<String> {
    let bytes = RootDir::open(dir).and_then(|root| root.read_small(file, MAX_FILE)).map_err(std::io::Error::other)?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

/// Gives a linked container, by all its names, another address in a file that was written before. What the container
/// itself has added stays.
///
/// # Errors
/// When the file is not there, is held up, or has become what hosts(5) is not; then it stays as it is.
pub fn move_link(dir: &Path, address: IpAddr, names: &str) -> std::io::Result<()> {
    let text = get(dir, "hosts")?;
    let end = format!("\t{names}");
    let line = |line: &str| if line.ends_with(&end) { format!("{address}{end}\n") } else { format!("{line}\n") };
    let new: String = text.lines().map(line).collect();
    if new == text { Ok(()) } else { put(dir, "hosts", &new) }
}

/// Forgets a linked container, whose names begin with `alias`.
///
/// # Errors
/// As [`move_link`].
pub fn drop_link(dir: &Path, alias: &str) -> std::io::Result<()> {
    let text = get(dir, "hosts")?;
    let is_link = |line: &&str| line.split_once('\t').is_some_and(|(_, names)| names.starts_with(&format!("{alias} ")));
    let new: String = text.lines().filter(|line| !is_link(line)).map(|line| format!("{line}\n")).collect();
    put(dir, "hosts", &new)
}

/// The parts of resolv.conf(5) that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    pub servers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// Somebody has asked for these options; otherwise they are what the host has for itself.
    pub asked: bool,
}

impl ResolvConf {
    /// What the host uses.
    pub fn of_host() -> Self {
        // systemd-resolved's stub listens on a loopback address that a container cannot reach; its own file
        // names the real servers.
        let stub = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let host = Self::parse(&stub);
        if host.servers == ["127.0.0.53"]
            && let Ok(real) = std::fs::read_to_string("/run/systemd/resolve/resolv.conf")
        {
            return Self::parse(&real);
        }
        host
    }

    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => conf.search = rest(words),
                Some("options") => conf.options = rest(words),
                _ => {}
            }
        }
        conf
    }

    /// What the container's and the daemon's settings replace.
    pub fn with(mut self, servers: &[String], search: &[String], options: &[String]) -> Self {
        if !servers.is_empty() {
            self.servers = servers.to_vec();
        }
        if !search.is_empty() {
            self.search = search.iter().filter(|s| *s != ".").cloned().collect();
        }
        if !options.is_empty() {
            (self.options, self.asked) = (options.to_vec(), true);
        }
        self
    }

    /// The servers that a container in a network of its own can reach, with IPv6 or without.
    pub fn reachable(mut self, ipv6: bool) -> Self {
        self.servers.retain(|s| s.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback() && (ipv6 || ip.is_ipv4())));
        self
    }

    /// Whether there are servers, and a container in a network of its own reaches none: the host's own resolver listens on
    /// its loopback.
    pub fn is_out_of_reach(&self, ipv6: bool) -> bool {
        !self.servers.is_empty() && self.clone().reachable(ipv6).servers.is_empty()
    }

    /// The file's text; with `embedded` the only server is the embedded resolver.
    pub fn render(&self, embedded: bool) -> String {
        let mut text = String::from("# Written by Wharf for this container.\n");
        let own = [EMBEDDED_DNS.to_owned()];
        for server in if embedded { &own[..] } else { &self.servers[..] } {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        let mut options = self.options.clone();
        let ndots = |option: &String| option.starts_with("ndots:");
        if embedded && !(self.asked && options.iter().any(ndots)) {
            // The host's is about the host's names (moby, `TransformForIntNS`).
            options.retain(|option| !ndots(option));
            options.push("ndots:0".into());
        }
        if !options.is_empty() {
            text.push_str(&format!("options {}\n", options.join(" ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_moves_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "127.0.0.1\tlocalhost\n172.17.0.2\tdb one\n10.0.0.1\tmine\n").unwrap();
        move_link(dir.path(), "172.17.0.9".parse().unwrap(), "db one").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "127.0.0.1\tlocalhost\n172.17.0.9\tdb one\n10.0.0.1\tmine\n");
    }

    #[test]
    fn what_a_container_has_made_of_its_file_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let refused = move_link(dir.path(), "172.17.0.9".parse().unwrap(), "db").unwrap_err();
        assert!(wharf_report::chain(&refused).contains("too large"), "{refused:?}");
        assert!(drop_link(dir.path(), "db").is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 40);
    }

    #[test]
    fn resolv_conf_is_read_and_replaced() {
        let host = ResolvConf::parse("nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch a b\noptions edns0\n");
        assert_eq!(host.clone().reachable(false).servers, ["192.0.2.1"]);
        let both = ResolvConf::parse("nameserver ::1\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n");
        assert_eq!(both.clone().reachable(false).servers, ["192.0.2.1"]);
        assert_eq!(both.reachable(true).servers, ["192.0.2.1", "2001:db8::1"]);
        let own = host.with(&["9.9.9.9".into()], &[".".into()], &[]);
        assert_eq!(own.servers, ["9.9.9.9"]);
        assert!(own.search.is_empty());
        assert!(own.render(true).contains("nameserver 127.0.0.11"));
        assert!(own.render(true).contains("ndots:0"));
    }

    #[test]
    fn only_who_asks_for_dots_gets_them() {
        let options = |conf: &ResolvConf| conf.render(true).lines().last().unwrap_or_default().to_owned();
        let host = ResolvConf::parse("nameserver 192.0.2.1\noptions ndots:5 edns0\n");
        assert_eq!(options(&host), "options edns0 ndots:0");
        let asked = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            options(&host.clone().with(&[], &[], &words).with(&[], &[], &[]))
        };
        assert_eq!(asked(&["ndots:3", "rotate"]), "options ndots:3 rotate");
        assert_eq!(asked(&["rotate"]), "options rotate ndots:0");
    }
}
