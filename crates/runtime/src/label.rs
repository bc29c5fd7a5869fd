//! What a security module of the kernel's calls the program and its file systems (runtime-spec, config,
//! "apparmorProfile", "selinuxLabel"; config-linux, "Mount Label").

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Linux, Process};
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2, statfs};
use rustix::io::Errno;

use crate::report::{Failure, Step};
use crate::root::is_procfs;
use crate::{Result, RuntimeError};

/// Whether the kernel has AppArmor: `Y`.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// The profile that is none.
const UNCONFINED: &str = "unconfined";
/// Where selinuxfs is; without it SELinux is not used, whatever the kernel has.
const SELINUX: &str = "/sys/fs/selinux";
/// linux/magic.h, `SELINUX_MAGIC`.
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// What the program's exec changes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// An AppArmor profile.
    Profile(String),
    /// An SELinux context.
    Context(String),
}

/// Which security modules there are.
#[derive(Clone, Copy, Debug)]
struct Modules {
    apparmor: bool,
    selinux: bool,
}

impl Modules {
    fn here() -> Self {
        Self {
            apparmor: std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y')),
            selinux: has_selinux(),
        }
    }
}

#[allow(clippy::unnecessary_cast)]
fn has_selinux() -> bool {
    // The type is signed and narrow on some architectures.
    statfs(SELINUX).is_ok_and(|found| (found.f_type as i64) & 0xffff_ffff == SELINUX_MAGIC)
}

impl Label {
    pub(crate) fn plan(process: &Process) -> Result<Option<Self>> {
        plan(process, Modules::here())
    }

    /// In the process itself, where its own procfs is.
    pub(crate) fn apply(&self) -> Step<()> {
        self.write(&self.open()?)
    }

    /// Where it is written, for who will be in a container by then: what that has for a procfs is not asked, as one part of
    /// procfs may be mounted on another there (CVE-2025-52881). Only who has opened it can write to it.
    pub(crate) fn open(&self) -> Step<OwnedFd> {
        let proc = open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        proc.and_then(|proc| self.open_in(&proc)).map_err(Failure::at(self.step()))
    }

    fn open_in(&self, proc: &OwnedFd) -> std::result::Result<OwnedFd, Errno> {
        if !is_procfs(proc)? {
            return Err(Errno::NOTSUP);
        }
        // It is this very procfs's own file, or none.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let shared = || openat2(proc, "thread-self/attr/exec", flags, Mode::empty(), resolve);
        match self {
            Self::Context(_) => shared(),
            // The shared name is that of kernels before 5.1.
            Self::Profile(_) => match openat2(proc, "thread-self/attr/apparmor/exec", flags, Mode::empty(), resolve) {
                Err(Errno::NOENT) => shared(),
                opened => opened,
            },
        }
    }

    /// Processes that are made from now on have it, too, and become something else by an exec as well: hooks are over.
    pub(crate) fn write(&self, file: &OwnedFd) -> Step<()> {
        let text = match self {
            Self::Profile(profile) => format!("exec {profile}"),
            Self::Context(context) => context.clone(),
        };
        rustix::io::write(file, text.as_bytes()).map(drop).map_err(Failure::at(self.step()))
    }

    fn step(&self) -> String {
        match self {
            Self::Profile(profile) => format!("set the AppArmor profile `{profile}`"),
            Self::Context(context) => format!("set the SELinux label `{context}`"),
        }
    }
}

fn plan(process: &Process, modules: Modules) -> Result<Option<Label>> {
    let context = context("selinuxLabel", process.selinux_label().as_deref(), modules)?;
    let profile = profile(process.apparmor_profile().as_deref().unwrap_or_default(), modules)?;
    match (context, profile) {
        (Some(_), Some(_)) => {
            Err(RuntimeError::Unsupported("selinuxLabel and apparmorProfile at once: leave one of them out".into()))
        }
        (Some(context), None) => Ok(Some(Label::Context(context))),
        (None, profile) => Ok(profile.map(Label::Profile)),
    }
}

fn profile(profile: &str, modules: Modules) -> Result<Option<String>> {
    if profile.is_empty() {
        return Ok(None);
    }
    if profile.contains(char::is_whitespace) || profile.contains('\0') {
        return Err(RuntimeError::Invalid(format!("`{profile}` is no name of an AppArmor profile")));
    }
    match modules.apparmor {
        true => Ok(Some(profile.to_owned())),
        false if profile == UNCONFINED => Ok(None),
        false => Err(RuntimeError::Unsupported(format!(
            "apparmorProfile `{profile}`: this kernel has no AppArmor; leave the profile out"
        ))),
    }
}

/// An SELinux context under the configuration's `key`. Whether the policy knows it the kernel says.
fn context(key: &str, label: Option<&str>, modules: Modules) -> Result<Option<String>> {
    let Some(label) = label.filter(|label| !label.is_empty()) else { return Ok(None) };
    if label.contains('\0') || label.split(':').count() < 3 {
        return Err(RuntimeError::Invalid(format!("{key} `{label}` is no SELinux context: USER:ROLE:TYPE[:LEVEL]")));
    }
    if !modules.selinux {
        let text = format!("{key} `{label}`: SELinux is not in use on this host; leave the label out");
        return Err(RuntimeError::Unsupported(text));
    }
    Ok(Some(label.to_owned()))
}

/// The SELinux context of the file systems that are made for the container.
pub(crate) fn mount_label(linux: &Linux) -> Result<Option<String>> {
    context("mountLabel", linux.mount_label().as_deref(), Modules::here())
}

/// How a new file system gets its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Labelling {
    /// It has that of its kind.
    None,
    /// By the mount option `context`: all of it has this one.
    Option,
    /// By an attribute of its root.
    Attribute,
}

/// What runc and crun do: the kernel's own views keep their contexts, and mqueue knows no option.
pub(crate) fn labelling(kind: &str) -> Labelling {
    match kind {
        "proc" | "sysfs" | "cgroup" | "cgroup2" => Labelling::None,
        "mqueue" => Labelling::Attribute,
        _ => Labelling::Option,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::CWD;
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen,
        move_mount, open_tree,
    };

    use super::*;

    const NEITHER: Modules = Modules { apparmor: false, selinux: false };
    const APPARMOR: Modules = Modules { apparmor: true, selinux: false };
    const BOTH: Modules = Modules { apparmor: true, selinux: true };

    fn process(key: &str, value: &str) -> Process {
        let text = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/","args":["a"],"{key}":"{value}"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_profile_needs_a_kernel_that_has_profiles() {
        let named = process("apparmorProfile", "docker-default");
        assert_eq!(plan(&named, APPARMOR).unwrap(), Some(Label::Profile("docker-default".into())));
        assert!(plan(&named, NEITHER).is_err());
        assert!(plan(&process("apparmorProfile", "unconfined"), NEITHER).unwrap().is_none());
        assert!(plan(&process("apparmorProfile", "a b"), APPARMOR).is_err());
        assert!(plan(&process("apparmorProfile", ""), NEITHER).unwrap().is_none());
    }

    #[test]
    fn a_context_needs_a_host_that_uses_selinux() {
        let context = "system_u:system_r:container_t:s0:c1,c2";
        let named = process("selinuxLabel", context);
        assert_eq!(plan(&named, BOTH).unwrap(), Some(Label::Context(context.into())));
        assert!(matches!(plan(&named, APPARMOR), Err(RuntimeError::Unsupported(_))));
        assert!(matches!(plan(&process("selinuxLabel", "container_t"), BOTH), Err(RuntimeError::Invalid(_))));
        assert!(plan(&process("selinuxLabel", ""), NEITHER).unwrap().is_none());
        let both = process("selinuxLabel", &format!(r#"{context}","apparmorProfile":"a"#));
        assert!(plan(&both, BOTH).is_err());
    }

    /// A procfs of its own, in nobody's mount table.
    fn procfs() -> std::result::Result<OwnedFd, Errno> {
        let fs = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&fs)?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    #[test]
    fn a_label_is_written_to_its_own_file_of_procfs_and_no_other() {
        let labels = [Label::Profile("a".into()), Label::Context("a:b:c".into())];
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("thread-self/attr")).unwrap();
        std::fs::write(dir.path().join("thread-self/attr/exec"), "").unwrap();
        let image_s = open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for label in &labels {
            assert_eq!(label.open_in(&image_s).unwrap_err(), Errno::NOTSUP);
        }
        let own = match procfs() {
            Err(Errno::PERM) => return eprintln!("skipped: no right to mount"),
            own => own.unwrap(),
        };
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        if !Path::new("/proc/thread-self/attr/exec").exists() {
            return eprintln!("skipped: a kernel without security modules");
        }
        for label in &labels {
            label.open_in(&own).unwrap();
        }
        // Another part of procfs in that place: a file that takes what is written and does nothing.
        for covered in ["attr/exec", "attr"] {
            let own = procfs().unwrap();
            let other = if covered == "attr" { "self/attr" } else { "self/attr/fscreate" };
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(CWD, Path::new("/proc").join(other), flags).unwrap();
            let at = thread.join(covered);
            match move_mount(&tree, "", &own, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
                // Before Linux 6.15.
                Err(Errno::INVAL) => return eprintln!("skipped: nothing is mounted on what is in no mount table"),
                done => done.unwrap(),
            }
            for label in &labels {
                assert_eq!(label.open_in(&own).unwrap_err(), Errno::XDEV, "{covered}");
            }
        }
    }

    #[test]
    fn the_kernel_s_own_views_keep_their_contexts() {
        assert_eq!(["tmpfs", "devpts", "mqueue", "proc", "sysfs"].map(labelling), {
            use Labelling::{Attribute, None, Option};
            [Option, Option, Attribute, None, None]
        });
    }
}
