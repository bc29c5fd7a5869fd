//! Names of volumes: checked, and made.

use crate::{Result, VolumeError};

/// The longest name of a directory (NAME_MAX, linux/limits.h).
const MAX: usize = 255;
/// The longest that stands before the name of a volume that goes.
const PREFIX: usize = 16;

/// Checks a name that a user gave (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`).
pub(crate) fn check(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(VolumeError::ShortName(name.to_owned()));
    }
    if name.len() > MAX {
        return Err(VolumeError::LongName(name.chars().take(64).collect()));
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Ok(());
    }
    Err(VolumeError::Name(name.to_owned()))
}

/// As much of a name's end as has room behind a prefix of ours.
pub(crate) fn end(name: &str) -> &str {
    // Names are ASCII.
    name.get(name.len().saturating_sub(MAX - PREFIX)..).unwrap_or(name)
}

/// Checks the name of a snapshot, which follows the same rule.
pub(crate) fn check_snapshot(volume: &str, name: &str) -> Result<()> {
    let why = || VolumeError::SnapshotName { volume: volume.to_owned(), name: name.chars().take(64).collect() };
    check(name).map_err(|_| why())
}

/// A name for a volume that nobody named: 64 hex digits.
pub(crate) fn random() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(VolumeError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_docker_s_rule() {
        for good in ["ab", "a.b-c_d", "0x", &random().unwrap()] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-ab", ".ab", "..", "a b", "a/b", "é1", "_ab", &"a".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
