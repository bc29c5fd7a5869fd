//! What every request needs, and which handler answers it.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, HeaderName, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::sync::RwLock;
use wharf_store::Store;

use crate::answer::{self, Answer};
use crate::error::{ApiError, Code};
use crate::inflow::Inflow;
use crate::passwords::Passwords;
use crate::repositories::Repositories;
use crate::route::{Query, Route};
use crate::sessions::Sessions;
use crate::{blobs, listings, manifests, uploads};

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

/// A registry that is open.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) repositories: Repositories,
    pub(crate) sessions: Arc<Sessions>,
    /// Held for reading while a blob comes in and nobody names it yet, for writing by the collection.
    pub(crate) incoming: Arc<RwLock<()>>,
    passwords: Option<Arc<Passwords>>,
    read_only: bool,
}

/// A request, taken apart.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) query: Query,
    pub(crate) body: Inflow,
}

impl Ask {
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }
}

impl App {
    pub(crate) fn new(store: Store, sessions: Sessions, passwords: Option<Passwords>, read_only: bool) -> Self {
        Self {
            repositories: Repositories::new(store),
            sessions: Arc::new(sessions),
            incoming: Arc::default(),
            passwords: passwords.map(Arc::new),
            read_only,
        }
    }

    /// Answers a request, and says who asked.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> (Answer, Option<String>) {
        let (head, body) = request.into_parts();
        let mut user = None;
        // As distribution's registry has it: who waits for one to be up asks here, without a password.
        if head.uri.path() == "/" {
            let mut alive = answer::bytes(StatusCode::OK, "text/plain; charset=utf-8", "");
            answer::set(&mut alive, CACHE_CONTROL, "no-cache");
            return (alive, None);
        }
        if let Some(passwords) = &self.passwords {
            let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            if let Some(authorization) = authorization {
                user = passwords.user(authorization).await;
            }
            if user.is_none() {
                let mut answer = answer::refusal(&Code::Unauthorized.into());
                answer::set(&mut answer, WWW_AUTHENTICATE, "Basic realm=\"Wharf registry\"");
                return (answer, None);
            }
        }
        let query = Query::parse(head.uri.query());
        let route = Route::parse(head.uri.path());
        let putting = head.method == Method::PUT;
        let ask = Ask { method: head.method, headers: head.headers, query, body: Inflow::new(body) };
        let answered = match route {
            Ok(Some(route)) => self.route(route, ask).await,
            Ok(None) => Ok(answer::bytes(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")),
            // Whoever asks for what cannot be there is told that it is not; to put it there is what is wrong.
            Err(error) if error.code() == Code::TagInvalid && !putting => Err(Code::ManifestUnknown.into()),
            Err(error) => Err(error),
        };
        (answered.unwrap_or_else(|error| answer::refusal(&error)), user)
    }

    async fn route(&self, route: Route, ask: Ask) -> Result<Answer> {
        let reading = ask.method == Method::GET || ask.method == Method::HEAD;
        if self.read_only && !reading {
            return Err(Code::Denied.into());
        }
        let method = ask.method.clone();
        match (route, method.as_str()) {
            (Route::Version, "GET" | "HEAD") => Ok(answer::bytes(StatusCode::OK, "application/json", "{}")),
            (Route::Catalog, "GET" | "HEAD") => listings::catalog(self, &ask).await,
            (Route::Tags { name }, "GET" | "HEAD") => listings::tags(self, &ask, name).await,
            (Route::Referrers { name, digest }, "GET" | "HEAD") => listings::referrers(self, &ask, name, digest).await,
            (Route::Blob { name, digest }, "GET" | "HEAD") => blobs::get(self, &ask, name, digest).await,
            (Route::Blob { name, digest }, "DELETE") => blobs::delete(self, name, digest).await,
            (Route::Uploads { name }, "POST") => uploads::begin(self, ask, name).await,
            (Route::Upload { name, id }, "GET" | "HEAD") => uploads::status(self, name, id).await,
            (Route::Upload { name, id }, "PATCH") => uploads::append(self, ask, name, id).await,
            (Route::Upload { name, id }, "PUT") => uploads::finish(self, ask, name, id).await,
            (Route::Upload { name, id }, "DELETE") => uploads::cancel(self, name, id).await,
            (Route::Manifest { name, reference }, "GET" | "HEAD") => manifests::get(self, &ask, name, reference).await,
            (Route::Manifest { name, reference }, "PUT") => manifests::put(self, ask, name, reference).await,
            (Route::Manifest { name, reference }, "DELETE") => manifests::delete(self, name, reference).await,
            (route, _) => Ok(not_allowed(&route)),
        }
    }

    /// Runs a change or a look at rows, which wait for the disk, beside the requests.
    pub(crate) async fn rows<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Repositories) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let repositories = self.repositories.clone();
        tokio::task::spawn_blocking(move || f(&repositories)).await?
    }
}

fn not_allowed(route: &Route) -> Answer {
    let allowed = match route {
        Route::Version | Route::Catalog | Route::Tags { .. } | Route::Referrers { .. } => "GET, HEAD",
        Route::Blob { .. } => "DELETE, GET, HEAD",
        Route::Uploads { .. } => "POST",
        Route::Upload { .. } => "DELETE, GET, HEAD, PATCH, PUT",
        Route::Manifest { .. } => "DELETE, GET, HEAD, PUT",
    };
    let mut answer = answer::refusal(&Code::Unsupported.into());
    answer::set(&mut answer, ALLOW, allowed);
    answer
}
