//! What becomes of a result: an image in the store, files or an archive that the client gets.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use wharf_image::{Images, Packing};
use wharf_reference::{Digest, Reference};

use crate::BuildKit;
use crate::content::Store;
use crate::control::blocking;
use crate::filesend::{self, Output, Tree, Trees};
use crate::grpc::{Code, Status};
use crate::job::{Built, Job, Results, is_by_digest};
use crate::proto::Timestamp;
use crate::proto::control::Exporter;
use crate::session::Session;

mod asked;
mod directory;
mod discard;

pub(crate) use asked::{all_forms, all_repositories, annotations, check, check_stated, elsewhere, needs_passing};
use asked::{attribute, is_archive, names, packing};
pub(crate) use discard::JobResults;

// What clients read of the answer: moby/buildkit `exporter/containerimage/exptypes`.
const DIGEST: &str = "containerimage.digest";
pub(crate) const CONFIG_DIGEST: &str = "containerimage.config.digest";
const NAME: &str = "image.name";
/// In base64.
const DESCRIPTOR: &str = "containerimage.descriptor";

/// Exports what was built, and answers with what clients read of it.
///
/// # Errors
/// When the client does not take it, or the disk fails.
pub(crate) async fn export(own: &BuildKit, job: &Job, results: &Results) -> Result<HashMap<String, String>, Status> {
    let mut response = HashMap::new();
    if !results.is_empty() {
        for (number, exporter) in job.exporters.iter().enumerate() {
            match exporter.kind.as_str() {
                "moby" | "image" => {
                    image(job, exporter, results, &mut response);
                    if matches!(attribute(exporter, "push"), "true" | "1") {
                        push(own, job, exporter, &mut response).await?;
                    }
                }
                _ => {
                    let session = own.inner.sessions.get(&job.request.session).await?;
                    if is_archive(exporter) {
                        describe(exporter, results, &mut response);
                    }
                    if is_archive(exporter) && attribute(exporter, "tar") == "false" {
                        let described = directory(own, job, &session, exporter, results, &response).await?;
                        response.insert(DESCRIPTOR.into(), STANDARD.encode(described));
                        continue;
                    }
                    send(own, job, &session, number, exporter, results, &response).await?;
                }
            }
        }
    }
    Ok(response)
}

/// The one that names lead to.
fn main(results: &Results) -> Option<&Built> {
    let host = wharf_dockerfile::Platform::host().to_string();
    results.get("").or_else(|| results.get(&host)).or_else(|| results.values().next())
}

fn describe(exporter: &Exporter, results: &Results, response: &mut HashMap<String, String>) {
    let Some(built) = main(results) else { return };
    let digest = built.index.clone().unwrap_or_else(|| built.image.to_string());
    response.insert(DIGEST.into(), digest);
    response.insert(CONFIG_DIGEST.into(), built.image.to_string());
    let told = |name: &str| Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.to_string());
    let names: Vec<_> = names(exporter).map(told).collect();
    if !names.is_empty() {
        response.insert(NAME.into(), names.join(","));
    }
}

/// The image is in the store and has its names: what is left is to say so.
fn image(job: &Job, exporter: &Exporter, results: &Results, response: &mut HashMap<String, String>) {
    describe(exporter, results, response);
    let step = job.progress.step("exporting to image");
    let began = Timestamp::now();
    if let Some(built) = main(results) {
        step.status(&format!("writing image {}", built.image), 0, 0, began, true);
    }
    for name in response.get(NAME).iter().flat_map(|names| names.split(',')) {
        step.status(&format!("naming to {name}"), 0, 0, began, true);
    }
}

/// Sends an image to the registries of its names.
async fn push(
    own: &BuildKit,
    job: &Job,
    exporter: &Exporter,
    response: &mut HashMap<String, String>,
) -> Result<(), Status> {
    for name in names(exporter) {
        let wrong = |e: &dyn std::fmt::Display| Status::invalid(format!("invalid name {name:?}: {e}"));
        let reference = Reference::parse(name).map_err(|e| wrong(&e))?;
        let reference = match is_by_digest(exporter).then(|| response.get(DIGEST).cloned()).flatten() {
            Some(digest) => reference.with_digest(Digest::parse(&digest).map_err(|e| wrong(&e))?),
            None => reference.tag_or_latest(),
        };
        let step = job.progress.step(&format!("pushing {reference}"));
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let credentials = own.credentials(job, reference.domain()).await;
        let mut layers = crate::progress::Transfers::default();
        let telling = async {
            while let Some(progress) = told.recv().await {
                layers.tell(&step, &progress);
            }
        };
        let pushing = own.inner.engine.push(&reference, None, credentials, None, sender);
        let (pushed, ()) = tokio::join!(pushing, telling);
        match pushed {
            Ok(pushed) => {
                step.end(false, None);
                let digest = pushed.digest.to_string();
                let described = json!({ "mediaType": pushed.media_type, "digest": digest, "size": pushed.size });
                response.insert(DESCRIPTOR.into(), STANDARD.encode(described.to_string()));
                response.insert(DIGEST.into(), digest);
            }
            Err(error) => {
                let message = format!("failed to push {reference}: {}", error.message);
                step.end(false, Some(message.clone()));
                return Err(Status::new(Code::Unknown, message));
            }
        }
    }
    Ok(())
}

async fn send(
    own: &BuildKit,
    job: &Job,
    session: &Session,
    number: usize,
    exporter: &Exporter,
    results: &Results,
    response: &HashMap<String, String>,
) -> Result<(), Status> {
    let images = own.inner.engine.images().clone();
    let (what, output) = match exporter.kind.as_str() {
        kind @ ("local" | "tar") => {
            let trees = trees(images, exporter, results).await?;
            match kind {
                "local" => ("exporting to client directory", Output::Files(trees)),
                _ => ("exporting to client tarball", Output::Tar(trees)),
            }
        }
        kind => {
            let named = named(images, exporter, results, response)?;
            let what = if kind == "oci" { "exporting to oci image format" } else { "exporting to docker image format" };
            (what, Output::Archive(named))
        }
    };
    let step = job.progress.step(what);
    let sent = filesend::send(session, number, output, &step).await;
    step.end(false, sent.as_ref().err().map(|status| status.message().to_owned()));
    sent
}

/// What an archive is made of.
pub(crate) struct Archived {
    images: Images,
    ids: Vec<Digest>,
    /// That has what is stated about them.
    index: Option<Digest>,
    /// Names that they get there.
    names: Vec<Reference>,
    packing: Packing,
}

impl Archived {
    /// Writes it as `docker save` does, which is an OCI layout as well, with layers as they are asked for.
    ///
    /// # Errors
    /// When an image cannot be read, or the output fails.
    pub(crate) fn write(&self, output: &mut dyn std::io::Write) -> Result<(), Status> {
        let saved = self.images.save_as(&self.ids, self.index.as_ref(), &self.names, self.packing, output);
        saved.map_err(|e| Status::new(Code::Unknown, wharf_report::chain(&e)))
    }
}

fn named(
    images: Images,
    exporter: &Exporter,
    results: &Results,
    response: &HashMap<String, String>,
) -> Result<Archived, Status> {
    let names = response.get(NAME).map(String::as_str).unwrap_or_default().split(',');
    let names = names.filter_map(|name| Reference::parse(name).ok()).map(Reference::tag_or_latest).collect();
    let index = main(results).and_then(|built| Digest::parse(built.index.as_deref()?).ok());
    let ids = results.values().map(|built| built.image.clone()).collect();
    Ok(Archived { images, ids, index, names, packing: packing(exporter)? })
}

/// Writes images to a directory of the client's, which is a content store to it. The value is the descriptor for its index.
async fn directory(
    own: &BuildKit,
    job: &Job,
    session: &Session,
    exporter: &Exporter,
    results: &Results,
    response: &HashMap<String, String>,
) -> Result<String, Status> {
    let step = job.progress.step("exporting to oci image format");
    let archived = named(own.inner.engine.images().clone(), exporter, results, response)?;
    let sent = match Store::new(session, directory::STORE) {
        Ok(store) => directory::send(store, archived).await,
        Err(status) => Err(status),
    };
    step.end(false, sent.as_ref().err().map(|status| status.message().to_owned()));
    sent
}

/// Whether each platform has a directory, if an option says so.
fn split(exporter: &Exporter) -> Option<bool> {
    match attribute(exporter, "platform-split") {
        "" => None,
        text => Some(matches!(text, "true" | "1")),
    }
}

/// The files of results, with what is stated about them. They are mounted, which waits for the disk.
async fn trees(images: Images, exporter: &Exporter, results: &Results) -> Result<Trees, Status> {
    let results = results.clone();
    let prefix = attribute(exporter, "attestation-prefix").to_owned();
    let split = split(exporter);
    if split == Some(false) && results.len() > 1 {
        return Err(Status::unsupported(
            "platform-split=false of several platforms is not supported: build them one after another",
        ));
    }
    blocking(move || {
        let failing = |e: &dyn std::error::Error| Status::new(Code::Unknown, wharf_report::chain(e));
        let several = results.len() > 1;
        let mut trees = Vec::new();
        for (platform, built) in results {
            let image = images.get(&built.image).map_err(|e| failing(&e))?;
            let view = images.layers().dated_view(&image.diff_ids).map_err(|e| failing(&e))?;
            let index = built.index.as_deref().and_then(|text| Digest::parse(text).ok());
            let statements = match index {
                Some(index) => images.statement_files(&index, &image, &view, &prefix, "").map_err(|e| failing(&e))?,
                None => Vec::new(),
            };
            // As BuildKit names the directories of platforms.
            let name = split.unwrap_or(several).then(|| match platform.is_empty() {
                true => wharf_dockerfile::Platform::host().to_string().replace('/', "_"),
                false => platform.replace('/', "_"),
            });
            trees.push(Tree { name, view, statements });
        }
        Ok(trees)
    })
    .await
}
