//! Hooks of the configuration (runtime-spec, config, "POSIX-platform Hooks"): programs of the host's administrator
//! that run at points of a container's life and read its state from standard input.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde_json::{Value, json};

/// How much of what a failed hook wrote is shown.
const SHOWN: u64 = 2048;

/// The points of a container's life (runtime-spec, runtime, "Lifecycle").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl Point {
    /// The name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// In the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];
}

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("error running {place}: {source}")]
    Run { place: HookPlace, source: std::io::Error },
    #[error("error running {place}: {how}{output}", how = how(*.status))]
    Failed { place: HookPlace, status: ExitStatus, output: String },
    #[error("error running {place}: it did not end within {seconds} s")]
    Timeout { place: HookPlace, seconds: i64 },
    #[error("error running {place}: the container's process has ended meanwhile")]
    Orphaned { place: HookPlace },
}

/// Which hook; its number among those of its point, from 0 on.
#[derive(Clone, Debug)]
pub struct HookPlace {
    point: Point,
    number: usize,
    path: PathBuf,
}

impl std::fmt::Display for HookPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // runc's words, and whose it is.
        write!(f, "{} hook #{}: `{}`", self.point.name(), self.number, self.path.display())
    }
}

/// The hooks of a container and what they are told of it.
#[derive(Clone, Copy, Debug)]
pub struct HookSet<'a> {
    pub hooks: &'a Hooks,
    /// The container's state without `status` and `pid`.
    pub state: &'a Value,
}

impl HookSet<'_> {
    /// The hooks of a point; there may be none.
    pub fn at(&self, point: Point) -> &[Hook] {
        let list = match point {
            // Deprecated, and what Docker's network still is set up by.
            #[allow(deprecated)]
            Point::Prestart => self.hooks.prestart(),
            Point::CreateRuntime => self.hooks.create_runtime(),
            Point::CreateContainer => self.hooks.create_container(),
            Point::StartContainer => self.hooks.start_container(),
            Point::Poststart => self.hooks.poststart(),
            Point::Poststop => self.hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }

    /// Runs the hooks of a point in their order; the first that fails ends it.
    ///
    /// # Errors
    /// When one cannot be run, fails, or takes longer than it may.
    pub fn run(&self, point: Point, status: &str, pid: i32) -> Result<(), HookError> {
        (0..self.at(point).len()).try_for_each(|number| self.run_one(point, number, status, pid))
    }

    /// As [`Self::run`], but a hook ends with the container's first process: who kills that does not wait for a hook.
    pub(crate) fn run_beside(
        &self,
        of: Point,
        status: &str,
        pid: i32,
        process: BorrowedFd<'_>,
    ) -> Result<(), HookError> {
        (0..self.at(of).len()).try_for_each(|number| self.run_while(of, number, status, pid, Some(process)))
    }

    /// Runs one hook of a point, if there are so many; for the points where a failure does not keep the others from running.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_one(&self, of: Point, number: usize, status: &str, pid: i32) -> Result<(), HookError> {
        self.run_while(of, number, status, pid, None)
    }

    fn run_while(
        &self,
        of: Point,
        number: usize,
        status: &str,
        pid: i32,
        process: Option<BorrowedFd<'_>>,
    ) -> Result<(), HookError> {
        let Some(hook) = self.at(of).get(number) else { return Ok(()) };
        let mut state = self.state.clone();
        state["status"] = json!(status);
        if pid != 0 {
            state["pid"] = json!(pid);
        }
        let place = HookPlace { point: of, number, path: hook.path().clone() };
        let fail = |source: std::io::Error| HookError::Run { place: place.clone(), source };
        // Files in memory: a hook that does not read its input, or writes much, holds nobody up.
        let mut input = memory("hook-state").map_err(fail)?;
        input.write_all(state.to_string().as_bytes()).and_then(|()| input.rewind()).map_err(fail)?;
        let mut output = memory("hook-output").map_err(fail)?;
        let mut command = Command::new(hook.path());
        if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
            command.arg0(name).args(rest);
        }
        // Who says nothing of it gets that of the runtime, as with runc and crun; but not what runs in the container, which
        // may be the image's own program.
        let inside = matches!(of, Point::CreateContainer | Point::StartContainer);
        if inside || hook.env().is_some() {
            command.env_clear();
            command.envs(hook.env().iter().flatten().filter_map(|pair| pair.split_once('=')));
        }
        if !inside
            && let Some(bundle) = self.state["bundle"].as_str()
            && (of != Point::Poststop || Path::new(bundle).is_dir())
        {
            // Where runc and crun are when they run them; at the end it may have gone. Those in the container's own mounts
            // are in its root, and those that the program follows are where that will be.
            command.current_dir(bundle);
        }
        command.stdin(input).stdout(output.try_clone().map_err(fail)?).stderr(output.try_clone().map_err(fail)?);
        let mut child = command.spawn().map_err(fail)?;
        if hook.timeout().is_some() || process.is_some() {
            let end = first_end(child.id(), hook.timeout(), process).map_err(|errno| fail(errno.into()))?;
            if end != End::Hook {
                // It may have ended just now; waited for it is anyway.
                let _ = child.kill();
                let _ = child.wait();
                return Err(match (end, hook.timeout()) {
                    (End::Time, Some(seconds)) => HookError::Timeout { place, seconds },
                    _ => HookError::Orphaned { place },
                });
            }
        }
        let status = child.wait().map_err(fail)?;
        if status.success() {
            return Ok(());
        }
        let mut text = String::new();
        if output.rewind().is_ok() {
            // What is no text is left out.
            let _ = output.take(SHOWN).read_to_string(&mut text);
        }
        let output = if text.trim().is_empty() { String::new() } else { format!(", it wrote: {}", text.trim()) };
        Err(HookError::Failed { place, status, output })
    }
}

/// A filter's verdict looks like any other signal, and is told apart.
fn how(status: ExitStatus) -> String {
    if status.signal() == Some(Signal::SYS.as_raw()) {
        return format!("{status}: bad system call, forbidden by the seccomp filter");
    }
    status.to_string()
}

fn memory(name: &str) -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?))
}

/// What has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Hook,
    Time,
    Container,
}

/// Waits for the end of a child of ours, of its time, or of `process`.
fn first_end(id: u32, seconds: Option<i64>, process: Option<BorrowedFd<'_>>) -> Result<End, Errno> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let clock = rustix::time::ClockId::Monotonic;
    let end = seconds.map(|seconds| Duration::from_secs(seconds.max(0).cast_unsigned()));
    let start = rustix::time::clock_gettime(clock);
    loop {
        let now = rustix::time::clock_gettime(clock);
        let passed = Duration::from_secs((now.tv_sec - start.tv_sec).max(0).cast_unsigned());
        let left = end.map(|end| end.saturating_sub(passed));
        let limit = left.map(|left| Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 });
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        fds.extend(process.map(|process| PollFd::from_borrowed_fd(process, PollFlags::IN)));
        match poll(&mut fds, limit.as_ref()) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok(End::Time),
            Ok(_) if fds[0].revents().is_empty() => return Ok(End::Container),
            Ok(_) => return Ok(End::Hook),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(text: Value) -> Hooks {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_hook_reads_the_state_and_has_its_own_words_and_environment() {
        let dir = tempfile::tempdir().unwrap();
        let seen = dir.path().join("seen");
        let script = format!("cat > {0}; echo \"$0 $1 $X\" >> {0}", seen.display());
        let set = hooks(json!({ "createRuntime": [
            { "path": "/bin/sh", "args": ["name", "-c", script, "zero", "one"], "env": ["X=y"], "timeout": 10 }
        ] }));
        let state = json!({ "id": "a" });
        let set = HookSet { hooks: &set, state: &state };
        set.run(Point::CreateRuntime, "creating", 7).unwrap();
        set.run(Point::Poststop, "stopped", 0).unwrap();
        let text = std::fs::read_to_string(seen).unwrap();
        assert_eq!(text, "{\"id\":\"a\",\"status\":\"creating\",\"pid\":7}zero one y\n");
    }

    #[test]
    fn what_fails_or_hangs_says_which_and_why() {
        let run = |hook: Value| {
            let set = hooks(json!({ "poststop": [hook] }));
            let state = json!({});
            HookSet { hooks: &set, state: &state }.run(Point::Poststop, "stopped", 0).unwrap_err().to_string()
        };
        let failed = run(json!({ "path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"] }));
        assert!(
            failed.starts_with("error running poststop hook #0: `/bin/sh`: exit status: 3, it wrote: why"),
            "{failed}"
        );
        assert!(run(json!({ "path": "/no/such" })).contains("/no/such"));
        let slow = run(json!({ "path": "/bin/sh", "args": ["sh", "-c", "exec sleep 20"], "timeout": 1 }));
        assert!(slow.contains("within 1 s"), "{slow}");
    }
}
