//! Changing a container's limits and restart policy, also while it runs.

use serde::{Deserialize, Serialize};
use wharf_monitor::{Restart, client};

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::resources;
use crate::spec::{Resources, RestartPolicy};

/// The body of `POST /containers/{id}/update`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Update {
    #[serde(flatten)]
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
}

impl Engine {
    /// Applies what the update says; zero and absent mean no change.
    ///
    /// # Errors
    /// `InvalidParameter` for limits that contradict each other; `System` when the kernel refuses one. Then nothing
    /// of the record has changed.
    pub async fn update(&self, name: &str, update: Update) -> Result<Vec<String>> {
        let slot = self.inner.slots.find(name)?;
        let _turn = slot.turn.lock().await;
        let before = slot.record();
        let mut host = before.host.clone();
        join(&mut host.resources, &update.resources);
        let policy = update.restart_policy.filter(|policy| !policy.name.is_empty());
        if let Some(policy) = &policy {
            if host.auto_remove && policy.name != "no" {
                return Err(EngineError::invalid(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container",
                ));
            }
            host.restart_policy = policy.clone();
        }
        resources::check(&host)?;
        if before.state.status.is_active() {
            let section = serde_json::from_value(resources::limits(&host)?)
                .map_err(|e| EngineError::from_source("the limits cannot be expressed", &e))?;
            let (group, dir) = (self.group(&before)?, self.exec_dir(&slot.id));
            blocking(move || {
                group.limit(&section).map_err(|e| EngineError::from_source("cannot change the limits", &e))?;
                if let Some(policy) = policy {
                    let max = u32::try_from(policy.maximum_retry_count).unwrap_or(0);
                    client::update(&dir, &Restart { name: policy.name, max })
                        .map_err(|e| EngineError::from_source("cannot change the restart policy", &e))?;
                }
                Ok(())
            })
            .await?;
        }
        let record = slot.change(|record| record.host = host);
        self.save(&record).await?;
        self.tell(&record, "update");
        Ok(Vec::new())
    }
}

/// What the update names.
fn join(own: &mut Resources, new: &Resources) {
    macro_rules! number {
        ($($field:ident)*) => { $(if new.$field != 0 { own.$field = new.$field; })* };
    }
    number!(cpu_shares nano_cpus blkio_weight cpu_period cpu_quota cpu_realtime_period cpu_realtime_runtime
            memory_reservation memory_swap);
    if new.memory != 0 {
        own.memory = new.memory;
        // As Docker: the swap limit of before would contradict a larger memory limit.
        if new.memory_swap == 0 && own.memory_swap > 0 && own.memory_swap < new.memory {
            own.memory_swap = 0;
        }
    }
    for (own, new) in [(&mut own.cpuset_cpus, &new.cpuset_cpus), (&mut own.cpuset_mems, &new.cpuset_mems)] {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    if new.pids_limit.is_some() {
        own.pids_limit = new.pids_limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_no_change() {
        let mut own = Resources { memory: 100, cpu_shares: 5, pids_limit: Some(7), ..Resources::default() };
        join(&mut own, &Resources { memory: 200, ..Resources::default() });
        assert_eq!((own.memory, own.cpu_shares, own.pids_limit), (200, 5, Some(7)));
    }
}
