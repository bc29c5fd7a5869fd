//! Options of netlink sockets (netlink(7)).

use std::os::fd::{AsFd, AsRawFd};

use crate::{Result, check};

/// A switch of a socket, off when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Errors come with the kernel's own words (`NETLINK_EXT_ACK`).
    ExtendedAck,
    /// Errors do not repeat the request (`NETLINK_CAP_ACK`).
    CappedAck,
    /// Dumps check what is asked strictly, and filter by it (`NETLINK_GET_STRICT_CHK`).
    StrictCheck,
}

/// Turns a switch of a netlink socket on.
///
/// # Errors
/// `ENOPROTOOPT` when the kernel does not have it.
pub fn turn_on(socket: impl AsFd, switch: Switch) -> Result<()> {
    let name = match switch {
        Switch::ExtendedAck => libc::NETLINK_EXT_ACK,
        Switch::CappedAck => libc::NETLINK_CAP_ACK,
        Switch::StrictCheck => libc::NETLINK_GET_STRICT_CHK,
    };
    let on: libc::c_int = 1;
    // The size of an int fits whatever integer the type is.
    let size = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is an int that lives across the call, and its size is what is given.
    let returned =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), libc::SOL_NETLINK, name, (&raw const on).cast(), size) };
    check(returned.into()).map(drop)
}
