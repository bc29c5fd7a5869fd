//! When a process runs: CPU scheduler, IO priority, CPUs, personality (runtime-spec, config, "Linux Process").

use oci_spec::runtime::{
    IOPriorityClass, LinuxPersonality, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process,
};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use wharf_sys::scheduling::{Attributes, set_io_priority, set_scheduler, set_scheduler_of};

use crate::memory_policy::MemoryPolicy;
use crate::report::{Failure, Step};
use crate::{Result, RuntimeError};

/// What is asked; nothing of it is the caller's own.
#[derive(Debug, Default)]
pub(crate) struct Scheduling {
    scheduler: Option<Attributes>,
    /// Class and level in one number (ioprio_set(2)).
    io_priority: Option<i32>,
    /// For an exec: before it joins the container's group, and afterwards.
    first_cpus: Option<CpuSet>,
    last_cpus: Option<CpuSet>,
    pub(crate) personality: Option<u32>,
    pub(crate) memory: Option<MemoryPolicy>,
}

impl Scheduling {
    pub(crate) fn plan(process: &Process) -> Result<Self> {
        let affinity = process.exec_cpu_affinity().as_ref();
        let cpus = |list: &Option<String>| list.as_deref().filter(|l| !l.is_empty()).map(cpus).transpose();
        Ok(Self {
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().map(|asked| io_priority(asked.class(), asked.priority())).transpose()?,
            first_cpus: affinity.map(|affinity| cpus(affinity.initial())).transpose()?.flatten(),
            last_cpus: affinity.map(|affinity| cpus(affinity.cpu_affinity_final())).transpose()?.flatten(),
            personality: None,
            memory: None,
        })
    }

    /// For a container's first process: the CPUs of execs are not its own.
    pub(crate) fn leave_out_exec(&mut self) {
        (self.first_cpus, self.last_cpus) = (None, None);
    }

    /// In an exec's process, before it is moved into the group.
    pub(crate) fn begin(&self) -> Step<()> {
        set_cpus(self.first_cpus.as_ref())
    }

    /// While there is still the right to it.
    pub(crate) fn apply(&self) -> Step<()> {
        // Some schedulers want all CPUs (sched_setattr(2)).
        self.apply_inherited()?;
        self.scheduler.map_or(Ok(()), |attributes| set_scheduler(&attributes).map_err(Failure::at(SCHEDULER)))
    }

    /// As [`Scheduling::apply`], for a process that the caller will make, but for what that one may not inherit
    /// ([`Schedule`]).
    pub(crate) fn apply_ahead(&self) -> Step<()> {
        self.apply_inherited()
    }

    fn apply_inherited(&self) -> Step<()> {
        match (&self.first_cpus, &self.last_cpus) {
            (Some(_), None) => {}
            (_, Some(cpus)) => set_cpus(Some(cpus))?,
            // All that its group has, and not those alone that the caller was started on, as with runc and crun. Where
            // that is refused it keeps those.
            (None, None) => {
                let mut all = CpuSet::new();
                (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
                let _ = sched_setaffinity(None, &all);
            }
        }
        if let Some(priority) = self.io_priority {
            set_io_priority(priority).map_err(Failure::at("set the IO priority"))?;
        }
        if let Some(personality) = self.personality {
            wharf_sys::process::set_personality(personality).map_err(Failure::at("set the personality"))?;
        }
        self.memory.as_ref().map_or(Ok(()), MemoryPolicy::apply)
    }

    pub(crate) fn schedule(&self) -> Option<Schedule> {
        self.scheduler.map(Schedule)
    }
}

const SCHEDULER: &str = "set the scheduler";

/// A scheduler that an exec's maker sets: the process itself has no right to it any more when it is made, and some
/// (SCHED_DEADLINE, SCHED_FLAG_RESET_ON_FORK) are not inherited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule(Attributes);

impl Schedule {
    /// `pid` is a child that has not been waited for.
    pub(crate) fn set(&self, pid: Pid) -> Result<()> {
        set_scheduler_of(pid.as_raw_nonzero().get(), &self.0)
            .map_err(|errno| RuntimeError::Setup { step: SCHEDULER.into(), errno })
    }
}

fn set_cpus(cpus: Option<&CpuSet>) -> Step<()> {
    match cpus {
        Some(cpus) => sched_setaffinity(None, cpus).map_err(Failure::at("set the CPU affinity")),
        None => Ok(()),
    }
}

/// `0-2,5` as a set.
fn cpus(list: &str) -> Result<CpuSet> {
    let all = numbers(list, CpuSet::MAX_CPU);
    let all = all.ok_or_else(|| RuntimeError::Invalid(format!("CPU list `{list}`")))?;
    let mut set = CpuSet::new();
    all.into_iter().for_each(|cpu| set.set(cpu));
    Ok(set)
}

/// The numbers of a list of CPUs or nodes, `0-2,5`, each below `end`; `None` for anything else. As in runc, there may be
/// blanks around a part, and parts without anything between their commas.
pub(crate) fn numbers(list: &str, end: usize) -> Option<Vec<usize>> {
    let parts: Vec<&str> = list.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let all = wharf_cgroup::cpuset_numbers(&parts.join(","))?;
    all.into_iter().map(|number| usize::try_from(number).ok().filter(|number| *number < end)).collect()
}

fn scheduler(asked: &oci_spec::runtime::Scheduler) -> Result<Attributes> {
    let bad = |text: &str| RuntimeError::Invalid(format!("scheduler: {text}"));
    let policy = match asked.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => return Err(bad("no kernel has SCHED_ISO")),
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let nice = asked.nice().unwrap_or(0);
    let priority = u32::try_from(asked.priority().unwrap_or(0)).map_err(|_| bad("a negative priority"))?;
    if !(-20..=19).contains(&nice) {
        return Err(bad("a nice value is -20 to 19"));
    }
    if priority != 0 && !matches!(policy, 1 | 2) {
        return Err(bad("a priority is for SCHED_FIFO and SCHED_RR alone"));
    }
    let times = [*asked.runtime(), *asked.deadline(), *asked.period()].map(|time| time.unwrap_or(0));
    if policy != 6 && times.iter().any(|time| *time != 0) {
        return Err(bad("runtime, deadline and period are for SCHED_DEADLINE alone"));
    }
    let flags = asked.flags().iter().flatten().map(|flag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    });
    let flags = flags.fold(0, |all, flag| all | flag);
    Ok(Attributes { policy, flags, nice, priority, runtime: times[0], deadline: times[1], period: times[2] })
}

fn io_priority(class: IOPriorityClass, level: i64) -> Result<i32> {
    let class = match class {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = i32::try_from(level).ok().filter(|level| (0..8).contains(level));
    let level = level.ok_or_else(|| RuntimeError::Invalid("an ioPriority is 0 to 7".into()))?;
    Ok(class << 13 | level)
}

/// The kernel's number of a personality (personality(2)).
pub(crate) fn personality(asked: &LinuxPersonality) -> Result<u32> {
    if asked.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(RuntimeError::Unsupported("flags of a personality".into()));
    }
    Ok(match asked.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(key: &str, value: Value) -> Result<Scheduling> {
        let mut process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["a"] });
        process[key] = value;
        Scheduling::plan(&serde_json::from_value(process).map_err(|_| RuntimeError::Invalid("serde".into()))?)
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_before() {
        assert!(plan("scheduler", json!({ "policy": "SCHED_FIFO", "priority": 10 })).is_ok());
        assert!(plan("scheduler", json!({ "policy": "SCHED_OTHER", "priority": 10 })).is_err());
        assert!(plan("scheduler", json!({ "policy": "SCHED_OTHER", "nice": 20 })).is_err());
        assert!(plan("scheduler", json!({ "policy": "SCHED_OTHER", "runtime": 5 })).is_err());
        assert!(plan("scheduler", json!({ "policy": "SCHED_FROB" })).is_err());
        let best = plan("ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 })).unwrap();
        assert_eq!(best.io_priority, Some(0x4004));
        assert!(plan("ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 })).is_err());
        assert!(plan("execCPUAffinity", json!({ "initial": "0-1,3" })).unwrap().first_cpus.unwrap().is_set(3));
        let blanks = cpus(" 0-1,, 3 ,").unwrap();
        assert_eq!([0, 1, 2, 3].map(|cpu| blanks.is_set(cpu)), [true, true, false, true]);
        for bad in ["1-0", "99999", "x", "0 - 1", "0 1", "+1", ",", " "] {
            assert!(plan("execCPUAffinity", json!({ "final": bad })).is_err() && cpus(bad).is_err(), "{bad}");
        }
    }
}
