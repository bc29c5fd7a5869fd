//! `wharf oci run`: one bundle, in the foreground.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use wharf_cgroup::{Group, Hierarchies};
use wharf_report::chain;
use wharf_runtime::{Launch, RuntimeError, Stdio, create};
use wharf_sys::signals::Signals;

use crate::bundle::Bundle;
use crate::terminal::Relay;

/// Why there is no exit code of the container's: a message, and the code that says so (125, 126, 127).
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    pub(crate) code: u8,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    pub(crate) fn usage(message: String) -> Self {
        Self { message, code: 125 }
    }
    pub(crate) fn system(message: String) -> Self {
        Self { message, code: 125 }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self { code: error.exit_code(), message: chain(&error) }
    }
}

impl From<wharf_cgroup::CgroupError> for Failure {
    fn from(error: wharf_cgroup::CgroupError) -> Self {
        Self::system(chain(&error))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    id: String,
}

fn options(words: &[&str]) -> Result<Options, Failure> {
    let mut options = Options { bundle: PathBuf::from("."), pid_file: None, id: String::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (name, inline) = word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
        match name {
            "--bundle" | "-b" | "--pid-file" => {
                let value = inline.or_else(|| words.next().copied());
                let value = value.ok_or_else(|| Failure::usage(format!("flag needs an argument: {name}")))?;
                if name == "--pid-file" {
                    options.pid_file = Some(value.into());
                } else {
                    options.bundle = value.into();
                }
            }
            flag if flag.starts_with('-') => return Err(Failure::usage(format!("unknown flag: {flag}"))),
            id if options.id.is_empty() => options.id = id.into(),
            extra => return Err(Failure::usage(format!("unexpected argument: {extra}"))),
        }
    }
    // runc's rule; the ID becomes part of a path.
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if options.id.is_empty() || options.id == "." || options.id == ".." || !options.id.chars().all(allowed) {
        return Err(Failure::usage(format!("invalid container ID '{}': give letters, digits and _+-.", options.id)));
    }
    Ok(options)
}

/// Runs a bundle and answers with its exit code.
pub(crate) fn run(words: &[&str]) -> Result<u8, Failure> {
    let options = options(words)?;
    let bundle = Bundle::read(&options.bundle)?;
    let path = bundle.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    // Directly below the root: making and removing a parent each time would double the waits for RCU on v1.
    let path = path.map_or_else(|| format!("/wharf-{}", options.id), |path| path.to_string_lossy().into_owned());
    let hierarchies = Hierarchies::detect()?;
    let exists = Group::open(&hierarchies, &path)?.directories().iter().any(|dir| dir.exists());
    if exists {
        return Err(Failure::system(format!(
            "a control group `{path}` is there already: is a container `{}` running? Choose another ID",
            options.id
        )));
    }
    let group = Group::create(&hierarchies, &path)?;
    let done = in_group(&bundle, &group, &options);
    // What the container left behind in its group (a daemon of its own) ends with it.
    group.kill()?;
    group.remove()?;
    done
}

fn in_group(bundle: &Bundle, group: &Group, options: &Options) -> Result<u8, Failure> {
    let forwarded = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH];
    let os = |what: &str, errno: Errno| Failure::system(format!("cannot {what}: {errno}"));
    let signals = Signals::block(&forwarded).map_err(|e| os("read signals", e))?;
    let terminal = bundle.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
    let stdio = if terminal { Stdio::Terminal } else { inherited()? };
    let launch = Launch { spec: &bundle.spec, rootfs: bundle.rootfs.clone(), stdio, netns: None, group: Some(group) };
    let created = create(launch)?;
    if let Some(file) = &options.pid_file {
        write_pid(file, created.pid.as_raw_nonzero().get())?;
    }
    let (_, pidfd, master) = created.start()?;
    let mut relay = master.map(Relay::new).transpose().map_err(|e| os("use the terminal", e))?;
    let ended = supervise(&signals, &pidfd, relay.as_mut()).map_err(|e| os("watch the container", e));
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    ended
}

/// Waits for the end; meanwhile passes signals on and, with a terminal, what is typed and shown.
fn supervise(signals: &Signals, pidfd: &OwnedFd, mut relay: Option<&mut Relay>) -> Result<u8, Errno> {
    loop {
        let ready = {
            let mut fds = vec![PollFd::new(signals, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            if let Some(relay) = &relay {
                fds.extend(relay.poll_fds());
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                done => done?,
            };
            fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<bool>>()
        };
        while let Some(signal) = signals.next()? {
            match (&relay, signal) {
                (Some(relay), Signal::WINCH) => relay.resize(),
                (None, Signal::WINCH) => {}
                // It may have ended meanwhile.
                (_, signal) => drop(pidfd_send_signal(pidfd, signal)),
            }
        }
        if let Some(relay) = relay.as_deref_mut() {
            relay.pass(&ready[2..]);
        }
        if ready[1] {
            let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
            let code = status.and_then(|s| s.exit_status().or(s.terminating_signal().map(|signal| 128 + signal)));
            return Ok(u8::try_from(code.unwrap_or(255)).unwrap_or(255));
        }
    }
}

/// Our own streams, as the container's.
fn inherited() -> Result<Stdio, Failure> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|e| Failure::system(format!("cannot pass on a standard stream: {e}")))
    };
    Ok(Stdio::Fds {
        stdin: own(std::io::stdin().as_fd())?,
        stdout: own(std::io::stdout().as_fd())?,
        stderr: own(std::io::stderr().as_fd())?,
    })
}

/// Whole or not at all: who reads it may be waiting for it.
fn write_pid(file: &Path, pid: i32) -> Result<(), Failure> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, pid.to_string())
        .and_then(|()| std::fs::rename(&temporary, file))
        .map_err(|e| Failure::system(format!("cannot write {}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_any_order_and_both_forms() {
        let want = Options { bundle: "/b".into(), pid_file: Some("/p".into()), id: "web".into() };
        assert_eq!(options(&["--bundle", "/b", "--pid-file=/p", "web"]).unwrap(), want);
        assert_eq!(options(&["web", "--pid-file", "/p", "-b=/b"]).unwrap(), want);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, text) in [
            (&["--bundle"][..], "--bundle"),
            (&["--frob", "x"], "--frob"),
            (&["a", "b"], "b"),
            (&[], "container ID"),
            (&["../x"], "../x"),
            (&[".."], ".."),
        ] {
            assert!(options(words).unwrap_err().to_string().contains(text), "{words:?}");
        }
    }
}
