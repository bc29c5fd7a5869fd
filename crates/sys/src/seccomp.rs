//! Installing a seccomp filter (seccomp(2)).

use std::os::fd::{FromRawFd, OwnedFd};

use crate::{Result, check};

/// One instruction of classic BPF, with the layout of the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// Flags of seccomp(2) that change how a filter is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Every action but to allow is logged.
    pub log: bool,
    /// No mitigation of speculative store bypass for who is filtered.
    pub spec_allow: bool,
    /// Who waits for a listener's answer can only be killed.
    pub wait_killable: bool,
}

/// linux/seccomp.h; libc lacks it.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Installs `program` for this thread and all that it makes. Needs no-new-privileges or CAP_SYS_ADMIN.
///
/// # Errors
/// `EINVAL` when the kernel's verifier refuses the program or it has more than 4096 instructions,
/// `EACCES` without the right, `ENOSYS` without seccomp.
pub fn install(program: &[Instruction], flags: Flags) -> Result<()> {
    set_filter(program, flags.bits()).map(drop)
}

/// As [`install`]; the fd is where somebody else reads the calls that the filter leaves to be decided
/// (seccomp_unotify(2)).
///
/// # Errors
/// As [`install`], and `EBUSY` when there is such an fd already.
pub fn install_with_listener(program: &[Instruction], flags: Flags) -> Result<OwnedFd> {
    let wait = if flags.wait_killable { WAIT_KILLABLE_RECV } else { 0 };
    let fd = set_filter(program, flags.bits() | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | wait)?;
    let fd = i32::try_from(fd).map_err(|_| rustix::io::Errno::BADF)?;
    // SAFETY: the kernel made this descriptor just now; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel knows these flags. Asks without a program: flags are looked at first.
///
/// # Errors
/// `ENOSYS` without seccomp.
pub fn supports(flags: Flags) -> Result<bool> {
    // The one that waits needs a listener to wait for.
    let wait = if flags.wait_killable { WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: the kernel reads the program from a null pointer, which fails with EFAULT and changes nothing.
    let returned = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags.bits() | wait, std::ptr::null::<u8>())
    };
    match check(returned) {
        Err(rustix::io::Errno::INVAL) => Ok(false),
        Ok(_) | Err(rustix::io::Errno::FAULT) => Ok(true),
        Err(error) => Err(error),
    }
}

impl Flags {
    fn bits(self) -> libc::c_ulong {
        let log = if self.log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
        log | if self.spec_allow { libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW } else { 0 }
    }
}

fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> Result<libc::c_long> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    let program = Program { length, filter: program.as_ptr() };
    // SAFETY: `Program` has the layout of `struct sock_fprog` and `Instruction` that of `struct sock_filter`;
    // both live across the call, in which the kernel copies them.
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    check(returned)
}

#[cfg(test)]
mod tests {
    use super::{Flags, supports};

    #[test]
    fn flags_are_asked_for_without_a_filter() {
        assert_eq!(supports(Flags::default()), Ok(true));
        assert_eq!(supports(Flags { log: true, spec_allow: true, wait_killable: false }), Ok(true));
    }
}
