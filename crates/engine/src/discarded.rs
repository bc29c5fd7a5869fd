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
    pub(crate) counts_swap: bool,
    pub(crate) weighs: bool,
    pub(crate) weighs_devices: bool,
    pub(crate) controllers: Controllers,
}

/// Which controllers there are for containers: an ordinary user has those that were delegated to him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Controllers {
    memory: bool,
    cpu: bool,
    cpuset: bool,
    pids: bool,
    io: bool,
}

impl Controllers {
    fn of(hierarchies: &Hierarchies) -> Self {
        Self {
            memory: hierarchies.has("memory"),
            cpu: hierarchies.has("cpu"),
            cpuset: hierarchies.has("cpuset"),
            pids: hierarchies.has("pids"),
            io: hierarchies.has("blkio") || hierarchies.has("io"),
        }
    }

    /// Takes the limits out of `resources` for which there is no controller. The values are the warnings.
    fn discard(self, resources: &mut Resources) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |asked: bool, text: &str| {
            if asked {
                warnings.push(text.to_owned());
            }
        };
        if !self.memory {
            warn(
                std::mem::take(&mut resources.memory) > 0,
                "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
            );
            resources.memory_swap = 0;
            warn(
                std::mem::take(&mut resources.memory_reservation) > 0,
                "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation \
                 discarded.",
            );
        }
        if !self.pids {
            warn(
                resources.pids_limit.take().is_some_and(|limit| limit > 0),
                "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
            );
        }
        if !self.cpu {
            warn(
                std::mem::take(&mut resources.cpu_shares) != 0,
                "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
            );
            let times = [&mut resources.nano_cpus, &mut resources.cpu_period, &mut resources.cpu_quota];
            warn(
                times.map(std::mem::take).iter().any(|time| *time != 0),
                "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
            );
        }
        if !self.cpuset {
            let sets = [&mut resources.cpuset_cpus, &mut resources.cpuset_mems];
            warn(
                sets.map(std::mem::take).iter().any(|set| !set.is_empty()),
                "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
            );
        }
        if !self.io {
            for (limits, unit, way) in [
                (&mut resources.blkio_device_read_bps, "BPS", "read"),
                (&mut resources.blkio_device_write_bps, "BPS", "write"),
                (&mut resources.blkio_device_read_iops, "IOPS", "read"),
                (&mut resources.blkio_device_write_iops, "IOPS", "write"),
            ] {
                warn(
                    limits.take().is_some_and(|limits| !limits.is_empty()),
                    &format!(
                        "Your kernel does not support {unit} Block I/O {way} limit or the cgroup is not mounted. Block I/O \
                         {unit} {way} limit discarded."
                    ),
                );
            }
        }
        warnings
    }
}

impl Kernel {
    /// Looks at what `resources` ask for. Weights are found out by a group, `path`, that is made for it.
    ///
    /// # Errors
    /// When that group can neither be made nor removed.
    pub(crate) fn of(hierarchies: &Hierarchies, resources: &Resources, path: &str) -> Result<Self> {
        let asks = resources.blkio_weight != 0
            || resources.blkio_weight_device.as_ref().is_some_and(|weights| !weights.is_empty());
        let look = || {
            let group = Group::create(hierarchies, path)?;
            let weighs = (group.weighs(), group.weighs_devices());
            group.remove().map(|()| weighs)
        };
        let (weighs, weighs_devices) = match asks {
            true => {
                look().map_err(|e| EngineError::from_source("cannot find out what block IO weights there are", &e))?
            }
            false => (false, false),
        };
        let counts_swap = hierarchies.counts_swap();
        let memory_is_v1 = hierarchies.v1("memory").is_some();
        let controllers = Controllers::of(hierarchies);
        Ok(Self { memory_is_v1, counts_swap, weighs, weighs_devices, controllers })
    }
}

/// Takes them out of `resources`. The values are the warnings, in Docker's words.
pub(crate) fn discard(resources: &mut Resources, kernel: Kernel) -> Vec<String> {
    let mut warnings = kernel.controllers.discard(resources);
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
    // Where nobody asked, none is set (`Engine::fill_in`).
    if resources.memory > 0 && resources.memory_swap > 0 && !kernel.counts_swap {
        resources.memory_swap = -1;
        warn(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without \
             swap.",
        );
    }
    if resources.blkio_weight != 0 && !kernel.weighs {
        resources.blkio_weight = 0;
        warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
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

/// As [`discard`], of what an update asks of a container that may have `memory` bytes: that stays where it names none.
pub(crate) fn discard_of_update(asked: &mut Resources, memory: i64, kernel: Kernel) -> Vec<String> {
    let named = asked.memory;
    if named == 0 {
        asked.memory = memory;
    }
    let warnings = discard(asked, kernel);
    asked.memory = named;
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::WeightDevice;

    const CONTROLLERS: Controllers = Controllers { memory: true, cpu: true, cpuset: true, pids: true, io: true };
    const NOTHING: Kernel = Kernel {
        memory_is_v1: false,
        counts_swap: false,
        weighs: false,
        weighs_devices: false,
        controllers: CONTROLLERS,
    };
    const ALL: Kernel =
        Kernel { memory_is_v1: true, counts_swap: true, weighs: true, weighs_devices: true, controllers: CONTROLLERS };

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
        let warnings = discard(&mut resources, NOTHING);
        assert_eq!(resources, Resources { blkio_weight_device: Some(Vec::new()), ..Resources::default() });
        assert!(warnings.iter().all(|text| text.ends_with("discarded.")));
        for (warning, what) in warnings.iter().zip(["swappiness", "OomKillDisable", "weight_device"]) {
            assert!(warning.contains(what), "{warning}");
        }
        assert_eq!(warnings.len(), 3);
        // Nobody has asked for anything.
        let mut resources = Resources { oom_kill_disable: Some(false), ..Resources::default() };
        assert_eq!(discard(&mut resources, NOTHING), [""; 0]);
        assert_eq!(resources.oom_kill_disable, None);
    }

    #[test]
    fn weights_and_swap_are_left_out_with_docker_s_words() {
        let limited = |swap: i64| Resources { memory: 1 << 20, memory_swap: swap, ..Resources::default() };
        let mut resources = Resources { blkio_weight: 500, ..limited(2 << 20) };
        let warnings = discard(&mut resources, NOTHING);
        assert_eq!(resources, limited(-1));
        assert!(warnings[0].ends_with("Memory limited without swap.") && warnings[1].ends_with(". Weight discarded."));
        for swap in [0, -1] {
            assert_eq!(discard(&mut limited(swap), NOTHING), [""; 0]);
        }
    }

    #[test]
    fn an_update_is_judged_by_what_the_container_has() {
        let swap = || Resources { memory_swap: 2 << 20, ..Resources::default() };
        for (memory, left, told) in [(1 << 20, -1, 1), (0, 2 << 20, 0)] {
            let mut asked = swap();
            assert_eq!(discard_of_update(&mut asked, memory, NOTHING).len(), told);
            assert_eq!((asked.memory, asked.memory_swap), (0, left));
        }
        let mut asked = Resources { oom_kill_disable: Some(true), ..swap() };
        assert_eq!(discard_of_update(&mut asked, 1 << 20, ALL), [""; 0]);
    }

    #[test]
    fn without_a_controller_its_limits_are_left_out() {
        let none = Controllers::of(&Hierarchies::default());
        let throttle = || Some(vec![crate::spec::ThrottleDevice { path: "/dev/vda".into(), rate: 1 }]);
        let mut resources = Resources {
            memory: 1 << 20,
            memory_swap: 2 << 20,
            nano_cpus: 1,
            cpuset_cpus: "0".into(),
            pids_limit: Some(7),
            blkio_device_read_bps: throttle(),
            ..Resources::default()
        };
        let warnings = discard(&mut resources, Kernel { controllers: none, ..ALL });
        assert_eq!(resources, Resources::default());
        for (warning, what) in warnings.iter().zip(["memory limit", "PIDs limit", "CPU CFS", "cpuset", "BPS Block"]) {
            assert!(warning.contains(what) && warning.ends_with("discarded."), "{warning}");
        }
        assert_eq!(warnings.len(), 5);
        let mut resources = Resources { pids_limit: Some(-1), ..Resources::default() };
        assert_eq!(discard(&mut resources, Kernel { controllers: none, ..ALL }), [""; 0]);
    }

    #[test]
    fn what_the_kernel_has_stays() {
        let mut resources = Resources { memory: 64 << 20, memory_swap: 128 << 20, blkio_weight: 500, ..asked() };
        let before = resources.clone();
        assert_eq!(discard(&mut resources, ALL), [""; 0]);
        assert_eq!(resources, before);
        resources.memory = 0;
        let warnings = discard(&mut resources, ALL);
        assert!(warnings.len() == 1 && warnings[0].contains("no memory limit is set"), "{warnings:?}");
    }
}
