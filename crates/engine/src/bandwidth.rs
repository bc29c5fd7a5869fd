//! Changing how much a container may send and receive, also while it runs.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use serde::{Deserialize, Serialize};
use wharf_network::{Bandwidth, DOWN, UP};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::process::Process;
use crate::record::Container;
use crate::spec::EndpointSettings;

/// What an update says of it: `10mbit`, `unlimited`; empty is no change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BandwidthUpdate {
    pub up: String,
    pub down: String,
}

/// A container's networks, by name.
type Endpoints = BTreeMap<String, EndpointSettings>;

/// The container's networks as they are after the update; `None` when nothing of them changes.
///
/// # Errors
/// `InvalidParameter` for what is no limit, and for a container without a link of its own.
pub(crate) fn change(record: &Container, update: Option<BandwidthUpdate>) -> Result<Option<Endpoints>> {
    let update = update.unwrap_or_default();
    let options: Vec<(&str, String)> =
        [(UP, update.up), (DOWN, update.down)].into_iter().filter(|(_, text)| !text.is_empty()).collect();
    if options.is_empty() {
        return Ok(None);
    }
    let mut networks = record.networks.clone();
    if networks.is_empty() {
        return Err(without_link(&record.host.network_mode));
    }
    for (name, settings) in &mut networks {
        let own = settings.driver_opts.get_or_insert_default();
        own.extend(options.iter().map(|(key, text)| ((*key).to_owned(), text.clone())));
        check(name, own)?;
    }
    Ok(Some(networks))
}

/// Refuses limits where there is no link to limit.
pub(crate) fn check(network: &str, options: &BTreeMap<String, String>) -> Result<()> {
    let asked = Bandwidth::of(options).map_err(EngineError::invalid)?;
    if asked != Bandwidth::default() && matches!(network, "host" | "none") {
        return Err(without_link(network));
    }
    Ok(())
}

fn without_link(mode: &str) -> EngineError {
    EngineError::invalid(format!(
        "the bandwidth cannot be limited in the network mode {mode}: the container has no link of its own"
    ))
}

impl Engine {
    /// Lets a container that runs send and receive what its networks say now; or as before, when that cannot be.
    ///
    /// # Errors
    /// `InvalidParameter` for what a network cannot have; `System` when the kernel refuses.
    pub(crate) fn limit(&self, before: &Container, networks: &Endpoints) -> Result<()> {
        let netns = Process::of(before)?.namespace("net")?;
        let set = |settings: &EndpointSettings| {
            let asked = settings.driver_opts.as_ref().map(Bandwidth::of).transpose().map_err(EngineError::invalid)?;
            let bandwidth = asked.unwrap_or_default();
            Ok(self.networks().limit(&settings.network_id, &before.id, netns.as_fd(), bandwidth)?)
        };
        let done: Result<()> = networks.values().try_for_each(set);
        if done.is_err() {
            for settings in before.networks.values() {
                if let Err(error) = set(settings) {
                    tracing::warn!("the bandwidth of container {} is not as it was: {error}", before.id);
                }
            }
        }
        done
    }
}
