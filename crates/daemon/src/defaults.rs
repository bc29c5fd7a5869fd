//! What is so where neither flags nor the file say otherwise: of root's daemon, and of an ordinary user's.

use std::path::PathBuf;

use wharf_client::UserPlaces;

use crate::rootless;

pub const DEFAULT_HOST: &str = "unix:///run/wharf/wharf.sock";
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/wharf";
pub const DEFAULT_EXEC_ROOT: &str = "/run/wharf";
/// Where certificates and `hosts.toml` of registries are looked for, in order.
const CERTS_DIRS: [&str; 2] = ["/etc/wharf/certs.d", "/etc/docker/certs.d"];
const FILE: &str = "/etc/wharf/daemon.json";
/// Who may use the socket of root's daemon.
const GROUP: &str = "docker";

/// What counts for this process's user.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    pub(crate) host: String,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) file: PathBuf,
    pub(crate) certs_dirs: Vec<PathBuf>,
    /// Of the socket; empty for none.
    pub(crate) group: String,
}

impl Defaults {
    pub(crate) fn of_this_user() -> Self {
        match rootless::user() {
            None => Self {
                host: DEFAULT_HOST.into(),
                data_root: DEFAULT_DATA_ROOT.into(),
                exec_root: DEFAULT_EXEC_ROOT.into(),
                file: FILE.into(),
                certs_dirs: CERTS_DIRS.map(PathBuf::from).to_vec(),
                group: GROUP.into(),
            },
            Some(uid) => Self::of(&UserPlaces::of(uid)),
        }
    }

    fn of(places: &UserPlaces) -> Self {
        let own = std::iter::once(places.config.join("certs.d"));
        Self {
            host: format!("unix://{}", places.socket().display()),
            data_root: places.data.clone(),
            exec_root: places.runtime.clone(),
            file: places.config.join("daemon.json"),
            certs_dirs: own.chain(CERTS_DIRS.map(PathBuf::from)).collect(),
            // The host's groups are not this user's to give the socket to.
            group: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_own_are_in_that_user_s_directories() {
        let places = UserPlaces { runtime: "/r/wharf".into(), data: "/d/wharf".into(), config: "/c/wharf".into() };
        let defaults = Defaults::of(&places);
        assert_eq!(defaults.host, "unix:///r/wharf/wharf.sock");
        assert_eq!((defaults.data_root, defaults.exec_root), ("/d/wharf".into(), PathBuf::from("/r/wharf")));
        assert_eq!((defaults.file, defaults.group.as_str()), (PathBuf::from("/c/wharf/daemon.json"), ""));
        assert_eq!(defaults.certs_dirs[0], PathBuf::from("/c/wharf/certs.d"));
    }
}
