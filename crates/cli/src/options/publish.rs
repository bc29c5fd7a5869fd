//! `--publish` and `--expose`.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::failure::Outcome;

/// What is exposed, and what is published where; by `port/protocol`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    pub(crate) exposed: Map<String, Value>,
    pub(crate) bindings: Map<String, Value>,
}

/// Reads the values of both flags.
pub(crate) fn parse(published: &[String], exposed: &[String]) -> Outcome<Ports> {
    let mut ports = Ports::default();
    for text in published {
        publish(&mut ports, &standard(text)?)?;
    }
    for text in exposed {
        expose(&mut ports, text)?;
    }
    Ok(ports)
}

/// `published=8080,target=80,protocol=tcp` as `8080:80/tcp`.
fn standard(text: &str) -> Outcome<String> {
    if !text.contains('=') {
        return Ok(text.to_owned());
    }
    let (mut published, mut target, mut protocol) = ("", "", "tcp");
    for parameter in text.split(',') {
        let Some((key, value)) = parameter.split_once('=') else {
            return Err(format!("invalid publish opts format (should be name=value but got '{parameter}')").into());
        };
        match key {
            "published" => published = value,
            "target" => target = value,
            "protocol" => protocol = value,
            _ => {}
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

/// `[[ip:][host]:]container[/protocol]`, both ports also as ranges.
fn publish(ports: &mut Ports, text: &str) -> Outcome {
    let parts: Vec<&str> = text.split(':').collect();
    let (address, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [address @ .., host, container] => (address.join(":"), *host, *container),
        [] => return Ok(()),
    };
    let (protocol, container) = split_protocol(container);
    let address = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| format!("invalid IP address {address}"))?.to_owned(),
        None => address,
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}").into());
    }
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>").into());
    }
    let (first, last) = range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let hosts = match host {
        "" => None,
        host => Some(range(host).map_err(|_| format!("invalid hostPort: {host}"))?),
    };
    if let Some((low, high)) = hosts
        && last - first != high - low
        && first != last
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}").into());
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}").into());
    }
    for at in 0..=(last - first) {
        let key = format!("{}/{protocol}", first + at);
        let outside = match hosts {
            None => String::new(),
            // One port inside and a range outside: the engine picks one of the range.
            Some((low, high)) if first == last && low != high => format!("{low}-{high}"),
            Some((low, _)) => (low + at).to_string(),
        };
        ports.exposed.insert(key.clone(), json!({}));
        let list = ports.bindings.entry(key).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({"HostIp": address, "HostPort": outside}));
        }
    }
    Ok(())
}

fn expose(ports: &mut Ports, text: &str) -> Outcome {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}").into());
    }
    let (protocol, port) = split_protocol(text);
    let (first, last) =
        range(port).map_err(|reason| format!("invalid range format for --expose: {text}, error: {reason}"))?;
    for port in first..=last {
        ports.exposed.entry(format!("{port}/{protocol}")).or_insert_with(|| json!({}));
    }
    Ok(())
}

fn split_protocol(text: &str) -> (&str, &str) {
    let mut parts = text.split('/');
    let port = parts.next().unwrap_or_default();
    match parts.next() {
        _ if port.is_empty() => ("", ""),
        None | Some("") => ("tcp", port),
        Some(protocol) => (protocol, port),
    }
}

fn range(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| crate::values::parse_uint(text, 16).map(|port| port as u32);
    if text.is_empty() {
        return Err("empty string specified for ports".to_owned());
    }
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(format!("invalid range specified for port: {text}"));
            }
            Ok((first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(texts: &[&str]) -> Result<String, String> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        parse(&texts, &[]).map(|ports| Value::Object(ports.bindings).to_string()).map_err(|failure| failure.text)
    }

    #[test]
    fn published() {
        for (text, json) in [
            ("80", r#"{"80/tcp":[{"HostIp":"","HostPort":""}]}"#),
            ("8080:80/udp", r#"{"80/udp":[{"HostIp":"","HostPort":"8080"}]}"#),
            ("127.0.0.1:8080:80", r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}]}"#),
            ("127.0.0.1::80", r#"{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""}]}"#),
            ("[::1]:81:80", r#"{"80/tcp":[{"HostIp":"::1","HostPort":"81"}]}"#),
            ("::1:81:80", r#"{"80/tcp":[{"HostIp":"::1","HostPort":"81"}]}"#),
            ("8000-8010:80", r#"{"80/tcp":[{"HostIp":"","HostPort":"8000-8010"}]}"#),
            ("81-82:91-92", r#"{"91/tcp":[{"HostIp":"","HostPort":"81"}],"92/tcp":[{"HostIp":"","HostPort":"82"}]}"#),
            ("published=8080,target=80", r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#),
        ] {
            assert_eq!(shown(&[text]).as_deref(), Ok(json), "{text}");
        }
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("99999:1", "invalid hostPort: 99999"),
            ("1:99999", "invalid containerPort: 99999"),
            ("1:", "no port specified: 1:<empty>"),
            ("x:1:1", "invalid IP address: x"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
            ("1:1/foo", "invalid proto: foo"),
            ("2-1:80", "invalid hostPort: 2-1"),
        ] {
            assert_eq!(shown(&[text]).unwrap_err(), message, "{text}");
        }
    }
}
