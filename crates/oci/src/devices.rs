//! Devices that every container may use, whatever its rules say: without them it has no terminal and cannot make its
//! own `/dev`. They are runc's, since engines leave them to it.

use serde_json::{Value, json};
use wharf_cgroup::Hierarchies;

/// Type, major and minor number (-1 is any), access.
const ALLOWED: &[(&str, i64, i64, &str)] = &[
    // Nodes may be made of any device; to use one is another right.
    ("c", -1, -1, "m"),
    ("b", -1, -1, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    // /dev/ptmx, /dev/pts/*
    ("c", 5, 2, "rwm"),
    ("c", 136, -1, "rwm"),
];

/// Completes the rules of a configuration: at first nothing is allowed, in the end the above. Where the host has no
/// place for rules at all they stay what they are.
pub(crate) fn add_defaults(config: &mut Value) {
    let held = Hierarchies::detect().is_ok_and(|found| found.v1("devices").is_some() || found.v2().is_some());
    if held && let Some(linux) = config.get_mut("linux").filter(|linux| linux.is_object()) {
        complete(linux);
    }
}

pub(crate) fn complete(linux: &mut Value) {
    if linux.get("resources").is_none_or(Value::is_null) {
        linux["resources"] = json!({});
    }
    let resources = &mut linux["resources"];
    if !resources.is_object() {
        // Its reader will say so.
        return;
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    match resources.get_mut("devices").map(Value::take) {
        Some(Value::Array(mut given)) => {
            given.iter_mut().for_each(drop_all);
            rules.extend(given);
        }
        None | Some(Value::Null) => {}
        Some(other) => return resources["devices"] = other,
    }
    for (kind, major, minor, access) in ALLOWED {
        let mut rule = json!({ "allow": true, "type": kind, "access": access });
        for (key, number) in [("major", major), ("minor", minor)] {
            if *number >= 0 {
                rule[key] = json!(number);
            }
        }
        rules.push(rule);
    }
    resources["devices"] = Value::Array(rules);
}

/// Takes the letter `a` out of an access: it is of old tools, and runc passes over it. Alone it means all.
fn drop_all(rule: &mut Value) {
    let Some(access) = rule.get("access").and_then(Value::as_str).filter(|access| access.contains('a')) else { return };
    let rest = access.replace('a', "");
    rule["access"] = json!(if rest.is_empty() { "rwm" } else { &rest });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_rules_stand_between_none_and_the_defaults() {
        for mut linux in [json!({}), json!({ "resources": null }), json!({ "resources": { "devices": null } })] {
            complete(&mut linux);
            let rules = linux["resources"]["devices"].as_array().unwrap();
            assert_eq!((rules.len(), &rules[0]["allow"]), (ALLOWED.len() + 1, &json!(false)));
        }
        let mut linux = json!({ "resources": { "devices": [{ "allow": true }] } });
        complete(&mut linux);
        assert_eq!(linux["resources"]["devices"][1], json!({ "allow": true }));
        for (access, want) in [("rwa", "rw"), ("a", "rwm"), ("m", "m")] {
            let mut linux = json!({ "resources": { "devices": [{ "allow": true, "access": access }] } });
            complete(&mut linux);
            assert_eq!(linux["resources"]["devices"][1]["access"], want);
        }
        let mut odd = json!({ "resources": { "devices": 7 } });
        complete(&mut odd);
        assert_eq!(odd["resources"]["devices"], json!(7));
    }
}
