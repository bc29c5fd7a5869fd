//! Programs that decide over devices for the processes of a cgroup2 group (bpf(2), `BPF_PROG_TYPE_CGROUP_DEVICE`).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::{Result, check};

/// One instruction of extended BPF, with the layout of the kernel's `struct bpf_insn` (linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    /// The destination register in the low four bits, the source in the high ones.
    pub registers: u8,
    /// In instructions, of a jump: from the next one on.
    pub offset: i16,
    pub immediate: i32,
}

// linux/bpf.h, `enum bpf_cmd`, `bpf_prog_type`, `bpf_attach_type` and the flags of an attachment.
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// More programs than these the kernel does not attach to one group (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

/// The beginning of `union bpf_attr` that each command reads; a kernel that knows more takes the rest for zeros.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
struct Query {
    group: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Loads a program that decides over devices. It lives as long as its fd, or as a group that it is attached to.
///
/// # Errors
/// `EPERM` without CAP_BPF or CAP_SYS_ADMIN, `EINVAL` or `EACCES` when the kernel's verifier refuses it, `E2BIG` when it
/// is too long, `ENOSYS` in a kernel without bpf(2).
pub fn load_device_program(program: &[Instruction], name: &CStr) -> Result<OwnedFd> {
    // The helpers that the licence is about are not called.
    let license = c"Apache-2.0";
    let mut attributes = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
    };
    // The last byte stays zero.
    for (to, from) in attributes.name[..15].iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    // SAFETY: `Instruction` has the layout of `struct bpf_insn`; the slice and the license live across the call, in
    // which the kernel copies both.
    let fd = unsafe { call(PROG_LOAD, &mut attributes) }?;
    owned(fd)
}

/// Attaches a program to a group, beside those that are there (`BPF_F_ALLOW_MULTI`: all of them must allow, and those
/// of the groups above), or in the place of one of them.
///
/// # Errors
/// `EPERM` when what is attached above does not let others be, `EINVAL` before Linux 5.6 with `replaced`, `ENOENT` when
/// that is not attached.
pub fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attributes = Attach {
        group: number(group),
        program: number(program),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, number),
    };
    // SAFETY: no pointer in it.
    unsafe { call(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Takes a program off a group.
///
/// # Errors
/// `ENOENT` when it is not attached.
pub fn detach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attributes =
        Attach { group: number(group), program: number(program), kind: CGROUP_DEVICE, flags: 0, replaced: 0 };
    // SAFETY: no pointer in it.
    unsafe { call(PROG_DETACH, &mut attributes) }.map(drop)
}

/// The programs that are attached to a group itself.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN: then nobody can tell.
pub fn device_programs(group: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attributes = Query {
        group: number(group),
        kind: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        reserved: 0,
    };
    // SAFETY: `ids` has room for the number of elements that is given and lives across the call.
    unsafe { call(PROG_QUERY, &mut attributes) }?;
    let mut programs = Vec::new();
    for id in ids.into_iter().take(attributes.count as usize) {
        let mut attributes = ById { id, next: 0, flags: 0 };
        // SAFETY: no pointer in it.
        match unsafe { call(PROG_GET_FD_BY_ID, &mut attributes) } {
            Ok(fd) => programs.push(owned(fd)?),
            // Somebody took it off meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(programs)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
/// `attributes` begins as the kernel's `union bpf_attr` does for this command, and its pointers hold what the command
/// asks for until the call returns.
unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long> {
    // SAFETY: the size is that of the value, which lives across the call; the rest is the caller's.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

/// The descriptors that bpf(2) makes are close-on-exec.
fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel made this descriptor just now; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
