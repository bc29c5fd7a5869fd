//! Names and IDs: made, and checked.

use std::path::Path;

use crate::error::{EngineError, Result};

const LEFT: &[&str] = &[
    "able", "amber", "apt", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever", "cosy", "crisp",
    "deft", "eager", "early", "exact", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "grand", "happy",
    "hardy", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "merry", "mild", "modest", "neat",
    "nimble", "noble", "patient", "placid", "plain", "proud", "quick", "quiet", "ready", "serene", "sharp", "snug",
    "sober", "solid", "sound", "spry", "stable", "steady", "stout", "sunny", "swift", "tidy", "trim", "true", "vivid",
    "warm", "wise", "witty", "zesty",
];

const RIGHT: &[&str] = &[
    "anchor",
    "barge",
    "barque",
    "beacon",
    "berth",
    "bollard",
    "bosun",
    "bowline",
    "breeze",
    "brig",
    "bulwark",
    "buoy",
    "cabin",
    "canal",
    "capstan",
    "cargo",
    "clipper",
    "coast",
    "cove",
    "crane",
    "current",
    "cutter",
    "davit",
    "deck",
    "delta",
    "dinghy",
    "dock",
    "estuary",
    "ferry",
    "fjord",
    "fleet",
    "foghorn",
    "galley",
    "gull",
    "halyard",
    "harbour",
    "haven",
    "hawser",
    "helm",
    "hull",
    "inlet",
    "island",
    "jetty",
    "keel",
    "ketch",
    "lagoon",
    "lantern",
    "lighthouse",
    "mast",
    "mooring",
    "osprey",
    "pennant",
    "pier",
    "pilot",
    "quay",
    "reef",
    "rudder",
    "sail",
    "schooner",
    "sextant",
    "shoal",
    "skiff",
    "slipway",
    "sloop",
    "stern",
    "strait",
    "tide",
    "tiller",
    "trawler",
    "tug",
    "wake",
    "yawl",
];

/// A new random ID: 64 hex digits, never all decimal in its first 12 (a name that looks like a number confuses tools).
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn random_id() -> Result<String> {
    loop {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes).map_err(|e| EngineError::system(format!("no random bytes: {e}")))?;
        let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        if id.bytes().take(12).any(|b| b.is_ascii_alphabetic()) {
            return Ok(id);
        }
    }
}

/// A name for a container whose user gave none; `attempt` makes later tries longer, so that they end.
pub fn random_name(attempt: u32) -> Result<String> {
    let mut bytes = [0u8; 6];
    getrandom::fill(&mut bytes).map_err(|e| EngineError::system(format!("no random bytes: {e}")))?;
    let pick = |list: &[&'static str], a: u8, b: u8| list[usize::from(u16::from_le_bytes([a, b])) % list.len()];
    let mut name = format!("{}_{}", pick(LEFT, bytes[0], bytes[1]), pick(RIGHT, bytes[2], bytes[3]));
    if attempt > 0 {
        name.push_str(&format!("{}", u16::from_le_bytes([bytes[4], bytes[5]]) % 10u16.pow(attempt.min(4))));
    }
    Ok(name)
}

/// Checks a name that a user gave, and takes its leading slash off.
pub fn check_name(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && bare.len() > 1 {
        return Ok(bare);
    }
    Err(EngineError::invalid(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
}

/// The engine's own ID, made once per data root.
pub fn engine_id(data_root: &Path) -> Result<String> {
    let path = data_root.join("engine-id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        let id = id.trim();
        if !id.is_empty() {
            return Ok(id.into());
        }
    }
    let hex = random_id()?;
    let id = format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]);
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, &id)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|e| EngineError::from_source("cannot write the engine's ID", &e))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_docker_s_rule() {
        for good in ["ab", "/web", "a.b-c_d", "0x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a", "-ab", "a b", "a/b", "é1", "_ab"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn made_names_are_valid_names() {
        for attempt in 0..8 {
            let name = random_name(attempt).unwrap();
            assert_eq!(check_name(&name).unwrap(), name);
        }
    }
}
