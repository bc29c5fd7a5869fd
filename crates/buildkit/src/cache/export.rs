//! Caches on their way out.

use std::collections::HashMap;
use std::fs::File;

use serde_json::json;
use tokio::runtime::Handle;
use wharf_build::CacheLayout;
use wharf_reference::Reference;

use super::{Export, Place};
use crate::BuildKit;
use crate::content::Store;
use crate::control::blocking;
use crate::grpc::{Code, Status};
use crate::job::{Job, Results};
use crate::layout::refused;
use crate::progress::Step;
use crate::proto::Timestamp;

/// What the client puts into the index of its directory.
const MANIFEST: &str = "cache.manifest";

impl BuildKit {
    /// Exports the caches that were asked for, and notes in the answer what clients read of that.
    ///
    /// # Errors
    /// When one cannot be exported and the build is not to go on without it.
    pub(crate) async fn export_caches(
        &self,
        job: &Job,
        results: &Results,
        response: &mut HashMap<String, String>,
    ) -> Result<(), Status> {
        let Some(built) = results.values().next() else { return Ok(()) };
        for option in job.request.cache.iter().flat_map(|cache| &cache.exports) {
            let export = super::export(option)?;
            let name = match &export.place {
                Place::Directory(_) => "exporting cache to client directory",
                Place::Registry { .. } => "exporting cache to registry",
                Place::Inline => continue,
            };
            let step = job.progress.step(name);
            match self.export_cache(job, &built.reference, &export, &step).await {
                Ok(described) => {
                    response.insert(MANIFEST.into(), described);
                    step.end(false, None);
                }
                Err(status) => {
                    step.end(false, Some(status.message().to_owned()));
                    if !export.may_fail {
                        let message = format!("error writing cache: {}", status.message());
                        return Err(Status::new(Code::Unknown, message));
                    }
                }
            }
        }
        Ok(())
    }

    async fn export_cache(&self, job: &Job, build: &str, export: &Export, step: &Step) -> Result<String, Status> {
        let (builder, build, form) = (self.inner.builder.clone(), build.to_owned(), export.form);
        let began = Timestamp::now();
        let layout = blocking(move || {
            let fail = |e: wharf_build::BuildError| crate::failure::status(&e);
            builder.cache_layout(&builder.past(&build).map_err(fail)?, form).map_err(fail)
        })
        .await?;
        step.status("preparing build cache for export", 0, 0, began, true);
        let top = layout.top();
        let described = json!({ "mediaType": top.media_type, "digest": top.digest, "size": top.size }).to_string();
        match &export.place {
            Place::Directory(name) => {
                let session = self.inner.sessions.get(&job.request.session).await?;
                to_client(Store::new(&session, name)?, layout, step).await?;
            }
            Place::Registry { reference, insecure } => {
                self.to_registry(job, reference, *insecure, &layout, step).await?;
            }
            Place::Inline => {}
        }
        Ok(described)
    }

    async fn to_registry(
        &self,
        job: &Job,
        reference: &Reference,
        insecure: bool,
        layout: &CacheLayout,
        step: &Step,
    ) -> Result<(), Status> {
        let repository = self.repository(job, reference, insecure).await?;
        for blob in layout.blobs() {
            let began = Timestamp::now();
            if !repository.blob_exists(&blob.digest).await.map_err(|e| refused(&e))? {
                let file = tokio::fs::File::open(layout.path(blob)).await.map_err(|e| unreadable(&e))?;
                repository.push_blob(&blob.digest, blob.size, file, |_| {}).await.map_err(|e| refused(&e))?;
            }
            step.status(&format!("writing layer {}", blob.digest), blob.size, blob.size, began, true);
        }
        let (began, top) = (Timestamp::now(), layout.top());
        let bytes = tokio::fs::read(layout.path(top)).await.map_err(|e| unreadable(&e))?;
        let name = reference.digest().map_or_else(|| reference.tag().unwrap_or_default(), |digest| digest.as_str());
        repository.push_manifest(name, &top.media_type, &bytes).await.map_err(|e| refused(&e))?;
        step.status(&format!("writing cache manifest {}", top.digest), top.size, top.size, began, true);
        Ok(())
    }
}

fn unreadable(error: &std::io::Error) -> Status {
    Status::new(Code::Unknown, format!("a blob of the cache cannot be read: {error}"))
}

/// Writes a layout to a content store of the client's, whose index it keeps itself.
async fn to_client(store: Store, layout: CacheLayout, step: &Step) -> Result<(), Status> {
    let (telling, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handle = Handle::current();
    let writing = blocking(move || {
        for blob in layout.blobs().iter().chain([layout.top()]) {
            let began = Timestamp::now();
            let mut file = File::open(layout.path(blob)).map_err(|e| unreadable(&e))?;
            store.write(&handle, blob.digest.as_str(), blob.size, &mut file)?;
            let _ = telling.send((blob.clone(), began));
        }
        Ok(())
    });
    let hearing = async {
        while let Some((blob, began)) = told.recv().await {
            step.status(&format!("writing {}", blob.digest), blob.size, blob.size, began, true);
        }
    };
    tokio::join!(writing, hearing).0
}
