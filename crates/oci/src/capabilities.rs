//! Names of capabilities that nobody knows (runtime-spec, config, "capabilities": what cannot be mapped to the kernel is
//! warned of, and is no reason to fail).

use serde_json::Value;
use wharf_runtime::CAPABILITIES;

const SETS: &[&str] = &["bounding", "effective", "inheritable", "permitted", "ambient"];

/// Takes what is unknown out of a process's sets; the names of it, each once.
pub(crate) fn take_unknown(process: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let Some(sets) = process.get_mut("capabilities") else { return unknown };
    for set in SETS {
        let Some(names) = sets.get_mut(set).and_then(Value::as_array_mut) else { continue };
        names.retain(|name| {
            // What is no text is no name; its reader will say so.
            let Some(name) = name.as_str() else { return true };
            let known = is_known(name);
            if !known && !unknown.iter().any(|other| other == name) {
                unknown.push(name.to_owned());
            }
            known
        });
    }
    unknown
}

fn is_known(name: &str) -> bool {
    CAPABILITIES.iter().any(|known| *known == name || known.strip_prefix("CAP_") == Some(name))
}

/// What is told of them.
pub(crate) fn warning(unknown: &[String]) -> Option<String> {
    (!unknown.is_empty()).then(|| format!("unknown capabilities are left out: {}", unknown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_names_go_and_are_told_once() {
        let mut process =
            json!({ "capabilities": { "bounding": ["CAP_KILL", "CAP_X", "CHOWN"], "ambient": ["CAP_X"] } });
        assert_eq!(take_unknown(&mut process), ["CAP_X"]);
        assert_eq!(process["capabilities"], json!({ "bounding": ["CAP_KILL", "CHOWN"], "ambient": [] }));
        assert_eq!(take_unknown(&mut json!({})), Vec::<String>::new());
        assert!(warning(&[]).is_none());
    }
}
