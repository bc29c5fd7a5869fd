//! Builds by `POST /build?version=2`, as Docker's clients without buildx ask for them: the session is one of BuildKit's, the request
//! and its answer are the API's.
//!
//! Source: moby/moby `builder/builder-next/builder.go`, docker/cli 20.10 `cli/command/image/build_buildkit.go`.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::BuildKit;
use crate::export;
use crate::grpc::{Code, Status};
use crate::job::Ending;
use crate::proto::control::{Exporter, SolveRequest};

/// The archive comes in a request of its own, which may be later than that of the build.
const PATIENCE: Duration = Duration::from_secs(30);
/// Archives that wait at once. Each holds a connection.
const MOST: usize = 64;
/// How an archive's request is named.
pub const UPLOAD: &str = "upload-request:";
/// A context that is such an archive.
pub(crate) const UPLOADED: &str = "wharf-upload://";

/// A build.
#[derive(Debug, Default)]
pub struct ApiBuild {
    /// Names the build.
    pub id: String,
    pub session: String,
    /// Options of the frontend.
    pub options: HashMap<String, String>,
    pub entitlements: Vec<String>,
    /// Names of the result.
    pub tags: Vec<String>,
    /// Outputs by type, with their attributes; the image, if there are none.
    pub outputs: Vec<(String, HashMap<String, String>)>,
    /// Its context is the archive that comes as an upload of the same ID.
    pub uploaded: bool,
}

/// What is told of one.
#[derive(Debug)]
pub enum ApiEvent {
    /// A `StatusResponse`, as its bytes.
    Status(Vec<u8>),
    /// The image's ID.
    Image(String),
    /// Why it failed.
    Failed(String),
}

/// Archives that wait for the build that they are for.
#[derive(Default)]
pub(crate) struct Uploads {
    all: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    archives: HashMap<String, Upload>,
    next: u64,
}

struct Upload {
    /// Tells it from a later one of the same ID.
    number: u64,
    archive: Box<dyn Read + Send>,
    /// Dropped when nobody has taken it.
    taken: oneshot::Sender<()>,
}

impl Uploads {
    fn all(&self) -> MutexGuard<'_, Waiting> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one. The value is its number, and is told when it is taken.
    fn add(&self, id: &str, archive: Box<dyn Read + Send>) -> Result<(u64, oneshot::Receiver<()>), String> {
        let mut all = self.all();
        if all.archives.contains_key(id) {
            return Err(format!(
                "an archive waits for the build {id} already: wait until that has begun, or take another ID"
            ));
        }
        if all.archives.len() >= MOST {
            return Err(format!("{MOST} archives wait for their builds already: try again when some have begun"));
        }
        let number = all.next;
        all.next += 1;
        let (taken, told) = oneshot::channel();
        all.archives.insert(id.to_owned(), Upload { number, archive, taken });
        drop(all);
        self.changed.notify_waiters();
        Ok((number, told))
    }

    /// Drops the one of this number, if it still waits.
    fn expire(&self, id: &str, number: u64) {
        let mut all = self.all();
        let expired = match all.archives.get(id) {
            Some(upload) if upload.number == number => all.archives.remove(id),
            _ => None,
        };
        drop(all);
        // Outside of the lock: a connection may end with it.
        drop(expired);
    }

    pub(crate) async fn take(&self, id: &str) -> Result<Box<dyn Read + Send>, Status> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = self.all().archives.remove(id);
                if let Some(upload) = found {
                    let _ = upload.taken.send(());
                    return upload.archive;
                }
                changed.await;
            }
        });
        found.await.map_err(|_| Status::new(Code::FailedPrecondition, "the archive of the context did not come"))
    }
}

impl BuildKit {
    /// Keeps an archive for the build of this ID. It is dropped when that has read it, or does not come. The value is told when
    /// a build takes it, and fails when none does.
    ///
    /// # Errors
    /// When another waits under this ID, or too many wait.
    pub fn upload(&self, id: &str, archive: Box<dyn Read + Send>) -> Result<oneshot::Receiver<()>, String> {
        let (number, told) = self.inner.uploads.add(id, archive)?;
        let (own, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            own.inner.uploads.expire(&id, number);
        });
        Ok(told)
    }

    /// Builds. Dropping the receiver ends the build.
    ///
    /// # Errors
    /// For a request that makes no sense.
    pub fn build_for_api(&self, build: ApiBuild) -> Result<mpsc::Receiver<ApiEvent>, String> {
        let names = build.tags.join(",");
        let mut exporters: Vec<Exporter> =
            build.outputs.into_iter().map(|(kind, attrs)| Exporter { kind, attrs }).collect();
        exporters.retain(|exporter| exporter.kind != "cacheonly");
        if exporters.is_empty() {
            exporters.push(Exporter { kind: "moby".into(), attrs: HashMap::new() });
        }
        for exporter in exporters.iter_mut().filter(|exporter| crate::job::makes_image(exporter)) {
            exporter.kind = "moby".into();
            exporter.attrs.entry("name".into()).or_insert_with(|| names.clone());
        }
        export::check(&exporters).map_err(|status| status.message().to_owned())?;
        let mut options = build.options;
        let reference = build.id;
        if build.uploaded {
            options.insert("context".into(), format!("{UPLOADED}{reference}"));
        }
        let request = SolveRequest {
            reference,
            session: build.session,
            frontend: "dockerfile.v0".into(),
            frontend_attrs: options,
            entitlements: build.entitlements,
            ..SolveRequest::default()
        };
        let job = self.inner.jobs.begin(request, exporters).map_err(|status| status.message().to_owned())?;
        let ending = Ending::of(self, &job);
        let (sender, events) = mpsc::channel(16);
        let own = self.clone();
        let caller = wharf_engine::caller::current();
        tokio::spawn(crate::in_the_name_of(caller, async move {
            let progress = job.progress.clone();
            let telling = async {
                let mut follower = progress.follow();
                loop {
                    let messages = follower.next().await;
                    if messages.is_empty() {
                        return;
                    }
                    for message in messages {
                        if sender.send(ApiEvent::Status(message.encode_to_vec())).await.is_err() {
                            return;
                        }
                    }
                }
            };
            let working = async {
                let done = tokio::select! {
                    done = own.solved(&job) => done,
                    // Nobody may notice at the next word: a command can be silent for ever.
                    () = sender.closed() => Err(Status::new(Code::Cancelled, "the client has gone")),
                };
                let ended = done.as_ref().map(|answer| answer.exporter_response.clone()).map_err(Clone::clone);
                ending.end(&ended).await;
                done
            };
            let (done, ()) = tokio::join!(working, telling);
            let last = match done {
                Ok(response) => response.exporter_response.get(export::CONFIG_DIGEST).cloned().map(ApiEvent::Image),
                Err(status) => Some(ApiEvent::Failed(status.message().to_owned())),
            };
            if let Some(last) = last {
                let _ = sender.send(last).await;
            }
        }));
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(text: &'static str) -> Box<dyn Read + Send> {
        Box::new(text.as_bytes())
    }

    #[tokio::test]
    async fn an_archive_is_for_one_build_and_leaves_later_ones_alone() {
        let uploads = Uploads::default();
        let (first, taken) = uploads.add("a", archive("first")).unwrap();
        assert!(uploads.add("a", archive("second")).unwrap_err().contains("waits for the build a already"));
        let mut text = String::new();
        uploads.take("a").await.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "first");
        taken.await.unwrap();
        // The end of the first one's time does not concern the next.
        let (second, taken) = uploads.add("a", archive("third")).unwrap();
        uploads.expire("a", first);
        assert_eq!(uploads.all().archives.len(), 1);
        uploads.expire("a", second);
        taken.await.unwrap_err();
        assert!(uploads.all().archives.is_empty());
        for number in 0..MOST {
            uploads.add(&number.to_string(), archive("")).unwrap();
        }
        assert!(uploads.add("one more", archive("")).unwrap_err().contains("try again"));
    }
}
