//! Sessions: connections of clients on which they serve what a build needs of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use crate::grpc::client::Callee;
use crate::grpc::{Code, Status};

/// A build may be asked for before its session has come: BuildKit waits as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that says nothing for so long is stopped or stuck.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// Longer names are none.
const MAX_NAME: usize = 512;
/// Sessions at once. Each is a connection.
const MOST: usize = 4096;

const ID: &str = "x-docker-expose-session-uuid";
const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const METHOD: &str = "x-docker-expose-session-grpc-method";

/// A client that can be asked. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Names what the client's directories are in, the same for the next build of it.
    pub(crate) shared_key: String,
    methods: Arc<BTreeSet<String>>,
    pub(crate) callee: Callee,
    /// True once the connection has ended.
    gone: watch::Receiver<bool>,
}

impl Session {
    /// Whether the client serves a method, such as `/moby.filesync.v1.FileSync/DiffCopy`. Names of methods differ in their
    /// case between clients.
    pub(crate) fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_lowercase())
    }

    /// One on a connection of a test's own.
    #[cfg(test)]
    pub(crate) async fn over_connection(
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        methods: &[&str],
    ) -> Self {
        let (callee, connection) = Callee::connect(io).await.unwrap();
        let (tell, gone) = watch::channel(false);
        tokio::spawn(async move {
            let _ = connection.await;
            let _ = tell.send(true);
        });
        let methods = Arc::new(methods.iter().map(|method| method.to_lowercase()).collect());
        Self { shared_key: String::new(), methods, callee, gone }
    }

    /// What the client answers: waited for no longer than it is there, and not silent for longer than [`SILENCE`].
    ///
    /// # Errors
    /// Those of the answer; says which question had none.
    pub(crate) async fn answered<T>(
        &self,
        question: &str,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.answered_within(SILENCE, question, answer).await
    }

    /// As [`Self::answered`], with another patience.
    ///
    /// # Errors
    /// Those of [`Self::answered`].
    pub(crate) async fn answered_within<T>(
        &self,
        patience: Duration,
        question: &str,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        tokio::select! {
            biased;
            answer = answer => answer,
            () = self.over() => Err(Status::unavailable("the client has gone")),
            () = tokio::time::sleep(patience) => {
                let question = question.rsplit('/').next().unwrap_or_default();
                let message = format!(
                    "the client has not answered {question} for {} seconds: is it stopped? Let it go on, and build again",
                    patience.as_secs()
                );
                Err(Status::new(Code::ResourceExhausted, message))
            }
        }
    }

    /// Waits until the client has gone.
    pub(crate) async fn over(&self) {
        let mut gone = self.gone.clone();
        // An error is its end, too.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

/// All sessions that are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Session>>,
    changed: Notify,
}

impl Sessions {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a client's connection as a session until it is closed.
    ///
    /// # Errors
    /// For headers that make no sense, and an ID that another session has.
    pub(crate) async fn serve(
        &self,
        headers: &HeaderMap,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), Status> {
        let text = |name: &str| {
            let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            match text.len() <= MAX_NAME {
                true => Ok(text.to_owned()),
                false => Err(Status::invalid(format!("{name} has more than {MAX_NAME} bytes"))),
            }
        };
        let id = text(ID)?;
        if id.is_empty() {
            return Err(Status::invalid(format!("a session without {ID}")));
        }
        let methods = headers.get_all(METHOD).iter().filter_map(|value| value.to_str().ok()).map(str::to_lowercase);
        let methods = Arc::new(methods.take(256).collect());
        let shared_key = text(SHARED_KEY)?;
        let connecting = Callee::connect(io).await;
        let (callee, connection) =
            connecting.map_err(|e| Status::unavailable(format!("the session cannot begin: {e}")))?;
        let (tell, gone) = watch::channel(false);
        let session = Session { shared_key, methods, callee, gone };
        {
            let mut open = self.open();
            if open.len() >= MOST {
                return Err(Status::unavailable(format!("{MOST} sessions are open already")));
            }
            if open.contains_key(&id) {
                return Err(Status::invalid(format!("session {id} is open already")));
            }
            open.insert(id.clone(), session);
        }
        self.changed.notify_waiters();
        let _closing = Closing { sessions: self, id, tell };
        if let Err(error) = connection.await {
            tracing::debug!("session: {error}");
        }
        Ok(())
    }

    /// The session of an ID; waits for it a while.
    ///
    /// # Errors
    /// When it does not come.
    pub(crate) async fn get(&self, id: &str) -> Result<Session, Status> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(session) = self.open().get(id).cloned() {
                    return session;
                }
                changed.await;
            }
        });
        found.await.map_err(|_| Status::unavailable(format!("no active session for {id}: the client serves no files")))
    }
}

/// Takes a session away when it is dropped.
struct Closing<'a> {
    sessions: &'a Sessions,
    id: String,
    tell: watch::Sender<bool>,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.sessions.open().remove(&self.id);
        let _ = self.tell.send(true);
    }
}

/// Values for headers of a call, as BuildKit's `session/filesync` writes them: where one is not plain ASCII, all of its name
/// are escaped as in the query of an address, and a header beside says so.
pub(crate) fn encoded(values: BTreeMap<&str, Vec<String>>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, values) in values {
        let plain = values.iter().all(|value| value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        if !plain {
            all.push((format!("{name}-encoded"), "1".to_owned()));
        }
        let value = |value: String| if plain { value } else { escaped(&value) };
        all.extend(values.into_iter().map(|text| (name.to_owned(), value(text))));
    }
    all
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_no_ascii_are_escaped() {
        let values = BTreeMap::from([("a", vec!["x y".to_owned()]), ("b", vec!["zwölf +".to_owned(), "x".to_owned()])]);
        let pairs = encoded(values);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "x y"), ("b-encoded", "1"), ("b", "zw%C3%B6lf+%2B"), ("b", "x")]);
    }
}
