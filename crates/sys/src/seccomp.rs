//! Installing a seccomp filter (seccomp(2)).

use crate::{Result, check};

pub use crate::calls::number;

/// The native ABI as a filter sees it (`AUDIT_ARCH_*`, linux/audit.h).
#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from this bit on are of another ABI under the same architecture: x32.
#[cfg(target_arch = "x86_64")]
pub const FOREIGN_BIT: Option<u32> = Some(0x4000_0000);
#[cfg(target_arch = "aarch64")]
pub const FOREIGN_BIT: Option<u32> = None;

/// One instruction of classic BPF, with the layout of the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// Installs `program` for this thread and all that it makes. Needs no-new-privileges or CAP_SYS_ADMIN.
///
/// # Errors
/// `EINVAL` when the kernel's verifier refuses the program or it has more than 4096 instructions,
/// `EACCES` without the right, `ENOSYS` without seccomp.
pub fn install(program: &[Instruction], log: bool) -> Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    let program = Program { length, filter: program.as_ptr() };
    let flags = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    // SAFETY: `Program` has the layout of `struct sock_fprog` and `Instruction` that of `struct sock_filter`;
    // both live across the call, in which the kernel copies them.
    let returned =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    check(returned).map(drop)
}
