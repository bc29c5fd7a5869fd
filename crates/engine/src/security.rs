//! `--security-opt` (moby, `daemon/daemon_unix.go`, `parseSecurityOpt`).

use crate::error::{EngineError, Result};
use crate::spec::HostConfig;

/// Reads one value, `KEY=VALUE` or the old `KEY:VALUE`.
pub(crate) fn option<'a>(host: &'a HostConfig, key: &str) -> Option<&'a str> {
    host.security_opt.iter().flatten().rev().find_map(|option| {
        let (name, value) = split(option).unwrap_or((option, ""));
        (name == key).then_some(value)
    })
}

fn split(option: &str) -> Option<(&str, &str)> {
    option.split_once('=').or_else(|| option.split_once(':'))
}

/// Refuses what would otherwise be left out without a word.
pub(crate) fn check(host: &HostConfig) -> Result<()> {
    for option in host.security_opt.iter().flatten() {
        // The second is an old word for `label=disable`.
        if matches!(option.as_str(), "no-new-privileges" | "disable" | "writable-cgroups") {
            continue;
        }
        let Some((name, value)) = split(option) else {
            return Err(EngineError::invalid(format!("invalid --security-opt 1: {option:?}")));
        };
        let known = match name {
            "no-new-privileges" | "writable-cgroups" => truth(value).is_some(),
            // Labels and profiles are of modules that this kernel may not have: as with Docker they then mean nothing.
            "seccomp" | "label" | "apparmor" => true,
            _ => false,
        };
        if !known {
            return Err(EngineError::invalid(format!("invalid --security-opt 2: {option:?}")));
        }
    }
    Ok(())
}

/// Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the container may change the groups below its own.
pub(crate) fn writable_cgroups(host: &HostConfig) -> bool {
    option(host, "writable-cgroups").is_some_and(|value| value.is_empty() || truth(value) == Some(true))
}

/// `default` is that of containers that do not say.
pub(crate) fn no_new_privileges(host: &HostConfig, default: bool) -> Result<bool> {
    match option(host, "no-new-privileges") {
        None => Ok(default),
        Some("") => Ok(true),
        Some(value) => truth(value)
            .ok_or_else(|| EngineError::invalid(format!("invalid --security-opt 2: \"no-new-privileges={value}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(option: &str) -> HostConfig {
        HostConfig { security_opt: Some(vec![option.to_owned()]), ..HostConfig::default() }
    }

    #[test]
    fn unknown_options_are_refused_in_moby_s_words() {
        for (bad, message) in [
            ("bogus=1", "invalid --security-opt 2: \"bogus=1\""),
            ("bogus", "invalid --security-opt 1: \"bogus\""),
            ("label", "invalid --security-opt 1: \"label\""),
            ("no-new-privileges=maybe", "invalid --security-opt 2: \"no-new-privileges=maybe\""),
        ] {
            assert_eq!(check(&with(bad)).unwrap_err().message, message);
        }
        for good in
            ["no-new-privileges", "no-new-privileges:true", "writable-cgroups", "seccomp={\"a\":1}", "label=disable"]
        {
            check(&with(good)).unwrap();
        }
    }

    #[test]
    fn groups_are_writable_where_that_is_said() {
        for (said, writable) in
            [("writable-cgroups", true), ("writable-cgroups=true", true), ("writable-cgroups=0", false)]
        {
            assert_eq!(writable_cgroups(&with(said)), writable, "{said}");
        }
    }

    #[test]
    fn both_separators_are_read() {
        assert_eq!(option(&with("seccomp:unconfined"), "seccomp"), Some("unconfined"));
        assert_eq!(option(&with("seccomp={\"a\":1}"), "seccomp"), Some("{\"a\":1}"));
        assert!(no_new_privileges(&with("no-new-privileges"), false).unwrap());
        assert!(!no_new_privileges(&with("no-new-privileges=0"), true).unwrap());
        assert!(no_new_privileges(&HostConfig::default(), true).unwrap());
    }
}
