use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{Address, Body, ClientError, Result, resolve, ssh, tls};

/// Opens connections to one address.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) address: Address,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Between us and an engine that is reached by TCP.
    pub(crate) proxy: Option<Proxy>,
}

/// An HTTP proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Name or literal; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What the field `Proxy-Authorization` is to say; marked as sensitive, it is not shown.
    pub authorization: Option<HeaderValue>,
}

/// Any byte stream that HTTP can run on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connector {
    /// A fresh connection, its driver running in the background.
    pub(crate) async fn connect(&self, call: &str, proxied: bool) -> Result<SendRequest<Body>> {
        let stream = match &self.proxy {
            // It is the proxy that the request is sent to.
            Some(proxy) if proxied => match tcp(&proxy.host, proxy.port).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(error) => Err(error.into()),
            },
            _ => self.stream().await,
        };
        let stream = stream.map_err(|failure| match failure {
            Failure::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => ClientError::PermissionDenied {
                address: self.address.to_string(),
                call: call.to_owned(),
                reason: format!("{}: connect: permission denied", self.dial()),
            },
            Failure::Io(source) => ClientError::Unreachable { address: self.address.to_string(), source },
            Failure::Other(error) => error,
        })?;
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        // The connection's errors reach us through the request that was on it.
        tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    /// The raw byte stream, for those who speak HTTP themselves.
    pub(crate) async fn stream(&self) -> std::result::Result<Box<dyn Stream>, Failure> {
        match &self.address {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Ssh { user, host, port, socket } => {
                let connected = ssh::connect(user.as_deref(), host, *port, socket.as_deref());
                Ok(Box::new(connected.map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => Failure::Other(ClientError::NoSsh { address: self.address.to_string() }),
                    _ => Failure::Io(error),
                })?))
            }
            Address::Tcp { host, port, .. } => {
                let Some(config) = &self.tls else { return Ok(Box::new(tcp(host, *port).await?)) };
                let stream = match &self.proxy {
                    Some(proxy) => tunnel(proxy, host, *port).await?,
                    None => tcp(host, *port).await?,
                };
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Failure::Other(ClientError::Tls(format!("invalid server name: {host}"))))?;
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
                let explained =
                    |error| tls::explained(&self.address, &error).map_or(Failure::Io(error), Failure::Other);
                Ok(Box::new(stream.map_err(explained)?))
            }
        }
    }

    fn dial(&self) -> String {
        match &self.address {
            Address::Unix(path) => format!("dial unix {}", path.display()),
            Address::Ssh { host, .. } => format!("dial ssh {host}"),
            Address::Tcp { host, port, .. } => format!("dial tcp {host}:{port}"),
        }
    }
}

/// Why there is no stream.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(io::Error),
    Other(ClientError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The longest head of a proxy's answer.
const MAX_HEAD: usize = 16 << 10;

/// Asks a proxy for a way to the engine (RFC 9110, section 9.3.6).
async fn tunnel(proxy: &Proxy, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut stream = tcp(&proxy.host, proxy.port).await?;
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend([b"Proxy-Authorization: ", authorization.as_bytes(), b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    stream.write_all(&request).await?;
    let mut head = Vec::new();
    // Byte by byte: what follows the head is the engine's.
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(160).collect();
    match line.split(' ').nth(1) {
        Some(code) if code.len() == 3 && code.starts_with('2') => Ok(stream),
        _ => Err(io::Error::other(format!("the proxy {} answers `{line}`", proxy.host))),
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("no such host: {host}"));
    for address in resolve::addresses(host).await? {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
