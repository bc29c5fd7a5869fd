//! One run of the container, and what every program in it has in common.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use jiff::Timestamp;
use oci_spec::runtime::{LinuxIdMapping, Process, Spec};
use rustix::io::Errno;
use rustix::process::Pid;
use wharf_cgroup::Group;
use wharf_report::chain;
use wharf_runtime::{Created, RuntimeError};
use wharf_sys::reaping::{End, reap};

use crate::error::{LaunchError, Result};
use crate::hooked::Hooked;
use crate::launch::{Attach, Launch};
use crate::streams::{Streams, give_terminal, plumb};

/// The container while it runs.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
    pub(crate) started_at: String,
    pub(crate) began: Instant,
}

/// What each start of a container needs of its maker.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) netns: Option<OwnedFd>,
    /// Mounts of images among its layers.
    pub(crate) layers: Vec<OwnedFd>,
}

impl Container {
    /// Makes it and lets it go; `caller`, if there is one, waits for that, and may call it off.
    ///
    /// # Errors
    /// `Failed`; then nothing of it is left but the group.
    pub(crate) fn start(
        launch: &Launch,
        group: &Group,
        held: &Held,
        clients: Vec<(OwnedFd, Attach)>,
        caller: Option<BorrowedFd<'_>>,
    ) -> Result<Self> {
        let process = launch.spec.process().as_ref();
        let tty = process.and_then(Process::terminal).unwrap_or(false);
        let owner = owner(&launch.spec, process);
        let (stdio, mut streams) = plumb(tty, launch.open_stdin, launch.stdin_once, owner)?;
        for (socket, attach) in clients {
            streams.add(socket, attach);
        }
        let hooked = launch.spec.hooks().as_ref().map(|hooks| Hooked::prepare(launch, hooks)).transpose()?;
        let layers: Vec<BorrowedFd<'_>> = held.layers.iter().map(AsFd::as_fd).collect();
        let runtime = wharf_runtime::Launch {
            spec: &launch.spec,
            rootfs: launch.rootfs.clone(),
            layers: &layers,
            binds: &launch.binds,
            stdio,
            netns: held.netns.as_ref().map(AsFd::as_fd),
            group: Some(group),
            default_filter: launch.default_filter.as_ref(),
            // Offsets are what somebody may want, and they make it needed.
            lifecycle: wharf_runtime::Lifecycle {
                time_is_optional: true,
                caller,
                state: None,
                hooks: hooked.as_ref().map(Hooked::set),
                hooks_root: hooked.as_ref().map(|hooked| hooked.root.as_path()),
                ..wharf_runtime::Lifecycle::default()
            },
        };
        let create = if launch.init { wharf_runtime::create_with_init } else { wharf_runtime::create };
        let created = create(runtime).map_err(failed)?;
        before_start(&created, owner, process)?;
        let (pid, pidfd, master) = created.start().map_err(failed)?;
        if let Some(master) = master {
            streams.set_terminal(master, launch.open_stdin)?;
        }
        Ok(Self { pid, pidfd, streams, started_at: now(), began: Instant::now() })
    }
}

/// Does for what was made what only its parent can.
pub(crate) fn before_start(created: &Created, owner: u32, process: Option<&Process>) -> Result<()> {
    // A monitor's own score is not for what it runs. (The runtime sets one that is asked for and is not 0.)
    if process.and_then(Process::oom_score_adj).unwrap_or(0) == 0 {
        // Without the right to lower it, it was not lowered.
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", number(created.pid)), "0");
    }
    match created.terminal.as_ref().filter(|_| owner != 0) {
        Some(master) => give_terminal(master, owner),
        None => Ok(()),
    }
}

/// Who a program runs as, in the host's IDs.
pub(crate) fn owner(spec: &Spec, process: Option<&Process>) -> u32 {
    let uid = process.map_or(0, |process| process.user().uid());
    let maps = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_ref());
    map(uid, maps.map_or(&[], Vec::as_slice))
}

fn map(id: u32, maps: &[LinuxIdMapping]) -> u32 {
    let fits = |map: &&LinuxIdMapping| id >= map.container_id() && id - map.container_id() < map.size();
    maps.iter().find(fits).map_or(id, |map| map.host_id() + (id - map.container_id()))
}

pub(crate) fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// A child's exit code by its pidfd, if it has ended: its own, or 128 and the signal that ended it. The child is
/// reaped with it.
pub(crate) fn exit_code(pidfd: &OwnedFd) -> Option<i32> {
    match reap(pidfd) {
        End::NotYet => None,
        End::Code(code) => Some(code),
        End::Unknown => Some(UNKNOWN),
    }
}

/// What cannot be found out.
const UNKNOWN: i32 = 255;

/// How the runtime calls the step that Docker's users know by other words.
const CWD: &str = "enter the working directory";

/// How it calls what fails when a directory is mounted on a file.
const MOUNT: &str = "mount a ";

/// A failure of the runtime with its causes, in the words that Docker's users know where there are such.
pub(crate) fn failed(error: RuntimeError) -> LaunchError {
    let is_misfit = |error: &RuntimeError| matches!(error, RuntimeError::Setup { step, errno: Errno::NOTDIR } if step.starts_with(MOUNT));
    // Which the engine takes for the user's fault, as Docker does.
    let code = if is_misfit(&error) { 127 } else { error.exit_code() };
    let message = match &error {
        RuntimeError::CommandNotFound(command) if command.contains('/') => {
            format!("exec: \"{command}\": stat {command}: no such file or directory")
        }
        RuntimeError::CommandNotFound(command) => format!("exec: \"{command}\": executable file not found in $PATH"),
        RuntimeError::Setup { step, errno } if step.starts_with(CWD) => {
            let path = step[CWD.len()..].trim_matches(['`', ' ']);
            format!("chdir to cwd (\"{path}\") set in config.json failed: {}", chain(errno))
        }
        error if is_misfit(error) => {
            // For which people search.
            format!(
                "{}: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and \
                 is the expected type",
                chain(error)
            )
        }
        other => chain(other),
    };
    LaunchError::Failed { message, code }
}

/// Now, as the API writes times.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_as_the_kernel_does() {
        let maps: Vec<LinuxIdMapping> = serde_json::from_str(
            r#"[{"containerID":0,"hostID":100000,"size":10},{"containerID":10,"hostID":5,"size":1}]"#,
        )
        .unwrap();
        assert_eq!([0, 9, 10, 11].map(|id| map(id, &maps)), [100_000, 100_009, 5, 11]);
        assert_eq!(map(33, &[]), 33);
    }

    #[test]
    fn failures_speak_as_docker_does() {
        let text = |error| failed(error).to_string();
        assert_eq!(text(RuntimeError::CommandNotFound("x".into())), "exec: \"x\": executable file not found in $PATH");
        assert_eq!(
            text(RuntimeError::CommandNotFound("/x".into())),
            "exec: \"/x\": stat /x: no such file or directory"
        );
        let step = "enter the working directory `/x y`".to_owned();
        assert_eq!(
            text(RuntimeError::Setup { step, errno: Errno::NOENT }),
            "chdir to cwd (\"/x y\") set in config.json failed: no such file or directory"
        );
        let denied = RuntimeError::NotExecutable { command: "/etc".into(), errno: Errno::ACCESS };
        assert_eq!(failed(denied).exit_code(), 126);
    }
}
