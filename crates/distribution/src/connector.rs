//! Connections: name, TCP, proxy, TLS. A service for hyper's pool of connections.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::address::{Address, Origin};
use crate::dns::Resolver;
use crate::error::ConnectError;
use crate::proxy::{Proxies, Proxy, in_network};
use crate::tls::{self, OwnTls, Trust};

/// For one address. Docker waits 30 s; people have given up by then.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an address has until the next one is tried beside it (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// More of a proxy's answer to CONNECT is none.
const MAX_PROXY_ANSWER: usize = 16 * 1024;

/// Where a request comes from decides where it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// The registry that the user named: anywhere.
    Named,
    /// Where a registry sends its clients: not to this machine, its neighbours or a cloud's metadata.
    Sent,
    /// As `Sent`, by a registry on this machine: to this machine too.
    SentByLocal,
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Named => true,
            Self::SentByLocal if address.is_loopback() => true,
            Self::Sent | Self::SentByLocal => !is_special(address),
        }
    }
}

/// Addresses that a registry has no reason to name: loopback, link-local (a cloud's metadata is there), none, many.
fn is_special(address: IpAddr) -> bool {
    let of = |network: &str, length| network.parse().is_ok_and(|network| in_network(address, network, length));
    let kind = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || nat64(v6).is_some_and(|v4| is_special(v4.into())),
    };
    // The last two are the metadata addresses of clouds outside of the link-local range.
    let metadata = of("100.100.100.200", 32) || of("fd00:ec2::254", 128);
    address.is_loopback() || address.is_unspecified() || address.is_multicast() || kind || metadata
}

/// The IPv4 address in an address of the well-known NAT64 prefix (RFC 6052).
fn nat64(address: Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let octets = address.octets();
    let prefix = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    octets.starts_with(&prefix).then(|| [octets[12], octets[13], octets[14], octets[15]].into())
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) resolver: Resolver,
    pub(crate) trust: Trust,
    pub(crate) proxies: Proxies,
    /// Whether the registry at an origin need not be trusted.
    pub(crate) insecure: Insecure,
}

impl Network {
    /// Connects by TCP, to all addresses of the host in turn.
    async fn dial(&self, address: &Address, port: u16, reach: Reach) -> Result<TcpStream, ConnectError> {
        let all = self.resolver.lookup(&address.host).await?;
        if let Some(forbidden) = all.iter().find(|ip| !reach.allows(**ip)) {
            return Err(ConnectError::Forbidden { host: address.host.clone(), address: *forbidden });
        }
        dial_any(all.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(), &address.host).await
    }

    async fn connect(&self, origin: &Origin, reach: Reach, own: Option<&OwnTls>) -> Result<Stream, ConnectError> {
        let address = Address { host: origin.host.clone(), port: Some(origin.port) };
        let Some(proxy) = self.proxies.for_origin(origin) else {
            let tcp = self.dial(&address, origin.port, reach).await?;
            return if origin.tls { self.secure(tcp, origin, own).await } else { Ok(Stream::plain(tcp, false)) };
        };
        // Names are the proxy's to resolve; addresses can be checked here.
        if let Ok(ip) = origin.host.parse::<IpAddr>()
            && !reach.allows(ip)
        {
            return Err(ConnectError::Forbidden { host: origin.host.clone(), address: ip });
        }
        let wrong = |reason: String| ConnectError::Proxy { proxy: proxy.to_string(), reason };
        if proxy.tls {
            return Err(wrong("proxies are spoken to by http:// only".into()));
        }
        let mut tcp = self.dial(&proxy.address, proxy.port(), Reach::Named).await?;
        if !origin.tls {
            return Ok(Stream::plain(tcp, true));
        }
        match timeout(HANDSHAKE_TIMEOUT, tunnel(&mut tcp, &address, origin.port, proxy)).await {
            Ok(done) => done.map_err(wrong)?,
            Err(_) => return Err(wrong("it did not answer in time".into())),
        }
        self.secure(tcp, origin, own).await
    }

    async fn secure(&self, tcp: TcpStream, origin: &Origin, own: Option<&OwnTls>) -> Result<Stream, ConnectError> {
        let name = ServerName::try_from(origin.host.clone())
            .map_err(|_| ConnectError::Tls(format!("`{}` is no name for a certificate", origin.host)))?;
        let authority = self.insecure.authority(origin);
        let insecure = self.insecure.contains(&authority, &origin.host);
        let config = match own {
            Some(own) => self.trust.own_config(own),
            None => self.trust.config(&authority, insecure),
        };
        let config = config.map_err(|error| ConnectError::Settings(error.message()))?;
        match timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(tls::explain(&error)),
            Err(_) => Err(ConnectError::Handshake("timeout".into())),
        }
    }

    /// Whether the registry at `address` speaks TLS; asked only of registries that need not.
    ///
    /// # Errors
    /// When nobody listens there at all.
    pub(crate) async fn speaks_tls(&self, address: &Address) -> Result<bool, ConnectError> {
        let secure = Origin::new(true, address);
        match self.connect(&secure, Reach::Named, None).await {
            Ok(_) => Ok(true),
            Err(ConnectError::NotTls | ConnectError::Handshake(_)) => Ok(false),
            // Whatever else is wrong with its TLS, it is TLS: to fall back would be to undo it.
            Err(ConnectError::Untrusted(_) | ConnectError::Tls(_)) => Ok(true),
            // Another port may be open.
            Err(ConnectError::Dial { .. } | ConnectError::DialTimeout { .. }) if address.port.is_none() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The registries that may speak plain HTTP, and whose certificates need not be good.
#[derive(Debug, Default)]
pub(crate) struct Insecure {
    authorities: Vec<String>,
    networks: Vec<(IpAddr, u8)>,
}

impl Insecure {
    /// Of `HOST[:PORT]` and `ADDRESS/BITS`.
    pub(crate) fn new(entries: &[String]) -> Self {
        let mut insecure = Self::default();
        for entry in entries {
            let entry = entry.strip_prefix("http://").or_else(|| entry.strip_prefix("https://")).unwrap_or(entry);
            let network = entry.split_once('/').and_then(|(ip, length)| Some((ip.parse().ok()?, length.parse().ok()?)));
            match network {
                Some(network) => insecure.networks.push(network),
                None => insecure.authorities.push(entry.trim_end_matches('/').to_ascii_lowercase()),
            }
        }
        insecure
    }

    /// Whether the registry is on the list, in one of its networks by its address, or on this machine.
    pub(crate) fn contains(&self, authority: &str, host: &str) -> bool {
        crate::address::is_loopback_host(host)
            || self.authorities.iter().any(|entry| entry == authority)
            || host.parse().is_ok_and(|ip| self.networks.iter().any(|(net, bits)| in_network(ip, *net, *bits)))
    }

    /// The name of an origin as users write it in lists and folders: without a port that its scheme implies.
    pub(crate) fn authority(&self, origin: &Origin) -> String {
        let default = if origin.tls { 443 } else { 80 };
        let with = |port| Address { host: origin.host.clone(), port }.to_string();
        // `host:443` may have been written out.
        let full = with(Some(origin.port));
        if origin.port == default && !self.authorities.contains(&full) { with(None) } else { full }
    }
}

async fn dial_any(addresses: Vec<SocketAddr>, host: &str) -> Result<TcpStream, ConnectError> {
    let mut attempts = JoinSet::new();
    // The first, as Go tells it: the others are usually the same by another address.
    let mut failure = None;
    let mut addresses = addresses.into_iter();
    loop {
        let more = match addresses.next() {
            Some(address) => {
                attempts.spawn(dial_one(address));
                true
            }
            None => false,
        };
        let ended = if more {
            // Others wait for this one only so long.
            match timeout(ATTEMPT_DELAY, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        } else {
            attempts.join_next().await
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => failure = failure.or(Some(error)),
            Some(Err(_)) => {}
            None => return Err(failure.unwrap_or_else(|| ConnectError::NoSuchHost { host: host.to_owned() })),
        }
    }
}

async fn dial_one(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Heads are small and waited for. That it cannot be set is no reason not to talk.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(ConnectError::dial(address, &error)),
        Err(_) => Err(ConnectError::DialTimeout { address }),
    }
}

/// Asks a proxy for a way to `address` (RFC 9110, section 9.3.6).
async fn tunnel(tcp: &mut TcpStream, address: &Address, port: u16, proxy: &Proxy) -> Result<(), String> {
    let target = Address { host: address.host.clone(), port: Some(port) };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    tcp.write_all(&request).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the head is not ours.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= MAX_PROXY_ANSWER {
            return Err("its answer has no end".into());
        }
        answer.push(tcp.read_u8().await.map_err(|_| "it closed the connection".to_owned())?);
    }
    let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(160).collect();
    match line.split_whitespace().nth(1) {
        Some(code) if code.len() == 3 && code.starts_with('2') => Ok(()),
        Some("407") => Err("Proxy Authentication Required".into()),
        _ => Err(format!("it answered `{line}`")),
    }
}

/// A connection, with or without TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain { tcp: TcpStream, proxied: bool },
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn plain(tcp: TcpStream, proxied: bool) -> Self {
        Self::Plain { tcp, proxied }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        // A proxy is to be told the whole address of what is wanted.
        Connected::new().proxy(matches!(self, Self::Plain { proxied: true, .. }))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain { tcp, .. } => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// Makes the connections of one pool.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    network: Arc<Network>,
    reach: Reach,
    /// What holds for one origin, and for nobody whom it redirects to.
    own: Option<Arc<(Origin, OwnTls)>>,
}

impl Connector {
    pub(crate) fn new(network: Arc<Network>, reach: Reach, own: Option<Arc<(Origin, OwnTls)>>) -> Self {
        Self { network, reach, own }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { network, reach, own } = self.clone();
        Box::pin(async move {
            let origin = Origin::of(&uri).ok_or_else(|| ConnectError::NoSuchHost { host: uri.to_string() })?;
            let own = own.as_ref().filter(|own| own.0 == origin).map(|own| &own.1);
            network.connect(&origin, reach, own).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_send_nobody_to_special_places() {
        let allows = |reach: Reach, address: &str| reach.allows(address.parse().unwrap());
        for special in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "64:ff9b::169.254.169.254",
        ] {
            assert!(!allows(Reach::Sent, special), "{special}");
            assert!(allows(Reach::Named, special), "{special}");
        }
        for ordinary in ["8.8.8.8", "10.0.0.1", "192.168.1.1", "2001:db8::1", "fd00::1"] {
            assert!(allows(Reach::Sent, ordinary), "{ordinary}");
        }
        assert!(allows(Reach::SentByLocal, "127.0.0.1") && allows(Reach::SentByLocal, "::ffff:127.0.0.1"));
        assert!(!allows(Reach::SentByLocal, "169.254.169.254"));
    }

    #[test]
    fn insecure_registries_are_named_or_in_a_network() {
        let list = ["http://a.example:5000/", "B.example", "10.0.0.0/8"].map(String::from);
        let insecure = Insecure::new(&list);
        for (authority, host) in [
            ("a.example:5000", "a.example"),
            ("b.example", "b.example"),
            ("10.1.1.1:5000", "10.1.1.1"),
            ("localhost:5000", "localhost"),
            ("127.9.9.9", "127.9.9.9"),
        ] {
            assert!(insecure.contains(authority, host), "{authority}");
        }
        for (authority, host) in [("a.example", "a.example"), ("b.example:1", "b.example"), ("11.0.0.1", "11.0.0.1")] {
            assert!(!insecure.contains(authority, host), "{authority}");
        }
    }

    /// A proxy that answers `answer`, and then what comes through it.
    async fn proxy(answer: &'static str) -> (Network, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let authorization = Some(hyper::header::HeaderValue::from_static("Basic YQ=="));
        let proxy = Proxy { address, tls: false, authorization };
        let proxies = Proxies::of(Some(proxy.clone()), Some(proxy));
        let insecure = Insecure::default();
        let network = Network { resolver: Resolver::system(), trust: Trust::new(Vec::new()), proxies, insecure };
        (network, heard)
    }

    #[tokio::test]
    async fn tls_goes_through_a_proxy() {
        let origin = Origin::of(&"https://registry.invalid".parse().unwrap()).unwrap();
        let (network, heard) = proxy("HTTP/1.1 200 OK\r\nVia: x\r\n\r\nHTTP/1.1 400 no TLS here\r\n\r\n").await;
        // The name is the proxy's to look up, and the registry's answer is behind the proxy's.
        let listed = Network { insecure: Insecure::new(&["registry.invalid:443".into()]), ..network };
        assert!(matches!(listed.connect(&origin, Reach::Named, None).await, Err(ConnectError::NotTls)));
        assert_eq!(
            heard.await.unwrap(),
            "CONNECT registry.invalid:443 HTTP/1.1\r\nHost: registry.invalid:443\r\nProxy-Authorization: Basic YQ==\r\n\r\n"
        );
        for (answer, reason) in [
            ("HTTP/1.1 407 no\r\n\r\n", "Proxy Authentication Required"),
            ("HTTP/1.1 502 no\r\n\r\n", "it answered `HTTP/1.1 502 no`"),
            ("HTTP/1.1 200", "it closed the connection"),
        ] {
            let error = proxy(answer).await.0.connect(&origin, Reach::Named, None).await.unwrap_err();
            assert!(matches!(&error, ConnectError::Proxy { reason: found, .. } if found == reason), "{error}");
        }
        let metadata = Origin::of(&"https://169.254.169.254".parse().unwrap()).unwrap();
        let error = proxy("").await.0.connect(&metadata, Reach::Sent, None).await.unwrap_err();
        assert!(matches!(error, ConnectError::Forbidden { .. }), "{error}");
    }
}
