//! `update`: other limits for a container.

use std::fs::File;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};
use wharf_cgroup::Hierarchies;

use crate::bundle::{drop_absent_limit, read_config};
use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::state::{Container, Status};
use crate::words::{Flag, Given, value};

pub(crate) const FLAGS: &[Flag] = &[
    value("resources", "a file with the resources as the configuration has them, or - for standard input").short("r"),
    value("blkio-weight", "weight of block IO, 10 to 1000"),
    value("cpu-period", "period of the CPU limit, in microseconds"),
    value("cpu-quota", "CPU time in a period, in microseconds"),
    value("cpu-burst", "CPU time that may be saved up, in microseconds"),
    value("cpu-share", "CPU shares, relative to other containers"),
    value("cpu-rt-period", "period of the limit on real-time CPU time, in microseconds"),
    value("cpu-rt-runtime", "real-time CPU time in a period, in microseconds"),
    value("cpu-idle", "1: run only when nothing else does"),
    value("cpuset-cpus", "CPUs to use"),
    value("cpuset-mems", "memory nodes to use"),
    value("kernel-memory", "ignored: the kernel has no such limit any more"),
    value("kernel-memory-tcp", "ignored: the kernel has no such limit any more"),
    value("memory", "memory, in bytes or with a unit"),
    value("memory-reservation", "memory that is kept under pressure"),
    value("memory-swap", "memory and swap together; -1 for no limit on swap"),
    value("pids-limit", "processes at most"),
    value("l3-cache-schema", "not supported"),
    value("mem-bw-schema", "not supported"),
];

/// Flags with plain numbers, and where they belong.
const NUMBERS: &[(&str, &str, &str)] = &[
    ("blkio-weight", "blockIO", "weight"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
    ("pids-limit", "pids", "limit"),
];

const SIZES: &[(&str, &str)] = &[("memory", "limit"), ("memory-reservation", "reservation"), ("memory-swap", "swap")];

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    if given.has("l3-cache-schema") || given.has("mem-bw-schema") {
        return Err(Failure::new("Intel RDT is not supported"));
    }
    let mut container = Container::lock(global, &given.arguments[0])?;
    if container.status() == Status::Stopped {
        return Err(Failure::new("cannot update a container that has stopped"));
    }
    let asked = match given.value("resources") {
        Some("-") => read_config(std::io::stdin(), Path::new("standard input"))?,
        Some(path) => {
            let file = File::open(path).map_err(|error| Failure::file("open", Path::new(path), &error))?;
            read_config(file, Path::new(path))?
        }
        None => from_flags(given)?,
    };
    let mut asked = without_nothing(asked);
    drop_absent_limit(&mut asked, false);
    let resources: LinuxResources =
        serde_json::from_value(asked.clone()).map_err(|error| Failure::new(format!("invalid resources: {error}")))?;
    let odd = |error: serde_json::Error| Failure::new(error.to_string());
    let mut spec = serde_json::to_value(&container.record.spec).map_err(odd)?;
    let had = with_cpus_of(&container, spec.pointer("/linux/resources").cloned().unwrap_or_default());
    if let Err(failure) = set(&container, &resources) {
        // All of it or nothing.
        let before = before(&asked, &had);
        let back = serde_json::from_value(before).map_err(odd).and_then(|before| set(&container, &before));
        if let Err(failure) = back {
            global.log.warning(&format!("the limits could not all be set back: {}", failure.message));
        }
        return Err(failure);
    }
    merge(&mut spec["linux"]["resources"], asked);
    container.record.spec = serde_json::from_value(spec).map_err(odd)?;
    container.write()?;
    Ok(0)
}

fn set(container: &Container, resources: &LinuxResources) -> Result<()> {
    if let Some(scope) = &container.record.scope {
        scope.set(resources, Hierarchies::detect()?.is_v2())?;
    }
    Ok(container.group.limit(resources)?)
}

/// `had`, with the CPUs and memory nodes that the container's group has where it tells of none: there is no value for
/// having no choice.
fn with_cpus_of(container: &Container, mut had: Value) -> Value {
    let Some(dir) = container.group.v1_dir("cpuset").or_else(|| container.group.v2_dir()) else { return had };
    for key in ["cpus", "mems"] {
        let files = [format!("cpuset.{key}"), format!("cpuset.{key}.effective")];
        let mut lists = files.iter().filter_map(|file| std::fs::read_to_string(dir.join(file)).ok());
        let list = lists.find_map(|list| Some(list.trim().to_owned()).filter(|list| !list.is_empty()));
        if let Some(list) = list.filter(|_| had.pointer(&format!("/cpu/{key}")).is_none_or(Value::is_null)) {
            if !had.is_object() {
                had = json!({});
            }
            if !had["cpu"].is_object() {
                had["cpu"] = json!({});
            }
            had["cpu"][key] = json!(list);
        }
    }
    had
}

/// What no limit is, for those that a container has not had before.
const NO_LIMITS: &[(&str, &str, i64)] = &[
    ("memory", "limit", -1),
    ("memory", "swap", -1),
    ("memory", "reservation", -1),
    ("cpu", "quota", -1),
    ("cpu", "period", 100_000),
    ("cpu", "burst", 0),
    ("cpu", "idle", 0),
    ("cpu", "shares", 1024),
    ("pids", "limit", -1),
];

/// The limits that a container has had of those that are `asked`.
fn before(asked: &Value, had: &Value) -> Value {
    let mut before = Map::new();
    for (section, values) in asked.as_object().into_iter().flatten() {
        let old = &had[section];
        let Some(values) = values.as_object() else {
            before.insert(section.clone(), old.clone());
            continue;
        };
        let mut back = Map::new();
        // No limit on memory is none on both together.
        let both = (section == "memory" && !old["swap"].is_null()).then(|| "swap".to_owned());
        // Who is idle no more has the default's shares.
        let shares = (section == "cpu" && values.contains_key("idle")).then(|| "shares".to_owned());
        for key in values.keys().chain(&both).chain(&shares) {
            let none = NO_LIMITS.iter().find(|(of, name, _)| of == section && name == key);
            match (&old[key], none) {
                (Value::Null, Some((_, _, none))) => drop(back.insert(key.clone(), json!(none))),
                (Value::Null, None) => {}
                (old, _) => drop(back.insert(key.clone(), old.clone())),
            }
        }
        before.insert(section.clone(), Value::Object(back));
    }
    let is_none = |section: &str, value: &Value| value.is_null() || section == "pids" && value.get("limit").is_none();
    before.retain(|section, value| !is_none(section, value));
    Value::Object(before)
}

fn from_flags(given: &Given) -> Result<Value> {
    let mut all = json!({});
    for (flag, section, key) in NUMBERS {
        if let Some(number) = given.number::<i64>(flag)? {
            all[section][key] = json!(number);
        }
    }
    for (flag, key) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(list) = given.value(flag) {
            all["cpu"][key] = json!(list);
        }
    }
    for (flag, key) in SIZES {
        if let Some(text) = given.value(flag) {
            let bytes = size(text).ok_or_else(|| Failure::new(format!("invalid value for {flag}: {text:?}")))?;
            all["memory"][key] = json!(bytes);
        }
    }
    // Without a limit on memory there is none on memory and swap together.
    if all["memory"]["limit"] == json!(-1) && all["memory"]["swap"].is_null() {
        all["memory"]["swap"] = json!(-1);
    }
    if all["memory"].is_null()
        && let Some(all) = all.as_object_mut()
    {
        all.remove("memory");
    }
    Ok(all)
}

/// Bytes, or with a unit of 1024: `64M`, `1.5g`, `512kib`. -1 is no limit.
fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let Some((whole, part)) = number.split_once('.') else {
        return number.parse::<i64>().ok()?.checked_mul(1 << shift);
    };
    if whole.is_empty() || part.is_empty() || part.len() > MAX_DECIMALS {
        return None;
    }
    let whole = whole.parse::<i64>().ok()?.checked_mul(1 << shift)?;
    let part = part.parse::<i128>().ok()? * (1 << shift) / 10_i128.pow(u32::try_from(part.len()).ok()?);
    whole.checked_add(i64::try_from(part).ok()?)
}

/// Digits after the point: one of the largest unit has no more before it is less than a byte.
const MAX_DECIMALS: usize = 15;

/// Zeros and empty texts are what engines write for what stays as it is.
fn without_nothing(value: Value) -> Value {
    without_nothing_in("", value)
}

fn without_nothing_in(section: &str, value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let nothing = |key: &str, value: &Value| match value {
        // There 0 is a value of its own.
        Value::Number(_) if matches!(key, "idle" | "burst" | "swappiness") => false,
        // That of `pids`, unlike that of `memory`.
        Value::Number(_) if section == "pids" && key == "limit" => false,
        Value::Null => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) => false,
    };
    let kept: Map<String, Value> = map
        .into_iter()
        .map(|(key, value)| {
            let value = without_nothing_in(&key, value);
            (key, value)
        })
        .filter(|(key, value)| !nothing(key, value))
        .collect();
    Value::Object(kept)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_by_zeros_but_where_they_are_values() {
        let asked = json!({ "memory": { "limit": 0, "swap": 5 }, "cpu": { "idle": 0, "cpus": "" },
            "pids": { "limit": 0 }, "blockIO": null });
        let kept = json!({ "memory": { "swap": 5 }, "cpu": { "idle": 0 }, "pids": { "limit": 0 } });
        assert_eq!(without_nothing(asked), kept);
    }

    #[test]
    fn sizes_have_units() {
        for (text, want) in [
            ("0", Some(0)),
            ("64M", Some(64 << 20)),
            ("1gb", Some(1 << 30)),
            ("2KiB", Some(2048)),
            ("-1", Some(-1)),
            ("1.5g", Some(3 << 29)),
            ("0.25k", Some(256)),
            ("1.9", Some(1)),
        ] {
            assert_eq!(size(text), want, "{text}");
        }
        for bad in ["", "-2", "x", "1q", "9999999999999999999", "9999999999999P", "1.", ".5", "1.2.3", "8192.5P"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_was_before_is_known() {
        let had = json!({ "memory": { "limit": 5, "swap": 9 }, "devices": [1] });
        let asked =
            json!({ "memory": { "limit": 7, "reservation": 3 }, "pids": { "limit": 3 }, "cpu": { "cpus": "0" } });
        let want =
            json!({ "memory": { "limit": 5, "reservation": -1, "swap": 9 }, "pids": { "limit": -1 }, "cpu": {} });
        assert_eq!(before(&asked, &had), want);
        assert_eq!(before(&json!({ "devices": [2] }), &had), json!({ "devices": [1] }));
        assert_eq!(before(&asked, &Value::Null)["memory"]["limit"], -1);
        let asked = json!({ "cpu": { "quota": 2, "period": 5, "burst": 1, "idle": 1, "cpus": "0" } });
        let had = json!({ "cpu": { "quota": 7, "shares": 512, "cpus": "0-1" } });
        let want = json!({ "quota": 7, "period": 100_000, "burst": 0, "idle": 0, "shares": 512, "cpus": "0-1" });
        assert_eq!(before(&asked, &had)["cpu"], want);
    }

    #[test]
    fn what_engines_leave_as_it_is_stays() {
        let asked = json!({ "memory": { "limit": 5, "swap": 0 }, "cpu": { "shares": 0, "cpus": "" }, "blockIO": {} });
        assert_eq!(without_nothing(asked), json!({ "memory": { "limit": 5 } }));
        let asked = json!({ "cpu": { "idle": 0, "burst": 0, "quota": 0 } });
        assert_eq!(without_nothing(asked), json!({ "cpu": { "idle": 0, "burst": 0 } }));
        let mut spec = json!({ "memory": { "limit": 1, "swap": 2 } });
        merge(&mut spec, json!({ "memory": { "limit": 9 }, "pids": { "limit": 3 } }));
        assert_eq!(spec, json!({ "memory": { "limit": 9, "swap": 2 }, "pids": { "limit": 3 } }));
    }

    #[test]
    fn flags_become_resources() {
        let words: Vec<String> =
            ["--memory", "-1", "--cpu-share=512", "--cpuset-cpus", "0", "id"].map(str::to_owned).to_vec();
        let given = Given::read(FLAGS, crate::words::Order::Any, &words).unwrap();
        let all = from_flags(&given).unwrap();
        assert_eq!(all, json!({"cpu": {"shares": 512, "cpus": "0"}, "memory": {"limit": -1, "swap": -1}}));
    }
}
