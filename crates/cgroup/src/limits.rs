//! Limits of the runtime specification (config-linux, "Control groups") as writes to control files.
//!
//! Where a value is 0 and the specification gives 0 no meaning, it is taken for "not given", as engines write it.

mod cpu;
mod devices;
mod io;
mod memory;
mod others;

/// What systemd is told in the same numbers.
pub(crate) mod convert {
    pub(crate) use super::cpu::{PERIOD, weight_of_shares};
}

pub(crate) use io::{weighs, weighs_devices};
pub(crate) use others::processes;

use std::fs;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use crate::group::{Group, write};
use crate::{CgroupError, Result};

/// What `no limit` is in v2's files.
const MAX: &str = "max";

pub(crate) fn apply(group: &Group, resources: &LinuxResources) -> Result<()> {
    memory::apply(group, resources)?;
    cpu::apply(group, resources)?;
    io::apply(group, resources)?;
    others::apply(group, resources)?;
    devices::apply(group, resources)?;
    // Last: who names a file knows best what should be in it.
    others::unified(group, resources)
}

/// Where the limits of one controller are, and which version's files it has. On a hybrid host each controller is in
/// one of both.
struct Controller {
    name: &'static str,
    dir: PathBuf,
    v2: bool,
}

impl Controller {
    /// Finds it by v1's name; `limit` is what needs it, for who reads the error.
    fn of(group: &Group, v1_name: &'static str, limit: &'static str) -> Result<Self> {
        if let Some(dir) = group.v1_dir(v1_name) {
            return Ok(Self { name: v1_name, dir, v2: false });
        }
        let name = if v1_name == "blkio" { "io" } else { v1_name };
        let none = CgroupError::NoController { controller: name, limit };
        let dir = group.v2_dir().filter(|_| group.hierarchies().v2_has(name)).ok_or(none)?;
        let own = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        if !own.split_whitespace().any(|controller| controller == name) {
            return Err(CgroupError::NotDelegated { controller: name, limit, path: dir });
        }
        Ok(Self { name, dir, v2: true })
    }

    fn has(&self, file: &str) -> bool {
        self.dir.join(file).exists()
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(file)).ok().map(|text| text.trim().to_owned())
    }

    /// Writes a file that a kernel may lack.
    fn write(&self, file: &str, value: &str, limit: &'static str) -> Result<()> {
        if !self.has(file) && self.dir.is_dir() {
            return Err(CgroupError::NoFile { controller: self.name, file: file.into(), limit });
        }
        write(&self.dir.join(file), value)
    }
}

/// A number of v2's files, in which every negative one is "no limit".
fn or_max(number: i64) -> String {
    if number < 0 { MAX.into() } else { number.to_string() }
}

/// Whether the kernel has refused a value, which another that is written after it may make acceptable.
fn is_invalid(error: &CgroupError) -> bool {
    matches!(error, CgroupError::File { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput)
}
