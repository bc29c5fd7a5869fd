//! Builds that are under way, under the names that clients give them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use prost::Message;
use tokio::sync::{Notify, oneshot, watch};
use wharf_image::Keep;
use wharf_reference::Digest;

use crate::grpc::{Code, Status};
use crate::progress::Progress;
use crate::proto::Timestamp;
use crate::proto::control::{CacheOption, Exporter, SolveRequest};
use crate::proto::gateway::PbResult;

/// Calls about a build may come before the build itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// And so long after its end its progress can be asked for.
const LINGER: Duration = Duration::from_secs(10);
/// Builds at once.
const MOST: usize = 1024;
/// Bytes of their requests together.
const MOST_BYTES: usize = 64 << 20;

/// Bytes of a name.
const MOST_NAME: usize = 256;

/// One build.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: SolveRequest,
    pub(crate) exporters: Vec<Exporter>,
    pub(crate) progress: Progress,
    pub(crate) began: Timestamp,
    /// What the request has, as it was sent.
    bytes: usize,
    state: Mutex<State>,
    /// Becomes true when nobody waits for it any more.
    over: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    /// What the client's own build function gives back: it may come before anybody waits for it.
    give_back: Option<oneshot::Sender<Result<PbResult, Status>>>,
    given_back: Option<oneshot::Receiver<Result<PbResult, Status>>>,
    /// What was built, by the names that the client knows.
    built: HashMap<String, Built>,
    next: u64,
    /// Caches that it has asked for.
    imported: Vec<CacheOption>,
    /// Its images, from before they are made: nobody else's end takes them away.
    kept: Vec<Arc<Mutex<Keep>>>,
    /// Names that indexes of its results have as long as it is under way.
    passing: Vec<String>,
}

/// An image that was built.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) image: Digest,
    /// Where several were built, for which of them.
    pub(crate) platform: Option<String>,
    /// The index that its names lead to.
    pub(crate) index: Option<String>,
    /// It was not here before.
    pub(crate) new: bool,
    /// Names the build in the history.
    pub(crate) reference: String,
    /// Where it comes from, to be remembered with the build.
    pub(crate) provenance: Option<Arc<str>>,
}

/// What a build has given back: images by platform, or one under no name; nothing, if nothing was built.
pub(crate) type Results = BTreeMap<String, Built>;

impl Job {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names what was built for the client.
    pub(crate) fn note(&self, built: Built) -> String {
        let mut state = self.state();
        state.next += 1;
        let id = format!("{}:{}", self.request.reference, state.next);
        state.built.insert(id.clone(), built);
        id
    }

    pub(crate) fn built(&self, id: &str) -> Result<Built, Status> {
        let found = self.state().built.get(id).cloned();
        found.ok_or_else(|| Status::new(Code::NotFound, format!("this build has no result {id:?}")))
    }

    /// Notes that a cache is imported. False when it was before.
    pub(crate) fn imports_first(&self, cache: &CacheOption) -> bool {
        let mut state = self.state();
        let is_first = !state.imported.contains(cache);
        if is_first {
            state.imported.push(cache.clone());
        }
        is_first
    }

    /// Keeps what a build of it makes, until [`Self::release`].
    pub(crate) fn keep(&self, keep: Arc<Mutex<Keep>>) {
        self.state().kept.push(keep);
    }

    /// A name for an index of its results, until its end.
    pub(crate) fn passing(&self) -> Result<String, Status> {
        let random = wharf_engine::names::random_id().map_err(|e| Status::unavailable(e.to_string()))?;
        let name = wharf_image::passing_name(random.get(..16).unwrap_or(&random));
        self.state().passing.push(name.clone());
        Ok(name)
    }

    /// Such names, which are nobody's from now on.
    pub(crate) fn take_passing(&self) -> Vec<String> {
        std::mem::take(&mut self.state().passing)
    }

    /// Its images are no more its own than others'.
    pub(crate) fn release(&self) {
        let kept = std::mem::take(&mut self.state().kept);
        drop(kept);
    }

    /// Becomes true, or closed, when nobody waits for it any more: what is on its way here for it ends then.
    pub(crate) fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Everything that was built.
    pub(crate) fn all_built(&self) -> Vec<Built> {
        self.state().built.values().cloned().collect()
    }

    /// Waits for what the client's build function gives back.
    ///
    /// # Errors
    /// When nothing more can come: it is asked for once.
    pub(crate) async fn returned(&self) -> Result<PbResult, Status> {
        let gone = || Status::new(Code::Cancelled, "the build was given up");
        let given_back = self.state().given_back.take();
        given_back.ok_or_else(gone)?.await.map_err(|_| gone())?
    }

    /// That it has given back something: the first counts.
    pub(crate) fn give_back(&self, result: Result<PbResult, Status>) {
        if let Some(sender) = self.state().give_back.take() {
            let _ = sender.send(result);
        }
    }

    /// Names that the result gets.
    pub(crate) fn tags(&self) -> Vec<String> {
        let named = self.exporters.iter().filter(|exporter| makes_image(exporter) && !is_by_digest(exporter));
        let names = named.filter_map(|exporter| exporter.attrs.get("name")).flat_map(|names| names.split(','));
        let mut tags: Vec<String> = Vec::new();
        for name in names.map(str::trim).filter(|name| !name.is_empty()) {
            if !tags.iter().any(|tag| tag == name) {
                tags.push(name.to_owned());
            }
        }
        tags
    }
}

/// Whether an exporter names the image by its digest alone.
pub(crate) fn is_by_digest(exporter: &Exporter) -> bool {
    makes_image(exporter)
        && exporter.attrs.get("push-by-digest").is_some_and(|value| matches!(value.as_str(), "true" | "1"))
}

/// Whether an exporter leaves the image in the store.
pub(crate) fn makes_image(exporter: &Exporter) -> bool {
    matches!(exporter.kind.as_str(), "moby" | "image")
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    all: Mutex<HashMap<String, Arc<Job>>>,
    changed: Notify,
}

impl Jobs {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one.
    ///
    /// # Errors
    /// For a name that another has, and for more builds than may be under way.
    pub(crate) fn begin(&self, request: SolveRequest, exporters: Vec<Exporter>) -> Result<Arc<Job>, Status> {
        let reference = request.reference.clone();
        // Rows about it have its name in front of a slash.
        if reference.contains('/') || reference.len() > MOST_NAME {
            let message = format!("the reference of a build has no slash and at most {MOST_NAME} bytes");
            return Err(Status::invalid(message));
        }
        let exporters_bytes: usize = exporters.iter().map(Message::encoded_len).sum();
        let bytes = request.encoded_len() + exporters_bytes;
        let (give_back, given_back) = oneshot::channel();
        let state = State {
            give_back: Some(give_back),
            given_back: Some(given_back),
            built: HashMap::new(),
            next: 0,
            imported: Vec::new(),
            kept: Vec::new(),
            passing: Vec::new(),
        };
        let job = Job {
            request,
            exporters,
            progress: Progress::new(),
            began: Timestamp::now(),
            bytes,
            state: Mutex::new(state),
            over: watch::Sender::new(false),
        };
        let job = Arc::new(job);
        let mut all = self.all();
        if all.len() >= MOST {
            return Err(Status::unavailable(format!("{MOST} builds are under way already")));
        }
        let kept: usize = all.values().map(|job| job.bytes).sum();
        if kept + bytes > MOST_BYTES {
            let message =
                format!("the requests of builds that are under way have more than {MOST_BYTES} bytes: try later");
            return Err(Status::unavailable(message));
        }
        // One that has ended is there for who asks how it went: a later one of its name has that from now on.
        if all.get(&reference).is_some_and(|job| !job.progress.has_ended()) {
            return Err(Status::invalid(format!("a build {reference} is under way already")));
        }
        all.insert(reference, Arc::clone(&job));
        drop(all);
        self.changed.notify_waiters();
        Ok(job)
    }

    /// The build of a name; waits for it a while.
    ///
    /// # Errors
    /// When it does not come.
    pub(crate) async fn get(&self, reference: &str) -> Result<Arc<Job>, Status> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(job) = self.all().get(reference).cloned() {
                    return job;
                }
                changed.await;
            }
        });
        found.await.map_err(|_| Status::new(Code::NotFound, format!("no such job {reference}")))
    }

    /// The build of a name, if it is known now.
    pub(crate) fn known(&self, reference: &str) -> Option<Arc<Job>> {
        self.all().get(reference).cloned()
    }

    /// Those that have not ended.
    pub(crate) fn under_way(&self) -> Vec<Arc<Job>> {
        self.all().values().filter(|job| !job.progress.has_ended()).cloned().collect()
    }

    /// Forgets it, and no later one of its name.
    fn forget(&self, job: &Arc<Job>) {
        let mut all = self.all();
        if all.get(&job.request.reference).is_some_and(|known| Arc::ptr_eq(known, job)) {
            all.remove(&job.request.reference);
        }
    }
}

/// A build that ends when this is dropped.
pub(crate) struct Ending {
    own: crate::BuildKit,
    job: Arc<Job>,
    remembered: bool,
}

impl Ending {
    /// It has begun.
    pub(crate) fn of(own: &crate::BuildKit, job: &Arc<Job>) -> Self {
        own.tell_begun(job);
        Self { own: own.clone(), job: Arc::clone(job), remembered: false }
    }

    /// It has ended so.
    pub(crate) async fn end(mut self, ended: &Result<HashMap<String, String>, Status>) {
        // Once: who drops this while it is waited for is no reason to begin anew.
        self.remembered = true;
        let (own, job, ended) = (self.own.clone(), Arc::clone(&self.job), ended.clone());
        // In a task of its own, so that it is done whoever waits for it.
        let _ = tokio::spawn(async move { own.remember(&job, &ended).await }).await;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.job.progress.end();
        self.job.over.send_replace(true);
        if !self.remembered
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (own, job) = (self.own.clone(), Arc::clone(&self.job));
            let gone = Err(Status::new(Code::Cancelled, "context canceled: the client has gone"));
            runtime.spawn(async move { own.remember(&job, &gone).await });
        }
        let (own, job) = (self.own.clone(), Arc::downgrade(&self.job));
        // Outside of a runtime nobody asks any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(linger(own, job));
        }
    }
}

/// Forgets a build a while after its end. One whose name a later one has is not counted any more: nothing of it stays here.
async fn linger(own: crate::BuildKit, job: Weak<Job>) {
    tokio::time::sleep(LINGER).await;
    if let Some(job) = job.upgrade() {
        own.inner.jobs.forget(&job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_together() {
        let jobs = Jobs::default();
        let request = |id: u32| SolveRequest {
            reference: id.to_string(),
            frontend_attrs: HashMap::from([("x".to_owned(), "y".repeat(15 << 20))]),
            ..SolveRequest::default()
        };
        let begun: Vec<_> = (0..5).map(|id| jobs.begin(request(id), Vec::new())).collect();
        assert!(begun[..4].iter().all(Result::is_ok));
        assert!(begun[4].as_ref().unwrap_err().message().contains("try later"));
        // A small one, and when one has gone a large one, too.
        jobs.begin(SolveRequest { reference: "small".into(), ..SolveRequest::default() }, Vec::new()).unwrap();
        jobs.forget(begun[0].as_ref().unwrap());
        jobs.begin(request(4), Vec::new()).unwrap();
    }

    #[test]
    fn the_name_of_a_build_that_has_ended_is_free() {
        let jobs = Jobs::default();
        let request = || SolveRequest { reference: "one".into(), ..SolveRequest::default() };
        let first = jobs.begin(request(), Vec::new()).unwrap();
        assert!(jobs.begin(request(), Vec::new()).unwrap_err().message().contains("under way"));
        first.progress.end();
        let gone = Arc::downgrade(&first);
        let second = jobs.begin(request(), Vec::new()).unwrap();
        jobs.forget(&first);
        drop(first);
        assert!(gone.upgrade().is_none(), "who only lingers has nothing of it");
        assert!(Arc::ptr_eq(&jobs.known("one").unwrap(), &second));
    }

    #[test]
    fn a_name_that_would_be_part_of_another_is_refused() {
        for reference in ["a/b".to_owned(), "a".repeat(257)] {
            let request = SolveRequest { reference, ..SolveRequest::default() };
            assert!(Jobs::default().begin(request, Vec::new()).unwrap_err().message().contains("no slash"));
        }
    }

    #[tokio::test]
    async fn what_is_given_back_before_anybody_waits_is_not_lost() {
        let job = Jobs::default().begin(SolveRequest::default(), Vec::new()).unwrap();
        job.give_back(Ok(PbResult::default()));
        job.give_back(Err(Status::invalid("too late")));
        assert_eq!(job.returned().await, Ok(PbResult::default()));
        assert!(job.returned().await.unwrap_err().is(Code::Cancelled));
    }
}
