//! `--cpuset-cpus` and `--cpuset-mems`: lists of numbers, as cpuset(7) has them.

use wharf_cgroup::cpuset_numbers;

use crate::error::{EngineError, Result};
use crate::spec::Resources;

/// Refuses what is no list, and what this host does not have.
pub(crate) fn check(resources: &Resources) -> Result<()> {
    for (asked, file, name, what) in [
        (&resources.cpuset_cpus, "/sys/devices/system/cpu/online", "cpus", "CPUs"),
        (&resources.cpuset_mems, "/sys/devices/system/node/online", "mems", "memory nodes"),
    ] {
        if asked.is_empty() {
            continue;
        }
        let wanted = cpuset_numbers(asked).ok_or_else(|| {
            EngineError::invalid(format!("Invalid value {asked} for cpuset {name}: invalid format: {asked}"))
        })?;
        // Where the kernel does not tell, it will refuse by itself.
        let Ok(available) = std::fs::read_to_string(file) else { continue };
        let available = available.trim();
        if cpuset_numbers(available).is_some_and(|have| !wanted.is_subset(&have)) {
            return Err(EngineError::invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {available}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused() {
        let with = |cpus: &str| check(&Resources { cpuset_cpus: cpus.into(), ..Resources::default() });
        with("0").unwrap();
        assert!(with("0\n1").unwrap_err().message.contains("for cpuset cpus"));
        assert!(with("8000").unwrap_err().message.starts_with("Requested CPUs are not available - requested 8000"));
    }
}
