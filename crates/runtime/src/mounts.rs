//! From a configuration's mounts to steps; what is of the host is opened here (runtime-spec, config, "Mounts").

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};
use wharf_cgroup::{Group, Hierarchies};
use wharf_sys::mount::{Attributes, Change, set_attributes};

use crate::bind_flags;
use crate::bind_source::BindSources;
use crate::mapping;
use crate::mount_options::Options;
use crate::plan::{MountSource, MountStep, Shown};
use crate::rootfs::layer;
use crate::{Result, RuntimeError};

/// What a mount depends on besides itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) linux: &'a Linux,
    pub(crate) hierarchies: &'a Hierarchies,
    pub(crate) group: Option<&'a Group>,
    pub(crate) unprivileged: bool,
    /// The container is in another user namespace.
    pub(crate) other_user: bool,
    /// Which one, when it is there already.
    pub(crate) user_join: Option<BorrowedFd<'a>>,
    pub(crate) sources: BindSources<'a>,
}

pub(crate) fn mount_step(mount: &Mount, surroundings: &Surroundings<'_>) -> Result<MountStep> {
    let Surroundings { linux, hierarchies, group, unprivileged, other_user, user_join, sources } = *surroundings;
    let destination = mount.destination().clone();
    if !destination.is_absolute() {
        return Err(RuntimeError::Invalid(format!("mount destination `{}` is not absolute", destination.display())));
    }
    let options = Options::parse(mount.options().iter().flatten().map(String::as_str));
    let kind = mount.typ().as_deref().unwrap_or_default();
    let is_bind = kind == "bind" || options.bind;
    if let Some(word) = options.unknown_of_bind().filter(|_| is_bind) {
        let place = destination.display();
        return Err(RuntimeError::Invalid(format!("unknown option `{word}` of the bind on `{place}`")));
    }
    let map = id_map(mount, linux, user_join, &options)?;
    if map.is_some() && !is_bind {
        return Err(RuntimeError::Unsupported(format!(
            "an id-mapped mount of type `{kind}`: only binds have a mapping"
        )));
    }
    if options.copy_up && kind != "tmpfs" {
        return Err(RuntimeError::Invalid(format!("tmpcopyup on `{}`, which is no tmpfs", destination.display())));
    }
    let source = match kind {
        "cgroup" | "cgroup2" if !hierarchies.is_v2() && unprivileged => late_groups(hierarchies, group),
        "cgroup" | "cgroup2" if !hierarchies.is_v2() => groups(hierarchies, group, options.set)?,
        "cgroup" | "cgroup2" if needs_host_s_groups(linux) => {
            let top = hierarchies.v2().unwrap_or(Path::new("/sys/fs/cgroup"));
            if unprivileged {
                MountSource::Late { source: group_or_own(top, "", group, &own_groups()), directory: true }
            } else {
                let source = group.and_then(Group::v2_dir).unwrap_or_else(|| top.to_owned());
                let tree = layer(&source, None, false)?;
                let change = Change { set: options.set, ..Change::default() };
                set_attributes(tree.as_fd(), false, change)
                    .map_err(|e| RuntimeError::host("set the options of", &source, e))?;
                MountSource::Tree { tree, directory: true }
            }
        }
        "cgroup" | "cgroup2" => MountSource::New { kind: "cgroup2".into(), source: "cgroup".into(), made: None },
        _ if is_bind && unprivileged => late_bind(mount, map.is_some())?,
        _ if is_bind => bind(mount, &options, map.as_ref(), other_user, sources)?,
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" => {
            let source = mount.source().as_deref().and_then(Path::to_str).filter(|source| !source.is_empty());
            MountSource::New { kind: kind.into(), source: source.unwrap_or(kind).into(), made: None }
        }
        "" => return Err(RuntimeError::Invalid(format!("mount `{}` has no type", destination.display()))),
        other => other_file_system(other, mount)?,
    };
    Ok(MountStep { destination, source, options })
}

/// Whatever else the kernel knows (proc_filesystems(5)); it is asked now, as it may have to load a module for it.
fn other_file_system(kind: &str, mount: &Mount) -> Result<MountSource> {
    fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
        Errno::NODEV => RuntimeError::Invalid(format!("this kernel knows no file system of type `{kind}`")),
        errno => RuntimeError::host("open a file system of type", kind, errno),
    })?;
    let source = mount.source().as_deref().and_then(Path::to_str).filter(|source| !source.is_empty());
    Ok(MountSource::New { kind: kind.into(), source: source.unwrap_or(kind).into(), made: None })
}

/// Whether cgroup2 cannot be mounted anew: that takes the privileges over the cgroup namespace, which a user namespace has
/// over its own alone. The group's own directory is what is shown then, as on v1.
fn needs_host_s_groups(linux: &Linux) -> bool {
    let has = |kind| linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind);
    !has(LinuxNamespaceType::Cgroup) && (has(LinuxNamespaceType::User) || !owns_cgroup_namespace())
}

/// Whether this process's cgroup namespace is not of a user namespace above its own: as in rootless podman's.
fn owns_cgroup_namespace() -> bool {
    let own = fs::File::open("/proc/self/ns/cgroup").map_err(|_| Errno::NOENT);
    own.and_then(|own| wharf_sys::namespace::is_within_own_user(own.as_fd())).unwrap_or(true)
}

/// What is bound by an ordinary user: there now, opened by the child.
fn late_bind(mount: &Mount, mapped: bool) -> Result<MountSource> {
    if mapped {
        return Err(RuntimeError::Unsupported("an id-mapped mount without privileges".into()));
    }
    let source = mount.source().clone().unwrap_or_default();
    let stat = rustix::fs::stat(&source).map_err(|e| RuntimeError::host("open", &source, e))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(MountSource::Late { source, directory })
}

/// The mapping of an id-mapped mount, and whether all below it has it: the mount's own, or the container's.
fn id_map(
    mount: &Mount,
    linux: &Linux,
    user_join: Option<BorrowedFd<'_>>,
    options: &Options,
) -> Result<Option<(OwnedFd, bool)>> {
    let (uids, gids) = match (mount.uid_mappings(), mount.gid_mappings()) {
        (Some(uids), Some(gids)) => (uids, gids),
        (None, None) if options.id_map.is_none() => return Ok(None),
        (None, None) if user_join.is_some() => {
            // The one that is joined is the mapping, whatever stands for it in the configuration.
            let joined = user_join.map(|fd| fd.try_clone_to_owned()).transpose().map_err(|e| {
                RuntimeError::host("duplicate", "user namespace", Errno::from_io_error(&e).unwrap_or(Errno::IO))
            })?;
            return Ok(joined.map(|joined| (joined, options.id_map.unwrap_or(false))));
        }
        (None, None) => match (linux.uid_mappings(), linux.gid_mappings()) {
            (Some(uids), Some(gids)) => (uids, gids),
            _ => {
                return Err(RuntimeError::Invalid(
                    "an id-mapped mount needs mappings, or a user namespace with some".into(),
                ));
            }
        },
        _ => return Err(RuntimeError::Invalid("an id-mapped mount needs both uidMappings and gidMappings".into())),
    };
    if uids.is_empty() || gids.is_empty() {
        return Err(RuntimeError::Invalid("an id-mapped mount with empty mappings".into()));
    }
    Ok(Some((mapping::namespace(uids, gids)?, options.id_map.unwrap_or(false))))
}

/// Opens the source now, in the host's mounts: what the path means later does not matter. `other_user`: for a user
/// namespace that is not this process's.
pub(crate) fn bind(
    mount: &Mount,
    options: &Options,
    map: Option<&(OwnedFd, bool)>,
    other_user: bool,
    sources: BindSources<'_>,
) -> Result<MountSource> {
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    let (tree, is_mapped) = match sources.of(mount) {
        None => (layer(source, None, options.recursive)?, false),
        Some(own) => sources.open(own, options.recursive, map.map(|(namespace, _)| namespace.as_fd()))?,
    };
    let fail = |e| RuntimeError::host("set the options of", source, e);
    if let Some((namespace, recursive)) = map.filter(|_| !is_mapped) {
        let change = Change { id_map: Some(namespace.as_fd()), ..Change::default() };
        set_attributes(tree.as_fd(), *recursive, change)
            .map_err(|e| RuntimeError::host("map the owners of", source, e))?;
    }
    if other_user {
        bind_flags::check_locks(options, &tree, sources.of(mount).is_none().then_some(source)).map_err(fail)?;
    }
    if let Some(change) = bind_flags::change(options, other_user) {
        set_attributes(tree.as_fd(), false, change).map_err(fail)?;
    }
    if !(options.recursive_set.is_empty() && options.recursive_clear.is_empty()) {
        let change = Change { set: options.recursive_set, clear: options.recursive_clear, ..Change::default() };
        set_attributes(tree.as_fd(), true, change).map_err(fail)?;
    }
    let stat = rustix::fs::fstat(&tree).map_err(|e| RuntimeError::host("look at", source, e))?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(MountSource::Tree { tree, directory })
}

/// The container's own group of each v1 hierarchy, so that it sees its limits and nobody else's.
fn groups(hierarchies: &Hierarchies, group: Option<&Group>, set: Attributes) -> Result<MountSource> {
    let mut all = Vec::new();
    for (name, root) in hierarchies.all_v1() {
        let path = group.map_or_else(|| root.to_owned(), |group| root.join(group.path()));
        let tree = layer(&path, None, false)?;
        let change = Change { set, ..Change::default() };
        set_attributes(tree.as_fd(), false, change).map_err(|e| RuntimeError::host("set the options of", &path, e))?;
        all.push((directory_name(name).to_owned(), Shown::Tree(tree)));
    }
    Ok(MountSource::Groups(all))
}

fn directory_name(hierarchy: &str) -> &str {
    hierarchy.strip_prefix("name=").unwrap_or(hierarchy)
}

/// As [`groups`], for the container of an ordinary user, which most often has no group.
fn late_groups(hierarchies: &Hierarchies, group: Option<&Group>) -> MountSource {
    let own = own_groups();
    let shown = |(name, root)| (directory_name(name).to_owned(), Shown::Late(group_or_own(root, name, group, &own)));
    MountSource::Groups(hierarchies.all_v1().map(shown).collect())
}

/// The groups of this process (cgroups(7), `/proc/PID/cgroup`).
fn own_groups() -> String {
    std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The container's group in the hierarchy of that name at `root`, or the one that this process is in, which the
/// container's will be in then; as runc shows them. The unified hierarchy has no name. `own`: as [`own_groups`].
fn group_or_own(root: &Path, name: &str, group: Option<&Group>, own: &str) -> PathBuf {
    let in_hierarchy = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (names, path) = rest.split_once(':')?;
        names.split(',').any(|one| one == name).then(|| path.trim_start_matches('/').to_owned())
    };
    let made = group.map(|group| root.join(group.path()));
    // A path that leads above the root is one outside of this process's view.
    let own = own.lines().find_map(in_hierarchy).filter(|path| !path.split('/').any(|part| part == ".."));
    let own = own.map(|path| root.join(path));
    made.into_iter().chain(own).find(|dir| dir.is_dir()).unwrap_or_else(|| root.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_group_a_container_is_shown_its_maker_s() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("user/one")).unwrap();
        let own = "5:cpu,cpuacct:/user/one\n2:name=systemd:/gone\n1:pids:/../user\n0::/user\n";
        for (name, shown) in [
            ("cpu", "user/one"),
            ("cpuacct", "user/one"),
            ("name=systemd", ""),
            ("pids", ""),
            ("memory", ""),
            ("", "user"),
        ] {
            assert_eq!(group_or_own(root, name, None, own), root.join(shown), "{name}");
        }
    }
}
