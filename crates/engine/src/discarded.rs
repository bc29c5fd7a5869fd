//! Limits that not every kernel has, and that are then left out with a warning, as Docker does: they say how, and not how
//! much a container may use (moby, `daemon/daemon_unix.go`, `verifyPlatformContainerResources`).

use wharf_cgroup::{Group, Hierarchies};

use crate::error::{EngineError, Result};
use crate::spec::Resources;

/// What the kernel has of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// cgroup2's controller has neither a swappiness of a group nor a way to spare it the OOM killer.
    pub(crate) memory_is_v1: bool,
    pub(crate) weighs_devices: bool,
}

impl Kernel {
    /// Looks at what `resources` ask for. Weights of devices are found out by a group, `path`, that is made for it.
    ///
    /// # Errors
    /// When that group can neither be made nor removed.
    pub(crate) fn of(hierarchies: &Hierarchies, resources: &Resources, path: &str) -> Result<Self> {
        let asks = resources.blkio_weight_device.as_ref().is_some_and(|weights| !weights.is_empty());
        let weighs = || {
            let group = Group::create(hierarchies, path)?;
            let weighs = group.weighs_devices();
            group.remove().map(|()| weighs)
        };
        let weighs_devices = asks
            && weighs().map_err(|e| EngineError::from_source("cannot find out what block IO weights there are", &e))?;
        Ok(Self { memory_is_v1: hierarchies.v1("memory").is_some(), weighs_devices })
    }
}

/// Takes them out of `resources`. The values are the warnings, in Docker's words.
pub(crate) fn discard(resources: &mut Resources, kernel: Kernel) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |text: &str| warnings.push(text.to_owned());
    if !kernel.memory_is_v1 {
        if resources.memory_swappiness.take().is_some() {
            warn(
                "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory \
                 swappiness discarded.",
            );
        }
        if resources.oom_kill_disable.take() == Some(true) {
            warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        }
    }
    if resources.oom_kill_disable == Some(true) && resources.memory == 0 {
        warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
             running out of resources.",
        );
    }
    let weights = resources.blkio_weight_device.as_ref().is_some_and(|weights| !weights.is_empty());
    if weights && !kernel.weighs_devices {
        resources.blkio_weight_device = Some(Vec::new());
        warn(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device \
             discarded.",
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::WeightDevice;

    fn asked() -> Resources {
        Resources {
            memory_swappiness: Some(10),
            oom_kill_disable: Some(true),
            blkio_weight_device: Some(vec![WeightDevice { path: "/dev/vda".into(), weight: 200 }]),
            ..Resources::default()
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_left_out_with_a_warning() {
        let mut resources = asked();
        let warnings = discard(&mut resources, Kernel { memory_is_v1: false, weighs_devices: false });
        assert_eq!(resources, Resources { blkio_weight_device: Some(Vec::new()), ..Resources::default() });
        assert!(warnings.iter().all(|text| text.ends_with("discarded.")));
        for (warning, what) in warnings.iter().zip(["swappiness", "OomKillDisable", "weight_device"]) {
            assert!(warning.contains(what), "{warning}");
        }
        assert_eq!(warnings.len(), 3);
        // Nobody has asked for anything.
        let mut resources = Resources { oom_kill_disable: Some(false), ..Resources::default() };
        let kernel = Kernel { memory_is_v1: false, weighs_devices: false };
        assert_eq!(discard(&mut resources, kernel), [""; 0]);
        assert_eq!(resources.oom_kill_disable, None);
    }

    #[test]
    fn what_the_kernel_has_stays() {
        let mut resources = Resources { memory: 64 << 20, ..asked() };
        let before = resources.clone();
        assert_eq!(discard(&mut resources, Kernel { memory_is_v1: true, weighs_devices: true }), [""; 0]);
        assert_eq!(resources, before);
        resources.memory = 0;
        let warnings = discard(&mut resources, Kernel { memory_is_v1: true, weighs_devices: true });
        assert!(warnings.len() == 1 && warnings[0].contains("no memory limit is set"), "{warnings:?}");
    }
}
