//! What is refused of a configuration without a look at the host.

use oci_spec::runtime::Spec;

use crate::mount_options::{Options, propagation};
use crate::nodes::devices;
use crate::own_time::OwnTime;
use crate::process::process_plan;
use crate::scheduling::personality;
use crate::{Result, RuntimeError, mapping, net_devices};

/// Makes of a configuration what can be made of it by reading alone: nothing is opened, asked for or changed. For
/// those who try many configurations and run none.
///
/// # Errors
/// As [`crate::create`], which looks at more.
pub fn review(spec: &Spec) -> Result<()> {
    let invalid = |what: &str| RuntimeError::Invalid(what.into());
    if let Some(process) = spec.process() {
        process_plan(process, None)?;
    }
    for mount in spec.mounts().iter().flatten() {
        Options::parse(mount.options().iter().flatten().map(String::as_str));
    }
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("there is no linux section"))?;
    if let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()) {
        propagation(word).ok_or_else(|| invalid("unknown rootfsPropagation"))?;
    }
    linux.personality().as_ref().map(personality).transpose()?;
    OwnTime::plan(linux.time_offsets().as_ref())?;
    devices(linux, false, false)?;
    net_devices::plan(linux)?;
    mapping::lines(linux.uid_mappings().as_deref().unwrap_or_default());
    if let Some(section) = linux.seccomp() {
        wharf_seccomp::from_oci(section)?.compile()?;
    }
    Ok(())
}
