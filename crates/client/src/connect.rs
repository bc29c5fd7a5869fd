use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::{Address, Body, ClientError, Result, resolve, ssh};

/// Opens connections to one address.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) address: Address,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// Any byte stream that HTTP can run on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connector {
    /// A fresh connection, its driver running in the background.
    pub(crate) async fn connect(&self, call: &str) -> Result<SendRequest<Body>> {
        let stream = self.stream().await.map_err(|failure| match failure {
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
            Address::Ssh { user, host, port } => Ok(Box::new(ssh::connect(user.as_deref(), host, *port)?)),
            Address::Tcp { host, port, .. } => {
                let stream = tcp(host, *port).await?;
                let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Failure::Other(ClientError::Tls(format!("invalid server name: {host}"))))?;
                let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
                Ok(Box::new(stream.map_err(|error| Failure::Other(ClientError::Tls(error.to_string())))?))
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
