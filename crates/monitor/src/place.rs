//! A container's place on the host: its lock, its socket, its log, its control group.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};
use wharf_cgroup::{Group, Hierarchies};

use crate::client::with_address;
use crate::error::{LaunchError, Result};
use crate::launch::Launch;
use crate::log::Log;
use crate::wire::SOCKET;
use wharf_report::chain;

/// How long the monitor of the container's last run may take to remove what it had.
const HANDOVER: Duration = Duration::from_secs(10);
/// How long processes that were killed may take to go; one that hangs in the kernel may take for ever.
const ENDING: Duration = Duration::from_millis(200);
/// Requests that wait to be accepted.
const BACKLOG: i32 = 128;

/// What a container has of the host beside its processes.
#[derive(Debug)]
pub(crate) struct Place {
    /// Nobody else is its monitor while this is open.
    lock: OwnedFd,
    pub(crate) listener: OwnedFd,
    pub(crate) log: Option<Log>,
    pub(crate) group: Group,
}

impl Place {
    /// Takes a container's place; waits while the monitor of its last run is still leaving it.
    ///
    /// # Errors
    /// When the host refuses something; then nothing stays.
    pub(crate) fn take(launch: &Launch) -> Result<Self> {
        let lock = lock(&launch.dir)?;
        match Self::occupy(launch) {
            Ok((listener, log, group)) => Ok(Self { lock, listener, log, group }),
            Err(error) => {
                // With the lock still held: the next monitor's socket has the same name.
                let _ = std::fs::remove_file(launch.dir.join(SOCKET));
                drop(lock);
                Err(error)
            }
        }
    }

    /// Takes everything that the container needs of the host before it is there.
    fn occupy(launch: &Launch) -> Result<(OwnedFd, Option<Log>, Group)> {
        let (listener, left) = listen(&launch.dir)?;
        let log = launch.log.as_ref().map(Log::open).transpose()?;
        let cgroup = |error: wharf_cgroup::CgroupError| LaunchError::Failed { message: chain(&error), code: 125 };
        let hierarchies = Hierarchies::usable(&launch.cgroup).map_err(cgroup)?;
        if left {
            // A monitor that was killed has left its group, maybe with processes in it.
            let old = Group::open(&hierarchies, &launch.cgroup).map_err(cgroup)?;
            let _ = old.kill();
            old.remove().map_err(cgroup)?;
        }
        let group = Group::create(&hierarchies, &launch.cgroup).map_err(|error| {
            // It may be there in some hierarchies.
            let _ = Group::open(&hierarchies, &launch.cgroup).and_then(|group| group.remove());
            cgroup(error)
        })?;
        Ok((listener, log, group))
    }

    /// Whether the container's processes are frozen: what joins them now would be frozen in the middle of it.
    pub(crate) fn is_paused(&self) -> bool {
        let (file, thawed) = match (self.group.v1_dir("freezer"), self.group.v2_dir()) {
            (Some(dir), _) => (dir.join("freezer.state"), "THAWED"),
            (None, Some(dir)) => (dir.join("cgroup.freeze"), "0"),
            (None, None) => return false,
        };
        std::fs::read_to_string(file).is_ok_and(|state| state.trim() != thawed)
    }

    /// Ends all processes of a group that goes on to be used, one by one. With `cgroup.kill`, as [`Group::kill`] has it,
    /// what is born into the group later (`CLONE_INTO_CGROUP`) would be killed as well, as of Linux 6.18: the kernel
    /// compares how often the group was killed with how often its parent's was.
    pub(crate) fn end_all(&self) {
        let deadline = Instant::now() + ENDING;
        loop {
            let all = self.group.processes().unwrap_or_default();
            for pid in all.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // It may have ended meanwhile.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            // What was forked between the reading and the killing is met in the next round.
            if all.is_empty() || Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives it all back, the slow parts last: removing a group on v1 waits for the kernel, and a log for who takes it.
    pub(crate) fn leave(self, dir: &Path) {
        drop(self.listener);
        let _ = std::fs::remove_file(dir.join(SOCKET));
        // What has left the container's PID namespace, or never was in one.
        let _ = self.group.kill();
        let _ = self.group.remove();
        let rest = self.log.map(Log::close);
        // A receiver that is slow keeps no new start waiting.
        drop(self.lock);
        if let Some(rest) = rest {
            rest();
        }
    }
}

/// One monitor at a time has a container's directory and control group. That of the last run may still be removing
/// them while its container is started again.
fn lock(dir: &Path) -> Result<OwnedFd> {
    match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
            return Err(LaunchError::System { action: "make the container's volatile directory", errno });
        }
        _ => {}
    }
    let fail = || LaunchError::system("lock the container's volatile directory");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::open(dir, flags, Mode::empty()).map_err(fail())?;
    let deadline = Instant::now() + HANDOVER;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(Errno::AGAIN) => {
                let message =
                    "a monitor of this container is still there: it runs already, or cannot be removed".into();
                return Err(LaunchError::Failed { message, code: 125 });
            }
            Err(errno) => return Err(fail()(errno)),
        }
    }
}

/// The monitor's socket, and whether one of a monitor that was killed was in its place.
fn listen(dir: &Path) -> Result<(OwnedFd, bool)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(LaunchError::system("make a socket"))?;
    let mut left = false;
    let bound = with_address(dir, |address| match rustix::net::bind(&socket, address) {
        Err(Errno::ADDRINUSE) => {
            // Nobody is behind it: we have the lock.
            left = true;
            let _ = std::fs::remove_file(dir.join(SOCKET));
            rustix::net::bind(&socket, address)
        }
        bound => bound,
    });
    bound.map_err(LaunchError::system("bind the monitor's socket"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(LaunchError::system("listen on the monitor's socket"))?;
    Ok((socket, left))
}
