//! After a start of the daemon: what runs is taken up, what ended is written down.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::task::JoinSet;
use wharf_monitor::Exit;
use wharf_monitor::client::Event;

use crate::engine::{Engine, blocking, now};
use crate::error::{EngineError, Result};
use crate::process::Process;
use crate::record::{Container, Status};
use crate::remove::RemoveOptions;
use crate::slot::Slot;
use crate::supervise::next;

/// How long the first words of all monitors together are waited for. Each has one at hand, unless it was stopped or
/// hangs in a start; what runs under such a one is not seen more closely then.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// How long a start may go on without the daemon that has begun it.
const START_WITHOUT_ASKER: Duration = Duration::from_secs(60);
/// Docker's code of a container that could not be started.
const NOT_STARTED: i32 = 128;

/// A monitor that is there: a connection, unless it takes none, and what it has said first.
#[derive(Debug, Default)]
struct Found {
    stream: Option<UnixStream>,
    first: Option<Event>,
}

impl Engine {
    /// Takes up the containers that run, and closes the records of those that ended.
    ///
    /// A row may be older than what happened last: a daemon that was killed has not written everything. What runs has a
    /// monitor, and what ended has left its `exit.json`.
    pub(crate) async fn recover(&self) -> Result<()> {
        let mut found = self.find_monitors().await;
        let ended = self.ended_since(&found).await?;
        let mut alive = Vec::new();
        let mut groups = BTreeMap::new();
        for slot in self.inner.slots.all() {
            let record = slot.record();
            let monitor = found.remove(&slot.id);
            if record.state.status == Status::Removing {
                // That is in the row only where its volumes go, too.
                self.remove_volumes(&record).await;
                self.finish_removal(&slot, &record).await?;
            } else if self.take_up_found(&slot, monitor).await {
                alive.push(slot.id.clone());
            } else if record.state.status.is_active()
                || ended.contains(&slot.id)
                || self.has_group(&record, &mut groups)
            {
                slot.change(|record| record.state.status = Status::Running);
                self.note_lost(&slot).await;
            } else {
                self.drop_shm(&record);
            }
        }
        let networks = self.networks().clone();
        let kept = alive.clone();
        let volumes = self.volumes().clone();
        blocking(move || {
            volumes.unmount_unused();
            networks.recover(&kept).map_err(|e| EngineError::from_source("cannot take up the networks", &e))
        })
        .await?;
        // Only now: the networks know who lives.
        for slot in alive.iter().filter_map(|id| self.inner.slots.find(id).ok()) {
            self.agree_on_networks(&slot).await?;
        }
        for slot in self.inner.slots.all() {
            let record = slot.record();
            // Also one whose start a crash has cut off.
            let was_started = || record.state.status == Status::Exited || self.exec_dir(&slot.id).exists();
            if record.host.auto_remove && !record.state.status.is_active() && was_started() {
                let _ = self.remove(&slot.id, RemoveOptions { volumes: true, ..RemoveOptions::default() }).await;
            }
        }
        Ok(())
    }

    /// Makes a container that runs and its record agree on its networks, after a daemon that was killed while it connected or
    /// disconnected it: what the record does not have was never said to be there, or is said to have gone.
    async fn agree_on_networks(&self, slot: &Arc<Slot>) -> Result<()> {
        let (engine, before) = (self.clone(), slot.record());
        let own = before.clone();
        let left = blocking(move || {
            let mut left = BTreeMap::new();
            for endpoint in engine.networks().endpoints_of(&own.id) {
                let Ok(network) = engine.networks().resolve(&endpoint.network_id) else { continue };
                if own.networks.contains_key(&network.name) {
                    left.insert(network.name, endpoint);
                    continue;
                }
                let netns = Process::of(&own).and_then(|process| process.namespace("net"));
                let undone = match &netns {
                    Ok(netns) => engine.networks().disconnect_from(&network.id, &own.id, netns.as_fd()),
                    // Between two starts nobody runs in it.
                    Err(_) => engine.networks().disconnect(&network.id, &own.id),
                };
                if let Err(error) = undone {
                    tracing::warn!("container {} stays on network {}: {error}", own.id, network.name);
                }
            }
            Ok((left, engine.networks().published(&own.id)))
        });
        let (left, published) = left.await?;
        let after = slot.change(|record| {
            for (name, endpoint) in &left {
                if let Some(settings) = record.networks.get_mut(name) {
                    crate::endpoint::fill(settings, endpoint);
                }
            }
            record.ports = record.config.exposed_ports.iter().flatten().map(|(port, _)| (port.clone(), None)).collect();
            crate::ports::note(&mut record.ports, &published);
        });
        let is_same = (&after.networks, &after.ports) == (&before.networks, &before.ports);
        if !is_same {
            self.save_soon(&after);
        }
        Ok(())
    }

    /// The monitors that are there, all asked at once: none keeps the daemon from its start.
    async fn find_monitors(&self) -> BTreeMap<String, Found> {
        let mut asked = JoinSet::new();
        // Of thousands that are stopped none is asked one by one: what runs has a directory there.
        let root = self.inner.options.exec_root.join("containers");
        let there = blocking(move || Ok(names_in(&root))).await.ok().flatten();
        for slot in self.inner.slots.all() {
            if there.as_ref().is_some_and(|there| !there.contains(&slot.id)) {
                continue;
            }
            let engine = self.clone();
            asked.spawn(async move {
                let mut found = Found::default();
                let heard = async {
                    let Some(stream) = engine.connect(&slot).await? else { return Ok(false) };
                    found.first = next(found.stream.insert(stream)).await;
                    // Who ends meanwhile has left its word on the disk.
                    Ok::<bool, EngineError>(found.first.is_some())
                };
                let is_there = match tokio::time::timeout(FIRST_WORDS, heard).await {
                    Ok(Ok(is_there)) => is_there,
                    // What cannot be told now is not taken for an end.
                    Ok(Err(_)) | Err(_) => true,
                };
                is_there.then(|| (slot.id.clone(), found))
            });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Those of the others whose `exit.json` tells of an end that the row does not know.
    async fn ended_since(&self, found: &BTreeMap<String, Found>) -> Result<BTreeSet<String>> {
        let records: Vec<_> = self.inner.slots.all().iter().map(|slot| slot.record()).collect();
        let (engine, found): (_, BTreeSet<String>) = (self.clone(), found.keys().cloned().collect());
        blocking(move || {
            let quiet = records.iter().filter(|record| !found.contains(&record.id) && !record.state.status.is_active());
            Ok(quiet.filter(|record| engine.has_ended_since(record)).map(|record| record.id.clone()).collect())
        })
        .await
    }

    /// Whether something of it may run on without its monitor: its row may not know that it was started. Of thousands that are
    /// stopped none is asked for one by one: `groups` has what there is below each parent.
    fn has_group(&self, record: &Container, groups: &mut BTreeMap<String, BTreeSet<String>>) -> bool {
        let path = self.cgroup(record);
        let Some((parent, name)) = path.rsplit_once('/') else { return false };
        if !groups.contains_key(parent) {
            groups.insert(parent.to_owned(), self.inner.hierarchies.names_in(parent));
        }
        groups.get(parent).is_some_and(|names| names.contains(name))
    }

    /// Whether `exit.json` tells of an end that the row does not know.
    fn has_ended_since(&self, record: &Container) -> bool {
        let Ok(bytes) = std::fs::read(self.dir(&record.id).join("exit.json")) else { return false };
        let exit: Option<Exit> = serde_json::from_slice(&bytes).ok();
        exit.is_some_and(|exit| exit.finished_at > record.state.finished_at)
    }

    /// False when nothing runs.
    async fn take_up_found(&self, slot: &Arc<Slot>, monitor: Option<Found>) -> bool {
        match monitor {
            None => false,
            Some(Found { stream: Some(stream), first: None }) if Self::is_starting(&stream) => {
                self.take_up_later(slot, stream).await;
                true
            }
            Some(Found { stream, first }) => {
                if first.is_none() {
                    tracing::warn!("the monitor of container {} does not answer: taken for one that runs", slot.id);
                }
                self.take_up(slot, stream, first).await
            }
        }
    }

    /// A start that was going on when the last daemon ended: it is this one's now, which may be called off, and is given up
    /// when it has had its time.
    async fn take_up_later(&self, slot: &Arc<Slot>, mut stream: UnixStream) {
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let (engine, slot) = (self.clone(), Arc::clone(slot));
        tokio::spawn(async move {
            let _turn = slot.turn.lock().await;
            let _starting = slot.starting();
            let _ = begun.send(());
            let heard = tokio::time::timeout(START_WITHOUT_ASKER, next(&mut stream)).await;
            let has_had_its_time = heard.is_err();
            if let Ok(Some(first)) = heard {
                engine.take_up(&slot, Some(stream), Some(first)).await;
                return;
            }
            engine.end_monitor(&slot).await;
            slot.change(|record| record.state.status = Status::Running);
            let error = "the daemon ended while it was being started, and the start came to nothing".into();
            let exit = Exit { code: NOT_STARTED, finished_at: now(), error, ..Exit::default() };
            engine.ended(&slot, exit).await;
            if has_had_its_time {
                engine.start_lost(&slot);
            }
        });
        // Whoever asks for something of it comes after that.
        let _ = has_begun.await;
    }
}

/// `None` where it cannot be read.
fn names_in(dir: &Path) -> Option<BTreeSet<String>> {
    std::fs::read_dir(dir).ok()?.map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}
