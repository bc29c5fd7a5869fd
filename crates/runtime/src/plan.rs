//! From a configuration to a plan: everything checked, everything of the host opened, before a process exists.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Process, Spec};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use serde_json::Value;
use wharf_cgroup::{Group, Hierarchies};
use wharf_sys::mount::{Attributes, Propagation};
use wharf_sys::process::{Namespaces, Words};

use crate::capabilities::{self, CAPABILITIES, bits};
use crate::create::Inheritance;
use crate::filter::SystemCalls;
use crate::host_nodes::{self, Owners};
use crate::label::Label;
use crate::memory_policy::MemoryPolicy;
use crate::mount_options::{Options, propagation};
use crate::mounts::{Surroundings, mount_step};
use crate::namespaces::{namespaces, time_offsets};
use crate::rlimits::rlimits;
use crate::rootfs::layer;
use crate::scheduling::{Scheduling, personality};
use crate::{Result, RuntimeError};

/// What the child does, in the order of the fields.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    /// A cgroup namespace of its own, made once the process is in its groups.
    pub(crate) cgroup_namespace: bool,
    /// Namespaces of others, joined first.
    pub(crate) joins: Vec<Join>,
    /// A user namespace of others, entered before all else.
    pub(crate) user_join: Option<OwnedFd>,
    /// A time namespace of its own, with what is written to its `timens_offsets`.
    pub(crate) time_offsets: Option<String>,
    pub(crate) mounts: Vec<MountStep>,
    /// Where mounts become read-only once all that goes into them is there.
    pub(crate) sealed: Vec<PathBuf>,
    pub(crate) devices: Vec<DeviceStep>,
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
    Groups(Vec<(String, OwnedFd)>),
}

/// A node in `/dev`.
#[derive(Debug)]
pub(crate) struct DeviceStep {
    pub(crate) path: PathBuf,
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) device: u64,
    pub(crate) owner: (u32, u32),
    /// In a user namespace a node cannot be made: the host's own is mounted.
    pub(crate) host: Option<HostNode>,
}

/// The host's own node.
#[derive(Debug)]
pub(crate) enum HostNode {
    Open(OwnedFd),
    /// The child opens it: see [`MountSource::Late`].
    Late,
}

/// Who the program is and what it may do: the part that an exec shares with the first process.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) command: String,
    /// Where to look for it, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Words,
    pub(crate) environment: Words,
    /// Nobody has said where the user is at home: the image is asked.
    pub(crate) homeless: bool,
    pub(crate) cwd: PathBuf,
    pub(crate) terminal: Option<(u16, u16)>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: u32,
    pub(crate) rlimits: Vec<(Resource, Rlimit)>,
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
    pub(crate) no_new_privileges: bool,
    pub(crate) filter: Option<SystemCalls>,
    pub(crate) scheduling: Scheduling,
    pub(crate) label: Option<Label>,
    /// Not the container's first process.
    pub(crate) exec: bool,
    /// How many fds after the standard streams the program inherits.
    pub(crate) preserve_fds: u32,
    /// The caller's session keyring stays.
    pub(crate) keep_keyring: bool,
}

/// Links that every container's `/dev` has (runtime-spec, config-linux, "Dev symbolic links").
pub(crate) const DEV_LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
];

/// Nodes that every container has (runtime-spec, config-linux, "Default Devices").
const DEFAULT_DEVICES: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// `state` is the container's, for those who are told of it.
pub(crate) fn plan(
    spec: &Spec,
    hierarchies: &Hierarchies,
    group: Option<&Group>,
    state: Option<&Value>,
) -> Result<Plan> {
    let process = spec.process().as_ref().ok_or_else(|| RuntimeError::Invalid("there is no process".into()))?;
    let linux = spec.linux().as_ref().ok_or_else(|| RuntimeError::Invalid("there is no linux section".into()))?;
    let asked = namespaces(linux.namespaces().as_deref().unwrap_or_default())?;
    let namespaces = asked.new;
    let userns = namespaces.user || asked.user_join.is_some();
    if !namespaces.mount && userns {
        return Err(RuntimeError::Invalid(
            "in a user namespace nothing can be mounted without a new mount namespace: add one".into(),
        ));
    }
    if namespaces.user && linux.uid_mappings().as_ref().is_none_or(Vec::is_empty) {
        return Err(RuntimeError::Invalid("a user namespace needs uidMappings and gidMappings".into()));
    }
    if linux.intel_rdt().is_some() {
        return Err(RuntimeError::Unsupported("intelRdt".into()));
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) && !asked.time {
        return Err(RuntimeError::Invalid("timeOffsets without a time namespace of the container's own".into()));
    }
    if linux.mount_label().as_deref().is_some_and(|l| !l.is_empty()) {
        return Err(RuntimeError::Unsupported("mountLabel: this kernel has no SELinux".into()));
    }
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(RuntimeError::Unsupported("netDevices: move them after the creation, with `ip link set`".into()));
    }
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
    let surroundings = Surroundings { linux, hierarchies, group, unprivileged };
    let mounts = spec.mounts().iter().flatten().map(|mount| mount_step(mount, &surroundings));
    let mut mounts: Vec<MountStep> = mounts.collect::<Result<_>>()?;
    let sealed = seal_late(&mut mounts);
    if let Some(place) = sealed.first().filter(|_| !namespaces.mount) {
        let text = format!("`{}` read-only without a mount namespace of the container's own", place.display());
        return Err(RuntimeError::Unsupported(text));
    }
    let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect();
    let filter = match linux.seccomp() {
        Some(section) => Some(SystemCalls::plan(section, state)?),
        None => None,
    };
    let mut program = process_plan(process, filter)?;
    program.scheduling.personality = linux.personality().as_ref().map(personality).transpose()?;
    program.scheduling.memory = linux.memory_policy().as_ref().map(MemoryPolicy::plan).transpose()?;
    let uts = namespaces.uts || asked.joins.iter().any(|join| join.kind == "uts");
    Ok(Plan {
        rootfs_at: "/".into(),
        other_user: userns,
        unprivileged,
        propagation,
        namespaces,
        cgroup_namespace: asked.cgroup,
        time_offsets: if asked.time { Some(time_offsets(linux.time_offsets().as_ref())?) } else { None },
        joins: asked.joins,
        user_join: asked.user_join,
        sealed,
        mounts,
        devices: devices(linux, userns, unprivileged)?,
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

pub(crate) fn devices(linux: &Linux, userns: bool, unprivileged: bool) -> Result<Vec<DeviceStep>> {
    let asked = linux.devices().as_deref().unwrap_or_default();
    let mut steps = Vec::new();
    for (path, major, minor) in DEFAULT_DEVICES {
        steps.push(DeviceStep {
            path: PathBuf::from(path),
            kind: FileType::CharacterDevice,
            mode: 0o666,
            device: rustix::fs::makedev(*major, *minor),
            owner: (0, 0),
            host: None,
        });
    }
    for device in asked {
        let kind = match device.typ() {
            oci_spec::runtime::LinuxDeviceType::B => FileType::BlockDevice,
            oci_spec::runtime::LinuxDeviceType::P => FileType::Fifo,
            oci_spec::runtime::LinuxDeviceType::A => {
                return Err(RuntimeError::Invalid(format!("device `{}` has no type", device.path().display())));
            }
            _ => FileType::CharacterDevice,
        };
        let number = |n: i64| u32::try_from(n).map_err(|_| RuntimeError::Invalid(format!("device number {n}")));
        steps.retain(|step| step.path != *device.path());
        steps.push(DeviceStep {
            path: device.path().clone(),
            kind,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            device: rustix::fs::makedev(number(device.major())?, number(device.minor())?),
            owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
            host: None,
        });
    }
    if userns {
        let owners = Owners::of(linux);
        for step in &mut steps {
            let named = asked.iter().any(|device| *device.path() == step.path);
            if named
                && !unprivileged
                && let Ok(node) = host_nodes::make(step, &owners)
            {
                step.host = Some(HostNode::Open(node));
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = rustix::fs::openat(CWD, &step.path, flags, Mode::empty())
                .map_err(|e| RuntimeError::host("open device", &step.path, e))?;
            let found = rustix::fs::fstat(&node).map_err(|e| RuntimeError::host("look at", &step.path, e))?;
            if found.st_rdev != step.device {
                return Err(RuntimeError::host("use device", &step.path, rustix::io::Errno::NXIO));
            }
            step.host =
                Some(if unprivileged { HostNode::Late } else { HostNode::Open(layer(&step.path, None, false)?) });
        }
    }
    Ok(steps)
}

pub(crate) fn process_plan(process: &Process, filter: Option<SystemCalls>) -> Result<ProcessPlan> {
    let words = |list: &[String], what: &str| -> Result<Words> {
        let strings = list.iter().map(|w| CString::new(w.as_str())).collect::<std::result::Result<Vec<_>, _>>();
        strings.map(Words::new).map_err(|_| RuntimeError::Invalid(format!("{what} with a NUL in it")))
    };
    let args = process.args().clone().unwrap_or_default();
    let command = args.first().cloned().filter(|c| !c.is_empty());
    let command = command.ok_or_else(|| RuntimeError::Invalid("there is no command".into()))?;
    let env = process.env().clone().unwrap_or_default();
    let cwd = process.cwd().clone();
    if !cwd.is_absolute() {
        return Err(RuntimeError::Invalid(format!("cwd `{}` is not absolute", cwd.display())));
    }
    let sets = process.capabilities().as_ref();
    let set = |pick: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<oci_spec::runtime::Capabilities>| {
        bits(sets.and_then(|sets| pick(sets).as_ref()))
    };
    let user = process.user();
    Ok(ProcessPlan {
        candidates: candidates(&command, &env)?,
        command,
        arguments: words(&args, "an argument")?,
        environment: words(&last_ones(&env), "a variable")?,
        homeless: !env.iter().any(|pair| pair.starts_with("HOME=")),
        cwd,
        terminal: process.terminal().unwrap_or(false).then(|| {
            let size = process.console_size();
            let side = |n: u64| u16::try_from(n).unwrap_or(0);
            size.map_or((0, 0), |size| (side(size.height()), side(size.width())))
        }),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(0o022),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        bounding: set(oci_spec::runtime::LinuxCapabilities::bounding)?,
        effective: set(oci_spec::runtime::LinuxCapabilities::effective)?,
        permitted: set(oci_spec::runtime::LinuxCapabilities::permitted)?,
        inheritable: set(oci_spec::runtime::LinuxCapabilities::inheritable)?,
        // The kernel keeps an ambient one only beside an inheritable one (capabilities(7)). `runc spec` and `crun spec`
        // write ambient ones alone, and neither runtime minds.
        ambient: set(oci_spec::runtime::LinuxCapabilities::ambient)?
            & set(oci_spec::runtime::LinuxCapabilities::inheritable)?
            & set(oci_spec::runtime::LinuxCapabilities::permitted)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        filter,
        scheduling: Scheduling::plan(process)?,
        label: Label::plan(process)?,
        exec: false,
        preserve_fds: 0,
        keep_keyring: false,
    })
}

impl Plan {
    /// Whether the process is in another user namespace than its parent.
    pub(crate) const fn in_user_namespace(&self) -> bool {
        self.other_user
    }
}

impl ProcessPlan {
    /// Leaves out what this process does not have itself and so cannot give; the names of it. (Runtime-spec: a runtime
    /// warns of it, and does not fail.)
    pub(crate) fn keep_to(&mut self, own: u64) -> Vec<&'static str> {
        let asked = self.bounding | self.effective | self.permitted | self.inheritable | self.ambient;
        for set in
            [&mut self.bounding, &mut self.effective, &mut self.permitted, &mut self.inheritable, &mut self.ambient]
        {
            *set &= own;
        }
        let names = CAPABILITIES.iter().enumerate();
        names.filter(|(bit, _)| asked & !own & (1 << bit) != 0).map(|(_, name)| *name).collect()
    }

    /// In the process itself: what number its parent knows it by.
    pub(crate) fn is_known_as(&self, pid: i32) {
        if let Some(filter) = &self.filter {
            filter.is_known_as(pid);
        }
    }

    pub(crate) fn inherit(&mut self, inheritance: Inheritance) {
        self.preserve_fds = inheritance.fds;
        self.keep_keyring = inheritance.keyring;
    }
}

/// Of several variables of one name the last counts, as with runc: getenv(3) would find the first.
fn last_ones(env: &[String]) -> Vec<String> {
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let mut seen = HashSet::new();
    let mut kept: Vec<String> = env.iter().rev().filter(|pair| seen.insert(name(pair))).cloned().collect();
    kept.reverse();
    kept
}

/// The paths that execvp(3) would try, with the `PATH` that the program itself will have.
fn candidates(command: &str, env: &[String]) -> Result<Vec<CString>> {
    let bad = |_| RuntimeError::Invalid("a command with a NUL in it".into());
    if command.contains('/') {
        return Ok(vec![CString::new(command).map_err(bad)?]);
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or("/bin:/usr/bin");
    // An empty entry is the working directory, which is no place to look in unasked.
    let entries = path.split(':').filter(|dir| dir.starts_with('/'));
    entries.map(|dir| CString::new(format!("{}/{command}", dir.trim_end_matches('/'))).map_err(bad)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(command: &str, path: &str) -> Vec<String> {
        let env = vec![format!("PATH={path}")];
        candidates(command, &env).unwrap().into_iter().map(|c| c.into_string().unwrap()).collect()
    }

    #[test]
    fn commands_are_looked_for_in_the_container_s_path() {
        assert_eq!(names("ls", "/bin::rel:/usr/bin/"), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(names("./run", "/bin"), ["./run"]);
        assert!(candidates("a\0b", &[]).is_err());
    }

    #[test]
    fn of_several_variables_of_a_name_the_last_counts() {
        let env = ["A=1", "B=2", "A=3", "C"].map(str::to_owned);
        assert_eq!(last_ones(&env), ["B=2", "A=3", "C"]);
    }

    #[test]
    fn contradictions_are_refused_before_anything_is_made() {
        let process = |json: &str| {
            let process: Process = serde_json::from_str(json).unwrap();
            process_plan(&process, None)
        };
        let user = r#""user":{"uid":0,"gid":0}"#;
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"]}}"#)).is_ok());
        assert!(process(&format!(r#"{{{user},"cwd":"rel","args":["a"]}}"#)).is_err());
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":[]}}"#)).is_err());
        let limits = r#""rlimits":[{"type":"RLIMIT_NOFILE","soft":9,"hard":8}]"#;
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"],{limits}}}"#)).is_err());
        let limit = r#"{"type":"RLIMIT_NOFILE","soft":8,"hard":8}"#;
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"],"rlimits":[{limit}]}}"#)).is_ok());
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"],"rlimits":[{limit},{limit}]}}"#)).is_err());
    }
}
