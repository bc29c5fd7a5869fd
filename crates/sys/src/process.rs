//! Making processes and becoming other programs.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

use crate::{Result, check};

/// The namespaces that a new process gets (clone(2), namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub mount: bool,
    pub pid: bool,
    pub uts: bool,
    pub ipc: bool,
    pub network: bool,
    pub user: bool,
}

impl Namespaces {
    fn flags(self) -> u64 {
        let pairs = [
            (self.mount, libc::CLONE_NEWNS),
            (self.pid, libc::CLONE_NEWPID),
            (self.uts, libc::CLONE_NEWUTS),
            (self.ipc, libc::CLONE_NEWIPC),
            (self.network, libc::CLONE_NEWNET),
            (self.user, libc::CLONE_NEWUSER),
        ];
        pairs.iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, flag)| all | u64::from(flag.cast_unsigned()))
    }
}

/// clone(2); libc's constant of this name has the wrong type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process that was made, seen from its parent.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    /// Names this very process for ever, unlike its number.
    pub pidfd: OwnedFd,
}

/// Makes a process in new namespaces, which runs `child` and ends with the status that it returns.
///
/// The child is a copy of the calling thread alone. In a process with other threads `child` must not
/// allocate or take a lock: a lock that another thread held stays locked for ever. (It cannot break
/// memory safety, only hang; so this function is safe.) The child has the parent's fds.
///
/// `cgroup` is a directory of the cgroup2 hierarchy in which the child starts (`CLONE_INTO_CGROUP`).
///
/// # Errors
/// As clone(2): `EPERM` without the right to a namespace, `EAGAIN` at a limit, `ENOSYS` before Linux 5.3.
pub fn clone3(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce() -> u8) -> Result<Child> {
    clone_with(namespaces, cgroup, 0, libc::SIGCHLD as u64, child)
}

/// As [`clone3`], but the new process is a child of this one's parent, which waits for it (`CLONE_PARENT`).
///
/// # Errors
/// As [`clone3`]; `EINVAL` for the first process of a PID namespace.
pub fn clone3_sibling(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> u8,
) -> Result<Child> {
    // The signal of its end is that of this process's own.
    clone_with(namespaces, cgroup, libc::CLONE_PARENT.cast_unsigned() as u64, 0, child)
}

/// The flags of [`clone_sibling`]: what a filter sees as the first argument of clone(2).
pub const CLONE_SIBLING: u64 = (libc::CLONE_PARENT | libc::CLONE_PIDFD).cast_unsigned() as u64;

/// As [`clone3_sibling`] without namespaces and group, by clone(2): a filter cannot look at what clone3 is asked for,
/// so many refuse it.
///
/// # Errors
/// As clone(2).
pub fn clone_sibling(child: impl FnOnce() -> u8) -> Result<Child> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: without a stack and without CLONE_VM the child has a copy of our memory and goes on on its own copy of
    // this stack; the one pointer is to `pidfd`, which lives across the call. The arguments whose order is not that of
    // every architecture are null.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, CLONE_SIBLING, 0_u64, &raw mut pidfd, 0_u64, 0_u64) })?;
    born(pid, pidfd, child)
}

fn clone_with(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    flags: u64,
    exit_signal: u64,
    child: impl FnOnce() -> u8,
) -> Result<Child> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers; all zeroes is a valid value of it.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.flags() | libc::CLONE_PIDFD.cast_unsigned() as u64 | flags;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = exit_signal;
    if let Some(group) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: `args` lives across the call and has the size that is given; the only pointer in it is to
    // `pidfd`, which lives as long. Without CLONE_VM the child has a copy of our memory and goes on on
    // its own copy of this stack, so nothing is shared that could be written by both.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut args), size_of_val(&args)) })?;
    born(pid, pidfd, child)
}

/// In both processes, after the clone.
fn born(pid: libc::c_long, pidfd: libc::c_int, child: impl FnOnce() -> u8) -> Result<Child> {
    if pid == 0 {
        exit_now(child());
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::INVAL)?;
    // SAFETY: the kernel stored a new descriptor in `pidfd`, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// Ends the process at once: no destructor, no atexit handler, nothing flushed (`_exit(2)`). What a child
/// between clone and exec must use, as the handlers are its parent's.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(i32::from(status)) }
}

/// A list of words for a program, made before a clone so that nothing is allocated after it.
#[derive(Debug)]
pub struct Words {
    // Owns what `pointers` points to; the heap blocks do not move when the vector does.
    strings: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers point into `strings`, which is owned and never changed.
unsafe impl Send for Words {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Words {}

impl Words {
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { strings, pointers }
    }

    /// The same words and one more.
    pub fn with(&self, word: std::ffi::CString) -> Self {
        Self::new(self.strings.iter().cloned().chain([word]).collect())
    }

    /// `first` and then these.
    pub fn after(&self, first: impl IntoIterator<Item = std::ffi::CString>) -> Self {
        Self::new(first.into_iter().chain(self.strings.iter().cloned()).collect())
    }

    /// A NULL-terminated array of pointers, valid as long as this value.
    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// Becomes the program at `path` (execve(2)). Returns only when that failed.
pub fn execve(path: &CStr, arguments: &Words, environment: &Words) -> rustix::io::Errno {
    // SAFETY: all three are NUL-terminated strings or NULL-terminated arrays of them that live across the call.
    let returned = unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    check(returned.into()).err().unwrap_or(rustix::io::Errno::IO)
}

/// Gives every signal its default action and unblocks all: an ignored signal and the mask are inherited
/// through exec (signal(7)), and a container's program must find them as after a boot.
pub fn reset_signals() -> Result<()> {
    for signal in 1..=64 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        // The kernel's own structure: SIG_DFL, no flags, nothing blocked. glibc's calls refuse 32 and 33, which are its
        // own, and which its posix_spawn leaves ignored.
        let default = [0_u64; 4];
        // SAFETY: SIG_DFL installs no handler; the structure is no longer than this on any architecture, is read only,
        // and the old one is not asked for. The last argument is the size of the kernel's signal set.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u8>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read; the old mask is not asked for.
    let returned = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    check(returned.into()).map(drop)
}

/// Moves this process into a new cgroup namespace, whose root is the groups that it is in now
/// (cgroup_namespaces(7)). Not at the clone: on v1 a process joins its groups only afterwards.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn unshare_cgroup() -> Result<()> {
    // SAFETY: changes how this process sees cgroup paths and nothing of its memory or descriptors.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into()).map(drop)
}

/// Makes a new time namespace for the children of this process, which itself stays where it is (time_namespaces(7)).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `EINVAL` in a kernel without time namespaces.
pub fn unshare_time() -> Result<()> {
    // SAFETY: changes in which namespace children read clocks and nothing of this process's memory or descriptors.
    check(unsafe { libc::unshare(libc::CLONE_NEWTIME) }.into()).map(drop)
}

/// Sets which system this process takes itself to be on (personality(2)); inherited, and kept by an exec.
///
/// # Errors
/// `EINVAL` for what is no personality.
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: changes how later programs are loaded and what uname tells; no pointers.
    check(unsafe { libc::personality(domain.into()) }.into()).map(drop)
}

/// Gives this process a new session keyring (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`) instead of its parent's.
///
/// # Errors
/// `ENOSYS` in a kernel without keys, `EDQUOT` when the user has too many.
pub fn join_new_session_keyring() -> Result<()> {
    let nobody_s = std::ptr::null::<libc::c_char>();
    // SAFETY: the only pointer is a null one, which asks for a keyring without a name.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, nobody_s) }).map(drop)
}

/// Sends a signal by number (pidfd_send_signal(2)): real-time signals have no names.
///
/// # Errors
/// `ESRCH` when the process has ended, `EINVAL` for what is no signal.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: no pointer but a null one, which asks for a siginfo as kill(2) would make it.
    let returned = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    check(returned).map(drop)
}

/// Sends a signal by number (kill(2)) to a process that nobody but the caller reaps.
///
/// # Errors
/// `EINVAL` for what is no signal.
pub fn signal(pid: rustix::process::Pid, signal: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) }.into()).map(drop)
}

/// Names this process in `ps` (prctl(2), `PR_SET_NAME`; 15 bytes are kept).
///
/// # Errors
/// None that a caller could cause.
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: the pointer is to a NUL-terminated string that lives across the call, in which the kernel copies it.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }.into()).map(drop)
}

/// Sets the NIS domain name of this UTS namespace (setdomainname(2)).
///
/// # Errors
/// `EPERM` without the right, `EINVAL` when it is longer than 64 bytes.
pub fn set_domain_name(name: &[u8]) -> Result<()> {
    // SAFETY: pointer and length are those of one slice.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::os::fd::AsFd;

    fn status_of(child: &Child) -> Option<i32> {
        let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).expect("waits");
        status.and_then(|s| s.exit_status())
    }

    #[test]
    fn a_child_runs_and_is_waited_for_by_its_pidfd() {
        let child = clone3(Namespaces::default(), None, || 7).expect("clones");
        assert_eq!(status_of(&child), Some(7));
    }

    #[test]
    fn a_sibling_is_the_parent_s_child() {
        let (ours, theirs) = std::io::pipe().expect("pipes");
        let own = rustix::process::getpid();
        let between = clone3(Namespaces::default(), None, || {
            match clone_sibling(|| u8::from(rustix::process::getppid() == Some(own))) {
                Ok(sibling) => {
                    let number = sibling.pid.as_raw_nonzero().get().to_ne_bytes();
                    u8::from(rustix::io::write(&theirs, &number) == Ok(4))
                }
                Err(_) => 0,
            }
        });
        assert_eq!(status_of(&between.expect("clones")), Some(1));
        let mut number = [0; 4];
        assert_eq!(rustix::io::read(&ours, &mut number), Ok(4));
        let sibling = Pid::from_raw(i32::from_ne_bytes(number)).expect("a number");
        let status = waitid(WaitId::Pid(sibling), WaitIdOptions::EXITED).expect("is this process's to be waited for");
        assert_eq!(status.and_then(|s| s.exit_status()), Some(1));
    }

    #[test]
    fn a_new_pid_namespace_starts_at_one() {
        let namespaces = Namespaces { pid: true, ..Namespaces::default() };
        let child = match clone3(namespaces, None, || u8::from(rustix::process::getpid().as_raw_nonzero().get() == 1)) {
            Err(rustix::io::Errno::PERM) => return eprintln!("skipped: no right to a pid namespace"),
            made => made.expect("clones"),
        };
        assert_eq!(status_of(&child), Some(1));
    }

    #[test]
    fn exec_of_what_is_not_there_says_so() {
        let nothing = Words::new(Vec::new());
        assert_eq!(execve(c"/nonexistent/program", &nothing, &nothing), rustix::io::Errno::NOENT);
    }
}
