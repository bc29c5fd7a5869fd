//! Memory and swap.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{Controller, MAX, or_max};
use crate::group::Group;
use crate::{CgroupError, Result};

const LIMIT: &str = "a limit on memory";
const SWAP: &str = "a limit on swap";

pub(super) fn apply(group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let asked = Asked::of(memory)?;
    if asked == Asked::default() {
        return Ok(());
    }
    let controller = Controller::of(group, "memory", LIMIT)?;
    if memory.check_before_update() == Some(true) {
        check(&controller, &asked)?;
    }
    if controller.v2 { v2(&controller, &asked) } else { v1(&controller, &asked) }
}

/// Bytes; negative is no limit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    limit: Option<i64>,
    /// Memory and swap together.
    both: Option<i64>,
    reservation: Option<i64>,
    swappiness: Option<u64>,
    no_oom_killer: bool,
}

impl Asked {
    fn of(memory: &LinuxMemory) -> Result<Self> {
        let given = |bytes: Option<i64>| bytes.filter(|bytes| *bytes != 0);
        let mut asked = Self {
            limit: given(memory.limit()),
            both: given(memory.swap()),
            reservation: given(memory.reservation()),
            swappiness: memory.swappiness(),
            no_oom_killer: memory.disable_oom_killer() == Some(true),
        };
        if asked.swappiness.is_some_and(|swappiness| swappiness > 100) {
            return Err(CgroupError::Unsupported("a swappiness above 100"));
        }
        match (asked.limit, asked.both) {
            // Without a limit on memory there is none on memory and swap together either.
            (Some(limit), None) if limit < 0 => asked.both = Some(-1),
            (Some(limit), Some(both)) if both >= 0 && (limit < 0 || both < limit) => {
                return Err(CgroupError::Unsupported(
                    "a limit on memory and swap together that is below the one on memory alone",
                ));
            }
            _ => {}
        }
        Ok(asked)
    }
}

/// `checkBeforeUpdate`: what is in use already is not taken away.
fn check(controller: &Controller, asked: &Asked) -> Result<()> {
    let (usage, both) = if controller.v2 {
        ("memory.current", None)
    } else {
        ("memory.usage_in_bytes", Some("memory.memsw.usage_in_bytes"))
    };
    for (file, limit) in [(Some(usage), asked.limit), (both, asked.both)] {
        let used = file.and_then(|file| controller.read(file)).and_then(|text| text.parse::<i64>().ok());
        if let (Some(used), Some(limit)) = (used, limit)
            && (0..used).contains(&limit)
        {
            return Err(CgroupError::InUse { controller: "memory", limit, used });
        }
    }
    Ok(())
}

/// memory.swap.max: the specification counts memory and swap together, v2 swap alone. `now` is the limit on memory in
/// force.
fn swap_alone(both: i64, limit: Option<i64>, now: Option<&str>) -> Result<String> {
    if both < 0 {
        return Ok(MAX.into());
    }
    let memory = limit.or_else(|| now?.parse().ok()).filter(|limit| *limit >= 0);
    let memory = memory.ok_or(CgroupError::Unsupported("a limit on swap without one on memory"))?;
    let swap = both.checked_sub(memory).filter(|swap| *swap >= 0);
    swap.map(|swap| swap.to_string())
        .ok_or(CgroupError::Unsupported("a limit on memory and swap together that is below the one on memory alone"))
}

fn v2(controller: &Controller, asked: &Asked) -> Result<()> {
    if asked.swappiness.is_some() {
        return Err(CgroupError::Unsupported(
            "cgroup2's memory controller has no swappiness of a group: leave it out, or set vm.swappiness of the host",
        ));
    }
    if asked.no_oom_killer {
        return Err(CgroupError::Unsupported(
            "cgroup2's memory controller always ends processes of a group without memory: leave out disableOOMKiller",
        ));
    }
    if let Some(both) = asked.both {
        let swap = swap_alone(both, asked.limit, controller.read("memory.max").as_deref())?;
        // A kernel without swap has none to limit.
        if controller.has("memory.swap.max") || !matches!(swap.as_str(), MAX | "0") {
            controller.write("memory.swap.max", &swap, SWAP)?;
        }
    }
    if let Some(limit) = asked.limit {
        controller.write("memory.max", &or_max(limit), LIMIT)?;
    }
    if let Some(low) = asked.reservation {
        controller.write("memory.low", &or_max(low), "a reservation of memory")?;
    }
    Ok(())
}

fn v1(controller: &Controller, asked: &Asked) -> Result<()> {
    const BOTH_FILE: &str = "memory.memsw.limit_in_bytes";
    let set_limit =
        || asked.limit.map_or(Ok(()), |bytes| controller.write("memory.limit_in_bytes", &bytes.to_string(), LIMIT));
    let set_both = || match asked.both {
        // Without accounting of swap only what limits nothing more can be had.
        Some(both) if !controller.has(BOTH_FILE) && (both < 0 || asked.limit == Some(both)) => Ok(()),
        Some(both) => controller.write(BOTH_FILE, &both.to_string(), SWAP),
        None => Ok(()),
    };
    // The kernel keeps memory <= memory and swap at every moment: what is raised is raised from the larger one on,
    // what is lowered from the smaller one on.
    let now = controller.read("memory.memsw.limit_in_bytes").and_then(|text| text.parse::<i64>().ok());
    let raised = asked.both.is_some_and(|both| both < 0 || now.is_some_and(|now| both > now));
    if raised {
        set_both()?;
        set_limit()?;
    } else {
        set_limit()?;
        set_both()?;
    }
    if let Some(soft) = asked.reservation {
        controller.write("memory.soft_limit_in_bytes", &soft.to_string(), "a reservation of memory")?;
    }
    if let Some(swappiness) = asked.swappiness {
        controller.write("memory.swappiness", &swappiness.to_string(), "a swappiness")?;
    }
    if asked.no_oom_killer {
        controller.write("memory.oom_control", "1", "a group without the OOM killer")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: &str) -> Result<Asked> {
        Asked::of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn swap_alone_is_what_both_have_over_memory() {
        assert_eq!(swap_alone(300, Some(100), None).unwrap(), "200");
        assert_eq!(swap_alone(100, Some(100), None).unwrap(), "0");
        assert_eq!(swap_alone(-1, Some(100), None).unwrap(), "max");
        // An update of swap alone counts from the limit in force.
        assert_eq!(swap_alone(300, None, Some("250")).unwrap(), "50");
        for (both, limit, now) in
            [(300, None, Some("max")), (300, None, None), (300, Some(-1), None), (9, None, Some("10"))]
        {
            assert!(swap_alone(both, limit, now).is_err(), "{both} {limit:?} {now:?}");
        }
    }

    #[test]
    fn zeros_are_not_given_and_contradictions_are_refused() {
        assert_eq!(
            asked(r#"{"limit":0,"swap":0,"reservation":0,"disableOOMKiller":false}"#).unwrap(),
            Asked::default()
        );
        assert_eq!(asked(r#"{"limit":-1}"#).unwrap().both, Some(-1));
        assert_eq!(asked(r#"{"limit":5,"swap":5}"#).unwrap().both, Some(5));
        for bad in [r#"{"limit":5,"swap":4}"#, r#"{"limit":-1,"swap":4}"#, r#"{"swappiness":101}"#] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
