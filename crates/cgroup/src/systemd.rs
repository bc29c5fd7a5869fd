//! Groups that systemd makes: transient scopes, asked for over D-Bus (org.freedesktop.systemd1(5)).
//!
//! systemd takes the groups of the host for its own. Who asks it for a scope with `Delegate` gets one that is left
//! alone: the group of the scope is then used as any other, and limits are written to its files. They are told to
//! systemd as well, which would else write its own idea of them back when it is reloaded.

mod bus;
mod properties;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde::{Deserialize, Serialize};
use wharf_dbus::{Body, Property, Refusal};
use wharf_sys::fds;
use wharf_sys::process::{Namespaces, clone3};

use crate::{CgroupError, Result, is_rootless};
use bus::Connection;

/// Where a scope is, by the three words of `cgroupsPath`: `SLICE:PREFIX:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    slice: String,
    unit: String,
    /// Whose manager: the system's, or an ordinary user's own.
    user: bool,
}

impl Scope {
    /// Reads `cgroupsPath`; without one, or with words left empty, it is `wharf-ID.scope` in the slice where such are.
    ///
    /// # Errors
    /// When it does not have three words, or they make no name of a unit.
    pub fn read(path: Option<&str>, id: &str) -> Result<Self> {
        let user = is_rootless();
        Self::of(path.unwrap_or_default(), id, user)
    }

    fn of(path: &str, id: &str, user: bool) -> Result<Self> {
        let bad = || CgroupError::ScopePath(path.to_owned());
        let default = format!(":wharf:{id}");
        let mut words = if path.is_empty() { default.split(':') } else { path.split(':') };
        let (Some(slice), Some(prefix), Some(name), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad());
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            other => other,
        };
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        // systemd.unit(5).
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
        if name.is_empty() || unit.len() > 255 || !plain(&unit) || !plain(slice) || slice_path(slice).is_none() {
            return Err(bad());
        }
        Ok(Self { slice: slice.to_owned(), unit, user })
    }

    /// The scope's group below that of the manager that makes it.
    fn path_below(&self) -> String {
        format!("{}/{}", slice_path(&self.slice).unwrap_or_default(), self.unit)
    }

    /// Makes the scope. It goes when nobody is in it, so a process of ours is, until the value is dropped.
    ///
    /// The caller has one thread: the process is a copy of it.
    ///
    /// # Errors
    /// When systemd is not the host's, cannot be reached, or does not want to.
    pub fn start(&self, resources: Option<&LinuxResources>, v2: bool) -> Result<Started> {
        let mut connection = self.connect()?;
        let limits = resources.map(|resources| properties::of(resources, v2)).transpose()?;
        let keeper = Keeper::new().map_err(|errno| CgroupError::Systemd(format!("no process for it: {errno}")))?;
        let mut all = vec![
            ("Description", Property::Text(format!("container {}", self.unit))),
            ("Slice", Property::Text(self.slice.clone())),
            ("Delegate", Property::Flag(true)),
            ("PIDs", Property::Numbers(vec![keeper.pid])),
            ("DefaultDependencies", Property::Flag(false)),
            ("CPUAccounting", Property::Flag(true)),
            ("MemoryAccounting", Property::Flag(true)),
            ("TasksAccounting", Property::Flag(true)),
        ];
        all.extend(limits.into_iter().flatten());
        let body = Body::default().text(&self.unit).text("fail").properties(&all).no_other_units();
        let job = connection.manager("StartTransientUnit", &body)?.map_err(|refusal| self.refused(&refusal))?;
        self.done(&mut connection, &job.texts)?;
        let root = if self.user { user_group()? } else { String::new() };
        Ok(Started { path: format!("{root}{}", self.path_below()), _keeper: keeper })
    }

    /// Tells systemd of changed limits.
    ///
    /// # Errors
    /// As [`Scope::start`].
    pub fn set(&self, resources: &LinuxResources, v2: bool) -> Result<()> {
        let all = properties::of(resources, v2)?;
        if all.is_empty() {
            return Ok(());
        }
        // For as long as the unit runs: it is a transient one.
        let body = Body::default().text(&self.unit).flag(true).properties(&all);
        let answer = self.connect()?.manager("SetUnitProperties", &body)?;
        answer.map(drop).map_err(|refusal| self.refused(&refusal))
    }

    /// Stops the scope, and forgets it if it has failed. One that is not there is no error.
    ///
    /// # Errors
    /// As [`Scope::start`].
    pub fn stop(&self) -> Result<()> {
        let mut connection = self.connect()?;
        let body = Body::default().text(&self.unit).text("replace");
        match connection.manager("StopUnit", &body)? {
            Ok(job) => self.done(&mut connection, &job.texts)?,
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(refusal) => return Err(self.refused(&refusal)),
        }
        match connection.manager("ResetFailedUnit", &Body::default().text(&self.unit))? {
            Err(refusal) if !refusal.name.ends_with(".NoSuchUnit") => Err(self.refused(&refusal)),
            _ => Ok(()),
        }
    }

    fn connect(&self) -> Result<Connection> {
        booted()?;
        let mut connection = Connection::open(self.user)?;
        // Signals go to who has asked for them.
        let asked = connection.manager("Subscribe", &Body::default())?;
        match asked {
            Err(refusal) if !refusal.name.ends_with(".AlreadySubscribed") => Err(self.refused(&refusal)),
            _ => Ok(connection),
        }
    }

    fn done(&self, connection: &mut Connection, job: &[String]) -> Result<()> {
        let job = job.first().ok_or_else(|| CgroupError::Systemd("no job was answered".into()))?;
        match connection.job(job)?.as_str() {
            "done" => Ok(()),
            other => Err(CgroupError::Systemd(format!("the job for {} ended as `{other}`", self.unit))),
        }
    }

    fn refused(&self, refusal: &Refusal) -> CgroupError {
        CgroupError::Systemd(format!("{}: {} ({})", self.unit, refusal.text, refusal.name))
    }
}

/// A scope that was made.
#[derive(Debug)]
pub struct Started {
    /// Of its group.
    pub path: String,
    _keeper: Keeper,
}

/// A process that does nothing, and ends with the one that made it at the latest.
#[derive(Debug)]
struct Keeper {
    pid: u32,
    pidfd: OwnedFd,
    /// It reads at the other end, and ends when nobody has this one any more.
    end: Option<OwnedFd>,
}

impl Keeper {
    fn new() -> std::result::Result<Self, Errno> {
        let (theirs, end) = pipe_with(PipeFlags::CLOEXEC)?;
        let child = clone3(Namespaces::default(), None, || {
            if let Ok(theirs) = fds::keep_only(theirs.as_raw_fd(), 0).and_then(|()| fds::adopt(0)) {
                let _ = rustix::io::read(&theirs, &mut [0]);
            }
            0
        })?;
        let pid = u32::try_from(child.pid.as_raw_nonzero().get()).map_err(|_| Errno::INVAL)?;
        Ok(Self { pid, pidfd: child.pidfd, end: Some(end) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end = None;
        // That alone would not do: a container that has not started yet has a copy of it.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// As sd_booted(3) finds out.
fn booted() -> Result<()> {
    if Path::new("/run/systemd/system").is_dir() { Ok(()) } else { Err(CgroupError::NoSystemd) }
}

/// `/a.slice/a-b.slice` of `a-b.slice` (systemd.slice(5)); nothing of `-.slice`, the root.
fn slice_path(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let mut path = String::new();
    let mut so_far = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(part);
        path.push_str(&format!("/{so_far}.slice"));
    }
    Some(path)
}

/// The group of the user's own manager: this process's, up to the manager's service.
fn user_group() -> Result<String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let service = format!("user@{}.service", rustix::process::geteuid().as_raw());
    let end = path.find(&service).map(|at| at + service.len());
    let group = end.and_then(|end| path.get(..end)).map(str::to_owned);
    group
        .ok_or_else(|| CgroupError::Systemd(format!("this process is not below {service}: log in with a user manager")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_those_of_their_names() {
        assert_eq!(slice_path("system.slice").unwrap(), "/system.slice");
        assert_eq!(slice_path("a-b-c.slice").unwrap(), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(slice_path("-.slice").unwrap(), "");
        for bad in ["", ".slice", "a", "a--b.slice", "-a.slice", "a/b.slice"] {
            assert_eq!(slice_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn three_words_name_a_scope() {
        let path = |text: &str, user| Scope::of(text, "x1", user).map(|scope| scope.path_below());
        assert_eq!(
            path("machine-vm.slice:docker:abc", false).unwrap(),
            "/machine.slice/machine-vm.slice/docker-abc.scope"
        );
        assert_eq!(path("", false).unwrap(), "/system.slice/wharf-x1.scope");
        assert_eq!(path("::abc", true).unwrap(), "/user.slice/abc.scope");
        for bad in
            ["/wharf/abc", "a.slice:b", "a.slice:b:c:d", "a:b:c", "a.slice:b:", "a.slice:b:../c", "a.slice:b:c d"]
        {
            assert!(path(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_keeper_ends_with_its_value() {
        let keeper = Keeper::new().unwrap();
        // As a process that was copied from this one has it.
        let _copy = keeper.end.as_ref().unwrap().try_clone().unwrap();
        let proc = format!("/proc/{}", keeper.pid);
        assert!(Path::new(&proc).exists());
        drop(keeper);
        assert!(!Path::new(&proc).exists());
    }

    #[test]
    fn without_systemd_it_is_said_so() {
        if booted().is_ok() {
            return eprintln!("skipped: this host has systemd");
        }
        let error = Scope::of("", "x", false).unwrap().stop().unwrap_err().to_string();
        assert!(error.contains("systemd as PID 1"), "{error}");
    }
}
