//! A container that tells systemd that it is ready (sd_notify(3)), as with runc: whoever calls this program names a
//! socket in `NOTIFY_SOCKET`; the container gets another one, and what it says of its readiness is passed on.

use std::env;
use std::ffi::OsStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use oci_spec::runtime::{MountBuilder, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::failure::{Failure, Result};
use crate::log::Log;
use crate::place::{NOTIFY, Place};

const VARIABLE: &str = "NOTIFY_SOCKET";
/// Where the container finds its directory, and what its socket is called there: runc's names.
const INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";
const READY: &[u8] = b"READY=";
/// More than this is no message (runc).
const MAX_MESSAGE: usize = 4096;
/// How long systemd may take to have read all (sd_notify_barrier(3)); runc's.
const BARRIER: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Whether somebody wants to be told.
pub(crate) fn is_asked() -> bool {
    env::var_os(VARIABLE).is_some_and(|socket| !socket.is_empty())
}

/// Gives the container a place for its socket.
pub(crate) fn prepare(place: &Place, spec: &mut Spec) -> Result<()> {
    let odd = |error: &dyn std::fmt::Display| Failure::new(format!("{VARIABLE}: {error}"));
    let Some(mut process) = spec.process().clone() else { return Ok(()) };
    let source = place.make_notify()?;
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
    let mount = MountBuilder::default().destination(INSIDE).source(source).options(options).build();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.push(mount.map_err(|error| odd(&error))?);
    spec.set_mounts(Some(mounts));
    let mut env = process.env().clone().unwrap_or_default();
    env.push(format!("{VARIABLE}={INSIDE}/{SOCKET}"));
    process.set_env(Some(env));
    spec.set_process(Some(process));
    Ok(())
}

/// Passes on what the container says.
#[derive(Debug)]
pub(crate) struct Notify {
    /// The container's.
    socket: UnixDatagram,
    /// To who asked.
    host: UnixDatagram,
}

impl Notify {
    /// Listens; `None` when nobody has asked, or the container was made when nobody did.
    pub(crate) fn listen(place: &Place) -> Result<Option<Self>> {
        let Some(host) = env::var_os(VARIABLE).filter(|_| is_asked() && place.has_notify()) else { return Ok(None) };
        let named = |error: std::io::Error| Failure::file("connect to", Path::new(&host), &error);
        let address = address(&host).map_err(named)?;
        let to = UnixDatagram::unbound().and_then(|socket| socket.connect_addr(&address).map(|()| socket));
        let host = to.map_err(named)?;
        let path = place.short_path(&format!("{NOTIFY}/{SOCKET}"));
        let fail = |error: std::io::Error| Failure::file("listen on", Path::new(SOCKET), &error);
        let socket = UnixDatagram::bind(&path).map_err(fail)?;
        // Whoever the program is in the container; nobody else comes to the place.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, everybody).map_err(fail)?;
        Ok(Some(Self { socket, host }))
    }

    /// Waits until the container says that it is ready, or ends; then tells that, and that `main` is the process to
    /// look after. A failure is told, and is none of the container's.
    pub(crate) fn pass_on(&self, log: &Log, main: i32, ended: BorrowedFd<'_>) {
        let told = self.ready(ended).and_then(|ready| match ready {
            Some(line) => self.tell(log, &line, main, ended),
            None => Ok(()),
        });
        if let Err(errno) = told {
            log.warning(&format!("{VARIABLE}: cannot tell that the container is ready: {errno}"));
        }
    }

    fn ready(&self, ended: BorrowedFd<'_>) -> std::result::Result<Option<Vec<u8>>, Errno> {
        let mut message = vec![0; MAX_MESSAGE];
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
            retry_on_intr(|| poll(&mut fds, None))?;
            // What it said last is heard before its end.
            if fds[0].revents().is_empty() {
                return Ok(None);
            }
            let got =
                retry_on_intr(|| rustix::net::recv(&self.socket, &mut message[..], rustix::net::RecvFlags::empty()))?.0;
            if let Some(line) = message[..got].split(|byte| *byte == b'\n').find(|line| line.starts_with(READY)) {
                return Ok(Some(line.to_vec()));
            }
        }
    }

    fn tell(&self, log: &Log, ready: &[u8], main: i32, ended: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
        let send = |text: &[u8]| retry_on_intr(|| rustix::net::send(&self.host, text, SendFlags::NOSIGNAL)).map(drop);
        send(&[ready, b"\n"].concat())?;
        send(format!("MAINPID={main}\n").as_bytes())?;
        let (waits, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [theirs.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.host, &[IoSlice::new(b"BARRIER=1")], &mut control, SendFlags::NOSIGNAL)?;
        drop(theirs);
        // Its other end closes when all has been read. Of who has ended nobody needs to know that.
        let mut fds = [PollFd::new(&waits, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, Some(&BARRIER)))? == 0 {
            log.warning(&format!("{VARIABLE}: nobody there has read for {} s", BARRIER.tv_sec));
        }
        Ok(())
    }
}

/// A path, or `@` and a name that is in no file system (sd_notify(3)).
fn address(text: &OsStr) -> std::io::Result<SocketAddr> {
    match text.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(text),
    }
}
