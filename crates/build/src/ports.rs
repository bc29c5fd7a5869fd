//! `EXPOSE`: ports with their protocols, ranges taken apart.

use crate::error::{BuildError, Result};

/// `8080`, `8080/udp`, `8080-8090/tcp` as single ports: `8080/tcp`.
///
/// # Errors
/// With Docker's words.
pub(crate) fn parse(text: &str) -> Result<Vec<String>> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(BuildError::invalid(format!("invalid proto: {protocol}")));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(parse("1-3/sctp").unwrap(), ["1/sctp", "2/sctp", "3/sctp"]);
        for bad in ["", "x", "80:80", "3-1", "70000", "80/icmp", "-1", "+80", "1-"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
