//! BuildKit's protocol in front of our own builder: for buildx, compose, bake and the Docker clients that have BuildKit in them.
//!
//! ```text
//! client ── POST /grpc (h2c) ──► control ──► job ◄── bridge: the client's own build function, as buildx drives all builds
//!    ▲                                        │
//!    │                                     frontend ──► wharf_build::Builder ──► image
//!    └── POST /session (h2c), or in a stream of Control.Session: files, secrets, credentials, agents are asked for,
//!        outputs are sent (`session`, `filesync`, `asking`, `filesend`)
//! ```
//!
//! - [`BuildKit`]: the face for the server.
//! - `grpc`, `proto`: calls in both directions, and their messages. `tunnel`: a connection inside a call.
//! - `control`, `bridge`: the services `moby.buildkit.v1.Control` and `…frontend.LLBBridge`. `job`: a build that they speak of.
//! - `frontend`, `options`, `contexts`: what a client asks of `dockerfile.v0` as a request to the builder. `inputs`: what it takes from
//!   another build. `call`: what is asked about a Dockerfile without building it.
//! - `api_build`: the same builds by `POST /build?version=2`.
//! - `cache`: caches that come and go. `content`, `layout`: content stores of clients, and OCI layouts that come blob by blob.
//! - `history`: builds that were. `usage`: what the cache has, and what of it goes.
//! - `progress`, `failure`: what is shown of a build, and why it failed. `export`: what becomes of the result.
//!
//! Graphs in BuildKit's own language are not run: what a client sends of them is understood where it is a source and nothing else.

mod api_build;
mod asking;
mod bridge;
mod cache;
mod call;
mod capabilities;
mod content;
mod contexts;
mod control;
mod export;
mod failure;
mod filesend;
mod filesync;
mod frontend;
mod grpc;
mod history;
mod inputs;
mod job;
mod layout;
mod listing;
mod options;
mod progress;
mod proto;
mod remembered;
mod session;
mod tunnel;
mod usage;

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;

use hyper::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use wharf_build::Builder;
use wharf_engine::Engine;
use wharf_engine::caller::Caller;

use crate::api_build::Uploads;
pub use crate::api_build::{ApiBuild, ApiEvent, UPLOAD};
use crate::job::Jobs;
use crate::session::Sessions;

/// Gets the context that is at an address: the address, the name under which a Dockerfile that is alone is found, and whether
/// the repository's own directory belongs to it. The value is an archive; the error is the message.
pub type Remote = Arc<dyn Fn(String, String, bool) -> Fetched + Send + Sync>;

/// What [`Remote`] gives in time.
pub type Fetched = Pin<Box<dyn Future<Output = Result<Box<dyn Read + Send>, String>> + Send>>;

/// BuildKit's services over an engine and a builder. Cheap to clone.
#[derive(Clone)]
pub struct BuildKit {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) builder: Builder,
    pub(crate) remote: Remote,
    pub(crate) sessions: Sessions,
    pub(crate) jobs: Jobs,
    pub(crate) uploads: Uploads,
    pub(crate) listeners: history::Listeners,
}

impl std::fmt::Debug for BuildKit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildKit").field("sessions", &self.inner.sessions).finish_non_exhaustive()
    }
}

/// Works for who asks: each call has a task of its own, which knows nothing of the connection's.
pub(crate) async fn in_the_name_of<T>(caller: Option<Caller>, work: impl Future<Output = T>) -> T {
    match caller {
        Some(caller) => caller.does(work).await,
        None => work.await,
    }
}

impl BuildKit {
    pub fn new(engine: Engine, builder: Builder, remote: Remote) -> Self {
        let (sessions, jobs, uploads) = (Sessions::default(), Jobs::default(), Uploads::default());
        let listeners = history::Listeners::default();
        let inner = Inner { engine, builder, remote, sessions, jobs, uploads, listeners };
        Self { inner: Arc::new(inner) }
    }

    /// Serves the calls of a client that has got a connection by `POST /grpc`, until it is closed; in its name, if that is known.
    pub async fn serve_calls(&self, caller: Option<Caller>, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let own = self.clone();
        grpc::server::serve(io, move |call| {
            let own = own.clone();
            async move { in_the_name_of(caller, own.route(call)).await }
        })
        .await;
    }

    /// Keeps the session of a client that has got a connection by `POST /session`, until it is closed. The headers are
    /// those of the request.
    pub async fn serve_session(&self, headers: &HeaderMap, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        if let Err(status) = self.inner.sessions.serve(headers, io).await {
            tracing::debug!("a build session was refused: {}", status.message());
        }
    }

    async fn route(&self, call: grpc::server::Call) -> grpc::server::Answer {
        let path = call.path.clone();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (service, method) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match service {
            "moby.buildkit.v1.Control" => self.control(call, method).await,
            "moby.buildkit.v1.frontend.LLBBridge" => self.bridge(call, method).await,
            "containerd.services.content.v1.Content" => self.contents(call, method).await,
            "grpc.health.v1.Health" if method == "Check" => {
                // `SERVING`.
                let serving = proto::control::HealthResponse { status: 1 };
                call.unary(move |_: proto::Empty| async move { Ok(serving) }).await
            }
            _ => grpc::server::failed(grpc::Status::unimplemented(format!("unknown service {service}"))),
        }
    }
}
