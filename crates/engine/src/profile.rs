//! A seccomp profile of the user's own, in Docker's format: OCI's with conditions on capabilities, architectures
//! and kernels around the rules (moby, `profiles/seccomp/seccomp_linux.go`).

use serde_json::{Map, Value, json};
use wharf_runtime::{CAPABILITIES, DefaultFilter, docker_defaults};

use crate::container_defaults::SeccompDefault;
use crate::engine::bounding_set;
use crate::error::{EngineError, Result};
use crate::security;
use crate::spec::HostConfig;

/// What of its system calls a container is held to.
#[derive(Debug)]
pub(crate) enum Filter {
    /// Nothing.
    None,
    Default(DefaultFilter),
    /// The section of a profile that the user gave.
    Own(Value),
}

impl Filter {
    /// For programs of `architecture`, with `capabilities` as their bounding set.
    ///
    /// # Errors
    /// `InvalidParameter` when the user's profile is none.
    pub(crate) fn of(
        host: &HostConfig,
        default: &SeccompDefault,
        architecture: &str,
        capabilities: &[String],
    ) -> Result<Self> {
        let own = |profile: &str| parse(profile, capabilities).map(Self::Own);
        let built_in = || Ok(Self::Default(DefaultFilter::new(architecture, capabilities)));
        match security::option(host, "seccomp").filter(|profile| !profile.is_empty()) {
            Some("unconfined") => Ok(Self::None),
            Some("builtin") => built_in(),
            Some(profile) => own(profile),
            // Who is privileged is held to what was asked for by name alone (moby/moby#47499).
            None if host.privileged => Ok(Self::None),
            None => match default {
                SeccompDefault::Builtin => built_in(),
                SeccompDefault::Unconfined => Ok(Self::None),
                SeccompDefault::File(_, profile) => own(profile),
            },
        }
    }
}

/// The filter of a container that nobody has asked anything special of.
pub fn common_filter() -> DefaultFilter {
    let held = CAPABILITIES.iter().zip(0..).filter(|(_, bit)| bounding_set() & (1 << bit) != 0).map(|(name, _)| *name);
    DefaultFilter::new("", held.filter(|name| docker_defaults::CAPABILITIES.contains(name)))
}

/// The section of a profile that a user gave, made sure that a filter can be made of it.
///
/// # Errors
/// `InvalidParameter` with Docker's words.
fn parse(text: &str, capabilities: &[String]) -> Result<Value> {
    let fail = |e: &dyn std::error::Error| {
        EngineError::invalid(format!("Decoding seccomp profile failed: {}", wharf_report::chain(e)))
    };
    let profile = serde_json::from_str(text).map_err(|e| fail(&e))?;
    let section = section(&profile, capabilities)?;
    let oci = serde_json::from_value(section.clone()).map_err(|e| fail(&e))?;
    wharf_seccomp::from_oci(&oci).map_err(|e| fail(&e))?.compile().map_err(|e| fail(&e))?;
    Ok(section)
}

/// The OCI section of a profile for a process with these capabilities.
///
/// # Errors
/// `InvalidParameter` when it is no profile.
fn section(profile: &Value, capabilities: &[String]) -> Result<Value> {
    let bad = |what: &str| EngineError::invalid(format!("Decoding seccomp profile failed: {what}"));
    let profile = profile.as_object().ok_or_else(|| bad("it is no object"))?;
    let default =
        profile.get("defaultAction").and_then(Value::as_str).ok_or_else(|| bad("defaultAction is missing"))?;
    let mut section = json!({ "defaultAction": default });
    if let Some(errno) = profile.get("defaultErrnoRet").filter(|v| !v.is_null()) {
        section["defaultErrnoRet"] = errno.clone();
    }
    if let Some(architectures) = architectures(profile).map_err(bad)? {
        section["architectures"] = architectures;
    }
    if let Some(flags) = profile.get("flags").filter(|v| !v.is_null()) {
        section["flags"] = flags.clone();
    }
    if profile.get("listenerPath").and_then(Value::as_str).is_some_and(|path| !path.is_empty()) {
        return Err(bad("a listenerPath is for bundles (`wharf oci`); remove it and SCMP_ACT_NOTIFY"));
    }
    let mut syscalls = Vec::new();
    for rule in profile.get("syscalls").and_then(Value::as_array).into_iter().flatten() {
        let rule = rule.as_object().ok_or_else(|| bad("a rule is no object"))?;
        if !applies(rule, capabilities) {
            continue;
        }
        let mut names: Vec<Value> = rule.get("names").and_then(Value::as_array).cloned().unwrap_or_default();
        names.extend(rule.get("name").filter(|name| name.as_str().is_some_and(|n| !n.is_empty())).cloned());
        let action = rule.get("action").ok_or_else(|| bad("a rule has no action"))?;
        let mut own = json!({ "names": names, "action": action });
        for key in ["errnoRet", "args"] {
            if let Some(value) = rule.get(key).filter(|value| !value.is_null()) {
                own[key] = value.clone();
            }
        }
        syscalls.push(own);
    }
    section["syscalls"] = syscalls.into();
    Ok(section)
}

/// The architectures that a profile is for: given as such, or for each native one in `archMap`.
fn architectures(profile: &Map<String, Value>) -> std::result::Result<Option<Value>, &'static str> {
    let list = |key: &str| profile.get(key).and_then(Value::as_array).filter(|list| !list.is_empty());
    let native = match std::env::consts::ARCH {
        "aarch64" => "SCMP_ARCH_AARCH64",
        _ => "SCMP_ARCH_X86_64",
    };
    match (list("architectures"), list("archMap")) {
        (Some(_), Some(_)) => {
            Err("both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
             'architectures' or 'archMap'")
        }
        (Some(given), None) => Ok(Some(given.clone().into())),
        (None, Some(map)) => {
            let own = map.iter().find(|entry| entry["architecture"] == native);
            Ok(own.map(|entry| {
                let others = entry["subArchitectures"].as_array().cloned().unwrap_or_default();
                std::iter::once(entry["architecture"].clone()).chain(others).collect()
            }))
        }
        (None, None) => Ok(None),
    }
}

/// Whether a rule's conditions hold on this machine.
fn applies(rule: &Map<String, Value>, capabilities: &[String]) -> bool {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let list = |of: &Value, key: &str| -> Vec<String> {
        let values = of.get(key).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let has = |name: &String| capabilities.contains(name);
    if let Some(includes) = rule.get("includes").filter(|v| v.is_object()) {
        let arches = list(includes, "arches");
        if !arches.is_empty() && !arches.iter().any(|a| a == architecture) {
            return false;
        }
        if !list(includes, "caps").iter().all(has) {
            return false;
        }
        if let Some(least) = includes.get("minKernel").and_then(Value::as_str)
            && kernel() < version(least)
        {
            return false;
        }
    }
    if let Some(excludes) = rule.get("excludes").filter(|v| v.is_object()) {
        if list(excludes, "arches").iter().any(|a| a == architecture) || list(excludes, "caps").iter().any(has) {
            return false;
        }
        if let Some(least) = excludes.get("minKernel").and_then(Value::as_str)
            && kernel() >= version(least)
        {
            return false;
        }
    }
    true
}

fn kernel() -> (u32, u32) {
    version(&rustix::system::uname().release().to_string_lossy())
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_choose_the_rules() {
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
            { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
            { "names": ["sync_file_range2"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["ppc64le"] } },
        ]});
        let names = |caps: &[String]| -> Vec<String> {
            let section = section(&profile, caps).unwrap();
            let rules = section["syscalls"].as_array().unwrap();
            rules.iter().map(|r| r["names"][0].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&[]), ["read", "clone", "ptrace"]);
        assert_eq!(names(&["CAP_SYS_ADMIN".into()]), ["read", "mount", "ptrace"]);
        assert!(section(&json!([]), &[]).is_err());
    }

    #[test]
    fn who_is_privileged_is_held_to_a_profile_of_its_own() {
        let of = |option: Option<&str>| {
            let security_opt = option.map(|text| vec![text.to_owned()]);
            Filter::of(
                &HostConfig { privileged: true, security_opt, ..HostConfig::default() },
                &SeccompDefault::Builtin,
                "",
                &[],
            )
            .unwrap()
        };
        assert!(matches!(of(None), Filter::None));
        assert!(matches!(of(Some("seccomp=unconfined")), Filter::None));
        assert!(matches!(of(Some("seccomp=builtin")), Filter::Default(_)));
        assert!(matches!(of(Some(r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#)), Filter::Own(_)));
    }

    #[test]
    fn architectures_are_the_native_one_s() {
        let of = |profile: Value| section(&profile, &[]).map(|section| section["architectures"].clone());
        let (native, other) = match std::env::consts::ARCH {
            "aarch64" => ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
            _ => ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
        };
        let action = "SCMP_ACT_ERRNO";
        assert_eq!(of(json!({ "defaultAction": action })).unwrap(), Value::Null);
        let given = json!({ "defaultAction": action, "architectures": [other] });
        assert_eq!(of(given).unwrap(), json!([other]));
        let map = json!([
            { "architecture": "SCMP_ARCH_MIPS64", "subArchitectures": ["SCMP_ARCH_MIPS"] },
            { "architecture": native, "subArchitectures": [other] },
        ]);
        assert_eq!(of(json!({ "defaultAction": action, "archMap": map })).unwrap(), json!([native, other]));
        let both = json!({ "defaultAction": action, "archMap": map, "architectures": [native] });
        assert!(of(both).unwrap_err().message.contains("use either"));
    }

    #[test]
    fn a_profile_that_makes_no_filter_is_refused() {
        assert!(parse(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#, &[]).is_ok());
        let listener = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent.sock"}"#;
        for bad in ["default", "{}", r#"{"defaultAction":"SCMP_ACT_NONSENSE"}"#, listener] {
            let error = parse(bad, &[]).unwrap_err().message;
            assert!(error.starts_with("Decoding seccomp profile failed: "), "{error}");
        }
    }
}
