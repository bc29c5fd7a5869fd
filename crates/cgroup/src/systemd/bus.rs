//! A connection to systemd's manager: over the system's bus, the user's, or systemd's own socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::wire::{self, Body, ERROR, Message, Method, RETURN, SIGNAL};
use crate::{CgroupError, Result};

/// systemd answers at once, and a job of a scope starts nothing.
const PATIENCE: Duration = Duration::from_secs(30);

const MANAGER: Method<'_> = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};
const BUS: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

/// An error that systemd answered with.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) name: String,
    pub(super) text: String,
}

impl Connection {
    /// Connects as root to the system's manager, as another user to that user's own.
    pub(super) fn open(user: bool) -> Result<Self> {
        let mut reasons = Vec::new();
        for (path, bus) in places(user) {
            match Self::at(&path, bus) {
                Ok(connection) => return Ok(connection),
                Err(error) => reasons.push(format!("{}: {error}", path.display())),
            }
        }
        Err(CgroupError::Systemd(format!("it cannot be reached over D-Bus: {}", reasons.join("; "))))
    }

    pub(super) fn at(path: &Path, bus: bool) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self { stream, serial: 0, signals: Vec::new() };
        connection.authenticate()?;
        let refused = |refusal: Refusal| std::io::Error::other(refusal.text);
        if bus {
            connection.call(Method { member: "Hello", ..BUS }, &Body::default())?.map_err(refused)?;
            let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
            let rule = Body::default().text(rule);
            connection.call(Method { member: "AddMatch", ..BUS }, &rule)?.map_err(refused)?;
        }
        Ok(connection)
    }

    /// D-Bus Specification, "Authentication Protocol", the mechanism EXTERNAL: the socket tells who we are.
    fn authenticate(&mut self) -> std::io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 512 {
                return Err(std::io::Error::other("no D-Bus server answers"));
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(std::io::Error::other("the D-Bus server does not accept this user"));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Calls a method of systemd's manager.
    pub(super) fn manager(&mut self, member: &str, body: &Body) -> Result<std::result::Result<Message, Refusal>> {
        self.call(Method { member, ..MANAGER }, body)
            .map_err(|error| CgroupError::Systemd(format!("{member}: {error}")))
    }

    fn call(&mut self, method: Method<'_>, body: &Body) -> std::io::Result<std::result::Result<Message, Refusal>> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&wire::call(serial, method, body))?;
        loop {
            let message = self.receive()?;
            match message.kind {
                RETURN if message.reply_to == serial => return Ok(Ok(message)),
                ERROR if message.reply_to == serial => {
                    let text = message.texts.into_iter().next().unwrap_or_default();
                    return Ok(Err(Refusal { name: message.error, text }));
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Waits until a job has come to its end; the value is how: `done`, `failed`, `timeout`, ….
    pub(super) fn job(&mut self, job: &str) -> Result<String> {
        let mut waiting = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match waiting.next() {
                Some(message) => message,
                None => self.receive().map_err(|error| CgroupError::Systemd(format!("waiting for {job}: {error}")))?,
            };
            // The number of the job, its path, the unit, the result.
            if let (SIGNAL, "JobRemoved", [path, _, result]) =
                (message.kind, message.member.as_str(), message.texts.as_slice())
                && path == job
            {
                return Ok(result.clone());
            }
        }
    }

    fn receive(&mut self) -> std::io::Result<Message> {
        let none = || std::io::Error::other("what came is no D-Bus message");
        let mut start = [0; 16];
        self.stream.read_exact(&mut start)?;
        let size = wire::size(&start).ok_or_else(none)?;
        let mut bytes = start.to_vec();
        bytes.resize(size, 0);
        self.stream.read_exact(&mut bytes[16..])?;
        wire::read(&bytes).ok_or_else(none)
    }
}

/// Where the manager may be reached, and whether a bus is between.
fn places(user: bool) -> Vec<(PathBuf, bool)> {
    let address = |name: &str| {
        let value = std::env::var(name).ok()?;
        value.split(';').find_map(|one| {
            let path = one.strip_prefix("unix:")?.split(',').find_map(|pair| pair.strip_prefix("path="))?;
            Some((PathBuf::from(path), true))
        })
    };
    if user {
        let dir = std::env::var_os("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw())), PathBuf::from);
        let named = address("DBUS_SESSION_BUS_ADDRESS");
        return named.into_iter().chain([(dir.join("bus"), true), (dir.join("systemd/private"), false)]).collect();
    }
    let named = address("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or(("/run/dbus/system_bus_socket".into(), true));
    vec![named, ("/run/systemd/private".into(), false)]
}
