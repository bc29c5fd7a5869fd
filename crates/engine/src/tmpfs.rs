//! What is asked of a tmpfs: `--tmpfs DIR:OPTIONS` and the `TmpfsOptions` of `--mount`.

use crate::error::{EngineError, Result};
use crate::spec::HostConfig;

/// What Docker knows that is a word alone (mount(8)); the others are `KEY=VALUE`.
const WORDS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "rbind",
    "relatime",
    "remount",
    "ro",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "unbindable",
];

/// What the kernel knows of a tmpfs (tmpfs(5)) and Docker lets through.
const KEYS: &[&str] = &["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Refuses what is no option of a tmpfs. Values are the kernel's to judge.
///
/// # Errors
/// `InvalidParameter` in Docker's words.
pub(crate) fn check(text: &str) -> Result<()> {
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let known = match option.split_once('=') {
            Some((key, _)) => KEYS.contains(&key),
            None => WORDS.contains(&option),
        };
        if !known {
            return Err(EngineError::invalid(format!("invalid tmpfs option {option:?}")));
        }
    }
    Ok(())
}

/// What the tmpfs at `destination` is mounted with.
pub(crate) fn options(host: &HostConfig, destination: &str) -> Vec<String> {
    let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
    let asked = host.tmpfs.iter().flatten().find(|(target, _)| target.trim_end_matches('/') == destination);
    for word in asked.iter().flat_map(|(_, text)| text.split(',')).filter(|word| !word.is_empty()) {
        add(&mut options, word);
    }
    let request =
        host.mounts.iter().flatten().find(|m| m.kind == "tmpfs" && m.target.trim_end_matches('/') == destination);
    let Some(request) = request else { return options };
    if request.read_only {
        options.push("ro".into());
    }
    if let Some(more) = &request.tmpfs_options {
        if more.size_bytes > 0 {
            options.push(format!("size={}", more.size_bytes));
        }
        if more.mode != 0 {
            options.push(format!("mode={:o}", more.mode));
        }
        for word in more.options.iter().flatten().flatten() {
            add(&mut options, word);
        }
    }
    options
}

/// A word that undoes a default takes its place.
fn add(options: &mut Vec<String>, word: &str) {
    match word {
        "suid" | "dev" | "exec" => options.retain(|have| have.strip_prefix("no") != Some(word)),
        _ => options.push(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{MountRequest, TmpfsOptions};

    #[test]
    fn what_is_no_option_is_named() {
        for good in ["", "size=64m,mode=1777", "ro,noexec,nr_inodes=7", "defaults,exec", ","] {
            check(good).unwrap();
        }
        for bad in ["foo", "size", "rw,foo=1", "exec=1", "Size=1"] {
            assert!(check(bad).unwrap_err().message.starts_with("invalid tmpfs option"), "{bad}");
        }
    }

    #[test]
    fn both_forms_say_what_is_executed() {
        let tmpfs = Some([("/a/".to_owned(), "exec,size=1m".to_owned())].into());
        let options_of = |words: &[&str]| TmpfsOptions {
            size_bytes: 4096,
            options: Some(words.iter().map(|word| vec![(*word).to_owned()]).collect()),
            ..TmpfsOptions::default()
        };
        let mount = |target: &str, words: &[&str]| MountRequest {
            kind: "tmpfs".into(),
            target: target.into(),
            tmpfs_options: Some(options_of(words)),
            ..MountRequest::default()
        };
        let mounts = Some(vec![mount("/b", &["exec"]), mount("/c", &["noexec"])]);
        let host = HostConfig { tmpfs, mounts, ..HostConfig::default() };
        assert_eq!(options(&host, "/a"), ["nosuid", "nodev", "size=1m"]);
        assert_eq!(options(&host, "/b"), ["nosuid", "nodev", "size=4096"]);
        assert_eq!(options(&host, "/c"), ["nosuid", "nodev", "noexec", "size=4096", "noexec"]);
    }
}
