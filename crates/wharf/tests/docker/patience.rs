//! A test that waits for ever fails instead: its daemon is killed, so that its clients end.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The longest test takes a quarter of it on a slow machine.
const PATIENCE: Duration = Duration::from_secs(480);

/// Ends when it is dropped.
pub(crate) struct Patience {
    daemon: Arc<Mutex<Option<OwnedFd>>>,
    _end: mpsc::Sender<()>,
}

impl Patience {
    pub(crate) fn begin() -> Self {
        let (end, ended) = mpsc::channel();
        let daemon = Arc::new(Mutex::new(None::<OwnedFd>));
        let watched = Arc::clone(&daemon);
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        std::thread::spawn(move || {
            // Tests that start the daemon anew, too, come to their end.
            while ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{test} is not done after {PATIENCE:?}: its daemon is killed. What runs:\n{}", processes());
                if let Some(daemon) = watched.lock().unwrap().as_ref() {
                    let _ = pidfd_send_signal(daemon, Signal::KILL);
                }
            }
        });
        Self { daemon, _end: end }
    }

    /// This is the daemon from now on.
    pub(crate) fn watch(&self, child: &Child) {
        *self.daemon.lock().unwrap() = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
    }
}

fn processes() -> String {
    let said =
        std::process::Command::new("ps").args(["-eo", "pid,ppid,etimes,stat,wchan:24,args", "--forest"]).output();
    said.map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said.stdout).into_owned())
}
