//! Linux system calls that `rustix` does not offer safely, each wrapped once.
//!
//! This is the only crate with `unsafe` code and the only one that knows `libc`. A module is one
//! subject of the kernel; a function is one system call, takes and returns owned or borrowed file
//! descriptors, and says in its `SAFETY` comment why the call is sound for every argument.
//!
//! - [`process`]: clone3, execve, leaving without destructors.
//! - [`mount`], [`apart`], [`overlay`]: mount attributes, by fd; mounts on mounts that nobody sees; overlays on older
//!   kernels.
//! - [`erofs`], [`verity`]: images mounted from their files; files that the kernel checks.
//! - [`quota`], [`loop_device`]: what a directory may take; files as block devices.
//! - [`bpf`]: programs that decide over devices.
//! - [`fds`]: closing what must not be inherited.
//! - [`heap`]: memory that is not used.
//! - [`scheduling`]: when a process runs.
//! - [`seccomp`]: installing a filter.
//! - [`message`]: file descriptors over unix sockets.
//! - [`namespace`], [`netlink`]: a network of one's own, and options of the sockets that change it.
//! - [`datagram`]: datagrams with the address that they came to. [`datagrams`]: many at a time. [`packet`]: frames as
//!   links have them.
//! - [`socket`]: what of a socket's output has been read, and who is at its other end.
//! - [`signals`], [`disposition`]: signals as something to read, and what becomes of them otherwise.
//! - [`reaping`]: the ends of children that others may trace.
//! - [`title`]: what others see of a process.

pub mod apart;
pub mod bpf;
pub mod datagram;
pub mod datagrams;
pub mod disposition;
pub mod erofs;
pub mod fds;
pub mod heap;
pub mod loop_device;
pub mod message;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod overlay;
pub mod own_program;
pub mod packet;
pub mod process;
pub mod quota;
pub mod reaping;
pub mod scheduling;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod title;
pub mod verity;

/// The result of a system call.
pub type Result<T> = std::result::Result<T, rustix::io::Errno>;

/// Turns libc's `-1` into the error of this thread.
fn check(returned: libc::c_long) -> Result<libc::c_long> {
    if returned == -1 {
        let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        return Err(rustix::io::Errno::from_raw_os_error(code));
    }
    Ok(returned)
}
