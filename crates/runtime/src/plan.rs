//! From a configuration to a plan: everything checked, everything of the host opened, before a process exists.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::Value;
use wharf_cgroup::{Group, Hierarchies, is_rootless};
use wharf_sys::mount::{Attributes, Propagation};
use wharf_sys::process::Namespaces;

use crate::bind_source::BindSources;
use crate::capabilities;
use crate::default_filter::DefaultFilter;
use crate::filter::SystemCalls;
use crate::label::mount_label;
use crate::mapping;
use crate::memory_policy::MemoryPolicy;
use crate::mount_options::{Options, propagation};
use crate::mounts::{Surroundings, mount_step};
use crate::namespaces::namespaces;
use crate::net_devices::{self, NetDevice};
use crate::nodes::{DeviceStep, devices};
use crate::own_time::OwnTime;
use crate::process::{ProcessPlan, process_plan};
use crate::scheduling::personality;
use crate::{Result, RuntimeError};

/// What the child does, in the order of the fields.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    /// A cgroup namespace of its own, made once the process is in its groups.
    pub(crate) cgroup_namespace: bool,
    /// Namespaces of others, joined first.
    pub(crate) joins: Vec<Join>,
    /// A PID namespace of others that only the program's process goes into ([`crate::joining`]).
    pub(crate) late_pid: Option<OwnedFd>,
    /// No more than one process may be in its group, once the program's is.
    pub(crate) alone: bool,
    /// A user namespace of others, entered before all else.
    pub(crate) user_join: Option<OwnedFd>,
    /// A time namespace of its own.
    pub(crate) time: Option<OwnTime>,
    pub(crate) mounts: Vec<MountStep>,
    /// The SELinux context of what masks, as of the new file systems in `mounts`.
    pub(crate) mount_label: Option<String>,
    /// Where mounts become read-only once all that goes into them is there.
    pub(crate) sealed: Vec<PathBuf>,
    pub(crate) devices: Vec<DeviceStep>,
    /// Links of the host's that the parent moves.
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) readonly: Vec<PathBuf>,
    pub(crate) sysctls: Vec<(PathBuf, String)>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) readonly_root: bool,
    /// Where the root is attached before it becomes the root: hooks look for it where the host has it.
    pub(crate) rootfs_at: PathBuf,
    /// The process is in another user namespace than its parent.
    pub(crate) other_user: bool,
    /// Who sets up in a new user namespace: its root, or who stands in for that.
    pub(crate) root_ids: Option<(u32, u32)>,
    /// This is an ordinary user.
    pub(crate) unprivileged: bool,
    /// The root's own, and whether it is that of all below it.
    pub(crate) propagation: (Propagation, bool),
    pub(crate) process: ProcessPlan,
}

/// A namespace of others.
#[derive(Debug)]
pub(crate) struct Join {
    /// Its name in `/proc/PID/ns`.
    pub(crate) kind: &'static str,
    pub(crate) fd: OwnedFd,
}

/// The kind of a mount namespace.
pub(crate) const MOUNT: &str = "mnt";

/// One mount.
#[derive(Debug)]
pub(crate) struct MountStep {
    pub(crate) destination: PathBuf,
    pub(crate) source: MountSource,
    pub(crate) options: Options,
}

#[derive(Debug)]
pub(crate) enum MountSource {
    /// A new instance of a file system; or one that the parent has made, where the child has no right to.
    New { kind: String, source: String, made: Option<OwnedFd> },
    /// A detached copy of something of the host's.
    Tree { tree: OwnedFd, directory: bool },
    /// Something of the host's that only the child has the right to copy: an ordinary user may do it in a user
    /// namespace of its own alone. What the path leads to is that user's own choice.
    Late { source: PathBuf, directory: bool },
    /// A tmpfs with the v1 hierarchies below it, each by its name.
    Groups(Vec<(String, Shown)>),
}

/// A directory of the host's: a detached copy of it, or what only the child can copy ([`MountSource::Late`]).
#[derive(Debug)]
pub(crate) enum Shown {
    Tree(OwnedFd),
    Late(PathBuf),
}

/// Without those on whose place the configuration mounts something: that is meant to be there instead.
fn not_covered(mut devices: Vec<DeviceStep>, spec: &Spec) -> Vec<DeviceStep> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    devices.retain(|device| !mounts.iter().any(|mount| *mount.destination() == device.path));
    devices
}

/// `state` is the container's, for those who are told of it.
pub(crate) fn plan(
    spec: &Spec,
    hierarchies: &Hierarchies,
    group: Option<&Group>,
    state: Option<&Value>,
    sources: BindSources<'_>,
    default_filter: Option<&DefaultFilter>,
) -> Result<Plan> {
    let linux = spec.linux().as_ref().ok_or_else(|| RuntimeError::Invalid("there is no linux section".into()))?;
    let asked = namespaces(linux.namespaces().as_deref().unwrap_or_default())?;
    let namespaces = asked.new;
    let userns = namespaces.user || asked.user_join.is_some();
    if !namespaces.mount && userns {
        return Err(RuntimeError::Invalid(
            "in a user namespace nothing can be mounted without a new mount namespace: add one".into(),
        ));
    }
    let uids = linux.uid_mappings().as_deref().unwrap_or_default();
    let gids = linux.gid_mappings().as_deref().unwrap_or_default();
    let stands_in = asked.user_join.is_some() && mapping::stands_for_none(uids) && mapping::stands_for_none(gids);
    let (uids, gids) = if stands_in { (&[][..], &[][..]) } else { (uids, gids) };
    if namespaces.user && uids.is_empty() {
        return Err(RuntimeError::Invalid("a user namespace needs uidMappings and gidMappings".into()));
    }
    mapping::check("uidMappings", uids)?;
    mapping::check("gidMappings", gids)?;
    if !(namespaces.user || uids.is_empty() && gids.is_empty()) {
        mapping::check_joined(asked.user_join.as_ref().map(AsFd::as_fd), uids, gids)?;
    }
    if linux.intel_rdt().is_some() {
        return Err(RuntimeError::Unsupported("intelRdt".into()));
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !asked.time {
        return Err(RuntimeError::Invalid("timeOffsets without a time namespace of the container's own".into()));
    }
    let mount_label = mount_label(linux)?;
    let propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("") => (Propagation::Private, true),
        Some(word) => {
            propagation(word).ok_or_else(|| RuntimeError::Invalid(format!("unknown rootfsPropagation `{word}`")))?
        }
    };
    if !namespaces.mount && propagation.0 != Propagation::Private {
        return Err(RuntimeError::Invalid("rootfsPropagation without a mount namespace of the container's own".into()));
    }
    // An ordinary user cannot copy anything of the host's mounts.
    let unprivileged = !capabilities::is_privileged()?;
    if unprivileged && !namespaces.user {
        return Err(RuntimeError::Invalid("without privileges a container needs a user namespace".into()));
    }
    let user_join = asked.user_join.as_ref().map(AsFd::as_fd);
    // Where nodes are made by nobody, and mounts of the host's have flags that stay.
    let confined = userns || is_rootless();
    let surroundings =
        Surroundings { linux, hierarchies, group, unprivileged, other_user: confined, user_join, sources };
    let mounts = spec.mounts().iter().flatten().map(|mount| mount_step(mount, &surroundings));
    let mut mounts: Vec<MountStep> = mounts.collect::<Result<_>>()?;
    for step in &mut mounts {
        step.options.label.clone_from(&mount_label);
    }
    let sealed = seal_late(&mut mounts);
    if let Some(place) = sealed.first().filter(|_| !namespaces.mount) {
        let text = format!("`{}` read-only without a mount namespace of the container's own", place.display());
        return Err(RuntimeError::Unsupported(text));
    }
    let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect();
    let filter = SystemCalls::of(default_filter, linux.seccomp().as_ref(), state)?;
    let mut program = match spec.process() {
        Some(process) => process_plan(process, filter)?,
        None => ProcessPlan::of_nobody()?,
    };
    program.scheduling.personality = linux.personality().as_ref().map(personality).transpose()?;
    program.scheduling.memory = linux.memory_policy().as_ref().map(MemoryPolicy::plan).transpose()?;
    let pids = linux.resources().as_ref().and_then(|resources| resources.pids().as_ref());
    let uts = namespaces.uts || asked.joins.iter().any(|join| join.kind == "uts");
    Ok(Plan {
        rootfs_at: "/".into(),
        other_user: userns,
        root_ids: namespaces.user.then(|| (mapping::root_of(uids), mapping::root_of(gids))),
        unprivileged,
        propagation,
        namespaces,
        cgroup_namespace: asked.cgroup,
        time: asked.time.then(|| OwnTime::plan(linux.time_offsets().as_ref())).transpose()?,
        joins: asked.joins,
        late_pid: None,
        alone: pids.is_some_and(|pids| (0..=1).contains(&pids.limit())),
        user_join: asked.user_join,
        sealed,
        mount_label,
        mounts,
        devices: not_covered(devices(linux, confined, unprivileged)?, spec),
        net_devices: net_devices::plan(linux)?,
        masked: paths(linux.masked_paths()),
        readonly: paths(linux.readonly_paths()),
        sysctls: linux
            .sysctl()
            .iter()
            .flatten()
            .map(|(key, value)| (PathBuf::from(format!("sys/{}", key.replace('.', "/"))), value.clone()))
            .collect(),
        hostname: spec.hostname().clone().filter(|name| !name.is_empty() && uts),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty() && uts),
        readonly_root: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
        process: program,
    })
}

/// Takes the read-only off new file systems in which something is made afterwards: `/dev`, and those with a mount on
/// them; the places of these.
fn seal_late(mounts: &mut [MountStep]) -> Vec<PathBuf> {
    let mut sealed = Vec::new();
    for index in 0..mounts.len() {
        let (step, later) = (&mounts[index], &mounts[index + 1..]);
        let MountSource::New { kind, .. } = &step.source else { continue };
        let built_on = step.destination == Path::new("/dev")
            || later
                .iter()
                .any(|other| other.destination != step.destination && other.destination.starts_with(&step.destination));
        if kind == "tmpfs" && built_on && step.options.set.contains(Attributes::RDONLY) {
            sealed.push(step.destination.clone());
            let options = &mut mounts[index].options;
            options.set = options.set.without(Attributes::RDONLY);
        }
    }
    sealed
}

impl Plan {
    /// Whether the process is in another user namespace than its parent.
    pub(crate) const fn in_user_namespace(&self) -> bool {
        self.other_user
    }
}
