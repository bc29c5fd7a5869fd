//! Builds by `POST /build?version=2`, as Docker's clients without buildx ask for them: the session is one of BuildKit's, the request
//! and its answer are the API's.
//!
//! Source: moby/moby `builder/builder-next/builder.go`, docker/cli 20.10 `cli/command/image/build_buildkit.go`.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::sync::{Notify, mpsc};

use crate::BuildKit;
use crate::export;
use crate::grpc::{Code, Status};
use crate::job::Ending;
use crate::proto::control::{Exporter, SolveRequest};

/// The archive comes in a request of its own, which may be later than that of the build.
const PATIENCE: Duration = Duration::from_secs(30);
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
    all: Mutex<HashMap<String, Box<dyn Read + Send>>>,
    changed: Notify,
}

impl Uploads {
    pub(crate) async fn take(&self, id: &str) -> Result<Box<dyn Read + Send>, Status> {
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let found = self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
                if let Some(upload) = found {
                    return upload;
                }
                changed.await;
            }
        });
        found.await.map_err(|_| Status::new(Code::FailedPrecondition, "the archive of the context did not come"))
    }
}

impl BuildKit {
    /// Keeps an archive for the build of this ID. It is dropped when that has read it, or does not come.
    pub fn upload(&self, id: &str, archive: Box<dyn Read + Send>) {
        let uploads = &self.inner.uploads;
        uploads.all.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), archive);
        uploads.changed.notify_waiters();
        let (own, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            own.inner.uploads.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
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
        let ending = Ending { own: self.clone(), job: job.clone() };
        let (sender, events) = mpsc::channel(16);
        let own = self.clone();
        tokio::spawn(async move {
            let progress = job.progress.clone();
            let telling = async {
                let mut from = 0;
                loop {
                    let messages = progress.next(from).await;
                    if messages.is_empty() {
                        return;
                    }
                    from += messages.len();
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
                drop(ending);
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
        });
        Ok(events)
    }
}
