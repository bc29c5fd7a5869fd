//! What `--debug` tells of a container's making and of an exec. Where runc's words for a step are true of it they are
//! used: tools and tests look for them.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, Spec};

use crate::log::Log;

/// Before a process is made in a container's namespaces.
pub(crate) fn setup(log: &Log, spec: &Spec) {
    log.debug("nsexec container setup: a process is made in the namespaces");
    let section = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    if let Some(section) = section.filter(|_| log.debugs()) {
        log.debug(&format!("seccomp filter flags: {}", seccomp_flags(section)));
    }
}

/// It is there.
pub(crate) fn set_up(log: &Log, pid: i32) {
    if log.debugs() {
        log.debug(&format!("child process in init(): it has the number {pid}, and waits for its start"));
    }
}

/// It becomes its program.
pub(crate) fn executed(log: &Log) {
    log.debug("init: closing the pipe to signal completion: the exec of the program has done so");
}

/// It is about to become its program, in a container that is there already.
pub(crate) fn about_to_execute(log: &Log) {
    log.debug("setns_init: about to exec the program");
}

/// Those of seccomp(2) that the filter is installed with.
fn seccomp_flags(section: &LinuxSeccomp) -> u32 {
    const NEW_LISTENER: u32 = 1 << 3;
    let given = section.flags().iter().flatten().map(|flag| match flag {
        // All threads of a program have the filter of its first one.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 1 << 5,
    });
    let mut rules = section.syscalls().iter().flatten();
    let notifies = rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    given.fold(if notifies { NEW_LISTENER } else { 0 }, |all, flag| all | flag)
}
