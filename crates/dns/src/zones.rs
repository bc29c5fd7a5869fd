//! Names that we know ourselves.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use crate::records::{Member, Network};

/// The host, as containers on desktops know it too.
const HOST: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];
const LOCAL: &str = "localhost";

/// The networks and who is in them.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    networks: HashMap<String, Zone>,
}

#[derive(Debug)]
struct Zone {
    name: String,
    /// The name behind a dot, in small letters.
    suffix: String,
    internal: bool,
    gateways: Vec<IpAddr>,
    members: HashMap<String, Member>,
    /// By names in small letters: whose it is, and the address.
    names: HashMap<String, Vec<(String, IpAddr)>>,
    /// Whose it is, and its first name.
    reverse: HashMap<IpAddr, (String, String)>,
}

impl Zone {
    fn put(&mut self, member: Member) {
        self.remove(&member.container);
        for name in &member.names {
            let known = self.names.entry(name.to_ascii_lowercase()).or_default();
            for address in &member.addresses {
                let one = (member.container.clone(), *address);
                if !known.contains(&one) {
                    known.push(one);
                }
            }
        }
        if let Some(first) = member.names.first() {
            for address in &member.addresses {
                self.reverse.insert(*address, (member.container.clone(), first.clone()));
            }
        }
        self.members.insert(member.container.clone(), member);
    }

    fn remove(&mut self, container: &str) {
        let Some(member) = self.members.remove(container) else { return };
        for name in &member.names {
            let name = name.to_ascii_lowercase();
            if let Some(known) = self.names.get_mut(&name) {
                known.retain(|(owner, _)| owner != container);
                if known.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in &member.addresses {
            // It may be somebody else's by now.
            if self.reverse.get(address).is_some_and(|(owner, _)| owner == container) {
                self.reverse.remove(address);
            }
        }
    }

    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.names.get(name).map(|known| known.iter().map(|(_, address)| *address).collect())
    }
}

impl Zones {
    pub(crate) fn put(&mut self, network: Network) {
        let Network { id, name, internal, gateways, members } = network;
        let suffix = format!(".{}", name.to_ascii_lowercase());
        let mut zone = Zone {
            name,
            suffix,
            internal,
            gateways,
            members: HashMap::new(),
            names: HashMap::new(),
            reverse: HashMap::new(),
        };
        members.into_iter().for_each(|member| zone.put(member));
        self.networks.insert(id, zone);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.networks.remove(id);
    }

    /// Whether the network is known.
    pub(crate) fn put_member(&mut self, network: &str, member: Member) -> bool {
        let zone = self.networks.get_mut(network);
        zone.map(|zone| zone.put(member)).is_some()
    }

    pub(crate) fn remove_member(&mut self, network: &str, container: &str) {
        if let Some(zone) = self.networks.get_mut(network) {
            zone.remove(container);
        }
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let mut all: Vec<String> = self.networks.keys().cloned().collect();
        all.sort();
        all
    }

    fn of<'a>(&'a self, networks: &'a [String]) -> impl Iterator<Item = &'a Zone> {
        networks.iter().filter_map(|id| self.networks.get(id))
    }

    /// Whether somebody in these networks and no others may not hear of the world. A network that is not known yet is
    /// not one that leads out.
    pub(crate) fn is_closed(&self, networks: &[String]) -> bool {
        self.of(networks).all(|zone| zone.internal)
    }

    /// The addresses of a name (in small letters, without its last dot), seen from somebody in `networks`; `None` when
    /// it is none of ours.
    pub(crate) fn addresses(
        &self,
        networks: &[String],
        links: &BTreeMap<String, String>,
        name: &str,
    ) -> Option<Vec<IpAddr>> {
        if name == LOCAL || name.strip_suffix(LOCAL).is_some_and(|before| before.ends_with('.')) {
            return Some(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        let linked = links.get(name).map(|target| target.to_ascii_lowercase());
        let plain = linked.iter().map(String::as_str).chain([name]);
        if let Some(found) =
            plain.flat_map(|name| self.of(networks).map(move |zone| zone.addresses(name))).flatten().next()
        {
            return Some(found);
        }
        let mut qualified =
            self.of(networks).filter_map(|zone| name.strip_suffix(&zone.suffix).and_then(|name| zone.addresses(name)));
        if let Some(found) = qualified.next() {
            return Some(found);
        }
        if HOST.contains(&name) {
            // Never asked for elsewhere, even where there is no gateway.
            return Some(
                self.of(networks).map(|zone| &zone.gateways).find(|all| !all.is_empty()).cloned().unwrap_or_default(),
            );
        }
        None
    }

    /// Whose address it is, as a name with its network's.
    pub(crate) fn name_of(&self, networks: &[String], address: IpAddr) -> Option<String> {
        self.of(networks).find_map(|zone| zone.reverse.get(&address).map(|(_, name)| format!("{name}.{}", zone.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(container: &str, address: &str, names: &[&str]) -> Member {
        Member {
            container: container.into(),
            addresses: vec![address.parse().unwrap()],
            names: names.iter().map(|&name| name.into()).collect(),
        }
    }

    fn zones() -> Zones {
        let mut zones = Zones::default();
        let front = vec![member("1", "172.18.0.2", &["Web", "service"]), member("2", "172.18.0.3", &["db", "service"])];
        let gateways = vec!["172.18.0.1".parse().unwrap()];
        zones.put(Network { id: "f".into(), name: "Front.net".into(), internal: false, gateways, members: front });
        let back = vec![member("2", "172.19.0.3", &["db", "service"])];
        zones.put(Network { id: "b".into(), name: "back".into(), internal: true, members: back, ..Network::default() });
        zones
    }

    fn look(zones: &Zones, networks: &[&str], name: &str) -> Option<Vec<String>> {
        let networks: Vec<String> = networks.iter().map(|&id| id.into()).collect();
        let links = BTreeMap::from([("database".into(), "DB".into())]);
        let found = zones.addresses(&networks, &links, name)?;
        Some(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_are_those_of_ones_networks() {
        let zones = zones();
        let look = |networks: &[&str], name| look(&zones, networks, name);
        let some = |all: &[&str]| Some(all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        assert_eq!(look(&["f"], "web"), some(&["172.18.0.2"]));
        assert_eq!(look(&["f"], "service"), some(&["172.18.0.2", "172.18.0.3"]));
        assert_eq!(look(&["f", "b"], "db"), some(&["172.18.0.3"]));
        assert_eq!(look(&["b", "f"], "db"), some(&["172.19.0.3"]));
        assert_eq!(look(&["b", "f"], "db.front.net"), some(&["172.18.0.3"]));
        assert_eq!(look(&["b"], "db.back"), some(&["172.19.0.3"]));
        assert_eq!(look(&["b"], "database"), some(&["172.19.0.3"]));
        assert_eq!((look(&["b"], "web"), look(&["b"], "db.front.net"), look(&[], "db")), (None, None, None));
        assert_eq!(look(&["f"], "host.docker.internal"), some(&["172.18.0.1"]));
        assert_eq!(look(&["b", "f"], "gateway.docker.internal"), some(&["172.18.0.1"]));
        assert_eq!(look(&["b"], "host.docker.internal"), some(&[]));
        assert_eq!(look(&["b"], "localhost"), some(&["127.0.0.1"]));
        assert_eq!(look(&["b"], "x.localhost"), some(&["127.0.0.1"]));
        assert_eq!(look(&["b"], "notlocalhost"), None);
    }

    #[test]
    fn addresses_lead_back() {
        let zones = zones();
        let of = |networks: &[&str], address: &str| {
            let networks: Vec<String> = networks.iter().map(|&id| id.into()).collect();
            zones.name_of(&networks, address.parse().unwrap())
        };
        assert_eq!(of(&["f"], "172.18.0.2").as_deref(), Some("Web.Front.net"));
        assert_eq!(of(&["b"], "172.18.0.2"), None);
        assert!(zones.is_closed(&["b".into()]) && !zones.is_closed(&["b".into(), "f".into()]));
        assert!(zones.is_closed(&["unknown".into()]));
    }

    #[test]
    fn members_come_and_go() {
        let mut zones = zones();
        assert!(!zones.put_member("unknown", member("3", "172.18.0.4", &["new"])));
        // An address that goes from one to another, whose removal is late.
        assert!(zones.put_member("f", member("3", "172.18.0.2", &["new", "service"])));
        zones.remove_member("f", "1");
        zones.remove_member("f", "1");
        assert_eq!(look(&zones, &["f"], "web"), None);
        assert_eq!(look(&zones, &["f"], "service").unwrap().len(), 2);
        assert_eq!(zones.name_of(&["f".into()], "172.18.0.2".parse().unwrap()).as_deref(), Some("new.Front.net"));
        assert!(zones.put_member("f", member("3", "172.18.0.2", &["renamed"])));
        assert_eq!((look(&zones, &["f"], "new"), look(&zones, &["f"], "service").unwrap().len()), (None, 1));
        zones.remove("f");
        assert_eq!(zones.ids(), ["b"]);
    }
}
