//! One run of the container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use jiff::Timestamp;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use wharf_cgroup::Group;
use wharf_runtime::{RuntimeError, create};

use crate::error::{LaunchError, Result};
use crate::launch::Launch;
use crate::streams::{Streams, plumb};

/// The container while it runs.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
    pub(crate) started_at: String,
    pub(crate) began: Instant,
}

impl Container {
    /// Makes it and lets it go.
    pub(crate) fn start(
        launch: &Launch,
        group: &Group,
        netns: Option<BorrowedFd<'_>>,
        clients: Vec<(OwnedFd, crate::launch::Attach)>,
    ) -> Result<Self> {
        if launch.init {
            return Err(LaunchError::Failed { message: "--init is not supported yet".into(), code: 125 });
        }
        let tty = launch.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
        let (stdio, mut streams) = plumb(tty, launch.open_stdin, launch.stdin_once)?;
        for (socket, attach) in clients {
            streams.add(socket, attach)?;
        }
        let runtime = wharf_runtime::Launch {
            spec: &launch.spec,
            rootfs: launch.rootfs.clone(),
            stdio,
            netns,
            group: Some(group),
        };
        let (pid, pidfd, master) = create(runtime).and_then(wharf_runtime::Created::start).map_err(failed)?;
        if let Some(master) = master {
            streams.set_terminal(master, launch.open_stdin)?;
        }
        Ok(Self { pid, pidfd, streams, started_at: now(), began: Instant::now() })
    }

    /// The exit code, if it has ended.
    pub(crate) fn ended(&self) -> Option<i32> {
        exit_code(&self.pidfd)
    }
}

/// A child's exit code by its pidfd: its own, or 128 and the signal that ended it.
pub(crate) fn exit_code(pidfd: &OwnedFd) -> Option<i32> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
        Ok(Some(status)) => status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)),
        _ => None,
    }
}

/// A failure of the runtime with its causes, in Docker's words where it has some.
pub(crate) fn failed(error: RuntimeError) -> LaunchError {
    let code = error.exit_code();
    let message = match &error {
        RuntimeError::CommandNotFound(command) if command.contains('/') => {
            format!("unable to start container process: exec: \"{command}\": stat {command}: no such file or directory")
        }
        RuntimeError::CommandNotFound(command) => {
            format!("unable to start container process: exec: \"{command}\": executable file not found in $PATH")
        }
        RuntimeError::NotExecutable { command, errno } => {
            let reason = match *errno {
                rustix::io::Errno::ACCESS => "permission denied".to_owned(),
                rustix::io::Errno::ISDIR => "is a directory".to_owned(),
                rustix::io::Errno::NOEXEC => "exec format error".to_owned(),
                other => other.to_string(),
            };
            format!("unable to start container process: exec: \"{command}\": {reason}")
        }
        other => {
            let mut line = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                line.push_str(&format!(": {error}"));
                cause = error.source();
            }
            line
        }
    };
    LaunchError::Failed { message, code }
}

/// Now, as the API writes times.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}
