//! One daemon for each volatile root: what is in it and not a daemon's own, that daemon takes for left behind.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;

/// Takes the root for as long as the file is open; the kernel lets go of it when this process dies, however it dies.
///
/// # Errors
/// The message for the user, with the other's process number.
pub(crate) fn lock(root: &Path) -> Result<File, String> {
    let path = root.join("lock");
    let fail = |e: std::io::Error| format!("cannot lock {}: {e}", path.display());
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut pid);
            return Err(format!(
                "the exec root {} is in use by process {}: give this daemon another one with --exec-root",
                root.display(),
                pid.trim()
            ));
        }
        Err(errno) => return Err(fail(errno.into())),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(fail)?;
    Ok(file)
}

/// Whether this process has it: one that has another root's would leave behind what a daemon with this root looks for.
pub(crate) fn is_of(root: &Path, pid: Pid) -> bool {
    let Ok(file) = File::open(root.join("lock")) else { return false };
    matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK))
        && crate::inherit::has_open(pid, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err();
        assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
        drop(held);
        lock(dir.path()).unwrap();
    }
}
