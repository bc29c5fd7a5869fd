//! Docker's default policy, as behaviour: what a container may call, and why the rest is refused.

use crate::abi::Abi;
use crate::policy::{Action, Comparison, Condition, Policy, Rule};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// Calls that need no capability and reach no rarely audited part of the kernel.
const ALWAYS: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown clock_adjtime
    clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown
    fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate
    futex futex_requeue futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64 getegid geteuid
    getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid
    getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid
    getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy
    io_getevents io_pgetevents ioprio_get ioprio_set io_setup io_submit kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr
    lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod
    mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink
    mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
    open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
    prctl pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile
    sendmmsg sendmsg sendto setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid
    setreuid setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setxattr setxattrat
    shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx
    symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink
    unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid waitpid write writev
    arch_prctl modify_ldt
    ptrace process_vm_readv process_vm_writev";

/// Calls that only 32-bit ABIs have and that do what one of [`ALWAYS`] does: with 32-bit user IDs where the older call
/// has 16, with 64-bit offsets or times where it has 32, or many in one.
const ALWAYS_32: &str = "
    _llseek _newselect chown32 clock_adjtime64 clock_getres_time64 clock_gettime64 clock_nanosleep_time64 fadvise64_64
    fchown32 fcntl64 fstat64 fstatat64 fstatfs64 ftruncate64 futex_time64 getegid32 geteuid32 getgid32 getgroups32
    getresgid32 getresuid32 getuid32 io_pgetevents_time64 lchown32 lstat64 mmap2 mq_timedreceive_time64
    mq_timedsend_time64 ppoll_time64 pselect6_time64 recv recvmmsg_time64 rt_sigtimedwait_time64
    sched_rr_get_interval_time64 semtimedop_time64 send sendfile64 setfsgid32 setfsuid32 setgid32 setgroups32
    setregid32 setresgid32 setresuid32 setreuid32 setuid32 sigprocmask sigreturn stat64 statfs64 timer_gettime64
    timer_settime64 timerfd_gettime64 timerfd_settime64 truncate64 ugetrlimit utimensat_time64
    ipc socketcall";

/// What ARM has beside: arguments in another order, and what other processors do without the kernel. Docker's
/// `sync_file_range2` is another name of `arm_sync_file_range`.
const ALWAYS_ARM: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls";

/// As [`BY_CAPABILITY`], of 32-bit ABIs.
const BY_CAPABILITY_32: &[(&str, &str)] = &[("CAP_SYS_ADMIN", "umount"), ("CAP_SYS_TIME", "stime clock_settime64")];

/// Calls that come with a capability: who has it could do the same by other means.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
         quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday clock_settime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// personality(2): Linux, SVr4 with 16-bit UIDs, and both with ADDR_NO_RANDOMIZE cleared; all ones only asks.
const PERSONALITIES: &[u64] = &[0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET: a new namespace, above all a user
/// namespace, opens parts of the kernel that most escapes went through.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Address families that are refused: AF_ALG and AF_VSOCK.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;

/// Docker's default policy for a process whose bounding set is `capabilities` (`CAP_…`).
///
/// Source: the profile of moby's `profiles/seccomp` at v0.2.3, of which this has the behaviour for the native ABI.
pub fn docker_default<S: AsRef<str>>(capabilities: &[S]) -> Policy {
    let has = |name: &str| capabilities.iter().any(|c| c.as_ref() == name);
    let mut rules = vec![allow(ALWAYS, Vec::new())];
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            rules.push(allow(calls, Vec::new()));
        }
    }
    for value in PERSONALITIES {
        rules.push(allow("personality", vec![on(0, Comparison::Equal(*value))]));
    }
    // One rule per gap between the refused families.
    rules.push(allow("socket", vec![on(0, Comparison::Less(AF_ALG))]));
    rules.push(allow("socket", vec![on(0, Comparison::Equal(AF_ALG + 1))]));
    rules.push(allow("socket", vec![on(0, Comparison::Greater(AF_VSOCK))]));
    if !has("CAP_SYS_ADMIN") {
        rules.push(allow("clone", vec![on(0, Comparison::Masked { mask: NEW_NAMESPACES, value: 0 })]));
        // clone3's flags are behind a pointer, which a filter cannot read; ENOSYS makes libc use clone.
        rules.push(Rule { names: vec!["clone3".into()], action: Action::Errno(ENOSYS), conditions: Vec::new() });
    }
    Policy { abis: Vec::new(), default: Action::Errno(EPERM), rules }
}

/// As [`docker_default`], for the programs of an image of this architecture (OCI image-spec, `architecture`).
///
/// Docker's policy has all ABIs of the machine. This one has a 32-bit ABI only where the image is made of such programs:
/// they need `socketcall`, by which the address families that `socket` is refused can be had, and no filter sees what
/// is behind its pointer.
pub fn docker_default_for<S: AsRef<str>>(architecture: &str, capabilities: &[S]) -> Policy {
    let mut policy = docker_default(capabilities);
    let Some(abi) = Abi::beside_the_native(architecture) else { return policy };
    policy.abis = vec![Abi::NATIVE, abi];
    policy.rules.push(allow(ALWAYS_32, Vec::new()));
    if abi == Abi::Arm {
        policy.rules.push(allow(ALWAYS_ARM, Vec::new()));
    }
    let held = |name: &str| capabilities.iter().any(|held| held.as_ref() == name);
    policy
        .rules
        .extend(BY_CAPABILITY_32.iter().filter(|(name, _)| held(name)).map(|(_, calls)| allow(calls, Vec::new())));
    policy
}

fn allow(names: &str, conditions: Vec<Condition>) -> Rule {
    Rule { names: names.split_whitespace().map(str::to_owned).collect(), action: Action::Allow, conditions }
}

fn on(argument: u8, comparison: Comparison) -> Condition {
    Condition { argument, comparison }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_policy_is_known_to_the_table() {
        let policy = docker_default(&BY_CAPABILITY.iter().map(|(capability, _)| *capability).collect::<Vec<_>>());
        // Names of other architectures.
        let elsewhere = ["riscv_hwprobe", "waitpid"];
        for name in policy.rules.iter().flat_map(|rule| &rule.names) {
            assert!(Abi::X86_64.number(name).is_some() || elsewhere.contains(&name.as_str()), "{name}");
        }
        for name in ALWAYS_32.split_whitespace().chain(BY_CAPABILITY_32.iter().flat_map(|(_, n)| n.split_whitespace()))
        {
            assert!(Abi::X86.number(name).is_some() || matches!(name, "recv" | "send"), "{name}");
            assert!(Abi::X86_64.number(name).is_none(), "{name} is no call of 32-bit ABIs alone");
        }
        for name in ALWAYS_ARM.split_whitespace() {
            assert!(Abi::Arm.number(name).is_some(), "{name}");
        }
    }
}
