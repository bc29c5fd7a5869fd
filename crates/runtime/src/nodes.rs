//! From a configuration's devices to nodes; what is of the host is opened here (runtime-spec, config-linux, "Devices").

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::host_nodes::{self, Owners};
use crate::{Result, RuntimeError};

/// A node in `/dev`.
#[derive(Debug)]
pub(crate) struct DeviceStep {
    pub(crate) path: PathBuf,
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) device: u64,
    pub(crate) owner: (u32, u32),
    /// In a user namespace a node cannot be made: the host's own is mounted.
    pub(crate) host: Option<HostNode>,
}

impl DeviceStep {
    /// Whether `node` is the one that is meant: a block device and a character device may have the same number.
    ///
    /// # Errors
    /// `ENXIO` when it is not.
    pub(crate) fn check(&self, node: &OwnedFd) -> std::result::Result<(), Errno> {
        let found = rustix::fs::fstat(node)?;
        let same = FileType::from_raw_mode(found.st_mode) == self.kind
            // A pipe has no number.
            && (self.kind == FileType::Fifo || found.st_rdev == self.device);
        if same { Ok(()) } else { Err(Errno::NXIO) }
    }
}

/// The host's own node.
#[derive(Debug)]
pub(crate) enum HostNode {
    Open(OwnedFd),
    /// The child opens it: see [`MountSource::Late`].
    Late,
}

/// Links that every container's `/dev` has (runtime-spec, config-linux, "Dev symbolic links").
pub(crate) const DEV_LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// Nodes that every container has (runtime-spec, config-linux, "Default Devices").
const DEFAULT_DEVICES: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(crate) fn devices(linux: &Linux, userns: bool, unprivileged: bool) -> Result<Vec<DeviceStep>> {
    let asked = linux.devices().as_deref().unwrap_or_default();
    let mut steps = Vec::new();
    for (path, major, minor) in DEFAULT_DEVICES {
        steps.push(DeviceStep {
            path: PathBuf::from(path),
            kind: FileType::CharacterDevice,
            mode: 0o666,
            device: rustix::fs::makedev(*major, *minor),
            owner: (0, 0),
            host: None,
        });
    }
    for device in asked {
        let kind = match device.typ() {
            oci_spec::runtime::LinuxDeviceType::B => FileType::BlockDevice,
            oci_spec::runtime::LinuxDeviceType::P => FileType::Fifo,
            oci_spec::runtime::LinuxDeviceType::A => {
                return Err(RuntimeError::Invalid(format!("device `{}` has no type", device.path().display())));
            }
            _ => FileType::CharacterDevice,
        };
        let number = |n: i64| u32::try_from(n).map_err(|_| RuntimeError::Invalid(format!("device number {n}")));
        if [device.uid(), device.gid()].contains(&Some(u32::MAX)) {
            // "As it was" (chown(2)).
            return Err(RuntimeError::Invalid(format!("device `{}` of user {}", device.path().display(), u32::MAX)));
        }
        steps.retain(|step| step.path != *device.path());
        steps.push(DeviceStep {
            path: device.path().clone(),
            kind,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            device: rustix::fs::makedev(number(device.major())?, number(device.minor())?),
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
            host: None,
        });
    }
    if userns {
        let owners = Owners::of(linux);
        for step in &mut steps {
            let named = asked.iter().any(|device| *device.path() == step.path);
            if named
                && !unprivileged
                && let Ok(node) = host_nodes::make(step, &owners)
            {
                step.host = Some(HostNode::Open(node));
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = match rustix::fs::openat(CWD, &step.path, flags, Mode::empty()) {
                // It has another name in the container than on the host.
                Err(Errno::NOENT) if !unprivileged => match named_by_kernel(step) {
                    Some(path) => rustix::fs::openat(CWD, path, flags, Mode::empty()),
                    None => Err(Errno::NOENT),
                },
                opened => opened,
            };
            let node = node.map_err(|e| RuntimeError::host("open device", &step.path, e))?;
            step.check(&node).map_err(|errno| RuntimeError::host("use device", &step.path, errno))?;
            step.host = Some(if unprivileged {
                HostNode::Late
            } else {
                // Of what was looked at, and not of what is at its path by now.
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let tree = open_tree(&node, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
                    .map_err(|errno| RuntimeError::host("open device", &step.path, errno))?;
                HostNode::Open(tree)
            });
        }
    }
    Ok(steps)
}

/// Where the kernel has a device's node on the host (devtmpfs), by its number.
fn named_by_kernel(step: &DeviceStep) -> Option<PathBuf> {
    let kind = if step.kind == FileType::BlockDevice { "block" } else { "char" };
    let (major, minor) = (rustix::fs::major(step.device), rustix::fs::minor(step.device));
    let told = std::fs::read_to_string(format!("/sys/dev/{kind}/{major}:{minor}/uevent")).ok()?;
    Some(Path::new("/dev").join(told.lines().find_map(|line| line.strip_prefix("DEVNAME="))?))
}

#[cfg(test)]
mod tests {
    use rustix::fs::mknodat;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_host_s_node_is_taken_for_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        // Without mappings nothing can be made for the container: the host's own must do.
        let plan = |kind: &str, major: u32, minor: u32| {
            let linux = json!({ "devices": [{ "path": path, "type": kind, "major": major, "minor": minor }] });
            devices(&serde_json::from_value(linux).unwrap(), true, false)
        };
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let error = plan("c", 0, 0).unwrap_err().to_string();
        assert!(error.contains("use device"), "{error}");
        match plan("p", 0, 0) {
            Err(RuntimeError::Host { errno: Errno::PERM, .. }) => return eprintln!("skipped: no right to copy mounts"),
            planned => drop(planned.unwrap()),
        }
        std::fs::remove_file(&path).unwrap();
        if let Err(errno) =
            mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o600), rustix::fs::makedev(1, 3))
        {
            return eprintln!("skipped: no right to make a device: {errno}");
        }
        assert!(plan("b", 1, 3).is_err() && plan("c", 1, 5).is_err());
        let steps = plan("c", 1, 3).unwrap();
        let Some(Some(HostNode::Open(node))) = steps.iter().find(|step| step.path == path).map(|step| &step.host)
        else {
            panic!("{steps:?}");
        };
        assert_eq!(rustix::fs::fstat(node).unwrap().st_rdev, rustix::fs::makedev(1, 3));
    }
}
