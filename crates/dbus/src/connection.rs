//! A connection to a bus or a service.

use std::io::{Error, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wire::{self, Body, ERROR, Message, Method, RETURN, SIGNAL};

const BUS: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};

/// A connection over a unix socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

/// An error that was answered.
#[derive(Debug)]
pub struct Refusal {
    pub name: String,
    pub text: String,
}

impl Connection {
    /// Connects to a socket behind which there is a `bus`, or the service itself. Each wait ends after `patience`.
    ///
    /// # Errors
    /// When nobody listens there, or does not accept this user.
    pub fn open(path: &Path, bus: bool, patience: Duration) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut connection = Self { stream, serial: 0, signals: Vec::new() };
        connection.authenticate()?;
        if bus {
            connection.own_call("Hello", &Body::default())?;
        }
        Ok(connection)
    }

    /// Asks the bus for signals, by a match rule.
    ///
    /// # Errors
    /// When the bus refuses.
    pub fn hear(&mut self, rule: &str) -> Result<()> {
        self.own_call("AddMatch", &Body::default().text(rule))
    }

    fn own_call(&mut self, member: &str, body: &Body) -> Result<()> {
        self.call(Method { member, ..BUS }, body)?.map_err(|refusal| Error::other(refusal.text)).map(drop)
    }

    /// D-Bus Specification, "Authentication Protocol", the mechanism EXTERNAL: the socket tells who we are.
    fn authenticate(&mut self) -> Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 512 {
                return Err(Error::other("no D-Bus server answers"));
            }
        }
        if !line.starts_with(b"OK ") {
            return Err(Error::other("the D-Bus server does not accept this user"));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// When the connection fails; what the method answers with is the inner result.
    pub fn call(&mut self, method: Method<'_>, body: &Body) -> Result<std::result::Result<Message, Refusal>> {
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

    /// Waits for the next of the signals that `wanted` says something to; others are passed over.
    ///
    /// # Errors
    /// When the connection fails, and when none comes in time.
    pub fn signal<T>(&mut self, wanted: impl Fn(&Message) -> Option<T>) -> Result<T> {
        let mut waiting = std::mem::take(&mut self.signals).into_iter();
        loop {
            let message = match waiting.next() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.kind == SIGNAL
                && let Some(found) = wanted(&message)
            {
                self.signals.extend(waiting);
                return Ok(found);
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let none = || Error::other("what came is no D-Bus message");
        let mut start = [0; 16];
        self.stream.read_exact(&mut start)?;
        let size = wire::size(&start).ok_or_else(none)?;
        let mut bytes = start.to_vec();
        bytes.resize(size, 0);
        self.stream.read_exact(&mut bytes[16..])?;
        wire::read(&bytes).ok_or_else(none)
    }
}

/// The socket that a variable of the environment names, such as `DBUS_SESSION_BUS_ADDRESS`.
pub fn address(variable: &str) -> Option<PathBuf> {
    let value = std::env::var(variable).ok()?;
    value.split(';').find_map(|one| {
        let path = one.strip_prefix("unix:")?.split(',').find_map(|pair| pair.strip_prefix("path="))?;
        Some(PathBuf::from(path))
    })
}

/// The socket of the system's bus.
pub fn system_bus() -> PathBuf {
    address("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| "/run/dbus/system_bus_socket".into())
}
