//! `wharf oci` as engines and people call it: the built binary on bundles of busybox.

mod binds;
mod broken_off;
mod commands;
mod conformance;
mod engines;
mod exec;
mod hierarchy;
mod hooks;
mod hostile;
mod joined;
mod killing;
mod kit;
mod lifecycle;
mod limits;
mod mount_tables;
mod namespaces;
mod net_devices;
mod notify;
mod pidfd_socket;
mod process;
#[cfg(target_arch = "x86_64")]
#[expect(dead_code, reason = "programs of the tests of ways out: not all of it is needed here")]
#[path = "../escape/program.rs"]
mod program;
mod rootless;
mod run;
mod seccomp;
mod terminal;
mod users;
