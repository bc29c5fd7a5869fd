//! Name servers for the namespaces: one on the host's loopback is not reached there but by the way out.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustix::mount::mount_bind;

use super::way_out::NAME_SERVER;

const HOSTS_OWN: &str = "/etc/resolv.conf";

fn file(exec_root: &Path) -> PathBuf {
    exec_root.join("resolv.conf")
}

/// Writes what is to be read in the namespaces instead of the host's file; `false` where that one is good there.
///
/// # Errors
/// As the file system.
pub(super) fn write(exec_root: &Path) -> std::io::Result<bool> {
    let text = fs::read_to_string(HOSTS_OWN).unwrap_or_default();
    let path = file(exec_root);
    match instead(&text) {
        // In place: it is mounted by its inode where a daemon has been before.
        Some(other) => fs::write(path, other).map(|()| true),
        None if path.exists() => fs::write(path, text).map(|()| false),
        None => Ok(false),
    }
}

/// The same with the way out's in the place of name servers on the loopback.
fn instead(text: &str) -> Option<String> {
    let on_loopback = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next());
        address.and_then(|address| address.parse::<IpAddr>().ok()).is_some_and(|address| address.is_loopback())
    };
    if !text.lines().any(on_loopback) {
        return None;
    }
    let mut is_there = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if !on_loopback(line) {
            lines.push(line.to_owned());
        } else if !is_there {
            is_there = true;
            lines.push(format!("nameserver {NAME_SERVER}"));
        }
    }
    Some(lines.join("\n") + "\n")
}

/// In the namespaces: has the file read instead of the host's, for good.
///
/// # Errors
/// As mount(2).
pub(super) fn mount(exec_root: &Path) -> rustix::io::Result<()> {
    let path = file(exec_root);
    let (own, there) = (rustix::fs::stat(&path)?, rustix::fs::stat(HOSTS_OWN)?);
    if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino) {
        return Ok(());
    }
    mount_bind(&path, HOSTS_OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_server_on_the_loopback_is_reached_by_another_address() {
        let text = "search a.b\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\noptions edns0\n";
        let other = "search a.b\nnameserver 10.0.2.3\nnameserver 192.0.2.1\noptions edns0\n";
        assert_eq!(instead(text).as_deref(), Some(other));
        assert_eq!(instead("nameserver 192.0.2.1\n#nameserver 127.0.0.1\n"), None);
    }
}
