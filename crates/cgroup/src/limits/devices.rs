//! Who may use which devices: a list of v1's controller, on v2 a program.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use wharf_sys::bpf;

use crate::device_list::plan;
use crate::device_program::compile;
use crate::device_rule::{Kind, Rule, allows_all};
use crate::group::Group;
use crate::rootless::is_rootless;
use crate::{CgroupError, Result};

pub(super) fn apply(group: &Group, resources: &LinuxResources) -> Result<()> {
    let rules = resources.devices().iter().flatten().map(Rule::read).collect::<Result<Vec<_>>>()?;
    // Without a group of his own, an ordinary user opens what he may open.
    if rules.is_empty() || (group.hierarchies().is_empty() && is_rootless()) {
        return Ok(());
    }
    if let Some(dir) = group.v1_dir("devices") {
        return match write(&dir, &plan(&rules)?) {
            // As below: only root of the host may write there.
            Err(CgroupError::File { source, .. }) if is_refused(&source) && is_rootless() => Ok(()),
            done => done,
        };
    }
    match attach(group, &rules) {
        // In a user namespace nobody can use more than what its user may open, and bpf(2) is out of reach.
        Err(Errno::PERM | Errno::ACCESS) if is_rootless() => Ok(()),
        done => done.map_err(CgroupError::DeviceProgram),
    }
}

/// One rule at a time, as the controller wants it.
fn write(dir: &Path, rules: &[Rule]) -> Result<()> {
    let mut files = [None, None];
    for rule in rules {
        let path = dir.join(if rule.allow { "devices.allow" } else { "devices.deny" });
        let failed = |source| CgroupError::File { action: "write", path: path.clone(), source };
        let file = match &mut files[usize::from(rule.allow)] {
            Some(file) => file,
            none => none.insert(File::options().write(true).open(&path).map_err(failed)?),
        };
        lines(*rule).iter().try_for_each(|line| file.write_all(line.as_bytes())).map_err(failed)?;
    }
    Ok(())
}

fn is_refused(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

/// A rule as v1 reads it (cgroup-v1/devices.rst). There `a` means all whatever follows it, so a rule for both types
/// that is not about all is two.
fn lines(rule: Rule) -> Vec<String> {
    if rule.is_of_all() {
        return vec!["a".into()];
    }
    let kinds: &[char] = match rule.kind {
        Kind::Any => &['b', 'c'],
        Kind::Block => &['b'],
        Kind::Character => &['c'],
    };
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    let (major, minor, access) = (number(rule.major), number(rule.minor), rule.letters());
    kinds.iter().map(|kind| format!("{kind} {major}:{minor} {access}")).collect()
}

/// The new program is there before the old ones go: at no moment is more allowed than by one of them.
fn attach(group: &Group, rules: &[Rule]) -> std::result::Result<(), Errno> {
    let Some(dir) = group.v2_dir() else { return if allows_all(rules) { Ok(()) } else { Err(Errno::NODEV) } };
    let dir = rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let old = match bpf::device_programs(dir.as_fd()) {
        // A kernel without such programs, but nothing to forbid either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) if allows_all(rules) => return Ok(()),
        old => old?,
    };
    if old.is_empty() && allows_all(rules) {
        return Ok(());
    }
    let program = bpf::load_device_program(&compile(rules), c"wharf_devices")?;
    if let [one] = &old[..] {
        match bpf::attach_device_program(dir.as_fd(), program.as_fd(), Some(one.as_fd())) {
            // Before Linux 5.6.
            Err(Errno::INVAL) => {}
            done => return done,
        }
    }
    bpf::attach_device_program(dir.as_fd(), program.as_fd(), None)?;
    old.iter().try_for_each(|old| bpf::detach_device_program(dir.as_fd(), old.as_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_gets_rules_as_it_reads_them() {
        let lines = |text: &str| lines(Rule::read(&serde_json::from_str(text).unwrap()).unwrap());
        assert_eq!(lines(r#"{"allow":false,"access":"rwm"}"#), ["a"]);
        assert_eq!(lines(r#"{"allow":true,"type":"c","major":136,"access":"rw"}"#), ["c 136:* rw"]);
        assert_eq!(lines(r#"{"allow":true,"type":"b"}"#), ["b *:* rwm"]);
        assert_eq!(lines(r#"{"allow":true,"type":"a","major":5,"minor":1,"access":"r"}"#), ["b 5:1 r", "c 5:1 r"]);
        assert_eq!(lines(r#"{"allow":true,"access":"m"}"#), ["b *:* m", "c *:* m"]);
    }
}
