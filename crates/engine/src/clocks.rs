//! The time namespaces of containers. Nobody asks for them, so that there may be no more is no reason to fail: a monitor
//! goes on without (`wharf_runtime::Lifecycle::time_is_optional`), and here that is told.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this kernel has them (time_namespaces(7)).
pub(crate) fn can_be_own() -> bool {
    std::path::Path::new("/proc/self/ns/time").exists()
}

/// Warns of the first container that has none of its own.
pub(crate) fn warn_if_shared(pid: i32) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.load(Ordering::Relaxed) && is_shared(pid) && !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a container shares the host's clocks, since no time namespace can be made for it; how many there may be is \
             user.max_time_namespaces, which sysctl can raise"
        );
    }
}

/// Not, if it has ended or this kernel has none at all.
fn is_shared(pid: i32) -> bool {
    let of = |process: &str| rustix::fs::stat(format!("/proc/{process}/ns/time")).map(|stat| stat.st_ino);
    of("self").is_ok_and(|own| of(&pid.to_string()) == Ok(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_clocks_are_its_parent_s() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(is_shared(own), can_be_own());
        assert!(!is_shared(0));
    }
}
