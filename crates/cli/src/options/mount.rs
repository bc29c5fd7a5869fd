//! `--mount`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::parse::commas;
use crate::values;

/// Refuses what is no mount.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

#[derive(Default)]
struct Options {
    bind: Map<String, Value>,
    volume: Map<String, Value>,
    volume_labels: Map<String, Value>,
    volume_driver: Map<String, Value>,
    volume_options: Map<String, Value>,
    image: Map<String, Value>,
    tmpfs: Map<String, Value>,
}

impl Options {
    /// Puts what belongs inside the volume's options there.
    fn nest(&mut self) {
        let take = |map: &mut Map<String, Value>| Value::Object(std::mem::take(map));
        if !self.volume_labels.is_empty() {
            put(&mut self.volume, "Labels", take(&mut self.volume_labels));
        }
        if !self.volume_options.is_empty() {
            put(&mut self.volume_driver, "Options", take(&mut self.volume_options));
        }
        if !self.volume_driver.is_empty() {
            put(&mut self.volume, "DriverConfig", take(&mut self.volume_driver));
        }
    }
}

/// Reads `type=bind,src=/a,dst=/b,…` into the API's `Mount`.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let (mut kind, mut source, mut target) = ("volume".to_owned(), String::new(), String::new());
    let (mut read_only, mut consistency) = (false, String::new());
    let mut options = Options::default();
    if text.is_empty() {
        return Err("EOF".to_owned());
    }
    for field in commas(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), value),
            None => {
                match field.to_lowercase().as_str() {
                    "readonly" | "ro" => read_only = true,
                    "volume-nocopy" => put(&mut options.volume, "NoCopy", json!(true)),
                    "bind-create-src" => put(&mut options.bind, "CreateMountpoint", json!(true)),
                    "idmap" => put(&mut options.bind, "IDMap", json!(true)),
                    "bind-nonrecursive" => return Err(NON_RECURSIVE.to_owned()),
                    _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
                }
                continue;
            }
        };
        let invalid = || format!("invalid value for {key}: {value}");
        match key.as_str() {
            "type" => kind = value.to_lowercase(),
            "source" | "src" => source = absolute(value),
            "target" | "dst" | "destination" => target = value.to_owned(),
            "readonly" | "ro" => read_only = values::parse_bool(value).map_err(|_| invalid())?,
            "consistency" => consistency = value.to_lowercase(),
            "bind-propagation" => put(&mut options.bind, "Propagation", json!(value.to_lowercase())),
            "bind-nonrecursive" => return Err(NON_RECURSIVE.to_owned()),
            "bind-recursive" => match value {
                "enabled" => {}
                "disabled" => put(&mut options.bind, "NonRecursive", json!(true)),
                "writable" => put(&mut options.bind, "ReadOnlyNonRecursive", json!(true)),
                "readonly" => put(&mut options.bind, "ReadOnlyForceRecursive", json!(true)),
                _ => {
                    let choices = r#"(must be "enabled", "disabled", "writable", or "readonly")"#;
                    return Err(format!("{} {choices}", invalid()));
                }
            },
            "bind-create-src" => {
                let create = values::parse_bool(value).map_err(|_| invalid())?;
                put(&mut options.bind, "CreateMountpoint", json!(create));
            }
            // Ours: Docker has none.
            "idmap" => {
                let mapped = values::parse_bool(value)
                    .map_err(|_| format!("{}: the container's own IDs are the only ones (true or false)", invalid()))?;
                put(&mut options.bind, "IDMap", json!(mapped));
            }
            "volume-subpath" => put(&mut options.volume, "Subpath", json!(value)),
            "volume-nocopy" => {
                let no_copy =
                    values::parse_bool(value).map_err(|_| format!("invalid value for volume-nocopy: {value}"))?;
                put(&mut options.volume, "NoCopy", json!(no_copy));
            }
            "volume-label" => pair(&mut options.volume_labels, value),
            "volume-driver" => put(&mut options.volume_driver, "Name", json!(value)),
            "volume-opt" => pair(&mut options.volume_options, value),
            "image-subpath" => put(&mut options.image, "Subpath", json!(value)),
            "tmpfs-size" => {
                let size = values::parse_bytes(value).map_err(|_| invalid())?;
                put(&mut options.tmpfs, "SizeBytes", json!(size));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| invalid())?;
                put(&mut options.tmpfs, "Mode", json!(mode));
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    options.nest();
    let mount = Parts { kind, source, target, read_only, consistency };
    mount.check(&options)?;
    Ok(mount.json(options))
}

const NON_RECURSIVE: &str = "bind-nonrecursive is deprecated, use bind-recursive=disabled instead";

struct Parts {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: String,
}

impl Parts {
    fn check(&self, options: &Options) -> Result<(), String> {
        if self.kind.is_empty() {
            return Err("type is required".to_owned());
        }
        if self.target.is_empty() {
            return Err("target is required".to_owned());
        }
        let groups = [
            ("volume", &options.volume),
            ("bind", &options.bind),
            ("image", &options.image),
            ("tmpfs", &options.tmpfs),
        ];
        for (name, given) in groups {
            if !given.is_empty() && self.kind != name {
                return Err(format!("cannot mix '{name}-*' options with mount type '{}'", self.kind));
            }
        }
        let bind = |key: &str| options.bind.get(key).is_some_and(|value| value == &json!(true));
        if bind("ReadOnlyNonRecursive") && !self.read_only {
            return Err(
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".to_owned()
            );
        }
        if bind("ReadOnlyForceRecursive") {
            if !self.read_only {
                return Err(
                    "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".to_owned()
                );
            }
            if options.bind.get("Propagation") != Some(&json!("rprivate")) {
                return Err(
                    "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in \
                            conjunction"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    fn json(self, options: Options) -> Value {
        let mut mount = Map::new();
        put(&mut mount, "Type", json!(self.kind));
        if !self.source.is_empty() {
            put(&mut mount, "Source", json!(self.source));
        }
        put(&mut mount, "Target", json!(self.target));
        if self.read_only {
            put(&mut mount, "ReadOnly", json!(true));
        }
        if !self.consistency.is_empty() {
            put(&mut mount, "Consistency", json!(self.consistency));
        }
        let groups = [
            ("BindOptions", options.bind),
            ("VolumeOptions", options.volume),
            ("ImageOptions", options.image),
            ("TmpfsOptions", options.tmpfs),
        ];
        for (name, given) in groups {
            if !given.is_empty() {
                mount.insert(name.to_owned(), Value::Object(given));
            }
        }
        Value::Object(mount)
    }
}

fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    map.insert(key.to_owned(), value);
}

fn pair(map: &mut Map<String, Value>, text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if !key.is_empty() {
        put(map, key, json!(value));
    }
}

/// A path that starts with a dot is one from the working directory.
fn absolute(path: &str) -> String {
    if !path.starts_with('.') {
        return path.to_owned();
    }
    std::env::current_dir().map_or_else(|_| path.to_owned(), |dir| super::volume::clean(&dir.join(Path::new(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        for (text, json) in [
            ("type=bind,src=/a,dst=/b,ro", r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}"#),
            ("target=/b", r#"{"Type":"volume","Target":"/b"}"#),
            (
                "type=volume,source=v,target=/b,volume-opt=type=nfs,\"volume-opt=o=addr=1.2.3.4,rw\",volume-driver=local",
                r#"{"Type":"volume","Source":"v","Target":"/b","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"nfs","o":"addr=1.2.3.4,rw"}}}}"#,
            ),
            (
                "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777",
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1023}}"#,
            ),
            (
                "type=bind,src=/a,dst=/b,idmap",
                r#"{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"IDMap":true}}"#,
            ),
            (
                "type=bind,src=/a,dst=/b,bind-propagation=rshared,bind-recursive=disabled",
                r#"{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"Propagation":"rshared","NonRecursive":true}}"#,
            ),
        ] {
            assert_eq!(parse(text).map(|value| value.to_string()).as_deref(), Ok(json), "{text}");
        }
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("type=bind,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("type=volume,dst=/b,idmap", "cannot mix 'bind-*' options with mount type 'volume'"),
            (
                "type=bind,src=/a,dst=/b,idmap=uids=0-1-1",
                "invalid value for idmap: uids=0-1-1: the container's own IDs are the only ones (true or false)",
            ),
            ("dst=/b,ro=maybe", "invalid value for ro: maybe"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }
}
