//! What happens, told to whoever listens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Docker keeps 256 in memory; ours are small, and `events --since` is the more useful the more are kept.
const KEPT: usize = 1024;

/// One event, in the words of the API.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// `container`, `image`, `network`, `volume` or `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    pub attributes: BTreeMap<String, String>,
}

/// The last events and everybody who waits for the next.
#[derive(Debug)]
pub struct Events {
    past: Mutex<VecDeque<Event>>,
    live: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { past: Mutex::new(VecDeque::with_capacity(64)), live: broadcast::channel(KEPT).0 }
    }
}

impl Events {
    /// Tells that `action` happened to the object `id`.
    pub fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let now = jiff::Timestamp::now();
        let event = Event {
            kind: kind.into(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            scope: "local".into(),
            time: now.as_second(),
            time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
        };
        // Both under the one lock: a subscriber sees each event once, past or live.
        let mut past = lock(&self.past);
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(event.clone());
        // Nobody listening is not an error.
        let _ = self.live.send(event);
    }

    /// The events that are kept, oldest first, and a receiver of all that follow.
    pub fn subscribe(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = lock(&self.past);
        (past.iter().cloned().collect(), self.live.subscribe())
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

/// A poisoned lock only says that another thread panicked; the data is still whole, as no writer
/// here leaves it half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
