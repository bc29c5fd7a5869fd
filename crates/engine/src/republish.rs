//! Ports that are published, and taken back, by an update, also while the container runs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wharf_network::{NetworkRecord, PortRequest, Protocol, Published};

use crate::endpoint;
use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::ports::{note, parse_port, requests};
use crate::record::Container;
use crate::spec::{Config, HostConfig, PortBinding};

/// Bindings by `PORT/PROTOCOL`, as in a container's host configuration.
pub(crate) type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// What an update changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    gone: Vec<Published>,
    new: Vec<PortRequest>,
}

/// What has been done of it.
#[derive(Debug)]
pub(crate) struct Done {
    gone: Vec<Published>,
    made: Vec<Published>,
    /// What the container exposes and publishes now.
    pub(crate) ports: Bindings,
}

/// Changes the bindings in `host`, and says what that means for what is `published` now.
///
/// # Errors
/// `Conflict` for a port that is not published so; `InvalidParameter` for what is no port, and for a container that has no
/// network of its own.
pub(crate) fn change(
    host: &mut HostConfig,
    add: Option<Bindings>,
    remove: Option<Bindings>,
    published: &[Published],
) -> Result<Change> {
    let mut change = Change::default();
    let (add, remove) = (add.unwrap_or_default(), remove.unwrap_or_default());
    if add.is_empty() && remove.is_empty() {
        return Ok(change);
    }
    let mode = host.network_mode.as_str();
    if mode == "host" || mode.starts_with("container:") {
        return Err(EngineError::invalid(format!(
            "ports cannot be published in the network mode {mode}: the container has no network of its own"
        )));
    }
    let own = host.port_bindings.get_or_insert_default();
    for (key, specs) in &remove {
        let port = parse_port(key)?;
        let any = [PortBinding::default()];
        let specs = specs.as_deref().filter(|specs| !specs.is_empty()).unwrap_or(&any);
        for spec in specs {
            take_back(own, port, spec, published, &mut change.gone).ok_or_else(|| {
                let at = [&spec.host_ip, &spec.host_port].into_iter().filter(|text| !text.is_empty());
                let at: Vec<&str> = at.map(String::as_str).collect();
                let on = if at.is_empty() { String::new() } else { format!(" on {}", at.join(":")) };
                let note = if host.publish_all_ports { " by itself (--publish-all does)" } else { "" };
                EngineError::conflict(format!("port {}/{} is not published{on}{note}", port.0, port.1))
            })?;
        }
    }
    let wanted = HostConfig { port_bindings: Some(add.clone()), ..HostConfig::default() };
    change.new = requests(&Config::default(), &wanted)?;
    for (key, list) in add {
        let list = list.filter(|list| !list.is_empty()).unwrap_or_else(|| vec![PortBinding::default()]);
        own.entry(key).or_default().get_or_insert_default().extend(list);
    }
    Ok(change)
}

/// Removes the bindings of a port that `spec` means, and notes what is not published any more; `None` when there are none.
fn take_back(
    own: &mut Bindings,
    port: (u16, Protocol),
    spec: &PortBinding,
    published: &[Published],
    gone: &mut Vec<Published>,
) -> Option<()> {
    let of_port = |one: &&Published| (one.container_port, one.protocol) == port;
    let mut found = None;
    for (key, list) in own.iter_mut().filter(|(key, _)| parse_port(key).is_ok_and(|other| other == port)) {
        let list = list.get_or_insert_default();
        if list.is_empty() {
            // Published somewhere.
            list.push(PortBinding::default());
        }
        let is_at_address =
            |binding: &PortBinding| spec.host_ip.is_empty() || address(&spec.host_ip) == address(&binding.host_ip);
        let by_number = |binding: &PortBinding| spec.host_port.is_empty() || spec.host_port == binding.host_port;
        let (mut out, mut stay): (Vec<_>, Vec<_>) =
            list.drain(..).partition(|binding| is_at_address(binding) && by_number(binding));
        if out.is_empty() {
            // One of those that have left the number to us, by what it got.
            let got = |binding: &PortBinding| {
                let mut all = published.iter().filter(of_port);
                all.any(|one| is_at(binding, one) && one.host_port.to_string() == spec.host_port)
            };
            if let Some(place) = stay.iter().position(|binding| is_at_address(binding) && got(binding)) {
                out.push(stay.remove(place));
            }
        }
        *list = stay;
        for binding in out {
            found = Some(key.clone());
            let others = |one: &Published| list.iter().any(|other| !is_any(other) && is_at(other, one));
            let named = |one: &Published| {
                spec.host_port.is_empty() || one.host_port == 0 || one.host_port.to_string() == spec.host_port
            };
            gone.extend(
                published.iter().filter(of_port).filter(|one| is_at(&binding, one) && named(one) && !others(one)),
            );
        }
    }
    own.retain(|key, list| found.as_ref() != Some(key) || list.as_ref().is_some_and(|list| !list.is_empty()));
    gone.sort();
    gone.dedup();
    found.map(drop)
}

fn address(text: &str) -> Option<IpAddr> {
    text.trim_matches(['[', ']']).parse().ok()
}

/// Whether a binding leaves the port to us.
fn is_any(binding: &PortBinding) -> bool {
    matches!(binding.host_port.as_str(), "" | "0")
}

/// Whether what is published may come of a binding.
fn is_at(binding: &PortBinding, one: &Published) -> bool {
    let (first, last) = binding.host_port.split_once('-').unwrap_or((&binding.host_port, &binding.host_port));
    let range = first.parse().unwrap_or(0)..=last.parse().unwrap_or(0);
    let by_port = is_any(binding) || one.host_port == 0 || range.contains(&one.host_port);
    by_port && (binding.host_ip.is_empty() || address(&binding.host_ip) == Some(one.host_ip))
}

impl Engine {
    /// Does what an update changes for a container that runs, or nothing.
    ///
    /// # Errors
    /// `Conflict` where its networks publish nothing; as `Networks::publish`, which says who has a port.
    pub(crate) fn republish(&self, record: &Container, change: &Change) -> Result<Done> {
        let addresses = self.reached_at(record);
        if addresses.is_empty() && !change.new.is_empty() {
            return Err(EngineError::conflict(format!(
                "container {} is on no network that ports can be published on",
                record.name
            )));
        }
        let networks = self.networks();
        networks.unpublish_ports(&record.id, &change.gone)?;
        let gone = change.gone.clone();
        match networks.publish(&record.id, &addresses, &change.new) {
            Ok(made) => Ok(Done { gone, made, ports: self.exposed_and_published(record) }),
            Err(error) => {
                self.undo_republish(record, &Done { gone, made: Vec::new(), ports: Bindings::new() });
                Err(error.into())
            }
        }
    }

    /// Puts back what was before.
    pub(crate) fn undo_republish(&self, record: &Container, done: &Done) {
        let request = |one: &Published| PortRequest {
            container_port: one.container_port,
            protocol: one.protocol,
            host_ip: Some(one.host_ip),
            host_port: (one.host_port > 0).then_some((one.host_port, one.host_port)),
        };
        let requests: Vec<PortRequest> = done.gone.iter().map(request).collect();
        let networks = self.networks();
        let undone = networks
            .unpublish_ports(&record.id, &done.made)
            .and_then(|()| networks.publish(&record.id, &self.reached_at(record), &requests))
            .and_then(|_| networks.sync_published(&record.id));
        if let Err(error) = undone {
            tracing::warn!("ports of container {} are not as they were: {error}", record.id);
        }
    }

    /// The first addresses, of each family, that can be reached from outside.
    fn reached_at(&self, record: &Container) -> Vec<IpAddr> {
        let publishes = |name: &String| self.networks().resolve(name).is_ok_and(|n: NetworkRecord| n.publishes());
        let ranked = endpoint::ranked(&record.networks, self.first_network(record).as_deref());
        let there = ranked.iter().filter(|name| publishes(name)).filter_map(|name| record.networks.get(name));
        endpoint::first_of_each(there.flat_map(endpoint::addresses))
    }

    fn exposed_and_published(&self, record: &Container) -> Bindings {
        let exposed = record.config.exposed_ports.iter().flatten();
        let mut ports = exposed.map(|(port, _)| (port.clone(), None)).collect();
        note(&mut ports, &self.networks().published(&record.id));
        ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(ip: &str, port: &str) -> PortBinding {
        PortBinding { host_ip: ip.into(), host_port: port.into() }
    }

    fn bindings(list: &[(&str, &str, &str)]) -> Bindings {
        let mut all = Bindings::new();
        for (key, ip, port) in list {
            all.entry((*key).into()).or_default().get_or_insert_default().push(bind(ip, port));
        }
        all
    }

    fn at(ip: &str, host_port: u16) -> Published {
        Published { container_port: 80, protocol: Protocol::Tcp, host_ip: ip.parse().unwrap(), host_port }
    }

    fn removed(own: &[(&str, &str, &str)], spec: PortBinding) -> Result<(Bindings, Vec<Published>)> {
        let published = [at("0.0.0.0", 8080), at("::", 8080), at("127.0.0.1", 8081), at("0.0.0.0", 32768)];
        let mut host = HostConfig { port_bindings: Some(bindings(own)), ..HostConfig::default() };
        let remove = Bindings::from([("80".to_owned(), Some(vec![spec]))]);
        let change = change(&mut host, None, Some(remove), &published)?;
        Ok((host.port_bindings.unwrap(), change.gone))
    }

    const OWN: [(&str, &str, &str); 3] = [("80/tcp", "", "8080"), ("80/tcp", "127.0.0.1", "8081"), ("80/tcp", "", "")];

    #[test]
    fn a_port_is_taken_back_as_it_was_published() {
        let (own, gone) = removed(&OWN, bind("", "8080")).unwrap();
        assert_eq!((own, gone), (bindings(&OWN[1..]), vec![at("0.0.0.0", 8080), at("::", 8080)]));
        let (own, gone) = removed(&OWN, bind("127.0.0.1", "8081")).unwrap();
        assert_eq!((own["80/tcp"].as_ref().unwrap().len(), gone), (2, vec![at("127.0.0.1", 8081)]));
        // By the number that it got.
        let (own, gone) = removed(&OWN, bind("", "32768")).unwrap();
        assert_eq!((own, gone), (bindings(&OWN[..2]), vec![at("0.0.0.0", 32768)]));
        // One of two that are the same goes.
        let (own, gone) = removed(&[OWN[2], OWN[2]], bind("", "32768")).unwrap();
        assert_eq!((own, gone), (bindings(&OWN[2..]), vec![at("0.0.0.0", 32768)]));
        let (own, gone) = removed(&OWN, PortBinding::default()).unwrap();
        assert_eq!((own, gone.len()), (Bindings::new(), 4));
    }

    #[test]
    fn what_is_not_published_so_is_refused() {
        let message = |spec| removed(&OWN, spec).unwrap_err().message;
        assert_eq!(message(bind("", "9")), "port 80/tcp is not published on 9");
        assert_eq!(message(bind("10.0.0.1", "8081")), "port 80/tcp is not published on 10.0.0.1:8081");
        let mut host = HostConfig { network_mode: "host".into(), ..HostConfig::default() };
        assert!(change(&mut host, Some(bindings(&[("80", "", "")])), None, &[]).is_err());
        host.network_mode = "bridge".into();
        assert!(change(&mut host, Some(bindings(&[("x", "", "")])), None, &[]).is_err());
        let added = change(&mut host, Some(bindings(&[("80/tcp", "", "90")])), None, &[]).unwrap();
        assert_eq!((added.new.len(), host.port_bindings), (1, Some(bindings(&[("80/tcp", "", "90")]))));
    }
}
