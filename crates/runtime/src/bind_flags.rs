//! What flags a bind has (runtime-spec, config, "Mounts": as mount(8) has it), as with runc since its version 1.2.
//!
//! Without a flag among its options it has those of its source. With one it has those that are named, and no others. What
//! goes into another user namespace keeps those of its source that the kernel locks there (mount_namespaces(7),
//! "Restrictions on mount namespaces"), and to ask for their opposite is an error.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;
use wharf_sys::mount::{Attributes, Change};

use crate::mount_options::Options;

/// How access times are kept is locked, too.
const LOCKABLE: Attributes = Attributes::RDONLY.and(Attributes::NOSUID).and(Attributes::NODEV).and(Attributes::NOEXEC);

/// `None`: the source's stay.
pub(crate) fn change(options: &Options, locked: bool) -> Option<Change<'static>> {
    if !options.flagged {
        return None;
    }
    let unnamed = if locked { Attributes::NOSYMFOLLOW } else { LOCKABLE.and(Attributes::NOSYMFOLLOW) };
    let clear = options.clear | unnamed.without(options.set);
    Some(Change { set: options.set, clear, ..Change::default() })
}

/// Whether the locks that `tree` would have in another user namespace allow [`change`]: this process is not bound by
/// them, but its container is. `source`: where `tree` was taken from, when it has a path.
///
/// # Errors
/// `EPERM` when they do not.
pub(crate) fn check_locks(options: &Options, tree: impl AsFd, source: Option<&Path>) -> Result<(), Errno> {
    if !options.flagged || options.clear.is_empty() {
        return Ok(());
    }
    let mut has = flags_of(tree)?;
    let read_only = Attributes::RDONLY;
    if has.within(options.clear).contains(read_only) && source.is_some_and(is_writable_mount) {
        has = has.without(read_only);
    }
    let times = Attributes::ACCESS_TIMES;
    let other_times = options.clear.contains(times) && options.set.within(times) != has.within(times);
    if other_times || !options.clear.within(LOCKABLE).within(has).is_empty() {
        return Err(Errno::PERM);
    }
    Ok(())
}

/// Whether it is not the mount that is read-only, but its file system, which is not locked: statvfs(3) cannot tell them
/// apart. What is not found is taken to be the mount.
fn is_writable_mount(source: &Path) -> bool {
    let Ok(found) = rustix::fs::statx(CWD, source, AtFlags::empty(), StatxFlags::MNT_ID) else { return false };
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    is_writable(&all, found.stx_mnt_id)
}

/// proc_pid_mountinfo(5): `ID PARENT DEV ROOT POINT OPTIONS …`.
fn is_writable(mounts: &str, id: u64) -> bool {
    let id = id.to_string();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&id));
    line.and_then(|line| line.split(' ').nth(5)).is_some_and(|options| options.split(',').any(|word| word == "rw"))
}

/// statvfs(3), `f_flag`.
fn flags_of(mount: impl AsFd) -> Result<Attributes, Errno> {
    let found = rustix::fs::fstatvfs(mount)?.f_flag;
    let known = [
        (StatVfsMountFlags::RDONLY, Attributes::RDONLY),
        (StatVfsMountFlags::NOSUID, Attributes::NOSUID),
        (StatVfsMountFlags::NODEV, Attributes::NODEV),
        (StatVfsMountFlags::NOEXEC, Attributes::NOEXEC),
        (StatVfsMountFlags::NOATIME, Attributes::NOATIME),
        (StatVfsMountFlags::NODIRATIME, Attributes::NODIRATIME),
    ];
    let known = known.into_iter().filter(|(flag, _)| found.contains(*flag));
    let has = known.fold(Attributes::NONE, |all, (_, attribute)| all | attribute);
    let strict = !found.intersects(StatVfsMountFlags::NOATIME | StatVfsMountFlags::RELATIME);
    Ok(if strict { has | Attributes::STRICTATIME } else { has })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &str) -> Options {
        Options::parse(words.split(','))
    }

    #[test]
    fn a_mount_is_read_only_by_its_own_options() {
        let mounts = "30 1 8:1 / / rw,relatime - ext4 /dev/a ro\n31 30 8:2 / /a ro,noatime - ext4 /dev/b rw\n";
        assert!(is_writable(mounts, 30) && !is_writable(mounts, 31) && !is_writable(mounts, 3));
    }

    #[test]
    fn what_is_not_named_goes_with_the_first_flag() {
        let flags = |words: &str, locked| change(&options(words), locked).map(|change| (change.set, change.clear));
        assert_eq!(flags("rbind,rprivate,rro", false), None);
        let all = LOCKABLE | Attributes::NOSYMFOLLOW;
        assert_eq!(flags("bind,sync", false), Some((Attributes::NONE, all)));
        assert_eq!(flags("bind,ro", false), Some((Attributes::RDONLY, all.without(Attributes::RDONLY))));
        assert_eq!(flags("bind,ro", true), Some((Attributes::RDONLY, Attributes::NOSYMFOLLOW)));
        assert_eq!(flags("bind,nosymfollow", true), Some((Attributes::NOSYMFOLLOW, Attributes::NONE)));
        let named = Attributes::RDONLY | Attributes::NOSYMFOLLOW;
        assert_eq!(flags("bind,rw", true), Some((Attributes::NONE, named)));
        let times = Attributes::ACCESS_TIMES | all;
        assert_eq!(flags("bind,relatime", false), Some((Attributes::NONE, times)));
    }
}
