//! What a security module of the kernel's calls the program (runtime-spec, config, "apparmorProfile", "selinuxLabel").

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::report::{Failure, Step};
use crate::root::is_procfs;
use crate::{Result, RuntimeError};

/// Whether the kernel has AppArmor: `Y`.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// The profile that is none.
const UNCONFINED: &str = "unconfined";

/// The AppArmor profile that the program's exec changes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    profile: String,
}

impl Label {
    pub(crate) fn plan(process: &Process) -> Result<Option<Self>> {
        let enabled = std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'));
        plan(process, enabled)
    }

    /// In the process itself, where its own procfs is.
    pub(crate) fn apply(&self) -> Step<()> {
        let fail = || Failure::at(format!("set the AppArmor profile `{}`", self.profile));
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        // The second name is that of kernels before 5.1.
        let file = match open("/proc/thread-self/attr/apparmor/exec", flags, Mode::empty()) {
            Err(Errno::NOENT) => open("/proc/thread-self/attr/exec", flags, Mode::empty()),
            opened => opened,
        };
        let file = file.map_err(fail())?;
        // What an image has put in that place is not written to.
        if !is_procfs(&file).map_err(fail())? {
            return Err(fail()(Errno::NOTSUP));
        }
        rustix::io::write(&file, format!("exec {}", self.profile).as_bytes()).map(drop).map_err(fail())
    }
}

fn plan(process: &Process, enabled: bool) -> Result<Option<Label>> {
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
        return Err(RuntimeError::Unsupported(format!("selinuxLabel `{label}`: no SELinux labels are set yet")));
    }
    let Some(profile) = process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty()) else {
        return Ok(None);
    };
    if profile.contains(char::is_whitespace) || profile.contains('\0') {
        return Err(RuntimeError::Invalid(format!("`{profile}` is no name of an AppArmor profile")));
    }
    match enabled {
        true => Ok(Some(Label { profile: profile.to_owned() })),
        false if profile == UNCONFINED => Ok(None),
        false => Err(RuntimeError::Unsupported(format!(
            "apparmorProfile `{profile}`: this kernel has no AppArmor; leave the profile out"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(key: &str, value: &str) -> Process {
        let text = format!(r#"{{"user":{{"uid":0,"gid":0}},"cwd":"/","args":["a"],"{key}":"{value}"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_profile_needs_a_kernel_that_has_profiles() {
        let named = process("apparmorProfile", "docker-default");
        assert_eq!(plan(&named, true).unwrap().unwrap().profile, "docker-default");
        assert!(plan(&named, false).is_err());
        assert!(plan(&process("apparmorProfile", "unconfined"), false).unwrap().is_none());
        assert!(plan(&process("apparmorProfile", "a b"), true).is_err());
        assert!(plan(&process("apparmorProfile", ""), false).unwrap().is_none());
        assert!(plan(&process("selinuxLabel", "a:b:c"), true).is_err());
    }
}
