//! Copies of volumes, made while nothing writes to them: containers that run with one are frozen for that moment.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use wharf_volume::{CreateVolume, Origin, Snapshot, Staged, Volume, VolumeError};

use crate::engine::{Engine, blocking, to_its_end};
use crate::error::{EngineError, Result};
use crate::record::Status;
use crate::slot::Slot;

/// How often it is looked again for containers that have begun to use a volume, or are still frozen for somebody else.
const TRIES: u32 = 600;
/// How long between two looks.
const PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    /// Makes a new volume with the content of another one, or of a snapshot. Answers with what was left out, in words.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where the name is taken.
    pub async fn clone_volume(&self, origin: Origin, request: CreateVolume) -> Result<(Volume, Vec<String>)> {
        let engine = self.clone();
        to_its_end(async move {
            let mut request = request;
            let size = engine.size_of_clone(&origin, &mut request)?;
            let mut staged = engine.copied(&origin, size).await?;
            let own = engine.clone();
            let (volume, skipped) = blocking(move || {
                let skipped = std::mem::take(&mut staged.skipped);
                for (key, value) in own.volumes().get(&origin.volume)?.labels {
                    request.labels.entry(key).or_insert(value);
                }
                Ok((own.volumes().adopt(staged, &request)?, skipped))
            })
            .await?;
            engine.tell_of("volume", "create", &volume.name, &[("driver", "local")]);
            Ok((volume, skipped))
        })
        .await
    }

    /// What a clone may become at most: what is asked for, or what the original may (`none` is no limit).
    fn size_of_clone(&self, origin: &Origin, request: &mut CreateVolume) -> Result<Option<u64>> {
        if let Some(other) = request.options.keys().find(|key| *key != "size") {
            return Err(EngineError::invalid(format!("invalid option: \"{other}\": a clone has a size alone")));
        }
        match request.options.get("size").map(String::as_str) {
            Some("none") => request.options.clear(),
            Some(_) => {}
            None => {
                let volume = self.volumes().get(&origin.volume)?;
                let size = volume.options.get("size").filter(|_| volume.limit.is_some());
                request.options.extend(size.map(|size| ("size".to_owned(), size.clone())));
            }
        }
        self.volumes().check(request)?;
        Ok(wharf_volume::size_of(&request.options))
    }

    /// Keeps what a volume has now, by the name `snapshot` or, when that is empty, by the time.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` where the name is taken.
    pub async fn snapshot_volume(&self, name: String, snapshot: String) -> Result<Snapshot> {
        let engine = self.clone();
        to_its_end(async move {
            let origin = Origin { volume: name.clone(), snapshot: None };
            let staged = engine.copied(&origin, None).await?;
            let own = engine.clone();
            let made = blocking(move || Ok(own.volumes().keep_snapshot(staged, &name, &snapshot)?)).await?;
            engine.tell_of("volume", "snapshot", &made.volume, &[("snapshot", &made.name)]);
            Ok(made)
        })
        .await
    }

    /// Gives a volume the content of its snapshot. What it had is gone then.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` while containers run with it.
    pub async fn restore_volume(&self, name: String, snapshot: String) -> Result<Vec<String>> {
        let engine = self.clone();
        to_its_end(async move {
            let origin = Origin { volume: name.clone(), snapshot: Some(snapshot.clone()) };
            let own = engine.clone();
            let skipped = blocking(move || {
                let volume = own.volumes().get(&origin.volume)?;
                own.volumes().check_replace("restore", &volume)?;
                let mut staged = own.volumes().stage_copy(&origin, &BTreeSet::new(), None)?;
                let skipped = std::mem::take(&mut staged.skipped);
                own.volumes().replace(staged, "restore", &origin.volume, false)?;
                Ok(skipped)
            })
            .await?;
            engine.tell_of("volume", "restore", &name, &[("snapshot", &snapshot)]);
            Ok(skipped)
        })
        .await
    }

    /// Gives a volume that no container has another name.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`.
    pub async fn rename_volume(&self, old: String, new: String) -> Result<Volume> {
        let engine = self.clone();
        to_its_end(async move {
            let (own, from) = (engine.clone(), old.clone());
            let volume = blocking(move || {
                let users = |name: &str| own.volume_users(name);
                Ok(own.volumes().rename(&from, &new, &users)?)
            })
            .await?;
            engine.tell_of("volume", "rename", &volume.name, &[("oldName", &old)]);
            Ok(volume)
        })
        .await
    }

    /// What [`Self::export_volume`] writes: a copy of a volume, or nothing for a snapshot, which does not change.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stage_export(&self, origin: &Origin) -> Result<Option<Staged>> {
        let (engine, origin) = (self.clone(), origin.clone());
        to_its_end(async move {
            if let Some(snapshot) = &origin.snapshot {
                let (own, name, snapshot) = (engine.clone(), origin.volume.clone(), snapshot.clone());
                let known = blocking(move || Ok(own.volumes().get(&name)?.snapshots.contains(&snapshot))).await?;
                return if known {
                    Ok(None)
                } else {
                    Err(EngineError::not_found(format!("get {origin}: no such volume")))
                };
            }
            engine.copied(&origin, None).await.map(Some)
        })
        .await
    }

    /// Writes a volume, or a snapshot, as a tar. Waits for the output.
    ///
    /// # Errors
    /// When the output ends.
    pub fn export_volume(&self, origin: &Origin, staged: Option<Staged>, output: &mut dyn Write) -> Result<()> {
        Ok(self.volumes().write_tar(origin, staged.as_ref(), output)?)
    }

    /// Makes a volume of a tar, or fills an empty one that is there. Waits for the input.
    ///
    /// # Errors
    /// `InvalidParameter` for an archive that cannot be taken, `Conflict` where the volume is in use or not empty.
    pub fn import_volume(&self, name: &str, input: &mut dyn Read) -> Result<Volume> {
        let there = self.volumes().get(name).ok();
        if let Some(volume) = &there {
            self.volumes().check_replace("import", volume)?;
        }
        let staged = self.volumes().stage_tar(name, input)?;
        if there.is_some() {
            return Ok(self.volumes().replace(staged, "import", name, true)?);
        }
        let request = CreateVolume { name: name.to_owned(), ..CreateVolume::default() };
        let volume = self.volumes().adopt(staged, &request)?;
        self.tell_of("volume", "create", &volume.name, &[("driver", "local")]);
        Ok(volume)
    }

    /// A copy with all that run with the volume frozen. They go on before it is on the disk, and whatever becomes of it; a
    /// daemon that starts after a kill lets them go on, too, as after a commit.
    async fn copied(&self, origin: &Origin, size: Option<u64>) -> Result<Staged> {
        let (volumes, own) = (self.volumes().clone(), origin.clone());
        let mut staged = blocking(move || Ok(volumes.stage_room(&own, size)?)).await?;
        if origin.snapshot.is_some() {
            return match self.copy_now(&mut staged, origin, BTreeSet::new()).await? {
                Ok(()) => Ok(staged),
                Err(error) => self.give_up(staged, error).await,
            };
        }
        // Or the end of one copy would let go on what another one needs frozen.
        let _alone = self.inner.volume_copies.lock().await;
        let mut frozen: Vec<Arc<Slot>> = Vec::new();
        let copied = self.freeze_and_copy(&mut staged, origin, &mut frozen).await;
        for slot in &frozen {
            if let Err(error) = self.unpause_after_commit(slot).await {
                tracing::error!("container {} stays frozen: {}", slot.id, error.message);
            }
        }
        match copied {
            Ok(()) => Ok(staged),
            Err(error) => self.give_up(staged, error).await,
        }
    }

    /// Removes what was begun of a copy: it may be large.
    async fn give_up(&self, staged: Staged, error: EngineError) -> Result<Staged> {
        blocking(move || {
            drop(staged);
            Err(error)
        })
        .await
    }

    async fn freeze_and_copy(&self, staged: &mut Staged, origin: &Origin, frozen: &mut Vec<Arc<Slot>>) -> Result<()> {
        let mut last = None;
        for _ in 0..TRIES {
            let mut still = BTreeSet::new();
            for id in self.volume_users(&origin.volume) {
                let Ok(slot) = self.inner.slots.find(&id) else { continue };
                if !frozen.iter().any(|one| one.id == slot.id) && self.pause_for_commit(&slot).await? {
                    frozen.push(Arc::clone(&slot));
                }
                let state = slot.record().state.clone();
                // Frozen by us, or by the user; who is frozen for a commit may go on at any moment.
                let ours = frozen.iter().any(|one| one.id == slot.id);
                if state.status == Status::Paused && (ours || !state.paused_for_commit) {
                    still.insert(id);
                }
            }
            match self.copy_now(staged, origin, still).await? {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(last.unwrap_or_else(|| EngineError::system("the volume cannot be copied")))
    }

    /// The inner error is that others write there; then nothing has been copied.
    async fn copy_now(&self, staged: &mut Staged, origin: &Origin, still: BTreeSet<String>) -> Result<Result<()>> {
        let (volumes, origin) = (self.volumes().clone(), origin.clone());
        let mut own = std::mem::take(staged);
        let (own, done) = blocking(move || {
            let done = volumes.copy_into(&mut own, &origin, &still);
            Ok((own, done))
        })
        .await?;
        *staged = own;
        match done {
            Ok(()) => Ok(Ok(())),
            Err(error @ VolumeError::Moving { .. }) => Ok(Err(error.into())),
            Err(error) => Err(error.into()),
        }
    }
}
