//! Clients' SSH agents for builds: `POST /build/agent?token=TOKEN&id=ID`, a connection that is handed over.
//!
//! The client opens one before it is needed, and the next when something comes over it. A build whose request has the
//! same token takes them one after another.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};
use wharf_build::Agent;

use super::{Call, Result};
use crate::connection::has_hung_up;
use crate::hijack::{Streams, hijack};
use crate::http::ApiError;

/// Nobody guesses one of them.
const SHORTEST_TOKEN: usize = 32;
/// Connections that wait, of all clients.
const MOST: usize = 1024;
/// How long a command waits for its client's next connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that wait to be used.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    /// By token and ID.
    waiting: Mutex<BTreeMap<(String, String), VecDeque<UnixStream>>>,
    more: Notify,
}

/// Dropped, the connections of a token end.
pub(super) struct Guard {
    agents: Arc<Agents>,
    token: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.agents.lock().retain(|(token, _), _| *token != self.token);
    }
}

pub(super) fn park(call: Call) -> Result {
    let (token, id) = (call.query.text("token"), call.query.text("id"));
    if token.len() < SHORTEST_TOKEN {
        return Err(ApiError::bad("the token of an agent is too short"));
    }
    let (ours, theirs) = UnixStream::pair().map_err(|e| ApiError::bad(format!("no agent can be forwarded: {e}")))?;
    call.api.agents.add(token, id, ours)?;
    let (_, nothing) = mpsc::channel(1);
    let streams = Streams::new(Some(theirs), nothing);
    Ok(hijack(call.request, "application/vnd.docker.raw-stream", std::future::ready(streams)))
}

impl Agents {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), VecDeque<UnixStream>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, token: String, id: String, stream: UnixStream) -> std::result::Result<(), ApiError> {
        let mut waiting = self.lock();
        // Of clients that have gone.
        for streams in waiting.values_mut() {
            streams.retain(|stream| !has_hung_up(stream));
        }
        waiting.retain(|_, streams| !streams.is_empty());
        if waiting.values().map(VecDeque::len).sum::<usize>() >= MOST {
            return Err(ApiError::bad("too many agents are forwarded"));
        }
        waiting.entry((token, id)).or_default().push_back(stream);
        drop(waiting);
        self.more.notify_waiters();
        Ok(())
    }

    fn take(&self, key: &(String, String)) -> Option<UnixStream> {
        let mut waiting = self.lock();
        let streams = waiting.get_mut(key)?;
        std::iter::from_fn(|| streams.pop_front()).find(|stream| !has_hung_up(stream))
    }

    async fn next(&self, key: &(String, String)) -> io::Result<UnixStream> {
        let waiting = async {
            loop {
                // Before it is looked: nothing is missed in between.
                let more = self.more.notified();
                if let Some(stream) = self.take(key) {
                    return stream;
                }
                more.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| io::ErrorKind::TimedOut.into())
    }

    /// The agents of a build by their IDs, and what ends their connections.
    pub(super) fn of(self: &Arc<Self>, token: &str, ids: Vec<String>) -> (BTreeMap<String, Agent>, Guard) {
        let one = |id: String| {
            let (agents, key) = (Arc::clone(self), (token.to_owned(), id.clone()));
            let connect: Agent = Arc::new(move || {
                let (agents, key) = (Arc::clone(&agents), key.clone());
                Box::pin(async move { agents.next(&key).await })
            });
            (id, connect)
        };
        let guard = Guard { agents: Arc::clone(self), token: token.to_owned() };
        (ids.into_iter().map(one).collect(), guard)
    }
}
