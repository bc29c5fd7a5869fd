//! Whether this process is an ordinary user, or root of a user namespace only.

/// Whether what only root of the host may do is out of reach, whatever the user ID says: root of a user namespace may
/// have no group to make and no devices to forbid. A kernel without user namespaces has no map.
#[must_use]
pub fn is_rootless() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !rustix::process::geteuid().is_root() || !is_whole(&map)
}

/// All IDs, each as itself (user_namespaces(7)).
fn is_whole(map: &str) -> bool {
    map.is_empty() || map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn only_all_ids_are_the_host_s() {
        assert!(is_whole("         0          0 4294967295\n") && is_whole(""));
        assert!(!is_whole("0 1000 1\n") && !is_whole("0 1000 1\n1 100000 65536\n"));
    }
}
