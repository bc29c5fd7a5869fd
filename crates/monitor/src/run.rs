//! The monitor's beginning: from a request to a container that runs, or to nothing.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Signal, getpid};
use wharf_cgroup::{Group, Hierarchies};
use wharf_logs::{LogOptions, Writer};
use wharf_sys::{disposition, message};

use crate::client::with_address;
use crate::container::{Container, chain, number};
use crate::error::{LaunchError, Result};
use crate::launch::{Launch, LogConfig};
use crate::spawner::Incoming;
use crate::supervise::{Monitor, Place};
use crate::wire::{Reply, SOCKET};

/// How long the monitor of the container's last run may take to remove what it had.
const HANDOVER: Duration = Duration::from_secs(10);
/// Requests that wait to be accepted.
const BACKLOG: i32 = 128;

/// Runs a monitor in a process that was forked for it. The value is its exit status.
pub(crate) fn monitor(asker: OwnedFd) -> u8 {
    // Its own session, so that nothing that is sent to another reaches it; and its children are for it to wait for.
    let settled = rustix::process::setsid().and_then(|_| disposition::restore(Signal::CHILD));
    let begun = settled.map_err(LaunchError::system("leave the session")).and_then(|()| begin(&asker));
    let (reply, monitor) = match begun {
        Ok(monitor) => {
            let (pid, started_at) = monitor.running();
            let monitor_pid = Some(number(getpid()));
            (Reply { pid, monitor_pid, started_at, ..Reply::ok() }, Some(monitor))
        }
        Err(error) => (Reply::error(chain(&error), error.exit_code()), None),
    };
    // A daemon that has gone meanwhile finds the container by its socket.
    let _ = message::send(&asker, &serde_json::to_vec(&reply).unwrap_or_default(), &[]);
    drop(asker);
    let _ = wharf_sys::process::set_name(c"wharf-monitor");
    match monitor {
        Some(monitor) => {
            monitor.run();
            0
        }
        None => 1,
    }
}

fn begin(asker: &OwnedFd) -> Result<Monitor> {
    let request = message::receive(asker).map_err(LaunchError::system("receive the request"))?;
    let (json, mut fds) = request.ok_or(LaunchError::NoAnswer)?;
    let incoming: Incoming = serde_json::from_slice(&json)
        .map_err(|e| LaunchError::Failed { message: format!("the request is not understood: {e}"), code: 125 })?;
    drop(json);
    let Incoming { netns, mut launch } = incoming;
    let netns = (netns && !fds.is_empty()).then(|| fds.remove(0));
    let clients = fds.into_iter().zip(std::mem::take(&mut launch.attach)).collect();
    let lock = lock(&launch.dir)?;
    let place = match occupy(&launch, lock) {
        Ok(place) => place,
        Err(error) => {
            let _ = std::fs::remove_file(launch.dir.join(SOCKET));
            return Err(error);
        }
    };
    match Container::start(&launch, &place.group, netns.as_ref().map(AsFd::as_fd), clients) {
        Ok(container) => Ok(Monitor::new(launch, place, netns, container)),
        Err(error) => {
            place.leave(&launch.dir);
            Err(error)
        }
    }
}

/// Everything that the container needs of the host before it is there.
fn occupy(launch: &Launch, lock: OwnedFd) -> Result<Place> {
    let listener = listen(&launch.dir)?;
    let log = launch.log.as_ref().map(open_log).transpose()?;
    let cgroup = |error: wharf_cgroup::CgroupError| LaunchError::Failed { message: chain(&error), code: 125 };
    let hierarchies = Hierarchies::detect().map_err(cgroup)?;
    let group = Group::create(&hierarchies, &launch.cgroup).map_err(|error| {
        // It may be there in some hierarchies.
        let _ = Group::open(&hierarchies, &launch.cgroup).and_then(|group| group.remove());
        cgroup(error)
    })?;
    Ok(Place { lock, listener, log, group })
}

fn open_log(config: &LogConfig) -> Result<Writer> {
    let fail = |error: wharf_logs::LogError| LaunchError::Failed { message: chain(&error), code: 125 };
    let driver = config.driver.parse().map_err(fail)?;
    let options = LogOptions { driver, max_size: config.max_size, max_files: config.max_files };
    Writer::open(&config.path, options).map_err(fail)
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
                let message = "a monitor of this container is still there: it runs already, or cannot be removed".into();
                return Err(LaunchError::Failed { message, code: 125 });
            }
            Err(errno) => return Err(fail()(errno)),
        }
    }
}

fn listen(dir: &Path) -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(LaunchError::system("make a socket"))?;
    let bound = with_address(dir, |address| match rustix::net::bind(&socket, address) {
        Err(Errno::ADDRINUSE) => {
            // Of a run before, whose monitor was killed: we have the lock.
            let _ = std::fs::remove_file(dir.join(SOCKET));
            rustix::net::bind(&socket, address)
        }
        bound => bound,
    });
    bound.map_err(LaunchError::system("bind the monitor's socket"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(LaunchError::system("listen on the monitor's socket"))?;
    Ok(socket)
}
