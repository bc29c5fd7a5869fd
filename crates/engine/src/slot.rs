//! The containers that the engine knows, and what happens to each: one slot per container, a lock of its own in each.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;
use wharf_monitor::{Attach, CallOff};

use crate::error::{EngineError, Result};
use crate::record::Container;

/// What those who wait for a container look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// A process, or a monitor about to start one, is there.
    pub(crate) active: bool,
    /// How often it has ended.
    pub(crate) exits: u64,
    pub(crate) code: i32,
    pub(crate) removed: bool,
}

/// A client that attached before the container was started.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) attach: Attach,
    /// The end that the monitor gets.
    pub(crate) stream: UnixStream,
}

/// Whose turn it is with a container.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    mutex: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
}

pub(crate) type TurnGuard<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Turn {
    pub(crate) async fn lock(&self) -> TurnGuard<'_> {
        let _waiting = Waiting::new(&self.waiting);
        self.mutex.lock().await
    }

    /// Waits with the whole thread.
    pub(crate) fn blocking_lock(&self) -> TurnGuard<'_> {
        let _waiting = Waiting::new(&self.waiting);
        self.mutex.blocking_lock()
    }

    /// For who has no need to wait for this container.
    pub(crate) fn try_lock(&self) -> Option<TurnGuard<'_>> {
        self.mutex.try_lock().ok()
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// One of those who are counted, until it is dropped: also when its request ends early.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One container.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: String,
    record: Mutex<Arc<Container>>,
    /// Start, stop, remove and their like, one at a time. Held over waits, but by this container's requests alone.
    pub(crate) turn: Turn,
    life: watch::Sender<Life>,
    pub(crate) pending: Mutex<Vec<Pending>>,
    /// How many requests are restarting it: its end now is not that of a container that goes with its end.
    pub(crate) restarts: AtomicUsize,
    /// Of the start whose turn it is.
    starting: Mutex<Option<Arc<CallOff>>>,
    /// When the stop whose turn it is kills.
    kill_by: watch::Sender<Option<Instant>>,
}

impl Slot {
    pub(crate) fn new(record: Container) -> Arc<Self> {
        let life = Life { active: record.state.status.is_active(), code: record.state.exit_code, ..Life::default() };
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(Arc::new(record)),
            turn: Turn::default(),
            life: watch::channel(life).0,
            pending: Mutex::default(),
            restarts: AtomicUsize::new(0),
            starting: Mutex::default(),
            kill_by: watch::channel(None).0,
        })
    }

    /// A stop that has the turn kills at this time, or sooner if somebody says so.
    pub(crate) fn kill_by(&self, time: Instant) -> watch::Receiver<Option<Instant>> {
        self.kill_by.send_replace(Some(time));
        self.kill_by.subscribe()
    }

    /// Has the stop that has the turn, if one has, kill at this time if it would later.
    pub(crate) fn kill_sooner(&self, time: Instant) {
        self.kill_by.send_if_modified(|by| {
            let is_sooner = by.is_some_and(|by| time < by);
            if is_sooner {
                *by = Some(time);
            }
            is_sooner
        });
    }

    /// No stop has the turn any more.
    pub(crate) fn kill_no_more(&self) {
        self.kill_by.send_replace(None);
    }

    /// Calls off the start that there is, if it makes no progress. False when there is none.
    pub(crate) fn call_off(&self) -> bool {
        let starting = lock(&self.starting);
        starting.as_ref().inspect(|start| start.call()).is_some()
    }

    /// A start can be called off until the answer is dropped; the caller has the turn.
    pub(crate) fn starting(&self) -> Starting<'_> {
        let call_off = Arc::<CallOff>::default();
        *lock(&self.starting) = Some(Arc::clone(&call_off));
        Starting { slot: self, call_off }
    }

    /// The container as it is now.
    pub(crate) fn record(&self) -> Arc<Container> {
        Arc::clone(&lock(&self.record))
    }

    /// Changes the record in memory and answers with the new one.
    pub(crate) fn change(&self, f: impl FnOnce(&mut Container)) -> Arc<Container> {
        let mut record = lock(&self.record);
        f(Arc::make_mut(&mut record));
        Arc::clone(&record)
    }

    /// It is being restarted until the answer is dropped.
    pub(crate) fn restarting(&self) -> Waiting<'_> {
        Waiting::new(&self.restarts)
    }

    pub(crate) fn set_life(&self, f: impl FnOnce(&mut Life)) {
        self.life.send_modify(f);
    }

    pub(crate) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }
}

/// A start that can be called off.
#[derive(Debug)]
pub(crate) struct Starting<'a> {
    slot: &'a Slot,
    pub(crate) call_off: Arc<CallOff>,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        *lock(&self.slot.starting) = None;
    }
}

/// All slots, by ID, and the names that are taken.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    inner: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Slot>>,
    names: BTreeMap<String, String>,
    /// IDs whose containers are gone, and whose directories are just going.
    leaving: BTreeSet<String>,
}

impl Slots {
    /// Takes a name for the container `id`.
    ///
    /// # Errors
    /// `Conflict` when another has it.
    pub(crate) fn take_name(&self, name: &str, id: &str) -> Result<()> {
        let mut inner = lock(&self.inner);
        match inner.names.get(name) {
            Some(owner) if owner != id => Err(taken(name, owner)),
            _ => {
                inner.names.insert(name.into(), id.into());
                Ok(())
            }
        }
    }

    /// Whether nobody has a name.
    ///
    /// # Errors
    /// `Conflict` when somebody has it.
    pub(crate) fn is_free(&self, name: &str) -> Result<()> {
        lock(&self.inner).names.get(name).map_or(Ok(()), |owner| Err(taken(name, owner)))
    }

    /// Gives a name back, if `id` has it.
    pub(crate) fn free_name(&self, name: &str, id: &str) {
        let mut inner = lock(&self.inner);
        if inner.names.get(name).is_some_and(|owner| owner == id) {
            inner.names.remove(name);
        }
    }

    pub(crate) fn insert(&self, slot: &Arc<Slot>) {
        lock(&self.inner).by_id.insert(slot.id.clone(), Arc::clone(slot));
    }

    /// Forgets a container. Its directories are on their way out until [`Self::left`].
    pub(crate) fn remove(&self, id: &str) {
        let mut inner = lock(&self.inner);
        inner.leaving.insert(id.into());
        inner.by_id.remove(id);
    }

    /// Nothing of a container is left on the disk, or all that could be done was.
    pub(crate) fn left(&self, id: &str) {
        lock(&self.inner).leaving.remove(id);
    }

    /// Whether an ID is a container's: one that is there, one that is being made, or one that is just going.
    pub(crate) fn knows(&self, id: &str) -> bool {
        let inner = lock(&self.inner);
        inner.by_id.contains_key(id) || inner.leaving.contains(id) || inner.names.values().any(|owner| owner == id)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        lock(&self.inner).by_id.values().cloned().collect()
    }

    /// By ID, name, or a prefix of the ID that fits one container only, in this order.
    ///
    /// # Errors
    /// `NotFound` with Docker's words; `InvalidParameter` for a prefix of several, and for nothing.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<Slot>> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        // A link is a name, too: of the container that it leads to.
        if let Some((parent, alias)) = bare.split_once('/')
            && !parent.is_empty()
            && let Ok(parent) = self.find(parent)
            && let Some(link) = parent.record().links.iter().find(|link| link.alias == alias)
        {
            return self.find(&link.to);
        }
        let inner = lock(&self.inner);
        let missing = || EngineError::not_found(format!("No such container: {text}"));
        if text.is_empty() {
            return Err(EngineError::invalid(format!("invalid name or ID supplied: {text:?}")));
        }
        if let Some(slot) = inner.by_id.get(text) {
            return Ok(Arc::clone(slot));
        }
        if let Some(slot) = inner.names.get(bare).and_then(|id| inner.by_id.get(id)) {
            return Ok(Arc::clone(slot));
        }
        let mut fitting = inner.by_id.range(text.to_owned()..).take_while(|(id, _)| id.starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some((_, slot)), None) => Ok(Arc::clone(slot)),
            (Some(_), Some(_)) => Err(EngineError::invalid(format!("Multiple IDs found with provided prefix: {text}"))),
            _ => Err(missing()),
        }
    }
}

fn taken(name: &str, owner: &str) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    ))
}

/// A poisoned lock only says that another thread panicked; what it guards is whole, as no writer here leaves it
/// half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
