//! CPU time, and which CPUs and memory nodes.

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::{Controller, MAX, is_invalid};
use crate::cpuset::cpuset_numbers;
use crate::group::Group;
use crate::{CgroupError, Result};

const TIME: &str = "a limit on CPU time";
const REAL_TIME: &str = "a limit on real-time CPU time";
/// Microseconds; the kernel's own (sched-bwc.rst).
pub(crate) const PERIOD: u64 = 100_000;

/// The least and the most that v1 keeps (kernel/sched/sched.h, `MIN_SHARES`, `MAX_SHARES`).
const SHARES: (u64, u64) = (2, 262_144);

pub(super) fn apply(group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    let shares = cpu.shares().filter(|shares| *shares != 0);
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if shares.is_some() || quota.is_some() || period.is_some() || cpu.burst().is_some() || cpu.idle().is_some() {
        let controller = Controller::of(group, "cpu", TIME)?;
        if let Some(idle) = cpu.idle() {
            controller.write("cpu.idle", &idle.to_string(), "an idle group")?;
        }
        if let Some(shares) = shares {
            // There the kernel would take another number than the one asked for; in runc's words.
            if !controller.v2 && shares < SHARES.0 {
                return Err(CgroupError::Unsupported("the minimum allowed cpu-shares is 2"));
            }
            if !controller.v2 && shares > SHARES.1 {
                return Err(CgroupError::Unsupported("the maximum allowed cpu-shares is 262144"));
            }
            let (file, value) =
                if controller.v2 { ("cpu.weight", weight_of_shares(shares)) } else { ("cpu.shares", shares) };
            controller.write(file, &value.to_string(), "a share of CPU time")?;
        }
        bandwidth(&controller, quota, period, cpu.burst())?;
    }
    real_time(group, cpu)?;
    set(group, cpu)
}

/// v1 shares (2 to 262144) as a v2 weight (1 to 10000), by the formula of runc and crun.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(SHARES.0, SHARES.1);
    1 + ((shares - 2) * 9_999) / 262_142
}

/// cpu.max; what is not given stays as it is `now`.
fn maximum(quota: Option<i64>, period: Option<u64>, now: Option<&str>) -> String {
    let (old_quota, old_period) = now.and_then(|now| now.split_once(' ')).unwrap_or((MAX, ""));
    let quota = match quota {
        Some(quota) if quota > 0 => quota.to_string(),
        Some(_) => MAX.into(),
        None => old_quota.to_owned(),
    };
    let period = period.or_else(|| old_period.trim().parse().ok()).unwrap_or(PERIOD);
    format!("{quota} {period}")
}

/// The kernel keeps the burst at most as long as the quota, so which of them can be written first depends on both.
fn bandwidth(controller: &Controller, quota: Option<i64>, period: Option<u64>, burst: Option<u64>) -> Result<()> {
    let burst_file = if controller.v2 { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    let set_burst =
        || burst.map_or(Ok(()), |burst| controller.write(burst_file, &burst.to_string(), "a burst of CPU time"));
    let first = set_burst();
    if let Err(error) = first
        && !(is_invalid(&error) && (quota.is_some() || period.is_some()))
    {
        return Err(error);
    }
    let again = burst.is_some() && (quota.is_some() || period.is_some());
    if controller.v2 {
        if quota.is_some() || period.is_some() {
            let value = maximum(quota, period, controller.read("cpu.max").as_deref());
            controller.write("cpu.max", &value, TIME)?;
        }
    } else {
        let set_period =
            || period.map_or(Ok(()), |period| controller.write("cpu.cfs_period_us", &period.to_string(), TIME));
        // A shorter period may be too short for the old quota, below a parent that has one.
        let early = set_period();
        if let Err(error) = early
            && !(is_invalid(&error) && quota.is_some())
        {
            return Err(error);
        }
        if let Some(quota) = quota {
            controller.write("cpu.cfs_quota_us", &quota.to_string(), TIME)?;
            set_period()?;
        }
    }
    if again { set_burst() } else { Ok(()) }
}

fn real_time(group: &Group, cpu: &LinuxCpu) -> Result<()> {
    let period = cpu.realtime_period().filter(|period| *period != 0);
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    if period.is_none() && runtime.is_none() {
        return Ok(());
    }
    let controller = Controller::of(group, "cpu", REAL_TIME)?;
    if controller.v2 {
        return Err(CgroupError::Unsupported(
            "cgroup2's cpu controller has no limit on real-time CPU time: leave out realtimePeriod and realtimeRuntime",
        ));
    }
    let set_period =
        || period.map_or(Ok(()), |period| controller.write("cpu.rt_period_us", &period.to_string(), REAL_TIME));
    // The kernel keeps runtime <= period.
    let early = set_period();
    if let Err(error) = early
        && !(is_invalid(&error) && runtime.is_some())
    {
        return Err(error);
    }
    if let Some(runtime) = runtime {
        controller.write("cpu.rt_runtime_us", &runtime.to_string(), REAL_TIME)?;
        set_period()?;
    }
    Ok(())
}

fn set(group: &Group, cpu: &LinuxCpu) -> Result<()> {
    for (kind, file, value) in [("CPUs", "cpuset.cpus", cpu.cpus()), ("memory nodes", "cpuset.mems", cpu.mems())] {
        let Some(asked) = value.as_deref().filter(|list| !list.is_empty()) else { continue };
        let controller = Controller::of(group, "cpuset", "a choice of CPUs")?;
        if controller.v2 {
            // v1 refuses what the parent does not have; v2 takes it and gives something else.
            let above = controller.dir.parent().map(|dir| dir.join(format!("{file}.effective")));
            let there = above.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
            // What is no such list the kernel will say.
            if let (Some(wanted), Some(there)) = (cpuset_numbers(asked.trim()), cpuset_numbers(there.trim()))
                && let Some(missing) = wanted.difference(&there).next()
            {
                return Err(CgroupError::NotInParent { kind, number: *missing, asked: asked.to_owned() });
            }
        }
        controller.write(file, asked, "a choice of CPUs")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_at_the_known_points() {
        for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000), (1, 1), (u64::MAX, 10_000)] {
            assert_eq!(weight_of_shares(shares), weight);
        }
    }

    #[test]
    fn quota_and_period_are_one_file_and_change_by_themselves() {
        assert_eq!(maximum(Some(50_000), None, Some("max 100000")), "50000 100000");
        assert_eq!(maximum(Some(-1), Some(20_000), Some("5000 100000")), "max 20000");
        assert_eq!(maximum(None, Some(20_000), Some("5000 100000")), "5000 20000");
        assert_eq!(maximum(Some(5_000), None, Some("max 20000\n")), "5000 20000");
        assert_eq!(maximum(Some(5_000), None, None), "5000 100000");
    }
}
