//! `--cpuset-cpus` and `--cpuset-mems`: lists of numbers, as cpuset(7) has them.

use std::collections::BTreeSet;

use crate::error::{EngineError, Result};
use crate::spec::Resources;

/// No machine has so many; a longer list is an attack on our memory.
const MAX: u32 = 8192;

/// Refuses what is no list, and what this host does not have.
pub(crate) fn check(resources: &Resources) -> Result<()> {
    for (asked, file, name, what) in [
        (&resources.cpuset_cpus, "/sys/devices/system/cpu/online", "cpus", "CPUs"),
        (&resources.cpuset_mems, "/sys/devices/system/node/online", "mems", "memory nodes"),
    ] {
        if asked.is_empty() {
            continue;
        }
        let wanted =
            parse(asked).ok_or_else(|| EngineError::invalid(format!("Invalid value {asked:?} for cpuset {name}")))?;
        // Where the kernel does not tell, it will refuse by itself.
        let Ok(available) = std::fs::read_to_string(file) else { continue };
        let available = available.trim();
        if parse(available).is_some_and(|have| !wanted.is_subset(&have)) {
            return Err(EngineError::invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {available}"
            )));
        }
    }
    Ok(())
}

/// `0-2,7` (moby, `parsers.ParseUintListMaximum`).
fn parse(text: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|n| digits && *n <= MAX)
    };
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => all.extend([number(part)?]),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return None;
                }
                all.extend(first..=last);
            }
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed_strictly() {
        assert_eq!(parse("0-2,7"), Some([0, 1, 2, 7].into()));
        for bad in ["", "0\n1", "0 1", "1-", "-1", "2-1", "a", "0,", "9999", "+1", "0-4294967296"] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let with = |cpus: &str| check(&Resources { cpuset_cpus: cpus.into(), ..Resources::default() });
        with("0").unwrap();
        assert!(with("0\n1").unwrap_err().message.contains("for cpuset cpus"));
        assert!(with("8000").unwrap_err().message.starts_with("Requested CPUs are not available - requested 8000"));
    }
}
