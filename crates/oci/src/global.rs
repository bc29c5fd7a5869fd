//! Options before the command.

use std::path::{Path, PathBuf};

use wharf_cgroup::is_rootless;

use crate::failure::{Failure, Result};
use crate::log::Log;
use crate::words::{Flag, Given, switch, value};

/// Where root's containers are; other users' are below `XDG_RUNTIME_DIR`.
const ROOT: &str = "/run/wharf-oci";

pub(crate) const FLAGS: &[Flag] = &[
    switch("debug", "log more"),
    value("log", "the file that messages go to (default: standard error)"),
    value("log-format", "text or json (default: text)"),
    value("root", "where the state of containers is kept (default: /run/wharf-oci)"),
    value("criu", "ignored: checkpoints are not supported"),
    switch("systemd-cgroup", "make control groups by systemd, which must be PID 1"),
    value("cgroup-manager", "cgroupfs, or systemd as with --systemd-cgroup (default: cgroupfs)"),
    value("rootless", "true, false or auto (default: auto)"),
    switch("version", "print the version").short("v"),
];

/// What holds for every command.
#[derive(Debug)]
pub(crate) struct Global {
    pub(crate) root: PathBuf,
    pub(crate) log: Log,
    pub(crate) systemd: bool,
    /// `None`: what the kernel says.
    rootless: Option<bool>,
}

impl Global {
    pub(crate) fn new(given: &Given) -> Result<Self> {
        let json = match given.value("log-format") {
            None | Some("" | "text") => false,
            Some("json") => true,
            Some(other) => return Err(Failure::new(format!("invalid log-format: {other}"))),
        };
        let log =
            Log::open(given.value("log").filter(|path| !path.is_empty()).map(Path::new), json, given.is("debug"))?;
        let rootless = match given.value("rootless") {
            None | Some("auto") => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(Failure::new("invalid value for --rootless: give true, false or auto")),
        };
        // crun's word for the same.
        let by_systemd = match given.value("cgroup-manager") {
            None | Some("cgroupfs") => false,
            Some("systemd") => true,
            Some(other) => {
                return Err(Failure::new(format!(
                    "invalid value {other:?} for --cgroup-manager: give cgroupfs or systemd"
                )));
            }
        };
        let root = given.value("root").map_or_else(default_root, PathBuf::from);
        let root = std::path::absolute(&root).map_err(|error| Failure::file("resolve", &root, &error))?;
        Ok(Self { root, log, systemd: given.is("systemd-cgroup") || by_systemd, rootless })
    }

    /// Whether a container may be without a control group where none may be made.
    pub(crate) fn is_rootless(&self) -> bool {
        self.rootless.unwrap_or_else(is_rootless)
    }
}

/// As runc's: root of a user namespace has the directory of the user who made it, unless `USER` says that it is root.
fn default_root() -> PathBuf {
    let is_root = rustix::process::geteuid().is_root();
    if is_root && (!is_rootless() || std::env::var_os("USER").is_some_and(|user| user == "root")) {
        return ROOT.into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Path::new(&dir).join("wharf-oci"),
        _ => ROOT.into(),
    }
}
