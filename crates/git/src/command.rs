//! The program `git`, run so that a repository can make it do nothing but what it is for.

use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::checkout::Options;
use crate::{GitError, Result};

/// Settings that beat those of the repository and of the user: no hooks, no watchers, no other transports, and an end
/// to a server that says nothing.
const SETTINGS: [&str; 12] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "core.autocrlf=false",
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "gc.auto=0",
];
/// As `protocol.*` above; the variable holds for what git starts itself, too (submodules).
const PROTOCOLS: &str = "http:https:git:ssh";
/// How often is looked whether it has ended or is called off, once it has taken so long.
const LOOK: Duration = Duration::from_millis(10);
/// So much of what it said is told.
const MOST_SAID: u64 = 64 << 10;

/// Runs `git` in `dir`, and answers with what it wrote.
pub(crate) fn run(dir: &Path, words: &[&str], options: &Options<'_>) -> Result<String> {
    let mut command = Command::new("git");
    command.current_dir(dir);
    if options.apart {
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
        command.env("HOME", dir);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        for name in ["http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
    }
    // Where this very process runs in a repository's hook, these would lead git astray.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"] {
        command.env_remove(name);
    }
    command.env("GIT_ALLOW_PROTOCOL", PROTOCOLS).env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
    for setting in SETTINGS {
        command.args(["-c", setting]);
    }
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if options.apart {
        // One group with all that it starts, for an end to all of them. A user's is the terminal's anyway.
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => GitError::NoProgram(options.name.to_owned()),
        _ => GitError::System("git cannot be run", error),
    })?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (status, out, err) = thread::scope(|scope| {
        let (out, err) = (scope.spawn(|| said(out)), scope.spawn(|| said(err)));
        let status = wait(&mut child, options);
        (status, out.join().unwrap_or_default(), err.join().unwrap_or_default())
    });
    let status = status?;
    if status.success() {
        return Ok(out);
    }
    let lines: Vec<&str> = err.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(GitError::Failed(if lines.is_empty() { status.to_string() } else { lines.join("; ") }))
}

/// Waits for its end, and makes one when it is called off.
fn wait(child: &mut std::process::Child, options: &Options<'_>) -> Result<ExitStatus> {
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().map_err(|error| GitError::System("git cannot be waited for", error))? {
            return Ok(status);
        }
        if (options.called_off)() {
            // With what it has started: transports are processes of their own.
            if options.apart {
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            }
            let _ = child.kill();
            let _ = child.wait();
            return Err(GitError::CalledOff);
        }
        thread::sleep(pause);
        pause = LOOK.min(2 * pause);
    }
}

/// What it says, to its end; what is too much is let go by.
fn said(stream: Option<impl Read>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut bytes = Vec::new();
    let _ = stream.by_ref().take(MOST_SAID).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    String::from_utf8_lossy(&bytes).into_owned()
}
