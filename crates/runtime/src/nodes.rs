//! From a configuration's devices to nodes; what is of the host is opened here (runtime-spec, config-linux, "Devices").

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::Linux;
use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::host_nodes::{self, Owners};
use crate::rootfs::layer;
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
            let node = rustix::fs::openat(CWD, &step.path, flags, Mode::empty())
                .map_err(|e| RuntimeError::host("open device", &step.path, e))?;
            let found = rustix::fs::fstat(&node).map_err(|e| RuntimeError::host("look at", &step.path, e))?;
            if found.st_rdev != step.device {
                return Err(RuntimeError::host("use device", &step.path, rustix::io::Errno::NXIO));
            }
            step.host =
                Some(if unprivileged { HostNode::Late } else { HostNode::Open(layer(&step.path, None, false)?) });
        }
    }
    Ok(steps)
}
