//! Holds the picture in ARCHITECTURE.md against `cargo metadata`: which crate may depend on which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Rows from the bottom up; a crate may depend on crates of lower rows only.
const ROWS: &[&[&str]] = &[
    &["reference", "report", "dockerfile", "template"],
    &["sys", "dbus"],
    &["rooted-path", "cgroup", "seccomp", "netlink", "logs", "erofs", "companion"],
    &["archive", "store", "dns", "relay", "git", "ruleset"],
    &["client", "runtime", "distribution", "snapshot", "network", "volume"],
    &["monitor", "image"],
    &["engine", "build"],
    &["buildkit"],
    &["cli", "server", "registry", "oci"],
    &["daemon"],
    &["wharf"],
];

/// Dependencies from outside that only these crates may have: the invariants of absence.
const ONLY: &[(&str, &[&str])] = &[
    ("libc", &["sys"]),
    ("redb", &["store"]),
    ("clap", &["cli", "daemon", "wharf"]),
    ("hyper", &["buildkit", "client", "distribution", "server", "registry"]),
    (
        "tokio",
        &[
            "buildkit",
            "client",
            "distribution",
            "image",
            "engine",
            "build",
            "server",
            "registry",
            "daemon",
            "cli",
            "wharf",
        ],
    ),
];

/// Pairs that must not exist although the rows would allow them.
const NEVER: &[(&str, &str)] = &[
    ("runtime", "image"),
    ("runtime", "store"),
    ("monitor", "store"),
    ("cli", "engine"),
    ("cli", "image"),
    ("cli", "store"),
    ("engine", "distribution"),
];

/// Our crates with the names of what they depend on, tests left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let needs = package["dependencies"].as_array().expect("dependencies").iter();
            let needs = needs
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| short(dependency["name"].as_str().expect("name")))
                .collect();
            (short(package["name"].as_str().expect("name")), needs)
        })
        .collect()
}

fn short(name: &str) -> String {
    name.strip_prefix("wharf-").unwrap_or(name).to_owned()
}

fn row(name: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&name))
}

#[test]
fn every_crate_has_a_place_in_the_picture() {
    for name in dependencies().keys() {
        assert!(row(name).is_some(), "crate `{name}` is in no row: add it to ROWS and to ARCHITECTURE.md");
    }
}

#[test]
fn arrows_go_down_only() {
    for (name, needs) in dependencies() {
        let here = row(&name).expect("has a row");
        for need in needs.iter().filter_map(|need| row(need).map(|row| (need, row))) {
            assert!(need.1 < here, "`{name}` must not depend on `{}`: that arrow goes up or sideways", need.0);
        }
    }
}

#[test]
fn what_must_be_absent_is_absent() {
    let all = dependencies();
    for (need, owners) in ONLY {
        for (name, needs) in &all {
            assert!(!needs.contains(*need) || owners.contains(&name.as_str()), "`{name}` must not depend on `{need}`");
        }
    }
    for (name, need) in NEVER {
        let holds = all.get(*name).is_none_or(|needs| !needs.contains(*need));
        assert!(holds, "`{name}` must not depend on `{need}`");
    }
}
