//! Who reaches a port: of the host, or of a container.

use std::os::fd::AsFd;

use serde::Serialize;
use wharf_network::{Protocol, Published, Reach};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::process::Process;
use crate::record::Container;

/// The ports of a container that were asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerReach {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub ports: Vec<Reach>,
}

impl Engine {
    /// Who reaches `PORT[/PROTOCOL]` of the host, `CONTAINER`'s ports, or its `CONTAINER:PORT[/PROTOCOL]`. Sends nothing.
    /// Blocking.
    ///
    /// # Errors
    /// `NotFound` for a port that nobody has published, and a container that is not there; `InvalidParameter` for a
    /// container without a network of its own, or one without a port that could be meant.
    pub fn reach(&self, what: &str) -> Result<Vec<ContainerReach>> {
        if let Some((port, protocol)) = port(what) {
            let wanted = |published: &Published| {
                published.host_port == port && protocol.is_none_or(|protocol| published.protocol == protocol)
            };
            let mut found = Vec::new();
            for record in self.list() {
                if self.networks().published(&record.id).iter().any(wanted) {
                    found.push(self.look(&record, None, &wanted)?);
                }
            }
            // A container may be called by a number; that its ID begins with one is by chance.
            if !found.is_empty() || !self.inspect(what).is_ok_and(|record| record.name == what) {
                let missing = || {
                    EngineError::not_found(format!(
                        "no container has published port {what} of the host; for a port of a container give NAME:PORT"
                    ))
                };
                return if found.is_empty() { Err(missing()) } else { Ok(found) };
            }
        }
        let (name, own) = match what.rsplit_once(':') {
            Some((name, text)) => {
                let invalid = || EngineError::invalid(format!("`{text}` is no port: give NAME:PORT[/PROTOCOL]"));
                let (port, protocol) = port(text).ok_or_else(invalid)?;
                (name, Some((protocol.unwrap_or(Protocol::Tcp), port)))
            }
            None => (what, None),
        };
        let record = self.inspect(name)?;
        if self.networks().endpoints_of(&record.id).is_empty() {
            let mode = &record.host.network_mode;
            return Err(EngineError::invalid(match mode.as_str() {
                "host" => format!(
                    "container {} has the host's network: its ports are the host's own, and its input rules decide",
                    record.name
                ),
                mode if mode.starts_with("container:") => {
                    format!("container {} has the network of another one ({mode}): ask for that", record.name)
                }
                _ => format!("container {} is on no network: it does not run, or has none", record.name),
            }));
        }
        let mut found = match own {
            // Where it is published, too.
            Some((protocol, port)) => {
                let of_it = |published: &Published| (published.protocol, published.container_port) == (protocol, port);
                self.look(&record, own, &of_it)?
            }
            None => self.look(&record, None, &|_| true)?,
        };
        if found.ports.is_empty() {
            for key in record.config.exposed_ports.iter().flatten().map(|(key, _)| key) {
                if let Some((port, protocol)) = port(key) {
                    let own = Some((protocol.unwrap_or(Protocol::Tcp), port));
                    found.ports.extend(self.look(&record, own, &|_| false)?.ports);
                }
            }
        }
        if found.ports.is_empty() {
            return Err(EngineError::invalid(format!(
                "container {} publishes no port, and its image names none: give {}:PORT[/PROTOCOL]",
                record.name, record.name
            )));
        }
        Ok(vec![found])
    }

    fn look(
        &self,
        record: &Container,
        own: Option<(Protocol, u16)>,
        wanted: &dyn Fn(&Published) -> bool,
    ) -> Result<ContainerReach> {
        // One that does not run has nothing inside to look at.
        let netns = Process::of(record).and_then(|process| process.namespace("net")).ok();
        let ports = self.networks().reach(&record.id, netns.as_ref().map(AsFd::as_fd), own, wanted)?;
        Ok(ContainerReach { id: record.id.clone(), name: record.name.clone(), ports })
    }
}

/// `PORT[/PROTOCOL]`.
fn port(text: &str) -> Option<(u16, Option<Protocol>)> {
    let (number, protocol) = text.split_once('/').map_or((text, None), |(number, name)| (number, Some(name)));
    let port = number.parse().ok().filter(|port| *port > 0)?;
    match protocol {
        Some(name) => Some((port, Some(name.parse().ok()?))),
        None => Some((port, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!(port("80"), Some((80, None)));
        assert_eq!(port("53/UDP"), Some((53, Some(Protocol::Udp))));
        for bad in ["", "0", "65536", "80/", "80/icmp", "web", "web:80", "+80x"] {
            assert_eq!(port(bad), None, "{bad}");
        }
    }
}
