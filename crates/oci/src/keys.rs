//! Keys of a configuration in another case than the specification's: runc, which is in Go, reads them as well
//! (encoding/json, "preferring an exact match but also accepting a case-insensitive match"), and so who writes for it
//! may have them.

use serde_json::{Map, Value};

/// Makes the table and the question of it, which a compiler answers faster than a search would.
macro_rules! keys {
    ($($key:literal)*) => {
        const KEYS: &[&str] = &[$($key),*];

        fn is_known(key: &str) -> bool {
            matches!(key, $($key)|*)
        }
    };
}

// Of config.md, config-linux.md and config-vm.md.
keys! {
    "access" "action" "additionalGids" "allow" "ambient" "annotations" "apparmorProfile" "architectures" "args" "blockIO"
    "boottime" "bounding" "burst" "capabilities" "cgroupsPath" "checkBeforeUpdate" "class" "classID" "closID"
    "consoleSize" "containerID" "cpu" "cpus" "createContainer" "createRuntime" "cwd" "deadline" "defaultAction"
    "defaultErrnoRet" "destination" "devices" "disableOOMKiller" "domain" "domainname" "effective" "enableMonitoring" "env"
    "errnoRet" "execCPUAffinity" "fileMode" "final" "flags" "gid" "gidMappings" "hard" "hcaHandles" "hcaObjects" "height"
    "hooks" "hostID" "hostname" "hugepageLimits" "idle" "index" "inheritable" "initial" "intelRdt" "ioPriority" "kernel"
    "kernelTCP" "l3CacheSchema" "leafWeight" "limit" "linux" "listenerMetadata" "listenerPath" "major" "maskedPaths"
    "memBwSchema" "memory" "memoryPolicy" "mems" "minor" "mode" "monotonic" "mountLabel" "mounts" "name" "names"
    "namespaces" "nanosecs" "netDevices" "network" "nice" "noNewPrivileges" "nodes" "ociVersion" "oomScoreAdj" "op"
    "options" "pageSize" "path" "period" "permitted" "personality" "pids" "policy" "poststart" "poststop" "prestart"
    "priorities" "priority" "process" "quota" "rate" "rdma" "readonly" "readonlyPaths" "realtimePeriod"
    "realtimeRuntime" "reservation" "resources" "rlimits" "root" "rootfsPropagation" "runtime" "scheduler" "schemata"
    "seccomp" "secs" "selinuxLabel" "shares" "size" "soft" "source" "startContainer" "swap" "swappiness" "syscalls"
    "sysctl" "terminal" "throttleReadBpsDevice" "throttleReadIOPSDevice" "throttleWriteBpsDevice"
    "throttleWriteIOPSDevice" "timeOffsets" "timeout" "type" "uid" "uidMappings" "umask" "unified" "useHierarchy" "user"
    "username" "value" "valueTwo" "weight" "weightDevice" "width"
}

/// Below these the keys are somebody's own names, and so are the values.
fn has_own_names(key: &str) -> bool {
    matches!(key, "annotations" | "sysctl" | "unified")
}

/// Gives keys the specification's case. Where one is there in both, the one in its own case stays.
pub(crate) fn fold(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(fold),
        Value::Object(map) => fold_map(map),
        _ => {}
    }
}

fn fold_map(map: &mut Map<String, Value>) {
    if !map.keys().all(|key| is_known(key)) {
        let others: Vec<(String, &str)> =
            map.keys().filter(|key| !is_known(key)).filter_map(|key| Some((key.clone(), known(key)?))).collect();
        for (other, key) in others {
            if let Some(value) = map.shift_remove(&other)
                && !map.contains_key(key)
            {
                map.insert(key.to_owned(), value);
            }
        }
    }
    for (key, value) in map.iter_mut() {
        match value {
            // Values of these have keys, but their own names are in between.
            Value::Object(named) if matches!(key.as_str(), "rdma" | "netDevices") => named.values_mut().for_each(fold),
            Value::Array(_) | Value::Object(_) if !has_own_names(key) => fold(value),
            _ => {}
        }
    }
}

fn known(key: &str) -> Option<&'static str> {
    KEYS.iter().find(|known| known.eq_ignore_ascii_case(key)).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_get_the_specification_s_case_and_names_stay() {
        let mut value = json!({
            "PROCESS": { "Args": ["A"], "args": ["b"], "CWD": "/" },
            "Linux": { "resources": { "CPU": { "Cpus": "1" }, "hugepageLimits": [{ "pagesize": "2MB", "LIMIT": 1 }],
                "unified": { "CPU": "x" }, "rdma": { "CPU": { "HCAhandles": 1 } } }, "sysctl": { "Mode": "1" } },
            "annotations": { "Path": "x" }, "Unknown": { "Env": [] }
        });
        fold(&mut value);
        let want = json!({
            "process": { "args": ["b"], "cwd": "/" },
            "linux": { "resources": { "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }], "cpu": { "cpus": "1" },
                "unified": { "CPU": "x" }, "rdma": { "CPU": { "hcaHandles": 1 } } }, "sysctl": { "Mode": "1" } },
            "annotations": { "Path": "x" }, "Unknown": { "env": [] }
        });
        assert_eq!(value, want);
    }

    #[test]
    fn the_table_has_every_key_once_and_in_one_case() {
        for (n, key) in KEYS.iter().enumerate() {
            assert_eq!(KEYS.iter().position(|other| other.eq_ignore_ascii_case(key)), Some(n), "{key}");
        }
        let mut config: Value = serde_json::from_str(&crate::spec::example(true)).unwrap();
        let before = config.clone();
        fold(&mut config);
        assert_eq!(config, before);
    }
}
