use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, UPGRADE, USER_AGENT,
};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connect::{Connector, Failure, Proxy};
use crate::{Address, Body, ClientError, Hijacked, Request, Response, Result, TlsOptions, query, tls};

/// The newest version of the API that is spoken here.
pub const MAX_API_VERSION: &str = "1.51";
/// The oldest one.
pub const MIN_API_VERSION: &str = "1.24";
/// What an engine that does not say its version is taken to speak.
const FALLBACK_API_VERSION: &str = "1.24";

/// What `/_ping` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// The newest version of the API that the engine speaks.
    pub api_version: String,
    /// `1`: the classic builder; `2`: BuildKit.
    pub builder_version: String,
    /// The engine's operating system.
    pub os_type: String,
    /// Experimental features are on.
    pub experimental: bool,
}

/// A client of one engine. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connector: Connector,
    headers: Vec<(HeaderName, HeaderValue)>,
    idle: Mutex<Vec<SendRequest<Body>>>,
    version: OnceLock<String>,
    ping: tokio::sync::OnceCell<Ping>,
}

impl Client {
    /// A client for an address. Nothing is sent before the first request.
    ///
    /// # Errors
    ///
    /// The TLS material cannot be used.
    pub fn new(address: Address, tls: Option<&TlsOptions>) -> Result<Self> {
        let tls = tls.map(TlsOptions::config).transpose()?;
        Ok(Self(Arc::new(Inner {
            connector: Connector { address, tls, proxy: None },
            headers: Vec::new(),
            idle: Mutex::default(),
            version: OnceLock::new(),
            ping: tokio::sync::OnceCell::new(),
        })))
    }

    /// Header fields for every request (`User-Agent`, `HttpHeaders` of the configuration). For a client without clones.
    #[must_use]
    pub fn with_headers(mut self, headers: impl IntoIterator<Item = (String, String)>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.headers.extend(headers.into_iter().filter_map(|(name, value)| {
                Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
            }));
        }
        self
    }

    /// By an HTTP proxy, where the engine is reached by TCP. Streams that a request switches to go without it where there
    /// is no TLS, as Docker's do: proxies pass no such switch on. For a client without clones.
    #[must_use]
    pub fn through(mut self, proxy: Option<Proxy>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.connector.proxy = proxy;
        }
        self
    }

    /// Fixes the version instead of asking the engine (`DOCKER_API_VERSION`).
    #[must_use]
    pub fn with_version(self, version: &str) -> Self {
        let _ = self.0.version.set(version.trim_start_matches('v').to_owned());
        self
    }

    /// Where the engine is.
    pub fn address(&self) -> &Address {
        &self.0.connector.address
    }

    /// The version in use; the newest we speak as long as the engine has not been asked.
    pub fn version(&self) -> &str {
        self.0.version.get().map_or(MAX_API_VERSION, String::as_str)
    }

    /// Whether the version in use is this one or newer.
    pub fn at_least(&self, version: &str) -> bool {
        number(self.version()) >= number(version)
    }

    /// Asks the engine what it is and settles the version. Asked once; later calls give the same answer.
    ///
    /// # Errors
    ///
    /// Nobody answers.
    pub async fn negotiate(&self) -> Result<&Ping> {
        self.0.ping.get_or_try_init(|| self.ask()).await
    }

    async fn ask(&self) -> Result<Ping> {
        let response = match self.request(Method::HEAD, "/_ping").unversioned().send().await {
            Ok(response) => response,
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                self.get("/_ping").unversioned().send().await?
            }
            Err(error) => return Err(error),
        };
        let header = |name: &str| {
            let value = response.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let ping = Ping {
            api_version: header("api-version"),
            builder_version: header("builder-version"),
            os_type: header("ostype"),
            experimental: header("docker-experimental") == "true",
        };
        response.bytes().await?;
        let theirs = if ping.api_version.is_empty() { FALLBACK_API_VERSION } else { &ping.api_version };
        let ours = if number(theirs) < number(MAX_API_VERSION) { theirs } else { MAX_API_VERSION };
        let _ = self.0.version.set(ours.to_owned());
        Ok(ping)
    }

    /// Starts a request.
    pub fn request(&self, method: Method, path: &str) -> Request<'_> {
        Request::new(self, method, path)
    }

    /// Starts a `GET`.
    pub fn get(&self, path: &str) -> Request<'_> {
        self.request(Method::GET, path)
    }

    /// Starts a `POST`.
    pub fn post(&self, path: &str) -> Request<'_> {
        self.request(Method::POST, path)
    }

    /// Starts a `DELETE`.
    pub fn delete(&self, path: &str) -> Request<'_> {
        self.request(Method::DELETE, path)
    }

    /// The bare byte stream to the engine, for a relay that knows nothing of HTTP.
    ///
    /// # Errors
    ///
    /// Nobody answers.
    pub async fn dial(&self) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        self.0.connector.stream().await.map_err(|failure| match failure {
            Failure::Io(source) => ClientError::Unreachable { address: self.address().to_string(), source },
            Failure::Other(error) => error,
        })
    }

    pub(crate) async fn send(&self, request: Request<'_>) -> Result<Response> {
        let (url, response) = self.exchange(request, None).await?;
        let (parts, body) = response.into_parts();
        let answer = Response { status: parts.status, headers: parts.headers, body };
        if parts.status.is_success() || parts.status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        Err(refusal(answer, &url).await)
    }

    pub(crate) async fn hijack(&self, request: Request<'_>) -> Result<Hijacked> {
        let (url, response) = self.exchange(request, Some("tcp")).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let multiplexed = response.headers().get(CONTENT_TYPE).and_then(|kind| match kind.as_bytes() {
                b"application/vnd.docker.multiplexed-stream" => Some(true),
                _ => None,
            });
            return Ok(Hijacked::new(hyper::upgrade::on(response).await?, multiplexed));
        }
        let (parts, body) = response.into_parts();
        let answer = Response { status: parts.status, headers: parts.headers, body };
        if parts.status.is_success() {
            return Err(ClientError::Protocol(format!("unable to upgrade to tcp, received {}", parts.status.as_u16())));
        }
        Err(refusal(answer, &url).await)
    }

    async fn exchange(
        &self,
        request: Request<'_>,
        upgrade: Option<&'static str>,
    ) -> Result<(String, hyper::Response<Incoming>)> {
        let Request { method, path, query, headers, mut body, versioned, .. } = request;
        let prefix = match self.address() {
            Address::Tcp { prefix, .. } => prefix.as_str(),
            Address::Unix(_) | Address::Ssh { .. } => "",
        };
        let version = if versioned { format!("/v{}", self.version()) } else { String::new() };
        let target = format!("{prefix}{version}{}{}", query::escape_path(&path), query::encode(&query));
        let (host, scheme) = match self.address() {
            Address::Unix(path) => ("api.moby.localhost".to_owned(), format!("http://{}", query::encode_host(path))),
            Address::Ssh { .. } => ("docker.example.com".to_owned(), "http://docker.example.com".to_owned()),
            Address::Tcp { host, port, .. } => (format!("{host}:{port}"), format!("http://{host}:{port}")),
        };
        let url = format!("{scheme}{target}");
        let call = format!("{} \"{url}\"", title(&method));
        let connector = &self.0.connector;
        let has_proxy = connector.tls.is_none() && connector.proxy.is_some();
        // Connections that are kept are then the proxy's.
        let (proxied, direct) = (has_proxy && upgrade.is_none(), has_proxy && upgrade.is_some());
        let place = if proxied { &url } else { &target };
        loop {
            let (mut sender, reused) = match self.idle().filter(|_| !direct) {
                Some(sender) => (sender, true),
                None => (connector.connect(&call, proxied).await?, false),
            };
            let mut message = hyper::Request::builder().method(method.clone()).uri(place);
            if let Some(fields) = message.headers_mut() {
                put(fields, HOST, &host);
                put(fields, USER_AGENT, concat!("Docker-Client/wharf-", env!("CARGO_PKG_VERSION"), " (linux)"));
                let authorization = connector.proxy.as_ref().filter(|_| proxied);
                if let Some(value) = authorization.and_then(|proxy| proxy.authorization.clone()) {
                    fields.insert(PROXY_AUTHORIZATION, value);
                }
                for (name, value) in self.0.headers.iter().chain(&headers) {
                    fields.insert(name.clone(), value.clone());
                }
                if let Some(protocol) = upgrade {
                    put(fields, CONNECTION, "Upgrade");
                    put(fields, UPGRADE, protocol);
                }
            }
            let message =
                message.body(body).map_err(|error| ClientError::Protocol(format!("malformed request: {error}")))?;
            match sender.try_send_request(message).await {
                Ok(response) => {
                    if !direct {
                        self.keep(sender);
                    }
                    return Ok((url, response));
                }
                // An idle connection that the engine had closed: the request was never sent.
                Err(mut failed) => match failed.take_message() {
                    Some(message) if reused => body = message.into_body(),
                    _ => return Err(self.broken(failed.into_error())),
                },
            }
        }
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        // An engine may look at our certificate after it has shown its own.
        if let Some(explained) = source.and_then(|source| tls::explained(self.address(), source)) {
            return explained;
        }
        let plain = matches!(self.address(), Address::Tcp { .. }) && self.0.connector.tls.is_none();
        if plain && error.is_parse() {
            return ClientError::Protocol(format!(
                "error during connect: {}: malformed HTTP response.\n* Are you trying to connect to a TLS-enabled daemon \
                 without TLS? Give --tls or --tlsverify",
                self.address()
            ));
        }
        match source {
            Some(source) if source.kind() != io::ErrorKind::Other => {
                ClientError::Io(io::Error::new(source.kind(), source.to_string()))
            }
            _ => ClientError::Http(error),
        }
    }

    fn idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        let at = idle.iter().position(SendRequest::is_ready)?;
        Some(idle.swap_remove(at))
    }

    /// A connection is put back while its answer is still being read; it is ready again when the answer has ended.
    fn keep(&self, sender: SendRequest<Body>) {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
    }
}

fn put(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

fn title(method: &Method) -> String {
    let text = method.as_str();
    format!("{}{}", &text[..1], text[1..].to_ascii_lowercase())
}

/// An error answer in the engine's words: `{"message": …}`, or the body as it is.
async fn refusal(answer: Response, url: &str) -> ClientError {
    let status = answer.status;
    let bytes = match answer.bytes().await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let message = match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => value.get("message").and_then(Value::as_str).unwrap_or_default().trim().to_owned(),
        Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
    };
    if message.is_empty() {
        return ClientError::Wordless { status, url: url.to_owned() };
    }
    ClientError::Api { status, message }
}

/// `1.44` as numbers that compare.
fn number(version: &str) -> (u32, u32) {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}
