//! How the calling thread is scheduled (sched_setattr(2), sched_getattr(2), ioprio_set(2)).

use crate::{Result, check};

/// What sched_setattr(2) takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the next two.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// linux/sched/types.h, `struct sched_attr` of 48 bytes, which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Raw {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = 48;

/// Says of this thread that it works for moments only, some `nanoseconds`: it has no more of the processors' time than before,
/// and gets it sooner than who works for long (Linux 6.12; earlier kernels pay no heed). One that has another scheduler than
/// the normal one keeps it.
///
/// # Errors
/// As sched_setattr(2).
pub fn work_for_moments(nanoseconds: u64) -> Result<()> {
    let mut raw = Raw::default();
    // SAFETY: the kernel writes at most the 48 bytes that it is told, which `raw` has; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut raw, SIZE, 0) })?;
    // SCHED_OTHER.
    if raw.policy != 0 {
        return Ok(());
    }
    let Raw { policy, nice, .. } = raw;
    set_scheduler(&Attributes { policy, nice, runtime: nanoseconds, ..Attributes::default() })
}

/// Sets the scheduler of this thread.
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE for what is better than now, `EINVAL` for values out of range.
pub fn set_scheduler(attributes: &Attributes) -> Result<()> {
    set_scheduler_of(0, attributes)
}

/// As [`set_scheduler`], for the thread of this number: a process that its maker has not waited for yet.
///
/// # Errors
/// As [`set_scheduler`], and `ESRCH` when there is none.
pub fn set_scheduler_of(thread: i32, attributes: &Attributes) -> Result<()> {
    let Attributes { policy, flags, nice, priority, runtime, deadline, period } = *attributes;
    let raw = Raw { size: SIZE, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: the struct has the size that it says and lives across the call; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const raw, 0) }).map(drop)
}

/// Sets the IO priority of this thread: class and level in one number.
///
/// # Errors
/// `EPERM` without the right to a class, `EINVAL` for values out of range.
pub fn set_io_priority(priority: i32) -> Result<()> {
    // linux/ioprio.h, IOPRIO_WHO_PROCESS.
    const PROCESS: i32 = 1;
    // SAFETY: no pointers; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, priority) }).map(drop)
}

/// Says from which NUMA nodes this thread's memory comes (set_mempolicy(2)); its children inherit it. `mode` includes
/// the flags of the mode, `nodes` has a bit for each node.
///
/// # Errors
/// `EINVAL` for nodes that are not there or a mode that does not go with them, `ENOSYS` from a kernel without NUMA.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has as many bits as are told, rounded up to words, and lives across the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worse_place_needs_no_right() {
        // In a thread of its own: both are a thread's.
        std::thread::spawn(|| {
            set_scheduler(&Attributes { policy: 3, nice: 5, ..Attributes::default() }).unwrap();
            set_io_priority(3 << 13).unwrap();
            assert!(set_scheduler(&Attributes { policy: 99, ..Attributes::default() }).is_err());
            work_for_moments(100_000).unwrap();
        })
        .join()
        .unwrap();
    }
}
