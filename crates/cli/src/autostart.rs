//! Starts a daemon where none listens on the default socket.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wharf_client::Client;

use crate::config;
use crate::failure::{Failure, Outcome};

/// Longer than a daemon takes to start on a slow machine.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(5);

/// Runs `daemon` of our own executable, detached, and waits until its socket answers.
pub(crate) async fn start(client: &Client) -> Outcome {
    let path = log_path();
    let log = log(&path).map_err(|error| wharf_report::path("open", &path, &error))?;
    let errors = log.try_clone()?;
    // A process group of its own: what the terminal sends to ours does not reach it.
    let mut child = Command::new("/proc/self/exe")
        .arg0("wharf")
        .arg("daemon")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start the daemon: {}", wharf_report::os(&error)))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if client.dial().await.is_ok() {
            return Ok(());
        }
        // Another command may have started one in the same moment: then ours ends, and theirs answers.
        let ended = child.try_wait()?.is_some();
        if Instant::now() > deadline || (ended && !answers_soon(client).await) {
            let reason = if ended { "it has ended" } else { "it does not answer" };
            return Err(Failure::new(format!(
                "cannot start the daemon: {reason}; its messages are in {}",
                path.display()
            )));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn answers_soon(client: &Client) -> bool {
    for _ in 0..40 {
        if client.dial().await.is_ok() {
            return true;
        }
        tokio::time::sleep(INTERVAL * 5).await;
    }
    false
}

fn log_path() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/log/wharf.log");
    }
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    state.unwrap_or_else(|| config::home().join(".local/state")).join("wharf/wharf.log")
}

fn log(path: &std::path::Path) -> std::io::Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}
