//! A time namespace of the container's own (time_namespaces(7); runtime-spec, config-linux, "Offset for Time Namespace").

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::LinuxTimeOffset;
use rustix::io::Errno;

use crate::root::write_procfs;
use crate::{Result, RuntimeError};

#[derive(Debug)]
pub(crate) struct OwnTime {
    /// As `/proc/PID/timens_offsets` takes them.
    offsets: String,
    /// It may be left out.
    pub(crate) optional: bool,
}

impl OwnTime {
    pub(crate) fn plan(offsets: Option<&HashMap<String, LinuxTimeOffset>>) -> Result<Self> {
        let mut text = String::new();
        for (clock, offset) in offsets.into_iter().flatten() {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(RuntimeError::Invalid(format!("a time namespace has no clock `{clock}`")));
            }
            let nanoseconds = offset.nanosecs().unwrap_or(0);
            if nanoseconds > 999_999_999 {
                return Err(RuntimeError::Invalid(format!("{nanoseconds} nanoseconds are more than a second")));
            }
            text += &format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0));
        }
        Ok(Self { offsets: text, optional: false })
    }

    /// Whether it may be left out. Offsets were asked for, so with them it may not.
    pub(crate) fn optional(self, optional: bool) -> Self {
        Self { optional: optional && self.offsets.is_empty(), ..self }
    }

    /// Makes it for children of this process, with its clocks set: once a process is in it they stay as they are.
    ///
    /// # Errors
    /// When the kernel refuses it. That there are too many of them is no error for one that may be left out.
    pub(crate) fn make(&self) -> Result<()> {
        match wharf_sys::process::unshare_time() {
            Err(Errno::NOSPC) if self.optional => return Ok(()),
            Err(Errno::NOSPC) => {
                let step = "make a time namespace (see user.max_time_namespaces in namespaces(7))".into();
                return Err(RuntimeError::Setup { step, errno: Errno::NOSPC });
            }
            Err(errno) => return Err(RuntimeError::Setup { step: "make a time namespace".into(), errno }),
            Ok(()) => {}
        }
        if self.offsets.is_empty() {
            return Ok(());
        }
        write_procfs(Path::new("/proc/self/timens_offsets"), &self.offsets)
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use std::fs;
    use std::os::fd::AsFd;
    use wharf_sys::process::{Namespaces, clone3};

    use super::*;

    /// The limit is lowered in a user namespace that ends with the process in it.
    #[test]
    fn where_there_may_be_no_more_only_an_optional_one_is_left_out() {
        if !fs::exists("/proc/self/ns/time").unwrap() {
            return eprintln!("skipped: no time namespaces");
        }
        let offset = HashMap::from([("boottime".to_owned(), LinuxTimeOffset::default())]);
        let offset = OwnTime::plan(Some(&offset)).unwrap().optional(true);
        let [needed, optional] = [false, true].map(|optional| OwnTime::plan(None).unwrap().optional(optional));
        let user = Namespaces { user: true, ..Namespaces::default() };
        let child = clone3(user, None, || {
            if fs::write("/proc/sys/user/max_time_namespaces", "1").is_err() {
                return 1;
            }
            // Without memory of its own making: another thread may have been at it.
            let own = || rustix::fs::stat("/proc/self/ns/time_for_children").map(|stat| stat.st_ino);
            let before = own();
            if optional.make().is_err() || own() == before {
                return 2;
            }
            // The one that there may be is still held while the next is made.
            let first = own();
            let refused = |time: &OwnTime| matches!(time.make(), Err(RuntimeError::Setup { errno: Errno::NOSPC, .. }));
            if !refused(&needed) || !refused(&offset) {
                return 3;
            }
            if optional.make().is_err() || own() != first { 4 } else { 0 }
        });
        let child = match child {
            Ok(child) => child,
            Err(errno) => return eprintln!("skipped: no user namespaces: {errno}"),
        };
        let ended = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(ended.exit_status(), Some(0));
    }
}
