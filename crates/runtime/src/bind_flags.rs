//! What flags a bind has (runtime-spec, config, "Mounts": as mount(8) has it), as with runc since its version 1.2.
//!
//! Without a flag among its options it has those of its source. With one it has those that are named, and no others. What
//! goes into another user namespace keeps those of its source that the kernel locks there (mount_namespaces(7),
//! "Restrictions on mount namespaces"), and to ask for their opposite is an error.

use std::os::fd::AsFd;

use rustix::fs::StatVfsMountFlags;
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

/// Whether the locks that `source` would have in another user namespace allow [`change`]: this process is not bound by
/// them, but its container is.
///
/// # Errors
/// `EPERM` when they do not.
pub(crate) fn check_locks(options: &Options, source: impl AsFd) -> Result<(), Errno> {
    if !options.flagged || options.clear.is_empty() {
        return Ok(());
    }
    let has = flags_of(source)?;
    let times = Attributes::ACCESS_TIMES;
    let other_times = options.clear.contains(times) && options.set.within(times) != has.within(times);
    if other_times || !options.clear.within(LOCKABLE).within(has).is_empty() {
        return Err(Errno::PERM);
    }
    Ok(())
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
