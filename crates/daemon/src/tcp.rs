//! Clients that come by TCP, encrypted or not.
//!
//! The server's connections are unix sockets: those tell a client that has gone from one that has only ended its input,
//! and become a container's streams without another copy. So a client from elsewhere gets one of a pair, and what it
//! sends is carried over.

use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use wharf_server::Api;

use crate::tls::Tls;

/// A client that has not shown who it is by then is cut off.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// As often the kernel asks a silent client's host whether it is there, and as often in vain before it has gone. Where a
/// client has closed its whole connection, its host answers for it for another minute (tcp(7), `tcp_fin_timeout`).
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES: u32 = 4;
/// How long a client may take to close a connection that the server has ended.
const LINGER: Duration = Duration::from_secs(2);

/// One that has come.
pub(crate) struct Client {
    stream: TcpStream,
    tls: Option<Tls>,
}

impl Client {
    pub(crate) fn new(stream: TcpStream, tls: Option<Tls>) -> Self {
        Self { stream, tls }
    }

    /// Serves it until its connection is closed.
    pub(crate) async fn serve(self, api: Api) {
        if let Err(error) = self.try_serve(api).await {
            // Its own business: it has gone, or has no certificate that counts.
            tracing::debug!("connection by TCP: {error}");
        }
    }

    async fn try_serve(self, api: Api) -> io::Result<()> {
        let Self { stream, tls } = self;
        keep_alive(&stream)?;
        stream.set_nodelay(true)?;
        // A second handle, as who has the first one may be waiting for the other direction.
        let watched = TcpStream::from_std(std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?))?;
        match tls {
            None => carry(stream, &watched, api).await,
            Some(tls) => {
                let accepted = TlsAcceptor::from(tls.config()).accept(stream);
                let stream = tokio::time::timeout(HANDSHAKE, accepted).await.map_err(io::Error::from)??;
                carry(stream, &watched, api).await
            }
        }
    }
}

async fn carry(client: impl AsyncRead + AsyncWrite, watched: &TcpStream, api: Api) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let carried = async move {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = ours.into_split();
        let up = async {
            tokio::io::copy(&mut from_client, &mut to_server).await?;
            to_server.shutdown().await
        };
        let down = async {
            tokio::io::copy(&mut from_server, &mut to_client).await?;
            to_client.shutdown().await
        };
        let (mut up, mut down) = (pin!(up), pin!(down));
        let mut ended = false;
        loop {
            tokio::select! {
                done = &mut up, if !ended => {
                    done?;
                    ended = true;
                }
                done = &mut down => {
                    // It is over for the server. A connection that is closed while the client writes is broken for the
                    // client before it has read the last of the answer.
                    if !ended {
                        let _ = tokio::time::timeout(LINGER, up).await;
                    }
                    return done;
                }
                broken = watched.ready(Interest::ERROR) => {
                    return broken.and_then(|_| Err(io::ErrorKind::ConnectionReset.into()));
                }
            }
        }
    };
    // The end of ours tells the server, and the streams of a container, that the client has gone.
    tokio::join!(carried, wharf_server::serve_carried(theirs, api)).0
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    Ok(sockopt::set_tcp_keepcnt(stream, KEEPALIVES)?)
}
