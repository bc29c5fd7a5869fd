//! `--link`: names and variables that tell a container of others.
//!
//! On the default network links are the container's own, by ID; on networks of the user's they are names more for
//! an endpoint's neighbours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, ErrorKind, Result};
use crate::etc;
use crate::record::{Container, Link};
use crate::spec::{Config, EndpointSettings, HostConfig};

/// What a container is told of those that it is linked to.
#[derive(Debug, Default)]
pub(crate) struct Linked {
    /// Addresses with names, separated by blanks.
    pub(crate) hosts: Vec<(IpAddr, String)>,
    pub(crate) env: Vec<String>,
}

/// `NAME[:ALIAS]`; what `inspect` answers, `/NAME:/PARENT/ALIAS`, is taken back too.
pub(crate) fn parse(text: &str) -> Result<(&str, &str)> {
    if text.is_empty() {
        return Err(EngineError::invalid("empty string specified for links"));
    }
    match text.split(':').collect::<Vec<_>>()[..] {
        [name] => Ok((name, name)),
        [name, alias] => match name.strip_prefix('/') {
            Some(bare) => Ok((bare, alias.rsplit('/').next().unwrap_or(alias))),
            // With or without its parent's slash.
            None => Ok((name, alias.trim_start_matches('/'))),
        },
        _ => Err(EngineError::invalid(format!("bad format for links: {text}"))),
    }
}

fn user_defined(mode: &str) -> bool {
    !matches!(mode, "bridge" | "host" | "none" | "default" | "") && !mode.starts_with("container:")
}

impl Engine {
    /// Takes the links out of a request for a new container.
    ///
    /// # Errors
    /// `InvalidParameter` for a container that is not there, as clients take "not found" for the image.
    pub(crate) fn resolve_links(&self, host: &mut HostConfig) -> Result<Vec<Link>> {
        let asked = host.links.take().unwrap_or_default();
        let mode = host.network_mode.as_str();
        if asked.is_empty() || user_defined(mode) {
            return Ok(Vec::new());
        }
        let conflict = |kind: &str| {
            EngineError::invalid(format!(
                "conflicting options: {kind} can't be used with links. This would result in undefined behavior"
            ))
        };
        if mode == "host" {
            return Err(conflict("host type networking"));
        }
        if mode.starts_with("container:") {
            return Err(conflict("container type network"));
        }
        let mut links: Vec<Link> = Vec::new();
        for text in &asked {
            let (name, alias) = parse(text)?;
            let find = |name: &str| {
                let found = self.inspect(name);
                found.map_err(|e| EngineError::invalid(format!("could not get container for {name}: {}", e.message)))
            };
            let mut other = find(name)?;
            // Whose network it shares; the chain is as long as there are containers at most.
            for _ in 0..self.list().len() {
                let Some(of) = other.host.network_mode.strip_prefix("container:") else { break };
                other = find(of)?;
            }
            if other.host.network_mode == "host" {
                return Err(conflict("host type networking"));
            }
            if links.iter().all(|link| link.alias != alias) {
                let (to, name) = (other.id.clone(), other.name.clone());
                links.push(Link { to, alias: alias.to_owned(), name });
            }
        }
        Ok(links)
    }

    /// The links of a container as `inspect` shows them: `/db:/web/alias`.
    pub fn link_texts(&self, record: &Container) -> Vec<String> {
        let text = |link: &Link| {
            let name = self.inspect(&link.to).map_or_else(|_| link.name.clone(), |other| other.name.clone());
            // A record of an earlier version does not say it.
            (!name.is_empty()).then(|| format!("/{name}:/{}/{}", record.name, link.alias))
        };
        record.links.iter().filter_map(text).collect()
    }

    /// What a container that starts is told.
    ///
    /// # Errors
    /// `System` with Docker's words when a linked container does not run, or is not on the default network.
    pub(crate) fn linked(&self, record: &Container, endpoints: &BTreeMap<String, EndpointSettings>) -> Result<Linked> {
        let mut linked = Linked::default();
        for link in &record.links {
            let name = format!("/{}/{}", record.name, link.alias);
            let silent = |other: &str| {
                EngineError::system(format!("Cannot link to a non running container: /{other} AS {name}"))
            };
            let other = match self.inspect(&link.to) {
                Ok(other) if other.state.status.is_active() => other,
                Ok(other) => return Err(silent(&other.name)),
                // Of a link of an earlier version nobody knows what it was called: as ever it is none any more.
                Err(_) if link.name.is_empty() => continue,
                Err(_) => return Err(silent(&link.name)),
            };
            let Some(address) = address(&other, "bridge") else {
                return Err(EngineError::system(format!(
                    "Cannot link to /{}, as it does not belong to the default network",
                    other.name
                )));
            };
            linked.hosts.push((address, names(&link.alias, &other)));
            linked.env.extend(variables(&name, address, &other.config));
        }
        for (network, settings) in endpoints {
            for text in settings.links.iter().flatten() {
                let (name, alias) = parse(text)?;
                let other = self.inspect(name).ok();
                // What does not run yet is told of when it starts.
                let address = other.and_then(|other| address(&other, network));
                linked.hosts.extend(address.map(|address| (address, alias.to_owned())));
            }
        }
        Ok(linked)
    }

    /// The names that links on the user's networks give others, by the name that they have there.
    pub(crate) fn endpoint_links(&self, endpoints: &BTreeMap<String, EndpointSettings>) -> BTreeMap<String, String> {
        let texts = endpoints.values().flat_map(|settings| settings.links.iter().flatten());
        let pair = |text: &String| {
            let (name, alias) = parse(text).ok()?;
            // By ID, too; who is not there yet is known by the name that it will have.
            let name = self.inspect(name).map_or_else(|_| name.to_owned(), |other| other.name.clone());
            Some((alias.to_ascii_lowercase(), name))
        };
        texts.filter_map(pair).collect()
    }

    /// A container has been started: those that are linked to it learn of its address.
    pub(crate) fn refresh_links_to(&self, started: &Container) {
        for record in self.list().iter().filter(|record| record.state.status.is_active() && record.id != started.id) {
            let own = record.links.iter().filter(|link| link.to == started.id);
            let own = own.map(|link| ("bridge", names(&link.alias, started)));
            let of_endpoints = record.networks.iter().flat_map(|(network, settings)| {
                let links = settings.links.iter().flatten().filter_map(|text| parse(text).ok());
                links.filter(|(name, _)| *name == started.name).map(|(_, alias)| (network.as_str(), alias.to_owned()))
            });
            for (network, names) in own.chain(of_endpoints) {
                let Some(address) = address(started, network) else { continue };
                if let Err(error) = etc::move_link(&self.dir(&record.id), address, &names) {
                    let why = wharf_report::chain(&error);
                    tracing::warn!("cannot tell container {} of container {}: {why}", record.id, started.id);
                }
            }
        }
    }

    /// A link's container and alias, by its name.
    fn link_of<'a>(&self, text: &'a str) -> Result<(&'a str, &'a str)> {
        let name = text.trim_start_matches('/');
        if let Some(parts) = name.rsplit_once('/') {
            return Ok(parts);
        }
        self.inspect(name)?;
        Err(EngineError::conflict("Conflict, cannot remove the default link name of the container"))
    }

    /// The name of a link that is there.
    pub(crate) fn check_link(&self, text: &str) -> Result<String> {
        let (parent, alias) = self.link_of(text)?;
        let there = |record: &Container| record.links.iter().any(|link| link.alias == alias);
        match self.inner.slots.find(parent).map(|slot| there(&slot.record())) {
            Ok(true) => Ok(format!("{parent}/{alias}")),
            _ => Err(EngineError::new(ErrorKind::NotFound, format!("No such container: {text}"))),
        }
    }

    /// Removes the link `PARENT/ALIAS`; both containers stay.
    ///
    /// # Errors
    /// `Conflict` for what is a container's own name, `NotFound` for a link that is not there.
    pub(crate) async fn remove_link(&self, text: &str) -> Result<()> {
        let (parent, alias) = self.link_of(text)?;
        let missing = || EngineError::new(ErrorKind::NotFound, format!("No such container: {text}"));
        let slot = self.inner.slots.find(parent).map_err(|_| missing())?;
        let _turn = slot.turn.lock().await;
        self.inner.slots.find(&slot.id)?;
        if slot.record().links.iter().all(|link| link.alias != alias) {
            return Err(missing());
        }
        let record = slot.change(|record| record.links.retain(|link| link.alias != alias));
        self.save(&record).await?;
        let (dir, alias) = (self.dir(&slot.id), alias.to_owned());
        blocking(move || {
            // Before its first start there is no file.
            if let (true, Err(error)) = (dir.join("hosts").exists(), etc::drop_link(&dir, &alias)) {
                let why = wharf_report::chain(&error);
                tracing::warn!("cannot take {alias} out of the hosts of container {}: {why}", record.id);
            }
            Ok(())
        })
        .await
    }
}

fn address(record: &Container, network: &str) -> Option<IpAddr> {
    crate::endpoint::addresses(record.networks.get(network)?).next()
}

/// All names of a linked container.
fn names(alias: &str, other: &Container) -> String {
    let mut names = format!("{alias} {}", other.config.hostname);
    if alias != other.name {
        names.push_str(&format!(" {}", other.name));
    }
    names
}

/// What tells of a linked container's ports and variables (moby, `daemon/links`).
fn variables(name: &str, address: IpAddr, other: &Config) -> Vec<String> {
    let alias = name.rsplit('/').next().unwrap_or(name).to_uppercase().replace('-', "_");
    let mut env = Vec::new();
    let ports = other.exposed_ports.iter().flatten().filter_map(|(port, _)| {
        let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        Some((number.parse::<u16>().ok()?, protocol))
    });
    let mut ports: Vec<(u16, &str)> = ports.collect();
    // TCP before the others of the same number.
    ports.sort_by_key(|(number, protocol)| (*number, *protocol != "tcp", protocol.to_owned()));
    for (index, (port, protocol)) in ports.iter().enumerate() {
        let upper = protocol.to_uppercase();
        if index == 0 {
            env.push(format!("{alias}_PORT={protocol}://{address}:{port}"));
        }
        env.push(format!("{alias}_PORT_{port}_{upper}={protocol}://{address}:{port}"));
        env.push(format!("{alias}_PORT_{port}_{upper}_ADDR={address}"));
        env.push(format!("{alias}_PORT_{port}_{upper}_PORT={port}"));
        env.push(format!("{alias}_PORT_{port}_{upper}_PROTO={protocol}"));
    }
    env.push(format!("{alias}_NAME={name}"));
    for (key, value) in other.env.iter().flatten().filter_map(|pair| pair.split_once('=')) {
        if !matches!(key, "HOME" | "PATH") {
            env.push(format!("{alias}_ENV_{key}={value}"));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_all_forms() {
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        assert_eq!(parse("db:alias").unwrap(), ("db", "alias"));
        assert_eq!(parse("/db:/web/alias").unwrap(), ("db", "alias"));
        assert_eq!(parse("").unwrap_err().message, "empty string specified for links");
        assert_eq!(parse("a:b:c").unwrap_err().message, "bad format for links: a:b:c");
        assert!(user_defined("mine") && !user_defined("bridge") && !user_defined("container:x"));
    }

    #[test]
    fn variables_tell_of_ports_and_environment() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "ExposedPorts": { "80/tcp": {}, "9/udp": {} }, "Env": ["PATH=/x", "KEY=v=w"],
        }))
        .unwrap();
        let env = variables("/web/my-db", "172.17.0.2".parse().unwrap(), &config);
        assert_eq!(env[0], "MY_DB_PORT=udp://172.17.0.2:9");
        assert!(env.contains(&"MY_DB_PORT_80_TCP_ADDR=172.17.0.2".to_owned()));
        assert_eq!(env[env.len() - 2..], ["MY_DB_NAME=/web/my-db", "MY_DB_ENV_KEY=v=w"]);
    }
}
