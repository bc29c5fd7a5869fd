//! Requests and answers, one at a time, without knowing what they are about.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::address::Origin;
use crate::body::Payload;
use crate::connector::{Connector, Network, Reach};
use crate::error::{ConnectError, DistributionError, Result};
use crate::tls::OwnTls;

/// Registries close theirs after a minute at most; ours go before.
const IDLE: Duration = Duration::from_secs(30);
/// As many layers as are fetched at once, and one to spare.
const IDLE_PER_HOST: usize = 8;

/// Three pools of connections, so that none is used for what its maker was not allowed to reach.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) network: Arc<Network>,
    named: Pool<Connector, Payload>,
    sent: Pool<Connector, Payload>,
    sent_by_local: Pool<Connector, Payload>,
}

impl Transport {
    /// With settings for one origin, if there are some.
    pub(crate) fn new(network: Arc<Network>, own: Option<(Origin, OwnTls)>) -> Self {
        let own = own.map(Arc::new);
        let pool = |reach| {
            Pool::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .build(Connector::new(network.clone(), reach, own.clone()))
        };
        let (named, sent, sent_by_local) = (pool(Reach::Named), pool(Reach::Sent), pool(Reach::SentByLocal));
        Self { network, named, sent, sent_by_local }
    }

    /// Sends a request and waits for the head of the answer, at most `wait`.
    pub(crate) async fn send(
        &self,
        reach: Reach,
        request: Request<Payload>,
        wait: Duration,
    ) -> Result<Response<Incoming>> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let pool = match reach {
            Reach::Named => &self.named,
            Reach::Sent => &self.sent,
            Reach::SentByLocal => &self.sent_by_local,
        };
        match tokio::time::timeout(wait, pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(&method, &uri, explain(&error))),
            Err(_) => Err(unreachable(&method, &uri, ConnectError::Timeout)),
        }
    }

    /// Logs in to a proxy for plain requests; those by TLS are tunnelled, and the connection has logged in.
    pub(crate) fn authorize_proxy(&self, request: &mut Request<Payload>) {
        if request.uri().scheme_str() != Some("http") {
            return;
        }
        let proxy = self.network.proxies.for_uri(request.uri());
        if let Some(authorization) = proxy.and_then(|proxy| proxy.authorization.clone()) {
            request.headers_mut().insert(hyper::header::PROXY_AUTHORIZATION, authorization);
        }
    }
}

/// The error of a request that had no answer.
pub(crate) fn unreachable(method: &Method, uri: &Uri, source: ConnectError) -> DistributionError {
    // What failed before there was a connection has nothing to do with the path: Docker shows its first one.
    let url = match (&source, Origin::of(uri)) {
        (ConnectError::Lost(_) | ConnectError::Timeout, _) | (_, None) => without_query(uri),
        (_, Some(origin)) => format!("{origin}/v2/"),
    };
    DistributionError::Unreachable { method: go_name(method), url, source }
}

/// Queries have signatures and upload states in them: nothing for logs.
pub(crate) fn without_query(uri: &Uri) -> String {
    uri.to_string().split('?').next().unwrap_or_default().to_owned()
}

/// `Get` for `GET`.
pub(crate) fn go_name(method: &Method) -> String {
    let text = method.as_str();
    let (first, rest) = text.split_at(1.min(text.len()));
    format!("{first}{}", rest.to_ascii_lowercase())
}

/// Finds our own error in the pool's.
fn explain(error: &hyper_util::client::legacy::Error) -> ConnectError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = String::new();
    while let Some(found) = next {
        if let Some(ours) = found.downcast_ref::<ConnectError>() {
            return ours.clone();
        }
        last = found.to_string();
        next = found.source();
    }
    ConnectError::Lost(last)
}
