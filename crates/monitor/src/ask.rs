//! Probes that need no program in the container: a port is connected to, or asked by HTTP, in the container's network.
//!
//! A copy of the monitor does it, which has nothing but the pipe for its words, no rights, and ends with its answer. A
//! container can say what it likes to it: of an answer no more is read than a status line and some bytes to show.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Gid, Pid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, ThreadNameSpaceType, move_into_thread_name_spaces, set_capabilities,
};
use wharf_sys::process::{Namespaces, clone3};

use crate::error::{LaunchError, Result};

/// The head of an answer, and what is read behind it.
const MOST: usize = 8 << 10;
/// How long what an answer has to say behind its head is waited for.
const PIECE: Duration = Duration::from_millis(200);
/// Nobody (Debian policy, 9.2.2).
const NOBODY: u32 = 65534;

/// What a port is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether somebody listens.
    Tcp { host: Host, port: u16 },
    /// What comes for `GET path`: a status from 200 to 399 is well.
    Http { host: Host, port: u16, path: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// By IPv4, and by IPv6 where nobody answers there.
    Localhost,
    Address(IpAddr),
}

/// Whether a health check is of these kinds, and what is wrong with it: `["TCP", "[HOST:]PORT"]` or
/// `["HTTP", "http://HOST[:PORT][/PATH]"]`, where `HOST` is `localhost` or an address.
///
/// # Errors
/// Says what is expected.
pub fn check_probe(test: &[String]) -> std::result::Result<bool, String> {
    Question::of(test).map(|question| question.is_some())
}

impl Question {
    /// Reads a health check; `None` for one that runs a program.
    ///
    /// # Errors
    /// As [`check_probe`].
    pub(crate) fn of(test: &[String]) -> std::result::Result<Option<Self>, String> {
        let bad = |why: &str| format!("invalid health check {test:?}: {why}");
        match test {
            [kind, place] if kind == "TCP" => {
                let (host, port) =
                    place.rsplit_once(':').map_or(("localhost", place.as_str()), |(host, port)| (host, port));
                let (host, port) = (host_of(host), port_of(port));
                let (host, port) = host.zip(port).ok_or_else(|| bad("expected [HOST:]PORT"))?;
                Ok(Some(Self::Tcp { host, port }))
            }
            [kind, url] if kind == "HTTP" => {
                let expected = "expected http://HOST[:PORT][/PATH], HOST being localhost or an address";
                let rest = url.strip_prefix("http://").ok_or_else(|| bad(expected))?;
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (place, path) = rest.split_at(end);
                let (host, port) = match place.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
                    Some((host, port)) => (host_of(host), port_of(port)),
                    None => (host_of(place), Some(80)),
                };
                let (host, port) = host.zip(port).ok_or_else(|| bad(expected))?;
                if path.bytes().any(|byte| !byte.is_ascii_graphic()) {
                    return Err(bad("what is no letter, number or sign of ASCII is written as %XX in a path"));
                }
                let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
                Ok(Some(Self::Http { host, port, path }))
            }
            [kind, ..] if matches!(kind.as_str(), "TCP" | "HTTP") => Err(bad("it has one word behind its kind")),
            _ => Ok(None),
        }
    }

    /// Asks, in a process of its own that writes to `output` what has come of it, and ends with 0 when all is well.
    ///
    /// # Errors
    /// At a limit on processes.
    pub(crate) fn begin(&self, container: BorrowedFd<'_>, output: &OwnedFd) -> Result<(Pid, OwnedFd)> {
        let child = clone3(Namespaces::default(), None, || self.answer(container, output));
        let child = child.map_err(LaunchError::system("make a process for a health check"))?;
        Ok((child.pid, child.pidfd))
    }

    /// The process.
    fn answer(&self, container: BorrowedFd<'_>, output: &OwnedFd) -> u8 {
        let ready = move_into_thread_name_spaces(container, ThreadNameSpaceType::NETWORK)
            // Whoever waits for the end of a stream of the container's does not wait for this.
            .and_then(|()| wharf_sys::fds::close_all_but(3, &[output.as_raw_fd()]))
            .and_then(|()| drop_rights());
        let (text, code) = match ready.map_err(io::Error::from).and_then(|()| self.ask()) {
            Ok((text, true)) => (text, 0),
            Ok((text, false)) => (text, 1),
            Err(error) => (format!("{}: {}", self.place(), wharf_report::os(&error)), 1),
        };
        let _ = rustix::io::write(output, text.as_bytes());
        code
    }

    fn place(&self) -> String {
        let (Self::Tcp { host, port } | Self::Http { host, port, .. }) = self;
        match host {
            Host::Localhost => format!("localhost:{port}"),
            Host::Address(address) => SocketAddr::new(*address, *port).to_string(),
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let (Self::Tcp { host, port } | Self::Http { host, port, .. }) = self;
        match host {
            Host::Address(address) => TcpStream::connect((*address, *port)),
            Host::Localhost => TcpStream::connect((Ipv4Addr::LOCALHOST, *port))
                .or_else(|first| TcpStream::connect((Ipv6Addr::LOCALHOST, *port)).map_err(|_| first)),
        }
    }

    /// What has come of it, in words, and whether all is well. It may take for ever: who waits ends it.
    fn ask(&self) -> io::Result<(String, bool)> {
        let mut stream = self.connect()?;
        let Self::Http { path, .. } = self else { return Ok((format!("{} is connected to", self.place()), true)) };
        let place = self.place();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: Wharf-Health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut piece = [0; 2048];
        let mut body = None;
        while answer.len() < MOST {
            let count = match stream.read(&mut piece) {
                Ok(count) => count,
                // What is behind the head may come when it likes.
                Err(_) if body.is_some() => 0,
                Err(error) => return Err(error),
            };
            if count == 0 {
                break;
            }
            answer.extend_from_slice(&piece[..count]);
            if body.is_none() {
                body = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
                stream.set_read_timeout(body.is_some().then_some(PIECE))?;
            }
        }
        let Some((line, status)) = status(&answer) else {
            return Ok((format!("{place} does not answer by HTTP"), false));
        };
        let said = body.map(|at| String::from_utf8_lossy(&answer[at..]).trim().to_owned()).unwrap_or_default();
        let text = if said.is_empty() { line } else { format!("{line}\n{said}") };
        Ok((text, (200..400).contains(&status)))
    }
}

/// The first line of an answer, and its number (RFC 9112, 4).
fn status(answer: &[u8]) -> Option<(String, u16)> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line).trim_end().to_owned();
    let number = line.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some((line, number))
}

fn host_of(text: &str) -> Option<Host> {
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match plain {
        "" | "localhost" => Some(Host::Localhost),
        address => address.parse().ok().map(Host::Address),
    }
}

fn port_of(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// Without any, as nobody where there is such a user.
fn drop_rights() -> rustix::io::Result<()> {
    if rustix::process::geteuid().is_root() {
        match become_nobody() {
            // A user's namespace with that user's own ID alone: no other may be taken on (user_namespaces(7)).
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn become_nobody() -> rustix::io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn question(kind: &str, place: &str) -> std::result::Result<Option<Question>, String> {
        Question::of(&[kind.to_owned(), place.to_owned()])
    }

    #[test]
    fn what_is_asked_is_read() {
        let host = Host::Localhost;
        assert_eq!(question("TCP", "80").unwrap(), Some(Question::Tcp { host, port: 80 }));
        let six = Host::Address(Ipv6Addr::LOCALHOST.into());
        assert_eq!(question("TCP", "[::1]:80").unwrap(), Some(Question::Tcp { host: six, port: 80 }));
        for (url, host, port, path) in [
            ("http://localhost", host, 80, "/"),
            ("http://localhost:8080/a?b=c", host, 8080, "/a?b=c"),
            ("http://:8080?x", host, 8080, "/?x"),
            ("http://[::1]/", six, 80, "/"),
            ("http://[::1]:81", six, 81, "/"),
        ] {
            let path = path.to_owned();
            assert_eq!(question("HTTP", url).unwrap(), Some(Question::Http { host, port, path }), "{url}");
        }
        for (kind, bad) in [
            ("TCP", ""),
            ("TCP", "0"),
            ("TCP", "web:80"),
            ("TCP", "+80"),
            ("HTTP", "https://localhost"),
            ("HTTP", "http://web/"),
            ("HTTP", "http://localhost:x"),
            ("HTTP", "http://localhost/a b"),
            ("HTTP", "http://localhost/\r\nX: y"),
        ] {
            assert!(question(kind, bad).is_err(), "{kind} {bad:?}");
        }
        assert_eq!(question("CMD", "x").unwrap(), None);
        assert!(Question::of(&["HTTP".to_owned()]).is_err());
    }

    /// What comes of an answer.
    fn asked(answer: &'static [u8]) -> (String, bool) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let said = question("HTTP", &format!("http://127.0.0.1:{port}/up")).unwrap().unwrap().ask().unwrap();
        assert!(served.join().unwrap().starts_with("GET /up HTTP/1.1\r\nHost: 127.0.0.1:"));
        said
    }

    #[test]
    fn a_status_says_whether_all_is_well() {
        let well = |text: &str| (text.to_owned(), true);
        assert_eq!(asked(b"HTTP/1.1 204 No Content\r\n\r\n"), well("HTTP/1.1 204 No Content"));
        assert_eq!(asked(b"HTTP/1.0 302 Found\nLocation: /x\r\n\r\n"), well("HTTP/1.0 302 Found"));
        let ill = asked(b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\ntry later");
        assert_eq!(ill, ("HTTP/1.1 503 Busy\ntry later".to_owned(), false));
        for other in [&b"SSH-2.0-x\r\n"[..], b"", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1"] {
            assert!(!asked(other).1 && asked(other).0.contains("does not answer by HTTP"));
        }
    }
}
