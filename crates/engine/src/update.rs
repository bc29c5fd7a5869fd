//! Changing a container's limits and restart policy, also while it runs.

use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use wharf_cgroup::Group;
use wharf_monitor::{Restart, client};

use crate::bandwidth::{self, BandwidthUpdate};
use crate::discarded::Kernel;
use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, Result};
use crate::held_limits::HeldLimits;
use crate::record::Container;
use crate::republish::{self, Bindings};
use crate::slot::Slot;
use crate::spec::{HostConfig, Resources, RestartPolicy};
use crate::{check, discarded, names, resources};

/// The body of `POST /containers/{id}/update`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Update {
    #[serde(flatten)]
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
    /// Ours: ports that are published from now on, as in `PortBindings`.
    pub publish_add: Option<Bindings>,
    /// Ours: ports that are not any more. A binding without a number or an address means all that there are of it.
    pub publish_remove: Option<Bindings>,
    /// Ours: what the container may send and receive, on each of its networks.
    pub bandwidth: Option<BandwidthUpdate>,
}

impl Engine {
    /// Applies what the update says; zero and absent mean no change. Gives Docker's warnings of what the kernel lacks and
    /// was left out.
    ///
    /// # Errors
    /// `InvalidParameter` or `Conflict` for limits that contradict each other; `System` when the kernel refuses one.
    /// Then nothing has changed.
    pub async fn update(&self, name: &str, update: Update) -> Result<Vec<String>> {
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        to_its_end(async move { engine.update_now(&slot, update).await }).await
    }

    async fn update_now(&self, slot: &Arc<Slot>, update: Update) -> Result<Vec<String>> {
        let _turn = slot.turn.lock().await;
        self.inner.slots.find(&slot.id)?;
        let before = slot.record();
        let mut host = before.host.clone();
        let mut asked = update.resources;
        let warnings = self.discard_of_update(&host, &mut asked).await?;
        let changed = join(&mut host.resources, &asked)
            .map_err(|text| EngineError::conflict(format!("Cannot update container {}: {text}", slot.id)))?;
        let policy = update.restart_policy.filter(|policy| !policy.name.is_empty());
        if let Some(policy) = &policy {
            if host.auto_remove && policy.name != "no" {
                return Err(EngineError::conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            check::restart_policy(policy)?;
            host.restart_policy = policy.clone();
        }
        resources::check(&host)?;
        let published = self.networks().published(&slot.id);
        let ports = republish::change(&mut host, update.publish_add, update.publish_remove, &published)?;
        let networks = bandwidth::change(&before, update.bandwidth)?;
        if !before.state.status.is_active() {
            let record = slot.change(|record| {
                record.host = host;
                record.networks = networks.unwrap_or_else(|| std::mem::take(&mut record.networks));
            });
            if let Err(error) = self.save(&record).await {
                slot.change(|record| {
                    record.host = before.host.clone();
                    record.networks = before.networks.clone();
                });
                return Err(error);
            }
            self.tell(&record, "update");
            return Ok(warnings);
        }
        let group = self.group(&before)?;
        let held = self.apply(&group, &before, &host, changed, policy.as_ref()).await?;
        let (engine, own, limits) = (self.clone(), before.clone(), networks.clone());
        let is_changed = ports != republish::Change::default();
        let republished = blocking(move || {
            limits.as_ref().map_or(Ok(()), |networks| engine.limit(&own, networks))?;
            is_changed.then(|| engine.republish(&own, &ports)).transpose()
        });
        let republished = republished.await;
        let (republished, failed) = match republished {
            Ok(done) => (done, None),
            Err(error) => (None, Some(error)),
        };
        let saved = match failed {
            Some(error) => Err(error),
            None => {
                let limits = networks.clone();
                let record = slot.change(|record| {
                    record.host = host;
                    record.networks = limits.unwrap_or_else(|| std::mem::take(&mut record.networks));
                    record.ports = republished.as_ref().map_or_else(|| record.ports.clone(), |done| done.ports.clone());
                });
                self.save(&record).await.map(|()| record)
            }
        };
        let record = match saved {
            Ok(record) => record,
            Err(error) => {
                slot.change(|record| {
                    record.host = before.host.clone();
                    record.networks = before.networks.clone();
                    record.ports = before.ports.clone();
                });
                let engine = self.clone();
                let dir = policy.map(|_| self.exec_dir(&slot.id));
                blocking(move || {
                    if let Some(done) = republished {
                        engine.undo_republish(&before, &done);
                    }
                    if networks.is_some()
                        && let Err(error) = engine.limit(&before, &before.networks)
                    {
                        tracing::warn!("the bandwidth of container {} is not as it was: {error}", before.id);
                    }
                    held.put_back();
                    if let Some(dir) = dir {
                        // A monitor that has gone has no policy any more.
                        let _ = client::update(&dir, &policy_of(&before.host.restart_policy));
                    }
                    Ok(())
                })
                .await?;
                return Err(error);
            }
        };
        self.tell(&record, "update");
        Ok(warnings)
    }

    async fn discard_of_update(&self, host: &HostConfig, asked: &mut Resources) -> Result<Vec<String>> {
        // Beside the container's own group, which may be there.
        let beside = self.group_path(host, &names::random_id()?);
        let (engine, looked_for) = (self.clone(), asked.clone());
        let kernel = blocking(move || Kernel::of(&engine.inner.hierarchies, &looked_for, &beside)).await?;
        Ok(discarded::discard_of_update(asked, host.resources.memory, kernel))
    }

    /// Changes limits and policy of what runs, or nothing.
    async fn apply(
        &self,
        group: &Group,
        before: &Container,
        host: &HostConfig,
        limits: bool,
        policy: Option<&RestartPolicy>,
    ) -> Result<HeldLimits> {
        let mut section = resources::limits(host, self.rights().processes)?;
        // Devices are no limits: while their rules were written anew, the container would have none.
        section.as_object_mut().map(|section| section.remove("devices"));
        resources::end_device_rules(&mut section, &before.host.resources, &host.resources);
        let expressed = |section: serde_json::Value| {
            serde_json::from_value::<LinuxResources>(section)
                .map_err(|e| EngineError::from_source("the limits cannot be expressed", &e))
        };
        let section = expressed(section)?;
        // What they were, for the case that something fails.
        let mut rules = serde_json::json!({ "blockIO": resources::block_io(&before.host)? });
        resources::end_device_rules(&mut rules, &host.resources, &before.host.resources);
        let rules = expressed(rules)?;
        let (group, dir, policy) = (group.clone(), self.exec_dir(&before.id), policy.map(policy_of));
        blocking(move || {
            let held = HeldLimits::of(&group);
            let limited = if limits { group.limit(&section) } else { Ok(()) };
            let done = limited.map_err(|e| EngineError::from_source("cannot change the limits", &e)).and_then(|()| {
                let Some(policy) = policy else { return Ok(()) };
                client::update(&dir, &policy)
                    .map_err(|e| EngineError::from_source("cannot change the restart policy", &e))
            });
            match done {
                Ok(()) => Ok(held),
                Err(error) => {
                    held.put_back();
                    // A rule that the kernel has not taken need not be taken back.
                    let _ = group.limit(&rules);
                    Err(error)
                }
            }
        })
        .await
    }
}

fn policy_of(policy: &RestartPolicy) -> Restart {
    Restart { name: policy.name.clone(), max: u32::try_from(policy.maximum_retry_count).unwrap_or(0) }
}

/// What the update names, and whether that is anything.
///
/// # Errors
/// With Docker's words (moby, `container.UpdateContainer`), when it contradicts what was set before.
fn join(own: &mut Resources, new: &Resources) -> Result<bool, &'static str> {
    let before = own.clone();
    if new.nano_cpus > 0 && own.cpu_period > 0 {
        return Err("Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set");
    }
    if new.nano_cpus > 0 && own.cpu_quota > 0 {
        return Err("Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set");
    }
    if new.cpu_quota > 0 && own.nano_cpus > 0 {
        return Err("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
    }
    if new.cpu_period > 0 && own.nano_cpus > 0 {
        return Err("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set");
    }
    if new.memory > 0 && new.memory_swap == 0 && own.memory_swap > 0 && new.memory > own.memory_swap {
        return Err("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the \
                    same time");
    }
    macro_rules! number {
        ($($field:ident)*) => { $(if new.$field != 0 { own.$field = new.$field; })* };
    }
    number!(cpu_shares nano_cpus blkio_weight cpu_period cpu_quota cpu_realtime_period cpu_realtime_runtime
            memory memory_reservation memory_swap);
    for (own, new) in [(&mut own.cpuset_cpus, &new.cpuset_cpus), (&mut own.cpuset_mems, &new.cpuset_mems)] {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    // An empty list takes the rules away.
    macro_rules! rules {
        ($($field:ident)*) => { $(if new.$field.is_some() { own.$field.clone_from(&new.$field); })* };
    }
    rules!(blkio_weight_device blkio_device_read_bps blkio_device_write_bps blkio_device_read_iops
           blkio_device_write_iops);
    if let Some(limit) = new.pids_limit {
        // All that is no limit is written as one thing.
        own.pids_limit = Some(limit.max(0));
    }
    Ok(*own != before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_no_change() {
        let mut own = Resources { memory: 100, cpu_shares: 5, pids_limit: Some(7), ..Resources::default() };
        assert!(join(&mut own, &Resources { memory: 200, ..Resources::default() }).unwrap());
        assert_eq!((own.memory, own.cpu_shares, own.pids_limit), (200, 5, Some(7)));
        assert!(!join(&mut own, &Resources::default()).unwrap());
    }

    #[test]
    fn what_contradicts_the_limits_of_before_is_refused() {
        let swap = Resources { memory: 50, memory_swap: 50, ..Resources::default() };
        let more = Resources { memory: 60, ..Resources::default() };
        assert!(join(&mut swap.clone(), &more).unwrap_err().starts_with("Memory limit should be smaller"));
        assert!(join(&mut swap.clone(), &Resources { memory_swap: 60, ..more.clone() }).is_ok());
        assert!(join(&mut swap.clone(), &Resources { memory_swap: -1, ..more }).is_ok());
        let cores = Resources { nano_cpus: 1, ..Resources::default() };
        assert!(join(&mut cores.clone(), &Resources { cpu_quota: 5000, ..Resources::default() }).is_err());
        assert!(join(&mut Resources { cpu_period: 5000, ..Resources::default() }, &cores).is_err());
    }
}
