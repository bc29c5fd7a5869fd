//! Whether a group's processes are frozen.

use std::path::PathBuf;

use wharf_cgroup::Group;

/// The group's own wish, not that of a group above it: what [`Group::freeze`] has set.
pub(crate) fn is_frozen(group: &Group) -> bool {
    let (file, thawed): (PathBuf, &str) = match (group.v1_dir("freezer"), group.v2_dir()) {
        (Some(dir), _) => (dir.join("freezer.self_freezing"), "0"),
        (None, Some(dir)) => (dir.join("cgroup.freeze"), "0"),
        (None, None) => return false,
    };
    std::fs::read_to_string(file).is_ok_and(|state| state.trim() != thawed)
}

/// Lets go on whatever is frozen, or is about to be. A group that has gone has nothing that waits.
pub(crate) fn thaw(group: &Group) {
    let _ = group.freeze(false);
}
