//! Where the engine of an ordinary user has its things unless it is told otherwise (XDG Base Directory Specification).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Bytes of a unix socket's path that the kernel takes (unix(7)), without the NUL behind it.
pub const LONGEST_SOCKET_PATH: usize = 107;

/// The directories of one user's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPlaces {
    /// What lasts as long as the user is logged in: the socket, the exec root.
    pub runtime: PathBuf,
    /// What lasts: the data root.
    pub data: PathBuf,
    /// What the user has written: `daemon.json`.
    pub config: PathBuf,
}

impl UserPlaces {
    /// Those of the user `uid`, who is this process's, maybe in a user namespace: by the environment, else
    /// `/run/user/UID` and the user's home.
    pub fn of(uid: u32) -> Self {
        Self::by(uid, |name| std::env::var_os(name), Path::is_dir)
    }

    fn by(uid: u32, variable: impl Fn(&str) -> Option<OsString>, is_dir: impl Fn(&Path) -> bool) -> Self {
        // A path that is not absolute is to be ignored, says the specification.
        let named = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = named("HOME").or_else(|| home_of(uid)).unwrap_or_else(|| PathBuf::from("/"));
        let data = named("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("wharf");
        let config = named("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("wharf");
        let of_session = named("XDG_RUNTIME_DIR").unwrap_or_else(|| PathBuf::from(format!("/run/user/{uid}")));
        let runtime = if is_dir(&of_session) { of_session.join("wharf") } else { data.join("run") };
        Self { runtime, data, config }
    }

    /// Where the engine listens.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("wharf.sock")
    }
}

/// What the host's own file says: a static binary must not call glibc's NSS.
fn home_of(uid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let own = lines.find(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(uid)))?;
    own.get(5).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_comes_first() {
        let variable = |name: &str| match name {
            "HOME" => Some("/home/a".into()),
            "XDG_RUNTIME_DIR" => Some("/r".into()),
            "XDG_DATA_HOME" => Some("relative".into()),
            "XDG_CONFIG_HOME" => Some("/c".into()),
            _ => None,
        };
        let places = UserPlaces::by(7, variable, |_| true);
        assert_eq!(places.socket(), Path::new("/r/wharf/wharf.sock"));
        assert_eq!(
            (places.data.as_path(), places.config.as_path()),
            ("/home/a/.local/share/wharf".as_ref(), "/c/wharf".as_ref())
        );
    }

    #[test]
    fn without_a_session_the_socket_is_with_the_data() {
        let variable = |name: &str| (name == "HOME").then(|| "/home/a".into());
        assert_eq!(UserPlaces::by(7, variable, |_| true).socket(), Path::new("/run/user/7/wharf/wharf.sock"));
        let none = UserPlaces::by(7, variable, |_| false);
        assert_eq!(none.socket(), Path::new("/home/a/.local/share/wharf/run/wharf.sock"));
    }
}
