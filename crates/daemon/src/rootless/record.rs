//! Where the anchor is noted, for the next launcher.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process that is the anchor if all of this is true of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) pid: i32,
    /// When it was started, in the kernel's ticks since the boot: its number may be another's by now.
    started: u64,
    namespaces: Namespaces,
}

/// The names of those that a daemon works in (namespaces(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Namespaces {
    user: String,
    mount: String,
    network: String,
}

impl Namespaces {
    fn of(process: &str) -> std::io::Result<Self> {
        Ok(Self {
            user: namespace(process, "user")?,
            mount: namespace(process, "mnt")?,
            network: namespace(process, "net")?,
        })
    }
}

impl Record {
    /// What is true of a process.
    ///
    /// # Errors
    /// When it has ended, or is not the caller's to look at.
    pub(super) fn of(pid: i32) -> std::io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name before it may have any character in it; the start is field 22, the first after the name is 3.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let started = fields.split_whitespace().nth(22 - 3).and_then(|field| field.parse().ok());
        let started = started.ok_or_else(|| std::io::Error::other("its start is not told"))?;
        Ok(Self { pid, started, namespaces: Namespaces::of(&pid.to_string())? })
    }

    /// The process, held, if it is still there.
    pub(super) fn process(&self) -> Option<OwnedFd> {
        let process = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // After the opening: the number may have become another's before it.
        (Self::of(self.pid).ok()? == *self).then_some(process)
    }

    /// Somebody else in the same namespaces, held: a monitor, most likely.
    pub(super) fn neighbour(&self) -> Option<OwnedFd> {
        let is_there = |pid: i32| Namespaces::of(&pid.to_string()).is_ok_and(|its| its == self.namespaces);
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            if !is_there(pid) {
                return None;
            }
            let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            // After the opening, as above.
            is_there(pid).then_some(process)
        })
    }

    fn path(exec_root: &Path) -> PathBuf {
        exec_root.join("anchor.json")
    }

    /// What is noted; nothing where it cannot be read.
    pub(super) fn read(exec_root: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(exec_root)).ok()?).ok()
    }

    /// Notes it, whole or not at all.
    ///
    /// # Errors
    /// As the file system.
    pub(super) fn write(&self, exec_root: &Path) -> std::io::Result<()> {
        let beside = exec_root.join("anchor.json.new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&beside, Self::path(exec_root))
    }

    pub(super) fn remove(exec_root: &Path) {
        // Nothing is what was wanted.
        let _ = fs::remove_file(Self::path(exec_root));
    }
}

/// The name of a process's user namespace (namespaces(7)).
///
/// # Errors
/// When it has ended, or is not the caller's to look at.
pub(super) fn user_namespace(process: &str) -> std::io::Result<String> {
    namespace(process, "user")
}

fn namespace(process: &str, kind: &str) -> std::io::Result<String> {
    let link = fs::read_link(format!("/proc/{process}/ns/{kind}"))?;
    Ok(link.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_and_another_of_its_number_is_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()), None);
        let mut other = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let record = Record::of(i32::try_from(other.id()).unwrap()).unwrap();
        record.write(dir.path()).unwrap();
        let read = Record::read(dir.path()).unwrap();
        assert_eq!(read, record);
        assert!(read.process().is_some() && read.neighbour().is_some());
        let nobody_s = Namespaces { network: "net:[1]".into(), ..read.namespaces.clone() };
        assert!(Record { namespaces: nobody_s, ..read.clone() }.neighbour().is_none());
        assert!(Record { started: record.started + 1, ..record.clone() }.process().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(read.process().is_none());
        Record::remove(dir.path());
        assert_eq!(Record::read(dir.path()), None);
    }
}
