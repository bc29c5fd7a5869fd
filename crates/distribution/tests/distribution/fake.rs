//! Registries that say what a test wants, and remember what they were asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use wharf_distribution::{Client, ClientOptions, Credentials, Repository};
use wharf_reference::Reference;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: String,
    headers: hyper::HeaderMap,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn authorization(&self) -> &str {
        self.header("authorization").unwrap_or_default()
    }
}

pub(crate) type Said = Response<Full<Bytes>>;

/// A server that lives as long as the test's runtime.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Answers by `say`.
    pub(crate) async fn start(say: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        Self::with(None, say).await
    }

    /// As [`Self::start`] by TLS; `None` when no certificate can be made here.
    pub(crate) async fn secure(dir: &Path, say: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Option<Self> {
        Some(Self::with(Some(acceptor(dir)?), say).await)
    }

    pub(crate) async fn with(tls: Option<TlsAcceptor>, say: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let (asked, say) = (fake.asked.clone(), Arc::new(say));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (asked, say, tls) = (asked.clone(), say.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(tcp, asked, say).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                answer(stream, asked, say).await;
                            }
                        }
                    }
                });
            }
        });
        fake
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its repository `app`.
    pub(crate) fn app(&self, auth: Option<Credentials>) -> Repository {
        repository(ClientOptions::default(), &format!("{}/app", self.address), auth)
    }
}

pub(crate) fn repository(options: ClientOptions, name: &str, auth: Option<Credentials>) -> Repository {
    Client::new(options).unwrap().repository(&Reference::parse(name).unwrap(), auth)
}

async fn answer<S>(stream: S, asked: Arc<Mutex<Vec<Asked>>>, say: Arc<impl Fn(&Asked) -> Said + Send + Sync + 'static>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let (asked, say) = (asked.clone(), say.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let one = Asked {
                method: head.method.to_string(),
                path: head.uri.path().to_owned(),
                query: head.uri.query().unwrap_or_default().to_owned(),
                body: String::from_utf8_lossy(&body).into_owned(),
                headers: head.headers,
            };
            let said = say(&one);
            asked.lock().unwrap().push(one);
            Ok::<_, Infallible>(said)
        }
    });
    // A client that asks for TLS, or is gone.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An answer with a body and headers.
pub(crate) fn say(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Said {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(body.into())).unwrap()
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> Said {
    let body = serde_json::json!({"errors": [{"code": code, "message": message}]});
    say(status, &[("content-type", "application/json")], body.to_string())
}

fn acceptor(dir: &Path) -> Option<TlsAcceptor> {
    let line = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out crt -days 2 -subj /CN=x";
    let made = Command::new("openssl").args(line.split(' ')).current_dir(dir).output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `openssl` is not installed");
        return None;
    }
    let certificate = CertificateDer::from_pem_file(dir.join("crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    Some(TlsAcceptor::from(Arc::new(config)))
}
