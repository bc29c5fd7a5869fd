//! What the anchor waits for: that there is no launcher, and nobody else in its namespaces.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::retry_on_intr;

use super::record::{self, Record};
use super::way_out;

/// How soon the anchor looks again, first and at last: what a daemon leaves behind ends within moments, containers in days.
const SOON: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_secs(2);

/// Held, shared, by every launcher; the anchor gets it alone when there is none.
///
/// # Errors
/// As open(2).
fn open(exec_root: &Path) -> std::io::Result<File> {
    let path = exec_root.join("launcher.lock");
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Says that a launcher is there for as long as the file is open: the anchor that is there then stays.
///
/// # Errors
/// As open(2) and flock(2).
pub(super) fn be_there(exec_root: &Path) -> std::io::Result<File> {
    let file = open(exec_root)?;
    retry_on_intr(|| flock(&file, FlockOperation::LockShared))?;
    Ok(file)
}

/// Holds the turn of those who look for the anchor and make one where there is none.
///
/// # Errors
/// As open(2) and flock(2).
pub(super) fn turn(exec_root: &Path) -> std::io::Result<File> {
    let path = exec_root.join("anchor.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
    Ok(file)
}

/// Stays until nobody needs the namespaces any more.
pub(super) fn keep(exec_root: &Path) -> u8 {
    // The launcher's, its lock among them.
    if leave().is_err() {
        return 1;
    }
    let Ok(namespace) = record::user_namespace("self") else { return 1 };
    let Ok(own) = i32::try_from(std::process::id()) else { return 1 };
    let mut pause = SOON;
    loop {
        // Gone with the directory: who comes next makes another.
        let Ok(file) = open(exec_root) else { return 1 };
        if retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)).is_err() {
            pause = SOON;
            if retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).is_err() {
                return 1;
            }
        }
        if !is_needed(&namespace, own, way_out::pid(exec_root, own)) {
            // Only if it is this one that is noted.
            if Record::read(exec_root).is_some_and(|record| record.pid == own) {
                Record::remove(exec_root);
            }
            way_out::end(exec_root, own);
            return 0;
        }
        drop(file);
        std::thread::sleep(pause);
        pause = (pause * 2).min(LATE);
    }
}

/// Lets go of all that is the launcher's.
fn leave() -> rustix::io::Result<()> {
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // This process ends without destructors.
    std::mem::forget(null);
    wharf_sys::fds::close_all_but(3, &[])
}

/// Whether somebody else than the anchor and the way out is in the user namespace.
fn is_needed(namespace: &str, own: i32, way_out: Option<i32>) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    processes.flatten().any(|entry| {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { return false };
        // Of others' processes nothing is told, and they are not there.
        pid != own
            && Some(pid) != way_out
            && record::user_namespace(&pid.to_string()).is_ok_and(|its| its == namespace)
            && !has_ended(pid)
    })
}

/// Whether a process has ended and waits for its parent, which may be long.
fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_in_the_namespace_are_seen() {
        let own = i32::try_from(std::process::id()).unwrap();
        let namespace = record::user_namespace("self").unwrap();
        let mut other = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        assert!(is_needed(&namespace, own, None));
        assert!(!is_needed("user:[1]", own, None));
        other.kill().unwrap();
        let pid = rustix::process::Pid::from_child(&other);
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert!(has_ended(pid.as_raw_nonzero().get()) && !has_ended(own));
        other.wait().unwrap();
    }

    #[test]
    fn launchers_are_several_and_the_turn_is_one_s() {
        let dir = tempfile::tempdir().unwrap();
        let (_one, two) = (be_there(dir.path()).unwrap(), be_there(dir.path()).unwrap());
        assert!(flock(open(dir.path()).unwrap(), FlockOperation::NonBlockingLockExclusive).is_err());
        drop(two);
        let held = turn(dir.path()).unwrap();
        assert!(
            flock(File::open(dir.path().join("anchor.lock")).unwrap(), FlockOperation::NonBlockingLockExclusive)
                .is_err()
        );
        drop(held);
        turn(dir.path()).unwrap();
    }
}
