//! What happens, told to whoever listens.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::journal::Journal;

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
    past: Mutex<Past>,
    /// When this daemon began to tell.
    opened: jiff::Timestamp,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct Past {
    /// Shared with all who are told of them.
    events: VecDeque<Arc<Event>>,
    journal: Option<Journal>,
    /// The journal does not take any more just now, and it was said.
    failing: bool,
}

impl Events {
    /// With the events of the daemons before this one. Without its journal, which is said, a daemon works all the same.
    pub(crate) fn open(data_root: &Path) -> Self {
        let (journal, events) = match Journal::open(data_root, KEPT) {
            Ok((journal, events)) => (Some(journal), events),
            Err(error) => {
                tracing::warn!("events are not kept over a restart: {}: {error}", data_root.display());
                (None, VecDeque::new())
            }
        };
        let mut events: Vec<_> = events.into_iter().map(Arc::new).collect();
        // What was told late, as below.
        events.sort_by_key(|event| event.time_nano);
        let past = Past { events: events.into(), journal, failing: false };
        Self { past: Mutex::new(past), opened: jiff::Timestamp::now(), live: broadcast::channel(KEPT).0 }
    }

    /// Tells that `action` happened to the object `id`.
    pub fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        self.publish_late(kind, action, id, attributes, None);
    }

    /// As [`Self::publish`], of what may have happened before this daemon was there: it has the time at which it did, and
    /// its place among the others.
    pub(crate) fn publish_late(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: BTreeMap<String, String>,
        happened: Option<jiff::Timestamp>,
    ) {
        let late = happened.filter(|happened| *happened < self.opened);
        let event = Arc::new(event(kind, action, id, attributes, late));
        // Both under the one lock: a subscriber sees each event once, past or live.
        let mut past = lock(&self.past);
        if past.events.len() == KEPT {
            past.events.pop_front();
        }
        let later = |other: &&Arc<Event>| late.is_some() && other.time_nano > event.time_nano;
        let place = past.events.len() - past.events.iter().rev().take_while(later).count();
        past.events.insert(place, Arc::clone(&event));
        // A write that nobody waits for on a disk: as quick as the copy.
        past.keep(&event);
        // Nobody listening is not an error.
        let _ = self.live.send(event);
    }

    /// Whether a daemon before this one has told of what happened to `id` then: it tells at once, and may be killed before what
    /// happened is in its rows. `next` is what must happen to the object before the same can happen to it again.
    pub(crate) fn was_told(&self, action: &str, next: &str, id: &str, happened: jiff::Timestamp) -> bool {
        if happened >= self.opened {
            return false;
        }
        let time = i64::try_from(happened.as_nanosecond()).unwrap_or(i64::MAX);
        let past = lock(&self.past);
        let after = past.events.iter().filter(|event| event.time_nano >= time && event.actor.id == id);
        let mut after = after.filter(|event| event.action == action || event.action == next);
        after.next().is_some_and(|event| event.action == action)
    }

    /// Tells those who listen now, and nobody who asks later.
    pub(crate) fn publish_live(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let _past = lock(&self.past);
        let _ = self.live.send(Arc::new(event(kind, action, id, attributes, None)));
    }

    /// The events that are kept, the oldest first.
    pub fn past(&self) -> Vec<Arc<Event>> {
        lock(&self.past).events.iter().cloned().collect()
    }

    /// A receiver of all that follow. Who is 1,024 events behind misses some and is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.live.subscribe()
    }

    /// [`Self::past`] and [`Self::subscribe`] of one moment: no event is in both, or in neither.
    pub fn subscribe_with_past(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = lock(&self.past);
        (past.events.iter().cloned().collect(), self.live.subscribe())
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

fn event(
    kind: &str,
    action: &str,
    id: &str,
    attributes: BTreeMap<String, String>,
    time: Option<jiff::Timestamp>,
) -> Event {
    let time = time.unwrap_or_else(jiff::Timestamp::now);
    Event {
        kind: kind.into(),
        action: action.into(),
        actor: Actor { id: id.into(), attributes },
        scope: "local".into(),
        time: time.as_second(),
        time_nano: i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX),
    }
}

impl Past {
    fn keep(&mut self, event: &Event) {
        let Some(journal) = &mut self.journal else { return };
        match journal.append(event) {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!("events are not kept over a restart at the moment: {error}");
            }
            Err(_) => {}
        }
    }
}

/// A poisoned lock only says that another thread panicked; the data is still whole, as no writer
/// here leaves it half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
