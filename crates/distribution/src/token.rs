//! Tokens (distribution's "Token Authentication Specification"): the registry names a service that gives them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Uri};
use serde::Deserialize;
use wharf_reference::Digest;

use crate::address::{Origin, escape, join};
use crate::answer::Reply;
use crate::body::Payload;
use crate::connector::Reach;
use crate::credentials::Credentials;
use crate::error::{DistributionError, Result};
use crate::retry::Retry;
use crate::transport::Transport;

/// What a token lives when its service does not say (the specification's number).
const DEFAULT_LIFE: u64 = 60;
/// A token that ends while a request is on its way is refused: it is not used that long before.
const LEEWAY: u64 = 10;
const MAX_ANSWER: u64 = 1024 * 1024;
const WAIT: Duration = Duration::from_secs(30);
/// Redirects of a token service, within its own origin.
const MAX_REDIRECTS: usize = 3;
/// How the service is told who asks; Docker's own.
const CLIENT_ID: &str = "docker";
/// More tokens than this are too many to keep.
const MAX_KEPT: usize = 1024;

/// Where tokens of a registry come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) realm: String,
    pub(crate) service: Option<String>,
}

/// What a token is good for, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    service: Service,
    scopes: Vec<String>,
    /// A digest: no secret lies about in keys.
    owner: Option<Digest>,
}

#[derive(Clone)]
struct Kept {
    token: String,
    until: Instant,
}

/// Tokens that are good for a while yet.
#[derive(Default)]
pub(crate) struct Tokens {
    kept: Mutex<HashMap<Key, Kept>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// A wish for a token.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) registry: &'a Origin,
    pub(crate) service: &'a Service,
    pub(crate) scopes: &'a [String],
    pub(crate) credentials: Option<&'a Credentials>,
    pub(crate) user_agent: &'a str,
    /// Whether a refresh token is wanted too.
    pub(crate) offline: bool,
}

/// What the service gave.
pub(crate) struct Grant {
    pub(crate) token: String,
    pub(crate) refresh_token: Option<String>,
    life: u64,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("life", &self.life).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct GrantBody {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
}

impl Tokens {
    /// A token that was given before, unless it is the one that the registry has just refused.
    pub(crate) fn kept(&self, wish: &Wish<'_>, refused: Option<&str>) -> Option<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(&wish.key())?;
        (found.until > Instant::now() && refused != Some(found.token.as_str())).then(|| found.token.clone())
    }

    /// Asks the service for a token, and keeps it.
    ///
    /// # Errors
    /// `Realm` when the service may not be asked, a refusal when it refuses, `NoToken`.
    pub(crate) async fn fetch(&self, transport: &Transport, wish: &Wish<'_>) -> Result<Grant> {
        let mut retry = Retry::default();
        let grant = loop {
            match wish.ask(transport).await {
                Ok(grant) => break grant,
                Err(error) => match retry.after(&error) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error),
                },
            }
        };
        let life = Duration::from_secs(grant.life.saturating_sub(LEEWAY).max(grant.life / 2));
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, old| old.until > now);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        // Nothing can be added to a time for ever.
        let until = now.checked_add(life).unwrap_or(now);
        kept.insert(wish.key(), Kept { token: grant.token.clone(), until });
        Ok(grant)
    }
}

impl Wish<'_> {
    fn key(&self) -> Key {
        let owner = self.credentials.map(|c| {
            let parts = [Some(&c.username), Some(&c.password), c.identity_token.as_ref()];
            Digest::sha256(&serde_json::to_vec(&parts).unwrap_or_default())
        });
        Key { service: self.service.clone(), scopes: self.scopes.to_vec(), owner }
    }

    /// Checks the realm: a registry decides which host gets its users' credentials, but not that they travel in
    /// the clear.
    fn realm(&self) -> Result<(Uri, Reach)> {
        let wrong = |reason: &str| DistributionError::Realm {
            registry: self.registry.to_string(),
            reason: format!("{reason}: `{}`", self.service.realm.chars().take(256).collect::<String>()),
        };
        let uri: Uri = self.service.realm.parse().map_err(|_| wrong("it is no address"))?;
        let origin = Origin::of(&uri).ok_or_else(|| wrong("it is no http(s) address"))?;
        if !origin.tls {
            if self.registry.tls {
                return Err(wrong("it must be https as the registry is"));
            }
            let near = origin.host == self.registry.host || (origin.is_loopback() && self.registry.is_loopback());
            if self.credentials.is_some() && !near {
                return Err(wrong("credentials are not sent in the clear to another host"));
            }
        }
        let reach = match () {
            () if origin.host == self.registry.host => Reach::Named,
            () if self.registry.is_loopback() => Reach::SentByLocal,
            () => Reach::Sent,
        };
        Ok((uri, reach))
    }

    async fn ask(&self, transport: &Transport) -> Result<Grant> {
        let (realm, reach) = self.realm()?;
        let mut uri = realm.clone();
        let refresh = self.credentials.and_then(|c| c.identity_token.as_deref()).filter(|token| !token.is_empty());
        if refresh.is_none() {
            let mark = if realm.query().is_some() { '&' } else { '?' };
            let with_query = format!("{realm}{mark}{}", self.query());
            uri = with_query.parse().map_err(|_| DistributionError::Address(realm.to_string()))?;
        }
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(&uri, refresh)?;
            let method = request.method().clone();
            let response = transport.send(reach, request, WAIT).await?;
            let (head, body) = response.into_parts();
            let reply = Reply { method, uri: uri.clone(), status: head.status, headers: head.headers, body };
            if !reply.status.is_redirection() {
                return self.grant(reply).await;
            }
            let next = reply.header(LOCATION.as_str()).and_then(|location| join(&uri, location));
            // Whoever it is sent to, it is with the credentials: nobody else.
            let same = next.as_ref().and_then(Origin::of).is_some_and(|next| Some(next) == Origin::of(&uri));
            let Some(next) = next.filter(|_| same) else { break };
            uri = next;
        }
        let reason = "it redirects to another host, or without end".to_owned();
        Err(DistributionError::Realm { registry: self.registry.to_string(), reason })
    }

    fn request(&self, uri: &Uri, refresh: Option<&str>) -> Result<Request<Payload>> {
        let builder = Request::builder().uri(uri.clone()).header(ACCEPT, "application/json");
        let builder = builder.header(USER_AGENT, self.user_agent);
        let built = match (refresh, self.credentials) {
            (Some(refresh), _) => builder
                .method(Method::POST)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Bytes::from(self.form(refresh)).into()),
            (None, Some(credentials)) if !credentials.username.is_empty() || !credentials.password.is_empty() => {
                builder.header(AUTHORIZATION, basic(credentials)?).body(Bytes::new().into())
            }
            (None, _) => builder.body(Bytes::new().into()),
        };
        built.map_err(|_| DistributionError::Address(uri.to_string()))
    }

    fn query(&self) -> String {
        let mut query = Vec::new();
        if let Some(service) = &self.service.service {
            query.push(format!("service={}", escape(service)));
        }
        query.extend(self.scopes.iter().map(|scope| format!("scope={}", escape(scope))));
        let user = self.credentials.map(|c| c.username.as_str()).filter(|user| !user.is_empty());
        query.extend(user.map(|user| format!("account={}", escape(user))));
        if self.offline {
            query.push(format!("client_id={CLIENT_ID}&offline_token=true"));
        }
        query.join("&")
    }

    /// OAuth 2 (RFC 6749, section 6), as registries understand it.
    fn form(&self, refresh: &str) -> String {
        let service = self.service.service.as_deref().unwrap_or_default();
        format!(
            "grant_type=refresh_token&service={}&client_id={CLIENT_ID}&scope={}&refresh_token={}",
            escape(service),
            escape(&self.scopes.join(" ")),
            escape(refresh)
        )
    }

    async fn grant(&self, reply: Reply) -> Result<Grant> {
        if !reply.status.is_success() {
            return Err(reply.refusal().await);
        }
        let none = || DistributionError::NoToken { registry: self.registry.to_string() };
        let bytes = reply.bytes(MAX_ANSWER).await?;
        let body: GrantBody = serde_json::from_slice(&bytes).map_err(|_| none())?;
        let token = body.token.filter(|t| !t.is_empty()).or(body.access_token).filter(|t| !t.is_empty());
        // A fraction, as some services write it, or nonsense: `as` bounds it.
        let life = body.expires_in.filter(|life| *life >= 1.0).map_or(DEFAULT_LIFE, |life| life as u64);
        let refresh_token = body.refresh_token.filter(|token| !token.is_empty());
        Ok(Grant { token: token.ok_or_else(none)?, refresh_token, life })
    }
}

/// `Basic …` (RFC 7617).
pub(crate) fn basic(credentials: &Credentials) -> Result<HeaderValue> {
    secret(format!("Basic {}", STANDARD.encode(format!("{}:{}", credentials.username, credentials.password))))
}

/// `Bearer …` (RFC 6750).
pub(crate) fn bearer(token: &str) -> Result<HeaderValue> {
    secret(format!("Bearer {token}"))
}

fn secret(text: String) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text).map_err(|_| DistributionError::Answer("the token is none".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(registry: &str, realm: &str, credentials: Option<&Credentials>) -> Result<Reach> {
        let registry = Origin::of(&registry.parse().unwrap()).unwrap();
        let service = Service { realm: realm.into(), service: None };
        let wish =
            Wish { registry: &registry, service: &service, scopes: &[], credentials, user_agent: "", offline: false };
        wish.realm().map(|(_, reach)| reach)
    }

    #[test]
    fn realms_are_checked() {
        let ann = Credentials::new("ann", "x");
        assert_eq!(realm("https://a.example", "https://auth.example/token", Some(&ann)).unwrap(), Reach::Sent);
        assert_eq!(realm("https://a.example", "https://a.example:444/t", Some(&ann)).unwrap(), Reach::Named);
        assert_eq!(realm("http://localhost:5000", "http://127.0.0.1:1/t", Some(&ann)).unwrap(), Reach::SentByLocal);
        assert_eq!(realm("http://10.0.0.1", "http://auth.example/", None).unwrap(), Reach::Sent);
        assert!(realm("https://a.example", "http://a.example/token", None).is_err());
        assert!(realm("http://10.0.0.1", "http://auth.example/", Some(&ann)).is_err());
        for nonsense in ["", "token", "file:///etc/passwd", "https://u:p@a.example/", "https:///x"] {
            assert!(realm("https://a.example", nonsense, None).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn the_query_has_what_the_service_wants_to_know() {
        let registry = Origin::of(&"https://a.example".parse().unwrap()).unwrap();
        let service = Service { realm: "https://b/".into(), service: Some("a b".into()) };
        let ann = Credentials::new("ann", "x");
        let scopes = ["repository:x/y:pull".to_owned(), "repository:z:pull,push".to_owned()];
        let wish = Wish {
            registry: &registry,
            service: &service,
            scopes: &scopes,
            credentials: Some(&ann),
            user_agent: "",
            offline: false,
        };
        assert_eq!(
            wish.query(),
            "service=a%20b&scope=repository%3Ax%2Fy%3Apull&scope=repository%3Az%3Apull%2Cpush&account=ann"
        );
    }
}
