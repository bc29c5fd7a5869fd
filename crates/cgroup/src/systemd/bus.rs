//! A connection to systemd's manager: over the system's bus, the user's, or systemd's own socket.

use std::path::PathBuf;
use std::time::Duration;

use wharf_dbus::{Body, Message, Method, Refusal};

use crate::{CgroupError, Result};

/// systemd answers at once, and a job of a scope starts nothing.
const PATIENCE: Duration = Duration::from_secs(30);

const MANAGER: Method<'_> = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};
/// The signals that a bus is to pass on.
const ENDS: &str = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

#[derive(Debug)]
pub(super) struct Connection(wharf_dbus::Connection);

impl Connection {
    /// Connects as root to the system's manager, as another user to that user's own.
    pub(super) fn open(user: bool) -> Result<Self> {
        let mut reasons = Vec::new();
        for (path, bus) in places(user) {
            let opened = wharf_dbus::Connection::open(&path, bus, PATIENCE).and_then(|mut connection| {
                if bus {
                    connection.hear(ENDS)?;
                }
                Ok(connection)
            });
            match opened {
                Ok(connection) => return Ok(Self(connection)),
                Err(error) => reasons.push(format!("{}: {error}", path.display())),
            }
        }
        Err(CgroupError::Systemd(format!("it cannot be reached over D-Bus: {}", reasons.join("; "))))
    }

    /// Calls a method of systemd's manager.
    pub(super) fn manager(&mut self, member: &str, body: &Body) -> Result<std::result::Result<Message, Refusal>> {
        self.0
            .call(Method { member, ..MANAGER }, body)
            .map_err(|error| CgroupError::Systemd(format!("{member}: {error}")))
    }

    /// Waits until a job has come to its end; the value is how: `done`, `failed`, `timeout`, ….
    pub(super) fn job(&mut self, job: &str) -> Result<String> {
        let ended = self.0.signal(|message| match (message.member.as_str(), message.texts.as_slice()) {
            // The number of the job, its path, the unit, the result.
            ("JobRemoved", [path, _, result]) if path == job => Some(result.clone()),
            _ => None,
        });
        ended.map_err(|error| CgroupError::Systemd(format!("waiting for {job}: {error}")))
    }
}

/// Where the manager may be reached, and whether a bus is between.
fn places(user: bool) -> Vec<(PathBuf, bool)> {
    if user {
        let dir = std::env::var_os("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())), PathBuf::from);
        let named = wharf_dbus::address("DBUS_SESSION_BUS_ADDRESS").map(|path| (path, true));
        return named.into_iter().chain([(dir.join("bus"), true), (dir.join("systemd/private"), false)]).collect();
    }
    vec![(wharf_dbus::system_bus(), true), ("/run/systemd/private".into(), false)]
}
