//! Published ports, as `docker ps` shows them.

use serde_json::Value;

use crate::json::{int, text};

/// The ports of a container: runs of ports as ranges, then the ones that have another number outside.
pub(crate) fn displayable(ports: &[Value]) -> String {
    let mut sorted: Vec<(i64, &str, i64, &str)> = ports
        .iter()
        .map(|port| (int(&port["PrivatePort"]), text(&port["IP"]), int(&port["PublicPort"]), text(&port["Type"])))
        .collect();
    sorted.sort_unstable();
    let mut groups: Vec<((&str, &str), i64, i64)> = Vec::new();
    let (mut finished, mut mappings) = (Vec::new(), Vec::new());
    for (inside, ip, outside, protocol) in sorted {
        if !ip.is_empty() && outside != inside {
            mappings.push(format!("{}->{inside}/{protocol}", join(ip, &outside.to_string())));
            continue;
        }
        let key = (ip, protocol);
        match groups.iter_mut().find(|group| group.0 == key) {
            None => groups.push((key, inside, inside)),
            Some(group) if inside == group.2 + 1 => group.2 = inside,
            Some(group) => {
                finished.push(range(group));
                *group = (key, inside, inside);
            }
        }
    }
    finished.extend(groups.iter().map(range));
    finished.extend(mappings);
    finished.join(", ")
}

fn range(&((ip, protocol), first, last): &((&str, &str), i64, i64)) -> String {
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    if ip.is_empty() { format!("{ports}/{protocol}") } else { format!("{}->{ports}/{protocol}", join(ip, &ports)) }
}

/// `net.JoinHostPort`.
pub(crate) fn join(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shown() {
        let ports = json!([
            {"PrivatePort": 53, "Type": "udp"},
            {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 90, "PublicPort": 90, "Type": "tcp"},
            {"IP": "0.0.0.0", "PrivatePort": 91, "PublicPort": 91, "Type": "tcp"},
            {"PrivatePort": 60, "Type": "udp"},
        ]);
        assert_eq!(
            displayable(ports.as_array().unwrap()),
            "53/udp, 60/udp, 0.0.0.0:90-91->90-91/tcp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(displayable(&[]), "");
    }
}
