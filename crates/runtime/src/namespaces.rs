//! Which namespaces a configuration asks for: new ones, and others' by path (runtime-spec, config-linux, "Namespaces").

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;
use wharf_sys::process::Namespaces;

use crate::plan::{Join, MOUNT};
use crate::{Result, RuntimeError};

/// What a configuration asks for, sorted.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) new: Namespaces,
    pub(crate) cgroup: bool,
    pub(crate) time: bool,
    pub(crate) joins: Vec<Join>,
    pub(crate) user_join: Option<OwnedFd>,
}

pub(crate) fn namespaces(list: &[oci_spec::runtime::LinuxNamespace]) -> Result<Asked> {
    let mut asked = Asked::default();
    for namespace in list {
        if let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            asked.join(namespace.typ(), path)?;
            continue;
        }
        let slot = match namespace.typ() {
            LinuxNamespaceType::Mount => &mut asked.new.mount,
            LinuxNamespaceType::Pid => &mut asked.new.pid,
            LinuxNamespaceType::Uts => &mut asked.new.uts,
            LinuxNamespaceType::Ipc => &mut asked.new.ipc,
            LinuxNamespaceType::Network => &mut asked.new.network,
            LinuxNamespaceType::Cgroup => &mut asked.cgroup,
            LinuxNamespaceType::User => &mut asked.new.user,
            LinuxNamespaceType::Time => &mut asked.time,
        };
        if std::mem::replace(slot, true) {
            return Err(RuntimeError::Invalid(format!("namespace `{}` is named twice", namespace.typ())));
        }
    }
    Ok(asked)
}

impl Asked {
    fn join(&mut self, typ: LinuxNamespaceType, path: &Path) -> Result<()> {
        let (kind, is) = match typ {
            LinuxNamespaceType::Pid => ("pid", LinkNameSpaceType::ProcessID),
            LinuxNamespaceType::Uts => ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
            LinuxNamespaceType::Ipc => ("ipc", LinkNameSpaceType::InterProcessCommunication),
            LinuxNamespaceType::Network => ("net", LinkNameSpaceType::Network),
            LinuxNamespaceType::Cgroup => ("cgroup", LinkNameSpaceType::ControlGroup),
            LinuxNamespaceType::User => ("user", LinkNameSpaceType::User),
            LinuxNamespaceType::Time => ("time", LinkNameSpaceType::Time),
            LinuxNamespaceType::Mount => (MOUNT, LinkNameSpaceType::Mount),
        };
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| RuntimeError::host("open namespace", path, e))?;
        if wharf_sys::namespace::kind(fd.as_fd()).map_err(|e| RuntimeError::host("use as a namespace", path, e))?
            != is as u32
        {
            return Err(RuntimeError::Invalid(format!("`{}` is no {kind} namespace", path.display())));
        }
        if kind == "user" {
            // The kernel refuses to enter the one that a process is in.
            let same = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
            if same(path) != same(Path::new("/proc/self/ns/user")) {
                self.user_join = Some(fd);
            }
        } else {
            self.joins.push(Join { kind, fd });
        }
        Ok(())
    }
}
