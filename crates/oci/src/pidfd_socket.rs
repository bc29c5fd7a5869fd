//! The socket of `--pidfd-socket`: who listens there gets a pidfd of the container's process, or of the exec's.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::console::send_fd;
use crate::failure::{Failure, Result};

/// Sent beside it, as runc does.
const NAME: &[u8] = b"pidfd";

/// A connection to it.
#[derive(Debug)]
pub(crate) struct PidfdSocket(UnixStream);

impl PidfdSocket {
    /// Connects where one is asked for.
    pub(crate) fn connect(path: Option<&str>) -> Result<Option<Self>> {
        let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(None) };
        let connected = UnixStream::connect(path);
        connected.map(|stream| Some(Self(stream))).map_err(|error| Failure::file("dial unix", Path::new(path), &error))
    }

    pub(crate) fn send(&self, pidfd: BorrowedFd<'_>) -> Result<()> {
        send_fd(&self.0, NAME, pidfd).map_err(|errno| Failure::os("send the pidfd", errno))
    }
}
