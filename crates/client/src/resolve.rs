//! Addresses of a host. The C library's resolver loads libraries at run time, which a static program must not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::TokioResolver;

/// The addresses of a literal, of `localhost`, of a name in `/etc/hosts`, or of one that the name servers know.
pub(crate) async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let hosts = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let found = in_hosts(&hosts, host);
    if !found.is_empty() {
        return Ok(found);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let resolver = TokioResolver::builder_tokio().map_err(io::Error::other)?.build();
    let found = resolver.lookup_ip(host).await;
    found.map(|found| found.iter().collect()).map_err(|error| io::Error::other(format!("lookup {host}: {error}")))
}

/// hosts(5): an address, then its names.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file() {
        let text = "127.0.0.1 localhost\n# 1.1.1.1 a\n10.0.0.1 a.example A # comment\n::2 a\n";
        assert_eq!(in_hosts(text, "a").len(), 2);
        assert_eq!(in_hosts(text, "comment"), Vec::<IpAddr>::new());
    }
}
