//! Listening: connections, TLS, and an end that cuts nobody off.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use wharf_store::Store;

use crate::app::App;
use crate::collect::{Collect, collect};
use crate::error::RegistryError;
use crate::log;
use crate::passwords::Passwords;
use crate::patience::Patient;
use crate::sessions::Sessions;

/// Connections at once. Each may hold a thread of the pool for the disk, which has 512.
const MAX_CONNECTIONS: usize = 256;
/// For the head of a request, and for a handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What is going on when the registry is to end may take so long yet.
const GRACE: Duration = Duration::from_secs(10);
/// How often old uploads are looked for.
const SWEEP: Duration = Duration::from_secs(3600);

/// Settings of a registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// `ADDRESS:PORT`; `:PORT` is all addresses; port 0 is any that is free.
    pub listen: String,
    /// A root of its own: no engine may use the same.
    pub data_root: PathBuf,
    /// Files with the certificate chain and the key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Who may come in; without it, everybody.
    pub htpasswd: Option<PathBuf>,
    pub read_only: bool,
    /// How often what nothing names is deleted; zero is never.
    pub collect_every: Duration,
    /// Whether requests are logged.
    pub access_log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:5000".into(),
            data_root: "/var/lib/wharf-registry".into(),
            tls: None,
            htpasswd: None,
            read_only: false,
            collect_every: Duration::from_secs(24 * 3600),
            access_log: true,
        }
    }
}

/// A registry that listens.
#[derive(Debug)]
pub struct Registry {
    app: App,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Acceptor>,
    options: Options,
}

/// Makes TLS of connections. The library's own type has no debug output.
#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Registry {
    /// Opens the store and listens; connections wait until [`Self::run`].
    ///
    /// # Errors
    /// When the store is in use, a file cannot be used, or the address cannot be listened on.
    pub async fn bind(options: Options) -> Result<Self, RegistryError> {
        let tls = options.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let passwords = options.htpasswd.as_deref().map(Passwords::open).transpose()?;
        let address = parse_listen(&options.listen)?;
        let root = options.data_root.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let store = Store::open(&root)?;
            let sessions = Sessions::open(&store).map_err(RegistryError::file("open", root.join("uploads")))?;
            Ok::<_, RegistryError>((store, sessions))
        });
        let opened = opened.await.map_err(|error| RegistryError::System {
            action: "open the store",
            source: std::io::Error::other(error),
        })?;
        let (store, sessions) = opened?;
        let failed = |source| RegistryError::Listen { address: options.listen.clone(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = App::new(store, sessions, passwords, options.read_only);
        Ok(Self { app, listener, address, tls, options })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `end`, and then those that have begun.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let (ending, ended) = watch::channel(false);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut chores = JoinSet::new();
        chores.spawn(sweep(self.app.clone()));
        chores.spawn(collect_now_and_then(self.app.clone(), self.options.collect_every));
        let mut end = pin!(end);
        loop {
            let place = tokio::select! {
                () = &mut end => break,
                Ok(place) = places.clone().acquire_owned() => place,
            };
            let (stream, peer) = tokio::select! {
                () = &mut end => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely: others are about to be closed.
                        log::note(format_args!("cannot accept a connection: {error}"));
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (app, tls, ended, log) = (self.app.clone(), self.tls.clone(), ended.clone(), self.options.access_log);
            connections.spawn(async move {
                let _place = place;
                connection(app, stream, peer, tls, ended, log).await;
            });
            // The tasks that have ended are let go of.
            while connections.try_join_next().is_some() {}
        }
        drop(self.listener);
        ending.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            log::note(format_args!("{} connections are cut off", connections.len()));
        }
    }
}

/// Opens the registry and answers requests until SIGTERM or SIGINT.
///
/// # Errors
/// Those of [`Registry::bind`].
pub async fn serve(options: Options) -> Result<(), RegistryError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |source| RegistryError::System { action: "wait for signals", source };
    // Before anything can be interrupted.
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let registry = Registry::bind(options).await?;
    let scheme = if registry.tls.is_some() { "https" } else { "http" };
    log::note(format_args!("listening on {scheme}://{}", registry.address()));
    let options = &registry.options;
    if options.tls.is_none() && !registry.address().ip().is_loopback() {
        let what = if options.htpasswd.is_some() { "passwords and contents travel" } else { "contents travel" };
        log::note(format_args!("without TLS {what} in the clear; see --tls-cert and --tls-key"));
    }
    registry
        .run(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            log::note(format_args!("ending"));
        })
        .await;
    Ok(())
}

async fn connection(
    app: App,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Acceptor>,
    ended: watch::Receiver<bool>,
    log: bool,
) {
    // Small answers are waited for; that it cannot be set is no reason not to talk.
    let _ = stream.set_nodelay(true);
    match tls {
        None => exchange(app, stream, peer, ended, log).await,
        Some(Acceptor(acceptor)) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                exchange(app, stream, peer, ended, log).await;
            }
        }
    }
}

async fn exchange(
    app: App,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    mut ended: watch::Receiver<bool>,
    log: bool,
) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let app = app.clone();
        async move {
            let began = Instant::now();
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let (answer, user) = app.answer(request).await;
            if log {
                let (status, size) = (answer.status().as_u16(), length(&answer));
                let user: String = user.as_deref().unwrap_or("-").chars().filter(|c| !c.is_control()).collect();
                log::line(format_args!(
                    "{peer} {user} \"{method} {path}\" {status} {size} {} ms",
                    began.elapsed().as_millis()
                ));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What a client does wrong is its own to know.
        _ = connection.as_mut() => return,
        _ = ended.wait_for(|ended| *ended) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

fn length(answer: &crate::answer::Answer) -> &str {
    answer.headers().get(hyper::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).unwrap_or("0")
}

async fn sweep(app: App) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let sessions = app.sessions.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || sessions.sweep()).await {
            log::note(format_args!("old uploads cannot be swept: {error}"));
        }
    }
}

async fn collect_now_and_then(app: App, every: Duration) {
    while !every.is_zero() {
        tokio::time::sleep(every).await;
        let (repositories, incoming) = (app.repositories.clone(), app.incoming.clone());
        let done = tokio::task::spawn_blocking(move || collect(&repositories, &incoming, Collect::default())).await;
        match done {
            Ok(Ok(gone)) => log::note(format_args!("collected {} blobs, {} bytes", gone.blobs, gone.bytes)),
            // The error itself has been logged.
            _ => log::note(format_args!("the collection did not end")),
        }
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, RegistryError> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    whole.parse().map_err(|_| RegistryError::Address(text.to_owned()))
}

fn acceptor(certificate: &Path, key: &Path) -> Result<Acceptor, RegistryError> {
    let wrong = |path: &Path, reason: String| RegistryError::Certificate { path: path.to_owned(), reason };
    let bytes = fs::read(certificate).map_err(RegistryError::file("read", certificate))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| wrong(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "there is no certificate in it".into()));
    }
    let bytes = fs::read(key).map_err(RegistryError::file("read", key))?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| wrong(key, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| wrong(key, wharf_report::chain(&error)))?;
    Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        let parsed = |text: &str| parse_listen(text).map(|address| address.to_string()).ok();
        assert_eq!(parsed("127.0.0.1:5000").unwrap(), "127.0.0.1:5000");
        assert_eq!(parsed("localhost:5000").unwrap(), "127.0.0.1:5000");
        assert_eq!(parsed(":5000").unwrap(), "[::]:5000");
        assert_eq!(parsed("[::1]:0").unwrap(), "[::1]:0");
        for bad in ["", "5000", "example.com:5000", "127.0.0.1", ":x"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
