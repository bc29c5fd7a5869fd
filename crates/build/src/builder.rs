//! The builder: what all builds of a daemon share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use wharf_image::Images;
use wharf_monitor::Spawner;
use wharf_reference::Digest;
use wharf_snapshot::Layers;
use wharf_store::Store;

use crate::cache::{Cache, CacheRecord};
use crate::cache_mount::CacheMounts;
use crate::cancel::{Cancel, CancelOnDrop};
use crate::error::{BuildError, Result};
use crate::finish::finish;
use crate::gathered::Gathered;
use crate::history::Recorder;
use crate::kept::{KEPT_CONTEXT, KeptContexts};
use crate::layouts;
use crate::output::Output;
use crate::request::{BuildEvent, BuildRequest, BuilderOptions};
use crate::scratch::{self, random_id};
use crate::session::{Common, lock};
use crate::together::Commands;
use crate::why::Noted;

/// With more bytes of memory than this after a build, what is free of it goes back.
const MUCH_MEMORY: u64 = 64 << 20;

/// Builds images. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) shared: Arc<Shared>,
}

/// What all builds use.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) images: Images,
    pub(crate) layers: Layers,
    pub(crate) spawner: Arc<Spawner>,
    pub(crate) options: BuilderOptions,
    pub(crate) cache: Cache,
    pub(crate) commands: Commands,
    pub(crate) cache_mounts: CacheMounts,
    pub(crate) kept_contexts: Arc<KeptContexts>,
    spared: OnceLock<Spared>,
}

/// Layers that others use.
struct Spared(Box<dyn Fn() -> Vec<Digest> + Send + Sync>);

impl std::fmt::Debug for Spared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spared")
    }
}

impl Shared {
    pub(crate) fn builds(&self) -> PathBuf {
        scratch::builds(self.options.store.root())
    }
}

/// Who hears of a build, who may end it, and what it notes of itself.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) output: Output,
    pub(crate) cancel: Cancel,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) noted: Arc<Mutex<Noted>>,
    /// Names the build in the history.
    pub(crate) reference: String,
    pub(crate) began: jiff::Timestamp,
    /// For its end where commands of it go on for other builds: nobody waits for these. Taken by the first.
    pub(crate) early: Arc<Mutex<Option<oneshot::Sender<BuildError>>>>,
}

/// What has been pruned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Keys of records, and IDs of cache mounts.
    pub ids: Vec<String>,
    /// Bytes.
    pub freed: u64,
}

impl Builder {
    /// Makes a builder, and removes what builds of an earlier process have left.
    ///
    /// # Errors
    /// None so far: what cannot be removed is no reason not to start.
    pub fn new(images: Images, spawner: Arc<Spawner>, options: BuilderOptions) -> Result<Self> {
        let data_root = options.store.root();
        layouts::sweep(&images, &scratch::builds(data_root));
        if let Err(error) = images.forget_passing() {
            tracing::warn!("results of builds stay: {error}");
        }
        scratch::sweep(data_root, &options.exec_root, &options.cgroup_parent);
        let layers = images.layers().clone();
        let cache = Cache::new(options.store.clone(), layers.clone());
        let cache_mounts = CacheMounts::new(scratch::caches(data_root), options.store.clone());
        let kept_contexts = Arc::new(KeptContexts::new(scratch::contexts(data_root)));
        let spared = OnceLock::new();
        let shared = Shared {
            images,
            layers,
            spawner,
            options,
            cache,
            commands: Commands::default(),
            cache_mounts,
            kept_contexts,
            spared,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Builds an image and answers with its ID. The build ends when `output`'s receiver goes, or this future is
    /// dropped: a command that runs is killed, and nothing of the build stays but its cache.
    ///
    /// # Errors
    /// Of the Dockerfile, all at once and before anything is done; of a step, with its line. A command that fails is
    /// `Command` with its exit code.
    pub async fn build(&self, mut request: BuildRequest, output: Sender<BuildEvent>) -> Result<Digest> {
        let cancel = Cancel::new()?;
        let _guard = CancelOnDrop(cancel.clone());
        let name = request.shown.as_deref().unwrap_or(&request.dockerfile);
        let name = if name.is_empty() { "Dockerfile" } else { name };
        let mut recorder = Recorder::new(&random_id()?, name, request.target.as_deref(), &request.tags);
        let recorder_reference = recorder.record.reference.clone();
        let (events, mut told) = tokio::sync::mpsc::channel(16);
        let mut out = Output::new(events, request.quiet);
        if request.steps {
            out = out.telling_steps();
        }
        let outer = output.clone();
        // Hears all on its way to the client.
        let over = Arc::new(tokio::sync::Notify::new());
        let is_over = Arc::clone(&over);
        let hearing = tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = told.recv() => event,
                    // What was said so far comes still.
                    () = is_over.notified() => {
                        told.close();
                        continue;
                    }
                };
                let Some(mut event) = event else { break };
                recorder.hear(&mut event);
                if outer.send(event).await.is_err() {
                    break;
                }
            }
            recorder
        });
        let shared = Arc::clone(&self.shared);
        let handle = tokio::runtime::Handle::current();
        let own = cancel.clone();
        let noted = Arc::new(Mutex::default());
        let noting = Arc::clone(&noted);
        let (reference, began) = (recorder_reference, jiff::Timestamp::now());
        let (early, ended_early) = oneshot::channel();
        let ends_early = async move {
            match ended_early.await {
                Ok(failure) => failure,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::pin!(ends_early);
        let early = Arc::new(Mutex::new(Some(early)));
        let told = Told { output: out, cancel: own, runtime: handle, noted: noting, reference, began, early };
        let mut working = in_its_own_thread(move || {
            let gathered = Gathered::read(&shared, &mut request, &told.cancel)?;
            let mut built = Vec::new();
            for platform in &gathered.platforms {
                built.push(Common::new(&shared, &request, &gathered, platform.clone(), &told)?.build()?);
            }
            finish(&shared, &request, &gathered, &built, &told)
        })?;
        let joined = loop {
            tokio::select! {
                joined = &mut working => break joined,
                // It works on for others.
                failure = &mut ends_early => {
                    over.notify_one();
                    break Ok(Err(failure));
                }
                () = output.closed(), if !cancel.is_cancelled() => cancel.cancel(),
            }
        };
        let result = joined.map_err(|e| BuildError::system("the build has crashed", &e)).flatten();
        if let Ok(mut recorder) = hearing.await {
            let noted = std::mem::take(&mut *lock(&noted));
            recorder.record.keys.clone_from(&noted.keys);
            recorder.record.mounts = noted.mounts.iter().cloned().collect();
            let store = self.shared.options.store.clone();
            let kept = result.clone();
            let _ = tokio::task::spawn_blocking(move || recorder.keep(&store, &kept, &noted)).await;
        }
        result
    }

    /// Where records of builds are.
    pub fn store(&self) -> &Store {
        &self.shared.options.store
    }

    /// Layers that the cache needs: they must not be collected. Builds under way hold theirs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn pinned(&self) -> Result<Vec<Digest>> {
        Ok(self.shared.cache.layers()?.into_iter().collect())
    }

    /// Pruning spares the layers that `used` names, those of containers. The first caller's word counts; until there
    /// is one, pruning forgets records and leaves all layers to whoever collects them.
    pub fn spare_also(&self, used: impl Fn() -> Vec<Digest> + Send + Sync + 'static) {
        let _ = self.shared.spared.set(Spared(Box::new(used)));
    }

    /// Records of steps, by key, and of contexts that are kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn records(&self) -> Result<Vec<(String, CacheRecord)>> {
        let mut all = self.shared.cache.list()?;
        all.extend(self.shared.kept_contexts.list());
        Ok(all)
    }

    /// The directories of `RUN --mount=type=cache` that no build uses now, as records: what they take is measured once after
    /// each use. What takes longer than until then has the size that it had before.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn mounts(&self, until: Option<Instant>) -> Result<Vec<(String, CacheRecord)>> {
        self.shared.cache_mounts.unused(until)
    }

    /// Forgets the records that `which` names, the layers that nothing else needs, and contexts that no build uses now; with
    /// `mounts`, also the directories of `RUN --mount=type=cache` that it names and that no build uses now.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn prune(&self, which: &dyn Fn(&str, &CacheRecord) -> bool, mounts: bool) -> Result<Pruned> {
        let cache = &self.shared.cache;
        let listed = cache.list()?;
        let mut ids: Vec<String> =
            listed.iter().filter(|(key, record)| which(key, record)).map(|(key, _)| key.clone()).collect();
        let layers: Vec<Digest> = cache.forget(&ids)?.into_iter().collect();
        let kept = self.shared.kept_contexts.list().into_iter().filter(|(id, record)| which(id, record));
        let kept: Vec<String> = kept.map(|(id, _)| id).collect();
        let (removed, mut freed) = match kept.is_empty() {
            true => (Vec::new(), 0),
            false => self.shared.kept_contexts.remove(&kept)?,
        };
        ids.extend(removed);
        if let Some(spared) = self.shared.spared.get() {
            let needed = || {
                // A cache that cannot be read may need all of them.
                let mut needed = cache.layers().map_or_else(|_| layers.clone(), |all| all.into_iter().collect());
                needed.extend((spared.0)());
                needed
            };
            let gone = self.shared.images.free(&layers, &needed);
            let gone = gone.map_err(|e| BuildError::system("layers cannot be removed", &e))?;
            freed += gone.iter().map(|layer| layer.disk).sum::<u64>();
        }
        if mounts {
            let going = self.mounts(None)?.into_iter().filter(|(id, record)| which(id, record)).map(|(id, _)| id);
            let (removed, bytes) = self.shared.cache_mounts.remove(&going.collect::<Vec<_>>())?;
            ids.extend(removed);
            freed += bytes;
        }
        Ok(Pruned { ids, freed })
    }

    /// What [`Self::prune`] would forget and free, if nothing but `needed` (layers of images) and containers needed
    /// layers. Changes nothing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn plan_prune(
        &self,
        which: &dyn Fn(&str, &CacheRecord) -> bool,
        mounts: bool,
        needed: &BTreeSet<Digest>,
    ) -> Result<Pruned> {
        let listed = self.records()?;
        let (going, staying): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(key, record)| which(key, record));
        let layers = |records: &[(String, CacheRecord)]| -> BTreeSet<Digest> {
            records.iter().filter_map(|(_, record)| record.layer.clone()).collect()
        };
        let mut kept = layers(&staying);
        kept.extend(needed.iter().cloned());
        let contexts = going.iter().filter(|(key, _)| key.starts_with(KEPT_CONTEXT));
        let mut freed = contexts.map(|(_, record)| record.size).sum::<u64>();
        if let Some(spared) = self.shared.spared.get() {
            kept.extend((spared.0)());
            let all = &self.shared.layers;
            let listed = all.list().map_err(|e| BuildError::system("the layers cannot be listed", &e))?;
            let gone = layers(&going);
            let goes = |id: &Digest| gone.contains(id) && !kept.contains(id) && !all.is_held(id);
            freed += listed.iter().filter(|layer| goes(&layer.diff_id)).map(|layer| layer.disk).sum::<u64>();
        }
        let mut ids: Vec<String> = going.into_iter().map(|(key, _)| key).collect();
        if mounts {
            for (id, record) in self.mounts(None)?.into_iter().filter(|(id, record)| which(id, record)) {
                ids.push(id);
                freed += record.size;
            }
        }
        Ok(Pruned { ids, freed })
    }
}

/// Does the work of a build, which takes as long as its client sends: the threads that the runtime has for what waits are
/// everybody's.
fn in_its_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<oneshot::Receiver<Result<T>>> {
    let (sender, done) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let made = std::thread::Builder::new().name("build".into()).spawn(move || {
        let _context = runtime.enter();
        let _ = sender.send(work());
        // Nobody waits for this: what a large context has taken goes back.
        wharf_sys::heap::trim_above(MUCH_MEMORY);
    });
    made.map_err(|e| BuildError::system("a build cannot begin", &e))?;
    Ok(done)
}
