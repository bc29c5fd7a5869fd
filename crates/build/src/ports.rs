//! `EXPOSE`: ports with their protocols, ranges taken apart.

use crate::error::{BuildError, Result};

/// `8080`, `8080/udp`, `8080-8090/tcp` as single ports: `8080/tcp`. As with Docker, what `--publish` takes is taken too:
/// of `[IP:]HOST:CONTAINER` the last counts.
///
/// # Errors
/// With Docker's words.
pub fn parse(text: &str) -> Result<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".into() } else { protocol.to_ascii_lowercase() };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(BuildError::invalid(format!("invalid proto: {protocol}")));
    }
    let range = published(range).ok_or_else(|| BuildError::invalid(format!("invalid hostPort: {text}")))?;
    let bad = || BuildError::invalid(format!("invalid containerPort: {text}"));
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits).ok_or_else(bad)
    };
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(bad());
    }
    Ok((low..=high).map(|port| format!("{port}/{protocol}")).collect())
}

/// The container's side of a published port; what is before it must be right all the same.
fn published(text: &str) -> Option<&str> {
    let Some((before, own)) = text.rsplit_once(':') else { return Some(text) };
    let (address, host) = before.rsplit_once(':').map_or((None, before), |(address, host)| (Some(address), host));
    let is_address = |text: &str| {
        let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        plain.is_empty() || plain.parse::<std::net::IpAddr>().is_ok()
    };
    let is_port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let (low, high) = host.split_once('-').unwrap_or((host, host));
    let good = address.is_none_or(is_address) && (host.is_empty() || (is_port(low) && is_port(high)));
    good.then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("80/").unwrap(), ["80/tcp"]);
        assert_eq!(parse("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(parse("1-3/sctp").unwrap(), ["1/sctp", "2/sctp", "3/sctp"]);
        assert_eq!(parse("80:90").unwrap(), ["90/tcp"]);
        assert_eq!(parse("127.0.0.1:80:90/udp").unwrap(), ["90/udp"]);
        assert_eq!(parse("[::1]::90").unwrap(), ["90/tcp"]);
        assert_eq!(parse("8000-8001:1-2").unwrap(), ["1/tcp", "2/tcp"]);
        for bad in ["", "x", "x:80", "80:", "1.2.3:80:90", "70000:80", "3-1", "70000", "80/icmp", "-1", "+80", "1-"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
