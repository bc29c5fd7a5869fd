//! What is refused of a configuration before anything is made.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Process, Spec};
use wharf_runtime::{HookSet, Point};

use crate::failure::{Failure, Result};

/// Checks what needs no look at the host, but at namespaces that kernel parameters are set in; `plan` of the runtime
/// checks the rest.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let bad = |text: String| Err(Failure::new(format!("invalid configuration: {text}")));
    let version = spec.version();
    let mut numbers = version.split(['.', '-', '+']);
    let numbered = (0..3).all(|_| numbers.next().is_some_and(|n| n.parse::<u32>().is_ok()));
    if !numbered || !version.starts_with("1.") {
        return bad(format!("ociVersion `{version}` is not 1.x"));
    }
    let Some(root) = spec.root() else { return bad("there is no root".into()) };
    if root.path().as_os_str().is_empty() {
        return bad("the root has no path".into());
    }
    if let Some(process) = spec.process() {
        check_process(process)?;
    }
    let Some(linux) = spec.linux() else { return bad("there is no linux section".into()) };
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (index, one) in namespaces.iter().enumerate() {
        if namespaces[..index].iter().any(|other| other.typ() == one.typ()) {
            return bad(format!("namespace `{}` is named twice", one.typ()));
        }
    }
    let own = |kind: LinuxNamespaceType| namespaces.iter().any(|namespace| namespace.typ() == kind);
    if spec.hostname().as_deref().is_some_and(|name| !name.is_empty()) && !own(LinuxNamespaceType::Uts) {
        return Err(Failure::new("unable to set hostname without a private UTS namespace"));
    }
    if spec.domainname().as_deref().is_some_and(|name| !name.is_empty()) && !own(LinuxNamespaceType::Uts) {
        return Err(Failure::new("unable to set domainname without a private UTS namespace"));
    }
    for key in linux.sysctl().iter().flatten().map(|(key, _)| key) {
        if key.replace('/', ".") == "kernel.hostname" {
            return Err(Failure::new(format!(
                "sysctl {key:?} is not allowed as it conflicts with the OCI \"hostname\" field"
            )));
        }
        let Some(kind) = namespace_of(key) else {
            return Err(Failure::new(format!("sysctl {key:?} is not in a separate kernel namespace")));
        };
        let named = namespaces.iter().find(|namespace| namespace.typ() == kind);
        if named.map_or(Ok(true), is_host_s)? {
            // In runc's words.
            let text = match kind {
                LinuxNamespaceType::Network => "not allowed in host network namespace".to_owned(),
                kind => format!("is not allowed in the hosts {kind} namespace"),
            };
            return Err(Failure::new(format!("sysctl {key:?} {text}")));
        }
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !own(LinuxNamespaceType::Time) {
        return bad("timeOffsets without a time namespace".into());
    }
    let maps = [linux.uid_mappings(), linux.gid_mappings()].into_iter().flatten().any(|list| !list.is_empty());
    if maps && !own(LinuxNamespaceType::User) {
        return Err(Failure::new("user namespace mappings specified, but user namespace isn't enabled in the config"));
    }
    let rules = linux.resources().iter().flat_map(|resources| resources.devices().iter().flatten());
    if let Some(access) =
        rules.filter_map(|rule| rule.access().as_deref()).find(|a| !a.chars().all(|c| "rwm".contains(c)))
    {
        return bad(format!("the access `{access}` to devices is not of the letters r, w and m"));
    }
    let path = |path: &String| !path.starts_with('/');
    if let Some(path) = linux.masked_paths().iter().chain(linux.readonly_paths().iter()).flatten().find(|p| path(p)) {
        return bad(format!("path `{path}` is not absolute"));
    }
    if spec.annotations().iter().flatten().any(|(key, _)| key.is_empty()) {
        return bad("an annotation has an empty key".into());
    }
    check_hooks(spec)
}

/// Whether a namespace that is joined is the caller's own.
fn is_host_s(namespace: &LinuxNamespace) -> Result<bool> {
    let Some(path) = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) else { return Ok(false) };
    let own = match namespace.typ() {
        LinuxNamespaceType::Network => "/proc/self/ns/net",
        LinuxNamespaceType::Ipc => "/proc/self/ns/ipc",
        _ => "/proc/self/ns/uts",
    };
    let id = |path: &Path| -> Result<(u64, u64)> {
        let found =
            std::fs::metadata(path).map_err(|error| Failure::file("invalid namespace path: stat", path, &error))?;
        Ok((found.dev(), found.ino()))
    };
    Ok(id(path)? == id(Path::new(own))?)
}

fn check_process(process: &Process) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::new("args must not be empty"));
    }
    check_environment(process)?;
    if !process.cwd().is_absolute() {
        return Err(Failure::new("Cwd must be an absolute path"));
    }
    if process.oom_score_adj().is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(Failure::new("invalid configuration: oomScoreAdj is not between -1000 and 1000"));
    }
    Ok(())
}

/// `NAME=value`, in the words of runc, which refuses others since 1.3.
pub(crate) fn check_environment(process: &Process) -> Result<()> {
    for pair in process.env().iter().flatten() {
        match pair.split_once('=') {
            None => return Err(Failure::new(format!("invalid environment variable {pair:?}: missing '='"))),
            Some(("", _)) => {
                return Err(Failure::new(format!("invalid environment variable {pair:?}: name cannot be empty")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn check_hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let set = HookSet { hooks, state: &serde_json::Value::Null };
    for point in Point::ALL {
        for hook in set.at(point) {
            let bad = |text: &str| {
                Failure::new(format!(
                    "invalid configuration: the {} hook `{}` {text}",
                    point.name(),
                    hook.path().display()
                ))
            };
            if !hook.path().is_absolute() {
                return Err(bad("is not an absolute path"));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(bad("has a timeout that is not greater than zero"));
            }
        }
    }
    Ok(())
}

/// Which namespace a kernel parameter belongs to; the others are the host's.
fn namespace_of(key: &str) -> Option<LinuxNamespaceType> {
    // Both separators are usual (sysctl(8)).
    let key = key.replace('/', ".");
    if key.split('.').any(|part| part.is_empty()) {
        return None;
    }
    match key.as_str() {
        "kernel.msgmax"
        | "kernel.msgmnb"
        | "kernel.msgmni"
        | "kernel.sem"
        | "kernel.shmall"
        | "kernel.shmmax"
        | "kernel.shmmni"
        | "kernel.shm_rmid_forced" => Some(LinuxNamespaceType::Ipc),
        "kernel.domainname" => Some(LinuxNamespaceType::Uts),
        other if other.starts_with("fs.mqueue.") => Some(LinuxNamespaceType::Ipc),
        other if other.starts_with("net.") => Some(LinuxNamespaceType::Network),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    type Change = dyn FnOnce(&mut Value);

    fn after(change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut config: Value = serde_json::from_str(&crate::spec::example(false)).unwrap();
        change(&mut config);
        let spec: Spec = serde_json::from_value(config).map_err(|error| Failure::new(error.to_string()))?;
        check(&spec)
    }

    #[test]
    fn contradictions_and_unknown_values_are_refused() {
        assert!(after(|_| {}).is_ok());
        assert!(after(|c| c["linux"]["uidMappings"] = json!([])).is_ok());
        assert!(after(|c| c["linux"]["timeOffsets"] = json!({})).is_ok());
        let wrong: Vec<Box<Change>> = vec![
            Box::new(|c| c["ociVersion"] = json!("2.0.0")),
            Box::new(|c| c["ociVersion"] = json!("one")),
            Box::new(|c| c["process"]["cwd"] = json!("relative")),
            Box::new(|c| c["process"]["args"] = json!([])),
            Box::new(|c| c["process"]["env"] = json!(["A=b", "C"])),
            Box::new(|c| c["process"]["env"] = json!(["=b"])),
            Box::new(|c| c["process"]["oomScoreAdj"] = json!(1001)),
            Box::new(|c| c["linux"]["namespaces"] = json!([{"type": "pid"}, {"type": "pid"}])),
            Box::new(|c| c["linux"]["namespaces"] = json!([{"type": "mount"}])),
            Box::new(|c| c["linux"]["namespaces"] = json!([{"type": "frob"}])),
            Box::new(|c| c["linux"]["sysctl"] = json!({"kernel.core_pattern": "|/x"})),
            Box::new(|c| c["linux"]["sysctl"] = json!({"net/../kernel/core_pattern": "|/x"})),
            Box::new(|c| c["linux"]["sysctl"] = json!({"kernel.hostname": "a"})),
            Box::new(|c| {
                c["linux"]["namespaces"] = json!([{ "type": "network", "path": "/proc/thread-self/ns/net" }]);
                c["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
            }),
            Box::new(|c| {
                c["linux"]["namespaces"] = json!([{ "type": "ipc", "path": "/no/such" }]);
                c["linux"]["sysctl"] = json!({"kernel.shmmni": "1"});
            }),
            Box::new(|c| c["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}])),
            Box::new(|c| c["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1}})),
            Box::new(|c| c["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rx"}])),
            Box::new(|c| c["annotations"] = json!({"": "a"})),
            Box::new(|c| c["linux"]["maskedPaths"] = json!(["proc"])),
            Box::new(|c| c["hooks"] = json!({"prestart": [{"path": "relative"}]})),
            Box::new(|c| c["hooks"] = json!({"poststop": [{"path": "/x", "timeout": 0}]})),
        ];
        for (number, change) in wrong.into_iter().enumerate() {
            assert!(after(change).is_err(), "case {number}");
        }
    }
}
