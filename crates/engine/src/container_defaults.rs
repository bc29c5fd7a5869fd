//! What a container gets that says nothing of it: the daemon's own words for that.

use crate::error::Result;
use crate::profile::Filter;
use crate::spec::HostConfig;

/// Docker's are those of [`ContainerDefaults::default`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDefaults {
    /// Bytes of `/dev/shm`.
    pub shm_size: i64,
    /// `private` or `shareable`.
    pub ipc_mode: String,
    /// `private` or `host`; without one it is private, but with v1 for who is privileged or sees the host's groups.
    pub cgroupns_mode: Option<String>,
    pub no_new_privileges: bool,
    pub seccomp: SeccompDefault,
}

/// The profile of containers that name none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeccompDefault {
    #[default]
    Builtin,
    Unconfined,
    /// A file with a profile of Docker's form, and its text.
    File(String, String),
}

impl SeccompDefault {
    /// A profile from a file.
    ///
    /// # Errors
    /// `InvalidParameter` when it is none.
    pub fn file(path: &str, text: &str) -> Result<Self> {
        Filter::of(&HostConfig::default(), &Self::File(path.into(), text.into()), "", &[])?;
        Ok(Self::File(path.into(), text.into()))
    }

    /// As `info` tells it.
    pub fn name(&self) -> &str {
        match self {
            Self::Builtin => "builtin",
            Self::Unconfined => "unconfined",
            Self::File(path, _) => path,
        }
    }
}

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self {
            shm_size: 64 << 20,
            ipc_mode: "private".into(),
            cgroupns_mode: None,
            no_new_privileges: false,
            seccomp: SeccompDefault::Builtin,
        }
    }
}
