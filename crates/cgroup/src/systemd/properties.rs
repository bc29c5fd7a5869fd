//! Limits in the words of systemd.resource-control(5).

use oci_spec::runtime::LinuxResources;

use crate::Result;
use crate::cpuset::cpuset_numbers;
use crate::device_rule::{Kind, Rule, allows_all};
use crate::limits::{convert, processes};
use wharf_dbus::Property;

/// systemd's word for no limit: `infinity`.
const NONE: u64 = u64::MAX;
/// systemd counts quotas in steps of 10 ms a second, and rounds down what lies between: up is what was asked for.
const STEP: u64 = 10_000;

/// What systemd can be told of; the rest is in the group's files alone.
pub(super) fn of(resources: &LinuxResources, v2: bool) -> Result<Vec<(&'static str, Property)>> {
    let mut all = Vec::new();
    let bytes = |bytes: i64| Property::Number(u64::try_from(bytes).unwrap_or(NONE));
    if let Some(memory) = resources.memory() {
        let limit = memory.limit().filter(|limit| *limit != 0);
        if let Some(limit) = limit {
            all.push((if v2 { "MemoryMax" } else { "MemoryLimit" }, bytes(limit)));
        }
        if let Some(low) = memory.reservation().filter(|low| v2 && *low != 0) {
            all.push(("MemoryLow", bytes(low)));
        }
        if let (Some(both), Some(limit)) = (memory.swap().filter(|swap| v2 && *swap != 0), limit) {
            all.push(("MemorySwapMax", bytes(if both < 0 { both } else { both.saturating_sub(limit).max(0) })));
        }
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
            let weight = if v2 { convert::weight_of_shares(shares) } else { shares };
            all.push((if v2 { "CPUWeight" } else { "CPUShares" }, Property::Number(weight)));
        }
        if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
            let period = cpu.period().filter(|period| *period != 0).unwrap_or(convert::PERIOD);
            all.push(("CPUQuotaPerSecUSec", Property::Number(per_second(quota, period))));
        }
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            if let Some(numbers) = list.as_deref().filter(|_| v2).and_then(|list| cpuset_numbers(list.trim())) {
                let mut mask = Vec::new();
                for number in numbers {
                    let at = number as usize / 8;
                    mask.resize(mask.len().max(at + 1), 0);
                    mask[at] |= 1u8 << (number % 8);
                }
                all.push((name, Property::Bytes(mask)));
            }
        }
    }
    if let Some(pids) = resources.pids() {
        all.push(("TasksMax", bytes(processes(pids.limit()))));
    }
    let rules = resources.devices().iter().flatten().map(Rule::read).collect::<Result<Vec<_>>>()?;
    if !rules.is_empty() {
        devices(&rules, &mut all);
    }
    Ok(all)
}

/// Microseconds of CPU time in a second.
fn per_second(quota: i64, period: u64) -> u64 {
    let Ok(quota) = u64::try_from(quota) else { return NONE };
    let exact = quota.saturating_mul(1_000_000) / period;
    exact.next_multiple_of(STEP)
}

/// systemd knows what is allowed, and not what is denied again. The group's own rules hold beside it.
fn devices(rules: &[Rule], all: &mut Vec<(&'static str, Property)>) {
    if allows_all(rules) || rules.iter().any(|rule| rule.allow && rule.kind == Kind::Any) {
        all.push(("DevicePolicy", Property::Text("auto".into())));
        all.push(("DeviceAllow", Property::Pairs(Vec::new())));
        return;
    }
    let known = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let mut pairs = Vec::new();
    for rule in rules.iter().filter(|rule| rule.allow) {
        let kind = if rule.kind == Kind::Block { "block" } else { "char" };
        let names = match (rule.major, rule.minor) {
            (None, _) => vec![format!("{kind}-*")],
            (Some(major), Some(minor)) => vec![format!("/dev/{kind}/{major}:{minor}")],
            (Some(major), None) => {
                names_of(&known, rule.kind, major).iter().map(|name| format!("{kind}-{name}")).collect()
            }
        };
        pairs.extend(names.into_iter().map(|name| (name, rule.letters())));
    }
    all.push(("DevicePolicy", Property::Text("strict".into())));
    // An empty list takes back what was before.
    all.push(("DeviceAllow", Property::Pairs(Vec::new())));
    all.push(("DeviceAllow", Property::Pairs(pairs)));
}

/// The names of a major number in `/proc/devices`.
fn names_of(text: &str, kind: Kind, major: u32) -> Vec<String> {
    let heading = if kind == Kind::Block { "Block devices:" } else { "Character devices:" };
    let section = text.split("\n\n").find(|section| section.trim_start().starts_with(heading)).unwrap_or_default();
    let lines = section.lines().filter_map(|line| line.trim().split_once(' '));
    lines.filter(|(number, _)| number.parse() == Ok(major)).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_systemd_s_names() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":100,"swap":300,"reservation":50},"cpu":{"shares":1024,"quota":33333,"cpus":"0,9"},
                "pids":{"limit":-1}}"#,
        )
        .unwrap();
        let v2 = of(&resources, true).unwrap();
        let number = |name: &str| v2.iter().find(|(found, _)| *found == name).unwrap().1.clone();
        assert_eq!(number("MemoryMax"), Property::Number(100));
        assert_eq!(number("MemorySwapMax"), Property::Number(200));
        assert_eq!(number("CPUWeight"), Property::Number(39));
        assert_eq!(number("CPUQuotaPerSecUSec"), Property::Number(340_000));
        assert_eq!(number("TasksMax"), Property::Number(u64::MAX));
        assert_eq!(number("AllowedCPUs"), Property::Bytes(vec![1, 2]));
        // It takes no 0.
        let none = serde_json::from_str(r#"{"pids":{"limit":0}}"#).unwrap();
        assert_eq!(of(&none, true).unwrap(), [("TasksMax", Property::Number(1))]);
        let v1 = of(&resources, false).unwrap();
        let names: Vec<&str> = v1.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "TasksMax"]);
    }

    #[test]
    fn rules_become_what_is_allowed() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"},
                {"allow":true,"type":"b","access":"m"}]}"#,
        )
        .unwrap();
        let all = of(&resources, true).unwrap();
        assert_eq!(all[0], ("DevicePolicy", Property::Text("strict".into())));
        let pairs = vec![("/dev/char/1:3".into(), "rw".into()), ("block-*".into(), "m".into())];
        assert_eq!(all[2], ("DeviceAllow", Property::Pairs(pairs)));
        let known = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n136 other\n";
        assert_eq!(names_of(known, Kind::Character, 136), ["pts"]);
        assert!(names_of(known, Kind::Block, 1).is_empty());
    }
}
