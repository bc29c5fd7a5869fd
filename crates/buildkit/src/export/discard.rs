//! Images that nobody keeps: they were made for a build that has failed, or for its files alone.
//!
//! Builds of one Dockerfile make one image, whoever is first: an image goes with the last build that has it as a result, and
//! only if none of them keeps it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_reference::Digest;

use crate::BuildKit;
use crate::job::Job;

/// Builds under way, of all daemons in this process: an image's name is its content.
static UNDER_WAY: Mutex<UnderWay> =
    Mutex::new(UnderWay { jobs: Vec::new(), made: BTreeSet::new(), kept: BTreeSet::new() });

struct UnderWay {
    jobs: Vec<Arc<Job>>,
    /// Images that one of them, or one that was under way beside them, has made.
    made: BTreeSet<Digest>,
    /// Images that one has kept that was under way beside them.
    kept: BTreeSet<Digest>,
}

fn under_way() -> MutexGuard<'static, UnderWay> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UnderWay {
    /// Ends a build. The value is what nobody keeps.
    fn end(&mut self, job: &Arc<Job>, keeps: bool) -> Vec<Digest> {
        self.jobs.retain(|other| !Arc::ptr_eq(other, job));
        let mut going = Vec::new();
        for built in job.all_built() {
            if built.new {
                self.made.insert(built.image.clone());
            }
            if keeps {
                self.kept.insert(built.image.clone());
            }
            let others = self.jobs.iter().flat_map(|other| other.all_built());
            if others.into_iter().any(|other| other.image == built.image) {
                continue;
            }
            // It is noted until it has gone: a build that is about to have it as its result may still keep it from that.
            if self.made.contains(&built.image) && !self.kept.contains(&built.image) {
                going.push(built.image);
            }
        }
        // What was kept counts for those who are beside it: they may have made the image, and not have said so yet.
        if self.jobs.is_empty() {
            let left = std::mem::take(&mut self.made).into_iter();
            going.extend(left.filter(|image| !self.kept.contains(image)));
            going.sort();
            going.dedup();
            self.kept.clear();
        }
        going
    }
}

/// The results of one build until its end. Dropped without an end, nothing of them is kept.
pub(crate) struct JobResults {
    own: BuildKit,
    /// Until its end.
    job: Option<Arc<Job>>,
}

impl JobResults {
    pub(crate) fn begin(own: &BuildKit, job: &Arc<Job>) -> Self {
        under_way().jobs.push(Arc::clone(job));
        Self { own: own.clone(), job: Some(Arc::clone(job)) }
    }

    /// The build has ended; `keeps`: with images for the store.
    pub(crate) async fn end(mut self, keeps: bool) {
        let Some(job) = self.job.take() else { return };
        job.release();
        let (names, going) = (job.take_passing(), under_way().end(&job, keeps));
        if !going.is_empty() || !names.is_empty() {
            // In a task of its own, so that whoever does not wait for it does not end it.
            let _ = tokio::spawn(discard(self.own.clone(), names, going)).await;
        }
    }
}

impl Drop for JobResults {
    fn drop(&mut self) {
        let Some(job) = self.job.take() else { return };
        job.release();
        let (names, going) = (job.take_passing(), under_way().end(&job, false));
        // Outside of a runtime nothing is served any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !(going.is_empty() && names.is_empty())
        {
            runtime.spawn(discard(self.own.clone(), names, going));
        }
    }
}

async fn discard(own: BuildKit, names: Vec<String>, going: Vec<Digest>) {
    let engine = &own.inner.engine;
    for name in names {
        // There is none if the build has failed before.
        if let Err(error) = engine.remove_image(&name, Vec::new(), false, false).await {
            tracing::debug!("the name of a result: {error}");
        }
    }
    for image in going {
        match engine.remove_unnamed_image(&image).await {
            Ok(()) => drop(under_way().made.remove(&image)),
            // Who keeps it from that takes it away with its own end.
            Err(error) => tracing::debug!("an image that was made for its files stays: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Built, Jobs};
    use crate::proto::control::SolveRequest;

    fn job(jobs: &Jobs, under_way: &mut UnderWay, name: &str, image: &Digest, new: bool) -> Arc<Job> {
        let request = SolveRequest { reference: name.into(), ..SolveRequest::default() };
        let job = jobs.begin(request, Vec::new()).unwrap();
        job.note(Built {
            image: image.clone(),
            platform: None,
            index: None,
            new,
            reference: String::new(),
            provenance: None,
        });
        under_way.jobs.push(Arc::clone(&job));
        job
    }

    #[test]
    fn an_image_goes_with_the_last_build_of_it_that_none_keeps() {
        let jobs = Jobs::default();
        let mut all = UnderWay { jobs: Vec::new(), made: BTreeSet::new(), kept: BTreeSet::new() };
        let image = Digest::sha256(b"one");
        // The one that has made it ends first, the other goes on with it.
        let (first, second) = (job(&jobs, &mut all, "a", &image, true), job(&jobs, &mut all, "b", &image, false));
        assert_eq!(all.end(&first, false), []);
        assert_eq!(all.end(&second, false), std::slice::from_ref(&image));
        // Another has reported it as its result, before and after.
        let (first, second) = (job(&jobs, &mut all, "c", &image, true), job(&jobs, &mut all, "d", &image, false));
        assert_eq!(all.end(&second, true), []);
        assert_eq!(all.end(&first, false), []);
        let (first, second) = (job(&jobs, &mut all, "e", &image, true), job(&jobs, &mut all, "f", &image, false));
        assert_eq!(all.end(&first, false), []);
        assert_eq!(all.end(&second, true), []);
        // Whoever was about to have it as its result, and has failed, takes it away, too.
        let first = job(&jobs, &mut all, "h", &image, true);
        let failing = job(&jobs, &mut all, "i", &Digest::sha256(b"other"), false);
        assert_eq!(all.end(&first, false), std::slice::from_ref(&image));
        assert_eq!(all.end(&failing, false), std::slice::from_ref(&image));
        // What was here before stays, and nothing of earlier builds counts.
        let last = job(&jobs, &mut all, "g", &image, false);
        assert_eq!(all.end(&last, false), []);
        assert!(all.made.is_empty() && all.kept.is_empty());
    }
}
