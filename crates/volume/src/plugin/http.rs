//! One request to a plugin: HTTP/1.1 on a unix socket or by TCP, a connection for each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::Tls;

/// What a plugin may answer with at most: a list of some 100,000 volumes.
const MAX_ANSWER: u64 = 16 << 20;
/// What the lines before it may be at most.
const MAX_HEAD: u64 = 64 << 10;
/// The protocol's version (moby, `pkg/plugins/transport`).
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";
/// How long to wait until a host lets a connection come to be.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// A host by its name, and its port: looked up before it is connected to.
    Host(String, u16),
    /// A host that is to prove that it has this name; looked up as another one.
    Tls {
        host: String,
        port: u16,
        tls: Tls,
        place: Option<SocketAddr>,
    },
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Address {
    fn connect(&self, timeout: Duration) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Ok(Box::new(stream))
            }
            Self::Host(host, _) | Self::Tls { host, place: None, .. } => {
                Err(io::Error::other(format!("the host {host} was not looked up")))
            }
            Self::Tcp(address) => Ok(Box::new(connect(address, timeout)?)),
            Self::Tls { host, tls, place: Some(address), .. } => {
                Ok(Box::new(tls.connect(host, connect(address, timeout)?)?))
            }
        }
    }

    /// Calls `method` with a JSON body, and answers with status and body. Each wait ends after `timeout`.
    ///
    /// # Errors
    /// When nobody listens, the plugin does not answer, or answers with what is no HTTP.
    pub(crate) fn call(&self, method: &str, body: &[u8], timeout: Duration) -> io::Result<(u16, Vec<u8>)> {
        let mut stream = self.connect(timeout)?;
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: plugin\r\nUser-Agent: wharf\r\nAccept: {MEDIA_TYPE}\r\nContent-Type: \
             {MEDIA_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        stream.flush()?;
        read_answer(stream).map_err(|error| match error.kind() {
            // What a socket's timeout is.
            io::ErrorKind::WouldBlock => io::Error::from(io::ErrorKind::TimedOut),
            _ => error,
        })
    }
}

fn connect(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, CONNECT.min(timeout))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads the status, and the body in each of its three forms (RFC 9112, section 6.3).
fn read_answer(stream: impl Read) -> io::Result<(u16, Vec<u8>)> {
    let mut input = BufReader::new(stream);
    let (mut status, mut length, mut chunked);
    loop {
        (status, length, chunked) = (0u16, None, false);
        let mut head = input.by_ref().take(MAX_HEAD);
        let mut first = true;
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Err(bad("the plugin ended its answer early"));
            }
            let line = line.trim_end();
            if first {
                let code = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
                status =
                    code.and_then(|code| code.parse().ok()).ok_or_else(|| bad("the plugin does not speak HTTP"))?;
                first = false;
            } else if line.is_empty() {
                break;
            } else if let Some((key, value)) = line.split_once(':') {
                let value = value.trim();
                match key.to_ascii_lowercase().as_str() {
                    "content-length" => {
                        length = Some(value.parse::<u64>().map_err(|_| bad("the plugin's answer has no length"))?);
                    }
                    "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
                    _ => {}
                }
            }
        }
        // 1xx: another answer follows.
        if status >= 200 {
            break;
        }
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(&mut input, &mut body)?;
        return Ok((status, body));
    }
    match length {
        Some(length) if length > MAX_ANSWER => return Err(bad("the plugin's answer is too long")),
        Some(length) => {
            input.take(length).read_to_end(&mut body)?;
            if body.len() as u64 != length {
                return Err(bad("the plugin ended its answer early"));
            }
        }
        None if status == 204 || status == 304 => {}
        None => {
            input.take(MAX_ANSWER + 1).read_to_end(&mut body)?;
            if body.len() as u64 > MAX_ANSWER {
                return Err(bad("the plugin's answer is too long"));
            }
        }
    }
    Ok((status, body))
}

fn read_chunks(input: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        input.by_ref().take(MAX_HEAD).read_line(&mut line)?;
        let size = line.trim_end().split(';').next().and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        let size = size.ok_or_else(|| bad("a chunk of the plugin's answer has no size"))?;
        if size == 0 {
            return Ok(());
        }
        if size > MAX_ANSWER - body.len() as u64 {
            return Err(bad("the plugin's answer is too long"));
        }
        let before = body.len() as u64;
        input.by_ref().take(size).read_to_end(body)?;
        if body.len() as u64 - before != size {
            return Err(bad("the plugin ended its answer early"));
        }
        let mut end = String::new();
        input.by_ref().take(MAX_HEAD).read_line(&mut end)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_three_forms() {
        let read = |text: &str| read_answer(text.as_bytes());
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}more").unwrap(), (200, b"{}".to_vec()));
        let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\n{\"\r\n3\r\na\":\r\n0\r\n\r\n";
        assert_eq!(read(chunks).unwrap(), (200, b"{\"a\":".to_vec()));
        assert_eq!(read("HTTP/1.0 500 no\r\n\r\nwhy").unwrap(), (500, b"why".to_vec()));
        let twice = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(read(twice).unwrap(), (204, Vec::new()));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", MAX_ANSWER + 1);
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
        for text in [
            "",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            &long,
            &endless,
        ] {
            assert!(read_answer(text.as_bytes()).is_err(), "{text:.60}");
        }
    }
}
