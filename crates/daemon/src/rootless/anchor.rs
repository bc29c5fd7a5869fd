//! The first process in the namespaces, which keeps them.

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{WaitId, WaitIdOptions, getegid, geteuid, waitid};
use wharf_netlink::route::{Batch, Connection};
use wharf_report::chain;
use wharf_sys::process::{Child, Namespaces, clone3, exit_now, reset_signals};
use wharf_sys::{disposition, message, title};

use super::ids::Ids;
use super::record::Record;
use super::{guard, inside, way_out};

/// The loopback is the first link of every network namespace.
const LOOPBACK: u32 = 1;

/// The anchor, seen from the launcher.
#[derive(Debug)]
pub(super) struct Anchor {
    pub(super) pid: i32,
    pub(super) process: OwnedFd,
}

impl Anchor {
    /// The one that is noted in `exec_root`, with its containers maybe; where it was killed another one in the same
    /// namespaces; or a new one.
    ///
    /// # Errors
    /// The message for the user.
    pub(super) fn find_or_make(exec_root: &Path) -> Result<Self, String> {
        if let Some(record) = Record::read(exec_root) {
            if let Some(process) = record.process() {
                return Ok(Self { pid: record.pid, process });
            }
            if let Some(neighbour) = record.neighbour() {
                return Self::make(exec_root, &Place::Beside(neighbour));
            }
        }
        let ids = Ids::of(geteuid().as_raw(), getegid().as_raw());
        if let Some(why) = &ids.alone {
            tracing::warn!(
                "containers have one user and one group: {why}. Images whose files belong to others do not unpack"
            );
        }
        Self::make(exec_root, &Place::New(ids))
    }

    /// Whether it has ended, as only somebody who kills it can bring about while a launcher is there.
    pub(super) fn has_ended(&self) -> bool {
        poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|ended| ended > 0)
    }

    /// Another one in the namespaces of one that was killed, if somebody else is still there.
    pub(super) fn replace(exec_root: &Path) {
        let record = Record::read(exec_root);
        let neighbour = record.as_ref().and_then(Record::neighbour);
        match neighbour.map(|neighbour| Self::make(exec_root, &Place::Beside(neighbour))) {
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!("nobody keeps the namespaces of the containers: {error}"),
            None => {
                Record::remove(exec_root);
                way_out::end(exec_root, record.map_or(0, |record| record.pid));
            }
        }
    }

    fn make(exec_root: &Path, place: &Place) -> Result<Self, String> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| format!("cannot make a pair of sockets: {e}"))?;
        let ours = Cell::new(Some(ours));
        let new = matches!(place, Place::New(_));
        let namespaces = Namespaces { user: new, mount: new, network: new, ..Namespaces::default() };
        let child = clone3(namespaces, None, || {
            drop(ours.take());
            match place {
                Place::Beside(neighbour) if inside::join(neighbour.as_fd()).is_err() => 1,
                _ => settle(theirs.as_fd(), exec_root),
            }
        })
        .map_err(|errno| {
            format!(
                "cannot make a user namespace: {errno}. An ordinary user must be let to: see the sysctls \
                 user.max_user_namespaces and kernel.unprivileged_userns_clone, and AppArmor's \
                 kernel.apparmor_restrict_unprivileged_userns"
            )
        })?;
        drop(theirs);
        let Some(socket) = ours.take() else { return Err("the anchor's socket has gone".into()) };
        let made = prepare(&child, &socket, place, exec_root);
        if made.is_err() {
            drop(socket);
            let _ = retry_on_intr(|| waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED));
        }
        made.map(|()| Self { pid: child.pid.as_raw_nonzero().get(), process: child.pidfd })
    }
}

/// Where an anchor comes to be.
enum Place {
    /// In namespaces of its own, with these IDs.
    New(Ids),
    /// In those of a process.
    Beside(OwnedFd),
}

/// Gives an anchor its IDs, if they are not there, lets it settle, and notes it.
fn prepare(child: &Child, socket: &OwnedFd, place: &Place, exec_root: &Path) -> Result<(), String> {
    let pid = child.pid.as_raw_nonzero().get();
    if let Place::New(ids) = place {
        wharf_runtime::map_user(pid, &ids.uids, &ids.gids)
            .map_err(|e| format!("cannot give the user namespace its IDs: {}", chain(&e)))?;
    }
    let gone = |_| "the process that keeps the namespaces has ended".to_owned();
    message::send(socket, b"mapped", &[]).map_err(gone)?;
    match message::receive(socket).map_err(gone)? {
        Some((said, _)) if said.is_empty() => {}
        Some((said, _)) => return Err(String::from_utf8_lossy(&said).into_owned()),
        None => return Err(gone(rustix::io::Errno::PIPE)),
    }
    let record = Record::of(pid).map_err(|e| format!("cannot look at process {pid}: {}", wharf_report::os(&e)))?;
    record
        .write(exec_root)
        .map_err(|e| format!("cannot write to {}: {}", exec_root.display(), wharf_report::os(&e)))?;
    // Until it is noted nobody would find it: then it ends with this process.
    message::send(socket, b"noted", &[]).map_err(gone)
}

/// The anchor itself. Does not return but to end.
fn settle(socket: std::os::fd::BorrowedFd<'_>, exec_root: &Path) -> u8 {
    if !matches!(message::receive(socket), Ok(Some(_))) {
        return 1;
    }
    let done = set_up();
    let said = done.as_ref().err().map(String::as_str).unwrap_or_default();
    if message::send(socket, said.as_bytes(), &[]).is_err() || done.is_err() {
        return 1;
    }
    if !matches!(message::receive(socket), Ok(Some(_))) {
        return 1;
    }
    let name = format!("wharf-anchor {}", exec_root.display());
    let _ = wharf_sys::process::set_name(c"wharf-anchor");
    let _ = CString::new(name).map(|name| title::set(name.as_bytes()));
    exit_now(guard::keep(exec_root))
}

/// Makes of the namespaces what a daemon works in.
fn set_up() -> Result<(), String> {
    let failed = |step: &str| {
        let step = step.to_owned();
        move |errno: rustix::io::Errno| format!("cannot {step}: {errno}")
    };
    rustix::process::setsid().map_err(failed("leave the session"))?;
    reset_signals().map_err(failed("reset the signals"))?;
    disposition::ignore_passing().map_err(failed("ignore signals"))?;
    // What the host mounts later is seen here, and nothing of ours there.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(failed("make the mounts this namespace's own"))?;
    let mut batch = Batch::new();
    batch.set_up(LOOPBACK);
    Connection::open()
        .and_then(|route| route.apply(batch))
        .map_err(|e| format!("cannot set up the loopback: {}", chain(&e)))
}
