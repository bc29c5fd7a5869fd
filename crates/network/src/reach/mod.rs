//! Who reaches a container's port, and whose rule it is when somebody does not.
//!
//! Nothing is sent: the host's rules are gone through as the first packet of a connection would go ([`wharf_ruleset`]), our
//! own among them. What the kernel decides without rules is looked at beside that: whether frames within a bridge are
//! filtered, whether the host sends on at all, and in the container its own rules and who listens there.

mod inside;
mod ways;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use serde::Serialize;
use wharf_netlink::nft;
use wharf_netlink::route::Connection;
use wharf_ruleset::{Cause, Course, Fate};

use crate::state::State;
use crate::{Endpoint, NetworkRecord, Networks, Protocol, Published, Result};

/// A port of a container, and who reaches it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Reach {
    /// The container's.
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    /// Where it is published: an address of the host's with its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    pub ways: Vec<Way>,
    /// What is to be known beside that, in sentences.
    pub notes: Vec<String>,
}

/// A way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Way {
    /// Who comes that way.
    pub from: String,
    /// What is connected to.
    pub to: String,
    pub answer: Answer,
    /// Why it is not simply so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Who decides on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Decider>,
}

/// Whether somebody gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Yes,
    /// Who it is decides, or how often.
    Some,
    No,
    /// A rule does what cannot be told without a packet.
    Unclear,
}

/// A rule, or a chain's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Decider {
    /// Whose firewall it belongs to, as far as names tell.
    pub owner: String,
    /// With its family.
    pub table: String,
    pub chain: String,
    /// In nft's words; without it the chain's policy is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
}

/// What the answers come from.
pub(crate) struct Facts {
    pub(crate) ruleset: nft::Ruleset,
    pub(crate) locals: Vec<IpAddr>,
    /// Links of the host that others are behind.
    pub(crate) uplinks: Vec<Uplink>,
    /// All links.
    pub(crate) links: Vec<wharf_ruleset::Link>,
    /// The first word of what is ours.
    pub(crate) mark: String,
    pub(crate) records: Vec<NetworkRecord>,
}

pub(crate) struct Uplink {
    pub(crate) link: wharf_ruleset::Link,
    pub(crate) addresses: Vec<IpAddr>,
    /// Somebody else's bridge on this host.
    pub(crate) is_bridge: bool,
}

impl Networks {
    /// Who reaches what a container has published, those of its ports alone that `wanted` says yes to; and the port `own` of the
    /// container, published or not. `netns` is the container's, when it runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reach(
        &self,
        container: &str,
        netns: Option<BorrowedFd<'_>>,
        own: Option<(Protocol, u16)>,
        wanted: &dyn Fn(&Published) -> bool,
    ) -> Result<Vec<Reach>> {
        let inner = &self.inner;
        let facts = self.facts()?;
        let endpoints = self.endpoints_of(container);
        let inside = netns.map(|netns| inside::Inside::look(netns, &endpoints)).transpose()?;
        let groups = inner.ports().groups.get(container).cloned().unwrap_or_default();
        let mut all = Vec::new();
        for group in &groups {
            for port in group.ports.iter().filter(|port| wanted(port)) {
                let relays = inner.ports().is_relayed(group, port);
                all.extend(facts.published(port, group.address, relays, &endpoints));
            }
        }
        if let Some((protocol, port)) = own {
            for address in endpoints.iter().flat_map(Endpoint::addresses) {
                all.extend(facts.own(address, protocol, port));
            }
        }
        for reach in &mut all {
            match &inside {
                Some(inside) => inside.finish(&facts, reach),
                None => reach.notes.push("the container does not run".into()),
            }
            reach.notes.extend(facts.notes());
        }
        Ok(all)
    }

    fn facts(&self) -> Result<Facts> {
        let route = Connection::open()?;
        // One of its own: who starts a container is not to wait for it.
        let ruleset = nft::Connection::open()?.ruleset()?;
        let (links, addresses) = (route.links()?, route.addresses()?);
        let mark = self.inner.mark();
        let link =
            |link: &wharf_netlink::route::Link| wharf_ruleset::Link { name: link.name.clone(), index: link.index };
        let uplinks = links.iter().filter(|link| link.up && link.name != "lo" && !link.alias.starts_with(&mark));
        let uplinks = uplinks.filter_map(|there| {
            let own = addresses.iter().filter(|entry| entry.link == there.index).map(|entry| entry.address);
            let own: Vec<IpAddr> = own.filter(|address| !is_link_local(*address)).collect();
            (!own.is_empty()).then(|| Uplink { link: link(there), addresses: own, is_bridge: there.kind == "bridge" })
        });
        Ok(Facts {
            uplinks: uplinks.collect(),
            links: links.iter().map(link).collect(),
            locals: addresses.iter().map(|entry| entry.address).collect(),
            ruleset,
            mark,
            records: State::records(&self.inner.state()).cloned().collect(),
        })
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

impl Facts {
    fn decider(&self, cause: &Cause) -> Decider {
        let Cause { table, chain, rule, handle, .. } = cause.clone();
        Decider { owner: self.owner(&table, &chain), table, chain, rule, handle }
    }

    /// Whose a chain is, as far as names tell.
    fn owner(&self, table: &str, chain: &str) -> String {
        let (family, name) = table.split_once(' ').unwrap_or(("", table));
        if name == self.mark {
            return "Wharf".into();
        }
        let chains = || {
            let of_table =
                |(of, chain): &&(nft::Family, nft::ChainEntry)| chain.table == name && family == family_name(*of);
            self.ruleset.chains.iter().filter(of_table).map(|(_, chain)| chain.name.as_str())
        };
        let is_iptables = matches!(name, "filter" | "nat" | "mangle" | "raw" | "security")
            && family != "inet"
            && chain.chars().next().is_some_and(|first| first.is_ascii_uppercase() || chains().any(|c| c == "FORWARD"));
        match name {
            "firewalld" => "firewalld".into(),
            name if name.starts_with("wharf-") => "another Wharf".into(),
            _ if chain.starts_with("DOCKER") => "Docker".into(),
            _ if chain.starts_with("KUBE-") => "Kubernetes".into(),
            _ if is_iptables && chains().any(|chain| chain.starts_with("ufw")) => "ufw".into(),
            _ if is_iptables => "iptables".into(),
            _ => "nftables".into(),
        }
    }

    /// What is not looked at.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.ruleset.others.is_empty() {
            let tables = self.ruleset.others.join(", ");
            notes.push(format!("tables of nftables for frames and devices are not looked at: {tables}"));
        }
        for (family, file, program) in
            [("IPv4", "ip_tables_names", "iptables"), ("IPv6", "ip6_tables_names", "ip6tables")]
        {
            let loaded = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
            notes.extend(legacy_note(family, &loaded, program));
        }
        notes
    }

    /// What the courses of a packet and of its answer say of a way.
    fn judge_both(&self, there: &Course, back: Option<&Course>) -> (Answer, String, Vec<Decider>) {
        let (answer, mut why, mut rules) = self.judge(there);
        let goes = matches!(answer, Answer::Yes | Answer::Some);
        let Some(back) = back.filter(|_| goes) else { return (answer, why, rules) };
        let (returned, reason, deciders) = self.judge(back);
        if returned == Answer::Yes {
            return (answer, why, rules);
        }
        if !why.is_empty() {
            why.push_str("; ");
        }
        why.push_str(&format!("answers are {}", reason.trim_start_matches("some are ")));
        rules.extend(deciders);
        (returned, why, rules)
    }

    /// What a packet's course says of a way.
    fn judge(&self, course: &Course) -> (Answer, String, Vec<Decider>) {
        let said = |cause: &Cause| {
            let owner = self.owner(&cause.table, &cause.chain);
            match &cause.rule {
                Some(rule) => format!("{owner}'s rule `{rule}` in chain {} of table {}", cause.chain, cause.table),
                None => format!("{owner}'s chain {} of table {}, by its policy", cause.chain, cause.table),
            }
        };
        match &course.fate {
            Fate::Dropped(cause) => (Answer::No, format!("dropped by {}", said(cause)), vec![self.decider(cause)]),
            Fate::Unclear(cause) => (Answer::Unclear, format!("decided by {}", said(cause)), vec![self.decider(cause)]),
            Fate::Goes if course.limits.is_empty() && course.except.is_empty() => {
                (Answer::Yes, String::new(), Vec::new())
            }
            Fate::Goes => {
                let mut why = Vec::new();
                let mut rules = Vec::new();
                for limit in &course.limits {
                    let by: Vec<String> = limit.by.iter().map(said).collect();
                    why.push(format!("let in by {}; others are dropped by {}", by.join(", "), said(&limit.others)));
                    rules.extend(limit.by.iter().chain([&limit.others]).map(|cause| self.decider(cause)));
                }
                for cause in &course.except {
                    why.push(format!("kept out by {}", said(cause)));
                    rules.push(self.decider(cause));
                }
                (Answer::Some, format!("some are {}", why.join("; some are ")), rules)
            }
        }
    }
}

/// What is said of the tables of the old kind that a family has, which the kernel lists one a line: they decide beside those of
/// nftables, and are not read.
fn legacy_note(family: &str, loaded: &str, program: &str) -> Option<String> {
    let mut tables: Vec<&str> = loaded.split_whitespace().collect();
    tables.sort_unstable();
    (!tables.is_empty()).then(|| {
        format!(
            "{family} has tables of {program}-legacy ({}), whose rules are not looked at: what is reached here they may drop, or \
             send elsewhere (`{program}-legacy-save` shows them)",
            tables.join(", ")
        )
    })
}

fn family_name(family: nft::Family) -> &'static str {
    match family {
        nft::Family::Inet => "inet",
        nft::Family::Ip => "ip",
        nft::Family::Ip6 => "ip6",
    }
}

#[cfg(test)]
mod tests {
    use super::legacy_note;

    #[test]
    fn tables_of_the_old_kind_are_named() {
        assert_eq!(legacy_note("IPv4", "", "iptables"), None);
        let note = legacy_note("IPv6", "nat\nfilter\n", "ip6tables").unwrap();
        assert!(
            note.starts_with("IPv6 has tables of ip6tables-legacy (filter, nat), whose rules are not looked at"),
            "{note}"
        );
    }
}
