//! The Engine API over HTTP.
//!
//! Parses, calls the engine, renders; knows nothing of containers itself. What differs between versions of the API
//! is decided here.
//!
//! - [`Api`], [`serve_connection`], [`serve_carried`]: the face for the daemon.
//! - `routes`: a file for each group of routes. `render`: engine records in the API's words, pure.
//! - `connection`: clients that half-close, and clients that have gone.
//! - `http`: bodies, answers and errors. `room`: what all clients' bodies may take; `pulled`: answers that go on, for any
//!   number of clients. `lenient`, `fields`, `objects`: JSON as Go takes it. `shims`: what older clients mean. `query`,
//!   `filters`: parameters. `auth`: credentials. `changes`: Dockerfile instructions of a commit.
//! - `patient`: what waits for slow clients.
//! - `origin`: requests that a page has a browser send.
//! - [`trace`]: requests as spans, for who exports them.
//! - `hijack`, `websocket`: connections that become a container's streams; `plain_hijack`: of who does not ask for it.
//!   `stdcopy`: their form. `detach`: the keys that leave them.

#![recursion_limit = "256"]

mod auth;
mod backlog;
mod changes;
mod connection;
mod detach;
mod fields;
mod filters;
mod go_json;
mod hijack;
mod http;
mod lenient;
mod moment;
mod named;
mod objects;
mod origin;
mod patient;
mod plain_hijack;
mod platform;
mod pulled;
mod query;
mod raw_target;
mod render;
mod room;
mod routes;
mod shims;
mod stdcopy;
pub mod trace;
mod tracked;
mod websocket;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use wharf_build::Builder;
use wharf_buildkit::BuildKit;
use wharf_engine::Engine;
use wharf_engine::caller::Caller;

use crate::connection::{Answers, Connection};
use crate::origin::Names;
use crate::trace::Tracer;
use crate::tracked::Tracked;

/// How long the first request of a new connection may take to come when no more are to be answered.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// A client that has not sent a request's head by then is cut off: connections that say nothing cost a task each.
/// Docker's time, as clients keep connections for their next request and do not expect to lose them earlier.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// And so where everybody may come, for metrics.
const METRICS_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The newest version of the API that is spoken, and the oldest.
pub const API_VERSION: (u32, u32) = (1, 56);
pub const MIN_API_VERSION: (u32, u32) = (1, 24);

/// What requests are answered with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    pub(crate) engine: Engine,
    pub(crate) builder: Builder,
    /// The same builder behind BuildKit's protocol.
    pub(crate) buildkit: BuildKit,
    pub(crate) only_metrics: bool,
    /// Everybody may come: but for pages of the World Wide Web.
    pub(crate) names: Option<Names>,
    /// The page of metrics, for all who ask at the same time.
    pub(crate) metrics: Arc<routes::Kept>,
    /// Clients' connections to their SSH agents.
    pub(crate) agents: Arc<routes::Agents>,
    pub(crate) tracer: Option<Tracer>,
    /// Clients are to take the classic builder.
    pub(crate) classic_builder: bool,
    /// Where subnets come from that nobody has chosen: their base, and the length of their prefixes.
    pub(crate) address_pools: Arc<[(String, u8)]>,
    /// Becomes true when no more requests are to come.
    pub(crate) closing: watch::Receiver<bool>,
}

impl Api {
    pub fn new(engine: Engine, builder: Builder) -> Self {
        let buildkit = BuildKit::new(engine.clone(), builder.clone(), routes::remote_contexts(&engine, &builder));
        Self {
            engine,
            builder,
            buildkit,
            only_metrics: false,
            names: None,
            metrics: Arc::default(),
            agents: Arc::default(),
            tracer: None,
            classic_builder: false,
            address_pools: Arc::default(),
            closing: watch::channel(false).1,
        }
    }

    /// The same, whose clients take the classic builder unless they are told otherwise (`features` has `buildkit: false`).
    #[must_use]
    pub fn with_classic_builder(mut self, classic: bool) -> Self {
        self.classic_builder = classic;
        self
    }

    /// The same, which tells that subnets come from these pools.
    #[must_use]
    pub fn with_address_pools(mut self, pools: &[(String, u8)]) -> Self {
        self.address_pools = pools.into();
        self
    }

    /// The same, telling of its requests.
    #[must_use]
    pub fn traced(mut self, tracer: Option<Tracer>) -> Self {
        self.tracer = tracer;
        self
    }

    /// The same, for everybody who reaches it, but no pages that a browser shows. `names` are names of this host by which
    /// clients call it, besides its addresses, `localhost`, and names of one word.
    #[must_use]
    pub fn open_to_all(mut self, names: Vec<String>) -> Self {
        self.names = Some(Names::new(names));
        self
    }

    /// The same until `closing` is true: then connections get the answer that is under way, and no other one.
    #[must_use]
    pub fn until(mut self, closing: watch::Receiver<bool>) -> Self {
        self.closing = closing;
        self
    }

    /// The same, for whoever may know how the engine fares and do nothing else.
    #[must_use]
    pub fn metrics_only(mut self) -> Self {
        self.only_metrics = true;
        self
    }
}

/// Serves one connection until it is closed, or has had the answer that was under way when [`Api::until`] said so.
pub fn serve_connection(io: UnixStream, api: Api) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    // Boxed here, and neither generic nor `async`: or all that is served would be compiled once more with its caller.
    Box::pin(serve(io, api, false))
}

/// As [`serve_connection`], of what is carried over from a connection of another kind: a client there that has ended its
/// input and one that has gone are not told apart, so an answer that takes longer than some seconds is nobody's then.
pub fn serve_carried(io: UnixStream, api: Api) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(serve(io, api, true))
}

async fn serve(io: UnixStream, api: Api, is_carried: bool) {
    let caller = caller(&io);
    let head_timeout = if api.only_metrics { METRICS_HEAD_TIMEOUT } else { HEAD_TIMEOUT };
    let answers = Answers::default();
    let connection = Connection::new(io, answers.clone()).carried(is_carried);
    let mut closing = api.closing.clone();
    let begun = Arc::new(Notify::new());
    let has_begun = Arc::clone(&begun);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        has_begun.notify_one();
        let (api, answers, under_way) = (api.clone(), answers.clone(), answers.begin());
        let mut span = api.tracer.as_ref().and_then(|tracer| tracer.begin(&request));
        async move {
            // On the heap while it is made, and not a part of each connection: its largest handler is tens of kilobytes.
            let answer = Box::pin(routes::answer(api, request));
            let answer = match caller {
                Some(caller) => caller.does(answer).await,
                None => answer.await,
            };
            span.iter_mut().for_each(|span| span.answered(answer.status().as_u16()));
            Ok::<_, Infallible>(answer.map(|body| Tracked::new(body, answers, (under_way, span))))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        // As Docker writes them: scripts compare headers by the letter.
        .title_case_headers(true)
        .header_read_timeout(head_timeout)
        // A client that closes while it waits for an answer has gone, and what was begun for it ends.
        .half_close(false)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        // Who would say so may have gone: then nobody does.
        Ok(_) = closing.wait_for(|closing| *closing) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // Of one that is new the first request may be on its way.
            let first = tokio::time::timeout(ON_ITS_WAY, begun.notified());
            let ended = tokio::select! {
                ended = served.as_mut() => Some(ended),
                _ = first => None,
            };
            match ended {
                Some(ended) => ended,
                None => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            }
        }
    };
    if let Err(error) = ended {
        // A client that went away: its own business.
        tracing::debug!("connection: {error}");
    }
}

/// Who is at the other end. One by TCP is carried over by this process itself: then that is not known.
fn caller(io: &UnixStream) -> Option<Caller> {
    let peer = io.peer_cred().ok()?;
    let pid = peer.pid().filter(|pid| pid.cast_unsigned() != std::process::id())?;
    Some(Caller { pid, uid: peer.uid() })
}
