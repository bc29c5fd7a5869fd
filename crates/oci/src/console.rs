//! The socket of `--console-socket`: who listens there gets the master of the container's terminal.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::failure::{Failure, Result};

/// Sent beside the master; it is shown in logs at most.
const NAME: &[u8] = b"/dev/ptmx";

/// A connection to it.
#[derive(Debug)]
pub(crate) struct Console(UnixStream);

impl Console {
    /// Connects where one is asked for; one that makes no sense is refused.
    pub(crate) fn connect(path: Option<&str>, terminal: bool, detach: bool) -> Result<Option<Self>> {
        let path = path.filter(|path| !path.is_empty());
        match path {
            Some(_) if !terminal || !detach => {
                Err(Failure::new("cannot use console socket if runc will not detach or allocate tty"))
            }
            None if terminal && detach => {
                Err(Failure::new("cannot allocate tty if runc will detach without setting console socket"))
            }
            None => Ok(None),
            Some(path) => {
                let connected = UnixStream::connect(path);
                connected
                    .map(|stream| Some(Self(stream)))
                    .map_err(|error| Failure::file("dial unix", Path::new(path), &error))
            }
        }
    }

    pub(crate) fn send(&self, master: BorrowedFd<'_>) -> Result<()> {
        send_fd(&self.0, NAME, master).map_err(|errno| Failure::os("send the terminal", errno))
    }
}

/// Sends a file descriptor with a name for it, in runc's form.
pub(crate) fn send_fd(to: &UnixStream, name: &[u8], fd: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::io::retry_on_intr(|| sendmsg(to, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL)).map(drop)
}
