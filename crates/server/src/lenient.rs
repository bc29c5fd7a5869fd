//! JSON as Go's clients write it and Go's server reads it, made into what our own types accept.

use serde_json::{Map, Value};

use crate::fields::canonical;

/// Lists that are also accepted as one string (moby, `strslice`).
const LISTS: &[&str] = &["Cmd", "Entrypoint", "CapAdd", "CapDrop", "Shell"];
/// Maps that users fill: in them a `null` is the value of a key, and not a field that was left out.
const TEXTS: &[&str] = &[
    "Labels",
    "Annotations",
    "Sysctls",
    "StorageOpt",
    "Tmpfs",
    "Options",
    "DriverOpts",
    "AuxiliaryAddresses",
    "Config",
    "SecretData",
];
const OBJECTS: &[&str] = &["ExposedPorts", "Volumes"];
/// A `null` in it is refused by who reads it.
const ENDPOINTS: &str = "EndpointsConfig";
const ARRAYS: &[&str] = &["PortBindings"];

/// Deeper is no request of the API; what nests deeper is left as it is.
const MAX_DEPTH: u32 = 32;

/// The same request without the `null`s that mean "not said", in our types' words.
pub(crate) fn lenient(value: Value) -> Value {
    walk("", value, MAX_DEPTH)
}

fn walk(name: &str, value: Value, depth: u32) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return value };
    match value {
        Value::Object(object) => {
            let missing: Option<Value> = match name {
                name if TEXTS.contains(&name) => Some(Value::String(String::new())),
                name if OBJECTS.contains(&name) => Some(Value::Object(Map::new())),
                name if ARRAYS.contains(&name) => Some(Value::Array(Vec::new())),
                ENDPOINTS => Some(Value::Null),
                _ => None,
            };
            // The keys of such a map are the user's words, and no fields.
            let is_map = missing.is_some();
            let mut kept = Map::new();
            // A key that is written otherwise counts where the field's own name is not there.
            let own: Vec<String> = object.keys().cloned().collect();
            for (key, value) in object {
                let key = match canonical(&key).filter(|_| !is_map) {
                    Some(name) if name != key && own.iter().any(|have| have == name) => continue,
                    Some(name) => name.to_owned(),
                    None => key,
                };
                let value = match (value, &missing) {
                    (Value::Null, None) => continue,
                    (Value::Null, Some(missing)) => missing.clone(),
                    (Value::String(text), None) if LISTS.contains(&key.as_str()) => Value::from(vec![text]),
                    (value, _) => walk(if is_map { "" } else { &key }, value, depth),
                };
                kept.insert(key, value);
            }
            Value::Object(kept)
        }
        Value::Array(list) => Value::Array(list.into_iter().map(|value| walk("", value, depth)).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn null_means_what_it_means_to_go() {
        let request = json!({
            "Image": "x", "Env": null, "Cmd": "echo hi", "Labels": { "a": null, "Cmd": "y" },
            "ExposedPorts": { "80/tcp": null },
            "HostConfig": { "PortBindings": { "80/tcp": null, "81/tcp": [{ "HostIp": null, "HostPort": "1" }] },
                            "Memory": null },
            "NetworkingConfig": { "EndpointsConfig": { "net": null, "b": { "Aliases": null } } },
        });
        let wanted = json!({
            "Image": "x", "Cmd": ["echo hi"], "Labels": { "a": "", "Cmd": "y" },
            "ExposedPorts": { "80/tcp": {} },
            "HostConfig": { "PortBindings": { "80/tcp": [], "81/tcp": [{ "HostPort": "1" }] } },
            "NetworkingConfig": { "EndpointsConfig": { "net": null, "b": {} } },
        });
        assert_eq!(lenient(request), wanted);
    }

    #[test]
    fn keys_are_known_without_regard_to_case() {
        let request = json!({
            "image": "x", "CMD": "a", "labels": { "image": "y" }, "hostconfig": { "networkmode": "host" },
            "Hostname": "right", "hostname": "wrong", "nonsense": 1,
            "IPAM": { "Config": [{ "subnet": "x" }] }, "LogConfig": { "config": { "labels": "a" } },
            "networkingConfig": { "endpointsconfig": { "image": { "ALIASES": ["b"] } } },
        });
        let wanted = json!({
            "Image": "x", "Cmd": ["a"], "Labels": { "image": "y" }, "HostConfig": { "NetworkMode": "host" },
            "Hostname": "right", "nonsense": 1,
            "IPAM": { "Config": [{ "Subnet": "x" }] }, "LogConfig": { "Config": { "labels": "a" } },
            "NetworkingConfig": { "EndpointsConfig": { "image": { "Aliases": ["b"] } } },
        });
        assert_eq!(lenient(request), wanted);
    }
}
