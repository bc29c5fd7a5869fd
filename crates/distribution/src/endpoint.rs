//! One registry: its scheme, whom it wants to see, its redirects and its bad moments.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};

use crate::address::{Address, Origin, escape, join};
use crate::answer::Reply;
use crate::body::Payload;
use crate::challenge::{Challenge, challenges};
use crate::connector::Reach;
use crate::credentials::Credentials;
use crate::error::{ConnectError, DistributionError, Result};
use crate::hosts::{Capabilities, Host};
use crate::retry::Retry;
use crate::tls::OwnTls;
use crate::token::{Service, Tokens, Wish, basic, bearer};
use crate::transport::{Transport, go_name, unreachable, without_query};

/// What the paths of all registries begin with.
const V2: &str = "/v2";
/// Redirects of one request.
const MAX_REDIRECTS: usize = 10;
/// For the head of an answer. Registries with slow object stores take their time.
const WAIT: Duration = Duration::from_secs(60);
/// A mirror that could not be reached is not asked again for so long.
const DOWN: Duration = Duration::from_secs(60);

/// What all endpoints of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) transport: Arc<Transport>,
    /// Those of hosts whose TLS has settings of its own.
    own_transports: Mutex<HashMap<(Origin, OwnTls), Arc<Transport>>>,
    pub(crate) user_agent: HeaderValue,
    pub(crate) download_attempts: u32,
    tokens: Tokens,
    /// Whether registries that need not speak TLS do.
    schemes: Mutex<HashMap<Address, bool>>,
    /// How registries want to be spoken to, so that only the first request is refused.
    auths: Mutex<HashMap<Origin, Auth>>,
    /// Mirrors that could not be reached, and when.
    down: Mutex<HashMap<Address, Instant>>,
}

impl Shared {
    pub(crate) fn new(transport: Transport, user_agent: HeaderValue, download_attempts: u32) -> Self {
        Self {
            transport: Arc::new(transport),
            own_transports: Mutex::default(),
            user_agent,
            download_attempts,
            tokens: Tokens::default(),
            schemes: Mutex::default(),
            auths: Mutex::default(),
            down: Mutex::default(),
        }
    }

    pub(crate) fn transport_for(&self, origin: Origin, own: Option<OwnTls>) -> Arc<Transport> {
        let Some(own) = own else { return self.transport.clone() };
        let mut all = self.own_transports.lock().unwrap_or_else(PoisonError::into_inner);
        let network = || self.transport.network.clone();
        let key = (origin, own);
        all.entry(key.clone()).or_insert_with(|| Arc::new(Transport::new(network(), Some(key)))).clone()
    }
}

/// How a registry wants to see who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Auth {
    Basic,
    Token(Service),
}

impl Auth {
    /// The best that a registry offers; tokens, since they say less.
    fn of(challenges: &[Challenge]) -> Option<Self> {
        let token = challenges.iter().find_map(|challenge| {
            let realm = (challenge.scheme == "bearer").then(|| challenge.parameter("realm")).flatten()?;
            let service = challenge.parameter("service").map(str::to_owned);
            Some(Self::Token(Service { realm: realm.to_owned(), service }))
        });
        token.or_else(|| challenges.iter().any(|c| c.scheme == "basic").then_some(Self::Basic))
    }
}

/// A request that can be made again.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What a token for it must be good for.
    pub(crate) scopes: Vec<String>,
    pub(crate) wait: Duration,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A path of the registry.
    Path(String),
    /// Where an answer said, as an upload's.
    Uri(Uri),
}

impl Call {
    pub(crate) fn new(method: Method, path: String, scopes: Vec<String>) -> Self {
        Self { method, target: Target::Path(path), headers: HeaderMap::new(), body: Bytes::new(), scopes, wait: WAIT }
    }

    pub(crate) fn with_header(mut self, name: hyper::header::HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// A registry, or a mirror of one, with the credentials that are its own.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: Address,
    /// Given by a mirror's address; otherwise found out.
    pub(crate) tls: Option<bool>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) capabilities: Capabilities,
    pub(crate) transport: Arc<Transport>,
    /// The TLS that `hosts.toml` gives it.
    pub(crate) own: Option<OwnTls>,
    /// What takes the place of `/v2` in paths.
    base: String,
    /// The registry that a mirror stands for, by its name: it may have several.
    stands_for: Option<String>,
    /// Of requests to it.
    header: HeaderMap,
    /// One token is asked for at a time; the others wait for it.
    fetching: tokio::sync::Mutex<()>,
}

impl Endpoint {
    pub(crate) fn new(
        shared: Arc<Shared>,
        address: Address,
        tls: Option<bool>,
        credentials: Option<Credentials>,
    ) -> Self {
        let credentials = credentials.filter(|credentials| !credentials.is_empty());
        let transport = shared.transport.clone();
        Self {
            shared,
            address,
            tls,
            credentials,
            capabilities: Capabilities::ALL,
            transport,
            own: None,
            base: V2.into(),
            stands_for: None,
            header: HeaderMap::new(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// Shows the credentials with each request to it, before anybody asks: for those of an address, as browsers do and Go's
    /// client does. Servers that hide what they have, or send to a page to sign in at, do not ask.
    ///
    /// # Errors
    /// For credentials that have no form in a header.
    pub(crate) fn showing_credentials(mut self) -> Result<Self> {
        if let Some(credentials) = &self.credentials {
            self.header.insert(AUTHORIZATION, basic(credentials)?);
        }
        Ok(self)
    }

    /// A host of `hosts.toml`, and whom it stands for when it is not the registry itself.
    pub(crate) fn of_host(
        shared: Arc<Shared>,
        host: Host,
        stands_for: Option<String>,
        credentials: Option<Credentials>,
    ) -> Self {
        let transport = shared.transport_for(Origin::new(host.tls, &host.address), host.own.clone());
        Self {
            capabilities: host.capabilities,
            transport,
            own: host.own,
            base: host.base,
            stands_for,
            header: host.header,
            ..Self::new(shared, host.address, Some(host.tls), credentials)
        }
    }

    /// Where it is, for people: a mirror may be a path on a host.
    pub(crate) fn name(&self) -> String {
        format!("{}{}", self.address, self.base.strip_suffix(V2).unwrap_or(&self.base))
    }

    /// The address of a path of the registry (`/v2/…`).
    fn uri(&self, home: &Origin, path: &str) -> Result<Uri> {
        let rest = path.strip_prefix(V2).unwrap_or(path);
        match &self.stands_for {
            // As containerd tells its mirrors.
            Some(name) => {
                let mark = if rest.contains('?') { '&' } else { '?' };
                home.uri(&format!("{}{rest}{mark}ns={}", self.base, escape(name)))
            }
            None => home.uri(&format!("{}{rest}", self.base)),
        }
    }

    /// The registry's origin. Whether an insecure one speaks TLS is tried once.
    pub(crate) async fn origin(&self) -> Result<Origin> {
        if let Some(tls) = self.tls {
            return Ok(Origin::new(tls, &self.address));
        }
        let authority = self.address.to_string();
        let network = &self.shared.transport.network;
        let insecure = network.insecure.contains(&authority, &self.address.host);
        // A given certificate authority is the wish that it be asked.
        if !insecure || network.trust.has_authority(&authority) {
            return Ok(Origin::new(true, &self.address));
        }
        let known = self.shared.schemes.lock().unwrap_or_else(PoisonError::into_inner).get(&self.address).copied();
        if let Some(tls) = known {
            return Ok(Origin::new(tls, &self.address));
        }
        match network.speaks_tls(&self.address).await {
            Ok(tls) => {
                let mut schemes = self.shared.schemes.lock().unwrap_or_else(PoisonError::into_inner);
                schemes.insert(self.address.clone(), tls);
                Ok(Origin::new(tls, &self.address))
            }
            Err(error) => {
                let uri = Origin::new(false, &self.address).uri("/v2/")?;
                Err(unreachable(&Method::GET, &uri, error))
            }
        }
    }

    /// Makes a request until it has an answer that another attempt would not change. Answers of any status are
    /// given back, but for those that came of a bad moment and stayed.
    pub(crate) async fn call(&self, call: &Call) -> Result<Reply> {
        let mut retry = Retry::default();
        loop {
            let error = match self.once(call, || call.body.clone().into()).await {
                Ok(reply) if !is_bad_moment(reply.status) => return Ok(reply),
                Ok(reply) => reply.refusal().await,
                Err(error) => error,
            };
            self.forget_scheme(&error);
            match retry.after(&error) {
                Some(wait) => {
                    tracing::debug!("asked again in {wait:?}: {}", error.message());
                    tokio::time::sleep(wait).await;
                }
                None => return Err(error),
            }
        }
    }

    /// Makes a request: shows credentials when asked for, follows redirects. `body` makes the body for each of them.
    pub(crate) async fn once(&self, call: &Call, body: impl Fn() -> Payload) -> Result<Reply> {
        let home = self.origin().await?;
        let mut uri = match &call.target {
            Target::Path(path) => self.uri(&home, path)?,
            Target::Uri(uri) => uri.clone(),
        };
        let mut scopes = call.scopes.clone();
        let mut challenged = false;
        let mut refused = None;
        let mut hops = 0;
        loop {
            let at_home = Origin::of(&uri).is_some_and(|origin| origin == home);
            let authorization =
                if at_home { self.authorization(&home, &scopes, refused.as_deref()).await? } else { None };
            let mut request = Request::new(body());
            *request.method_mut() = call.method.clone();
            *request.uri_mut() = uri.clone();
            request.headers_mut().clone_from(&call.headers);
            request.headers_mut().insert(USER_AGENT, self.shared.user_agent.clone());
            if at_home {
                request.headers_mut().extend(self.header.clone());
            }
            if let Some((value, _)) = &authorization {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            self.transport.authorize_proxy(&mut request);
            let response = self.transport.send(self.reach(&home, &uri), request, call.wait).await?;
            let (head, body) = response.into_parts();
            let reply = Reply { method: call.method.clone(), uri, status: head.status, headers: head.headers, body };
            if reply.status == StatusCode::UNAUTHORIZED && at_home && !challenged {
                challenged = true;
                if self.learn(&home, &reply.headers, &mut scopes) {
                    refused = authorization.and_then(|(_, token)| token);
                    uri = reply.uri;
                    continue;
                }
            }
            match self.redirect(&home, &reply, hops)? {
                Some(next) => uri = next,
                None => return Ok(reply),
            }
            hops += 1;
        }
    }

    fn reach(&self, home: &Origin, uri: &Uri) -> Reach {
        match Origin::of(uri) {
            Some(origin) if origin.host == home.host => Reach::Named,
            _ if home.is_loopback() => Reach::SentByLocal,
            _ => Reach::Sent,
        }
    }

    /// The header for a request to the registry itself, and the token in it.
    async fn authorization(
        &self,
        home: &Origin,
        scopes: &[String],
        refused: Option<&str>,
    ) -> Result<Option<(HeaderValue, Option<String>)>> {
        let credentials = self.credentials.as_ref();
        if let Some(token) = credentials.and_then(|c| c.registry_token.as_deref()).filter(|token| !token.is_empty()) {
            return Ok(Some((bearer(token)?, None)));
        }
        let auth = self.shared.auths.lock().unwrap_or_else(PoisonError::into_inner).get(home).cloned();
        let service = match auth {
            None => return Ok(None),
            Some(Auth::Basic) => {
                let credentials = credentials.filter(|c| !c.username.is_empty() || !c.password.is_empty());
                return credentials.map(|c| Ok((basic(c)?, None))).transpose();
            }
            Some(Auth::Token(service)) => service,
        };
        let wish = self.wish(home, &service, scopes, false);
        let tokens = &self.shared.tokens;
        let token = match tokens.kept(&wish, refused) {
            Some(token) => token,
            None => {
                let _turn = self.fetching.lock().await;
                match tokens.kept(&wish, refused) {
                    Some(token) => token,
                    None => tokens.fetch(&*self.transport_to(home, &service)?, &wish).await?.token,
                }
            }
        };
        Ok(Some((bearer(&token)?, Some(token))))
    }

    fn wish<'a>(&'a self, home: &'a Origin, service: &'a Service, scopes: &'a [String], offline: bool) -> Wish<'a> {
        let user_agent = self.shared.user_agent.to_str().unwrap_or_default();
        let credentials = self.credentials.as_ref();
        Wish { registry: home, service, scopes, credentials, user_agent, offline }
    }

    /// Takes in a challenge; whether there is an answer to it.
    fn learn(&self, home: &Origin, headers: &HeaderMap, scopes: &mut Vec<String>) -> bool {
        let all = challenges(headers);
        let Some(auth) = Auth::of(&all) else { return false };
        if auth == Auth::Basic && self.credentials.is_none() {
            return false;
        }
        // Registries that are behind a prefix know the scope better.
        let asked = all.iter().filter(|c| c.scheme == "bearer").filter_map(|c| c.parameter("scope"));
        for scope in asked.flat_map(|scope| scope.split(' ')).filter(|scope| !scope.is_empty()) {
            if !covers(scopes, scope) {
                scopes.push(scope.to_owned());
            }
        }
        self.shared.auths.lock().unwrap_or_else(PoisonError::into_inner).insert(home.clone(), auth);
        true
    }

    /// Where to go on, if the answer is a redirect.
    fn redirect(&self, home: &Origin, reply: &Reply, hops: usize) -> Result<Option<Uri>> {
        let kept = matches!(reply.status.as_u16(), 307 | 308);
        let reading = reply.method == Method::GET || reply.method == Method::HEAD;
        if !(kept || reading && matches!(reply.status.as_u16(), 301..=303)) {
            return Ok(None);
        }
        let wrong = |reason: String| DistributionError::Redirect {
            method: go_name(&reply.method),
            url: without_query(&reply.uri),
            reason,
        };
        if hops >= MAX_REDIRECTS {
            return Err(wrong(format!("stopped after {MAX_REDIRECTS} redirects")));
        }
        let location = reply.header(LOCATION.as_str()).ok_or_else(|| wrong("a redirect without a location".into()))?;
        let next = join(&reply.uri, location).ok_or_else(|| wrong("a redirect to no address".into()))?;
        let origin = Origin::of(&next).ok_or_else(|| wrong("a redirect to no http(s) address".into()))?;
        if home.tls && !origin.tls {
            return Err(wrong(format!("a redirect from https to plain http, to {origin}")));
        }
        Ok(Some(next))
    }

    /// A registry that cannot be reached may have changed its scheme meanwhile.
    fn forget_scheme(&self, error: &DistributionError) {
        if matches!(error, DistributionError::Unreachable { .. }) {
            self.shared.schemes.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.address);
        }
    }

    /// Whether it could not be reached a moment ago.
    pub(crate) fn is_down(&self) -> bool {
        let down = self.shared.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.get(&self.address).is_some_and(|since| since.elapsed() < DOWN)
    }

    /// Remembers what keeps an endpoint from being of use.
    pub(crate) fn note_failure(&self, error: &DistributionError) {
        tracing::debug!("registry {} could not serve: {}", self.address, error.message());
        if matches!(error, DistributionError::Unreachable { .. }) {
            let mut down = self.shared.down.lock().unwrap_or_else(PoisonError::into_inner);
            down.insert(self.address.clone(), Instant::now());
        }
    }

    /// Shows the credentials to the registry, and gives the refresh token that its token service gives for them.
    pub(crate) async fn login(&self) -> Result<Option<String>> {
        let home = self.origin().await?;
        // What is known may be out of date, and without a challenge nothing would be shown.
        self.shared.auths.lock().unwrap_or_else(PoisonError::into_inner).remove(&home);
        let call = Call::new(Method::GET, "/v2/".into(), Vec::new());
        let reply = self.call(&call).await?;
        if !reply.status.is_success() {
            let (url, status) = (without_query(&reply.uri), reply.status);
            let error = reply.refusal().await;
            let DistributionError::Refused(mut refusal) = error else { return Err(error) };
            refusal.context = Some(format!("login attempt to {url} failed with status: {status}"));
            return Err(DistributionError::Refused(refusal));
        }
        let auth = self.shared.auths.lock().unwrap_or_else(PoisonError::into_inner).get(&home).cloned();
        match auth {
            Some(Auth::Token(service)) => {
                let wish = self.wish(&home, &service, &[], true);
                Ok(self.shared.tokens.fetch(&*self.transport_to(&home, &service)?, &wish).await?.refresh_token)
            }
            _ => Ok(None),
        }
    }
}

/// Statuses that pass.
fn is_bad_moment(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether one of `scopes` allows all that `wanted` does (`repository:NAME:pull,push`).
fn covers(scopes: &[String], wanted: &str) -> bool {
    let Some((name, actions)) = wanted.rsplit_once(':') else { return false };
    scopes.iter().any(|scope| {
        scope.rsplit_once(':').is_some_and(|(have, may)| {
            have == name && actions.split(',').all(|action| may.split(',').any(|other| other == action))
        })
    })
}

/// The error for a connection that ended in the middle of a body.
pub(crate) fn lost(method: &Method, uri: &Uri, reason: String) -> DistributionError {
    unreachable(method, uri, ConnectError::Lost(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_cover_less() {
        let have = ["repository:a/b:pull,push".to_owned()];
        assert!(covers(&have, "repository:a/b:pull"));
        assert!(covers(&have, "repository:a/b:push,pull"));
        assert!(!covers(&have, "repository:a/b:delete"));
        assert!(!covers(&have, "repository:a:pull"));
        assert!(!covers(&[], ""));
    }

    #[test]
    fn tokens_go_before_passwords() {
        let challenge = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("www-authenticate", HeaderValue::from_static(text));
            Auth::of(&challenges(&headers))
        };
        assert!(matches!(challenge("Basic realm=x, Bearer realm=\"https://a/\""), Some(Auth::Token(_))));
        assert_eq!(challenge("Basic realm=x"), Some(Auth::Basic));
        assert_eq!(challenge("Bearer service=x"), None);
        assert_eq!(challenge("Digest realm=x"), None);
    }
}
