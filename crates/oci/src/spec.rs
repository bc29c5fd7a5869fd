//! `spec`: a configuration to start from.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::words::Given;

/// A shell on a terminal, isolated.
const EXAMPLE: &str = include_str!("example.json");

pub(crate) fn run(_: &Global, given: &Given) -> Result<u8> {
    let path = Path::new(given.value("bundle").unwrap_or(".")).join("config.json");
    let file = File::options().write(true).create_new(true).open(&path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new("File config.json exists. Remove it first"),
        _ => Failure::file("open", &path, &error),
    })?;
    file.write_all(example(given.is("rootless")).as_bytes()).map_err(|error| Failure::file("write", &path, &error))?;
    Ok(0)
}

pub(crate) fn example(rootless: bool) -> String {
    if !rootless {
        return EXAMPLE.to_owned();
    }
    let Ok(mut config) = serde_json::from_str::<Value>(EXAMPLE) else { return EXAMPLE.to_owned() };
    make_rootless(&mut config);
    serde_json::to_string_pretty(&config).map_or_else(|_| EXAMPLE.to_owned(), |text| text + "\n")
}

/// What an ordinary user has no right to goes: a network of its own, limits, other IDs than one's own.
fn make_rootless(config: &mut Value) {
    let own = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
    config["linux"]["uidMappings"] = own(rustix::process::geteuid().as_raw());
    config["linux"]["gidMappings"] = own(rustix::process::getegid().as_raw());
    config["linux"]["resources"] = json!({});
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        for mount in mounts {
            if mount["destination"] == "/sys" {
                // `ro` is for the one mount, and the control groups are mounted below it (CVE-2023-25809).
                *mount = json!({ "destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "rro"] });
            }
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|word| !word.as_str().is_some_and(|w| w.starts_with("gid=") || w.starts_with("uid=")));
            }
        }
    }
}
