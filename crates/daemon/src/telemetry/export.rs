//! The one task that sends spans, a batch after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use wharf_image::registry::Resolver;
use wharf_server::trace::{Span, Tracer};

use super::encode;
use super::settings::Settings;
use crate::tls;

/// How long what is left may take when the daemon ends.
pub(crate) const LAST: Duration = Duration::from_secs(2);
/// A batch that a collector does not take, for now or because it is not there, is sent so often, with these pauses.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// Of an answer no more than its head is read.
const MAX_HEAD: usize = 16 << 10;

/// Why a batch was not taken.
struct Refused {
    /// It may be taken later.
    for_now: bool,
    why: String,
}

/// Sends spans until `stop`, and then what there is.
pub(crate) async fn run(
    settings: Settings,
    tracer: Tracer,
    mut spans: mpsc::Receiver<Span>,
    mut stop: watch::Receiver<()>,
) {
    let config = match settings.endpoint.tls.then(|| client_config(&settings)).transpose() {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!("traces are not exported: {error}");
            return;
        }
    };
    let collector = Collector { settings: &settings, config, resolver: Resolver::system() };
    // Said once, and not for each batch.
    let mut is_down = false;
    loop {
        let (batch, ends) = next(&settings, &mut spans, &mut stop).await;
        if !batch.is_empty() {
            let count = batch.len();
            let message = encode::message(&settings.resource, &batch);
            drop(batch);
            match collector.send(&message, &mut stop, ends).await {
                Ok(()) if is_down => {
                    tracing::info!("the collector of traces takes them again; {} were lost", tracer.take_dropped());
                    is_down = false;
                }
                Ok(()) => {}
                Err(refused) => {
                    if !is_down {
                        let endpoint = &settings.endpoint;
                        tracing::warn!("{count} spans were not taken by {endpoint}, and are lost: {}", refused.why);
                    }
                    is_down = true;
                }
            }
        }
        if ends {
            return;
        }
    }
}

/// The next batch: full, or as long as its first span may wait. The end is told with it.
async fn next(
    settings: &Settings,
    spans: &mut mpsc::Receiver<Span>,
    stop: &mut watch::Receiver<()>,
) -> (Vec<Span>, bool) {
    let mut batch = Vec::new();
    tokio::select! {
        _ = stop.changed() => {}
        count = spans.recv_many(&mut batch, settings.batch) => {
            let deadline = Instant::now() + settings.delay;
            while count > 0 && batch.len() < settings.batch {
                let room = settings.batch - batch.len();
                tokio::select! {
                    _ = stop.changed() => break,
                    more = timeout_at(deadline, spans.recv_many(&mut batch, room)) => match more {
                        Ok(1..) => {}
                        Ok(0) | Err(_) => return (batch, false),
                    },
                }
            }
            if batch.len() >= settings.batch {
                return (batch, false);
            }
        }
    }
    // The end. What waits goes in one message, however much it is.
    while let Ok(span) = spans.try_recv() {
        batch.push(span);
    }
    (batch, true)
}

struct Collector<'a> {
    settings: &'a Settings,
    config: Option<Arc<ClientConfig>>,
    resolver: Resolver,
}

impl Collector<'_> {
    async fn send(&self, message: &[u8], stop: &mut watch::Receiver<()>, ends: bool) -> Result<(), Refused> {
        for pause in PAUSES {
            match self.send_once(message).await {
                Err(refused) if refused.for_now && !ends => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        // Asked for once more, which is the last time.
                        _ = stop.changed() => break,
                    }
                }
                done => return done,
            }
        }
        self.send_once(message).await
    }

    async fn send_once(&self, message: &[u8]) -> Result<(), Refused> {
        let later = |why: String| Refused { for_now: true, why };
        let sent = timeout(self.settings.timeout, self.exchange(message)).await;
        let status = sent
            .map_err(|_| later("it does not answer in time".into()))?
            .map_err(|error| later(wharf_report::chain(&error)))?;
        match status {
            200..300 => Ok(()),
            // OTLP, "Failures".
            429 | 502 | 503 | 504 => Err(later(format!("it answers with status {status}"))),
            _ => Err(Refused { for_now: false, why: format!("it answers with status {status}") }),
        }
    }

    /// One request on a connection of its own: a batch is some seconds' requests. The value is the status.
    async fn exchange(&self, message: &[u8]) -> io::Result<u16> {
        let endpoint = &self.settings.endpoint;
        let stream = self.connect().await?;
        let Some(config) = &self.config else { return self.speak(stream, message).await };
        let name = ServerName::try_from(endpoint.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        self.speak(stream, message).await
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let endpoint = &self.settings.endpoint;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in self.resolver.lookup(&endpoint.host).await.map_err(io::Error::other)? {
            match TcpStream::connect((address, endpoint.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn speak(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, message: &[u8]) -> io::Result<u16> {
        let endpoint = &self.settings.endpoint;
        let mut request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: wharf/{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            endpoint.path,
            endpoint.authority(),
            env!("CARGO_PKG_VERSION"),
            message.len()
        );
        for (name, value) in &self.settings.headers.0 {
            request.extend([name.as_str(), ": ", value, "\r\n"]);
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.write_all(message).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        let mut stream = stream.take(MAX_HEAD as u64);
        while !head.windows(2).any(|two| two == b"\r\n") && stream.read_buf(&mut head).await? > 0 {}
        let mut words = head.split(|byte| matches!(byte, b' ' | b'\r'));
        let status = words.next().filter(|word| word.starts_with(b"HTTP/1.")).and_then(|_| words.next());
        let status = status.and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse().ok());
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it does not answer by HTTP"))
    }
}

fn client_config(settings: &Settings) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    match &settings.authority {
        Some(path) => {
            for certificate in tls::certificates(path)? {
                roots.add(certificate).map_err(|e| format!("cannot use {} for TLS: {e}", path.display()))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("cannot use TLS: {e}"))?
        .with_root_certificates(roots);
    let config = match &settings.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(tls::certificates(certificate)?, tls::private_key(key)?)
            .map_err(|e| format!("cannot use the certificate {}: {e}", certificate.display()))?,
    };
    Ok(Arc::new(config))
}
