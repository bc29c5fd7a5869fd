//! What becomes of a result: an image in the store, files or an archive that the client gets.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use wharf_image::{Form, Images, Packing};
use wharf_reference::{Digest, Reference};

use crate::BuildKit;
use crate::content::Store;
use crate::control::blocking;
use crate::filesend::{self, Output, Tree, Trees};
use crate::grpc::{Code, Status};
use crate::job::{Built, Job, Results, is_by_digest, makes_image};
use crate::proto::Timestamp;
use crate::proto::control::Exporter;
use crate::session::Session;

mod directory;
mod discard;

pub(crate) use discard::JobResults;

// What clients read of the answer: moby/buildkit `exporter/containerimage/exptypes`.
const DIGEST: &str = "containerimage.digest";
pub(crate) const CONFIG_DIGEST: &str = "containerimage.config.digest";
const NAME: &str = "image.name";
/// In base64.
const DESCRIPTOR: &str = "containerimage.descriptor";

/// The text of an option; empty without it.
fn attribute<'a>(exporter: &'a Exporter, name: &str) -> &'a str {
    exporter.attrs.get(name).map(String::as_str).unwrap_or_default()
}

/// Refuses what is not done before anything is built.
///
/// # Errors
/// Names what that is.
pub(crate) fn check(exporters: &[Exporter]) -> Result<(), Status> {
    for exporter in exporters {
        let attribute_of = |name: &str| attribute(exporter, name);
        let is = |name: &str| matches!(attribute_of(name), "true" | "1");
        match exporter.kind.as_str() {
            "moby" | "image" => {
                repositories(exporter)?;
                form(exporter)?;
                for refused in ["unpack", "dangling-name-prefix", "store"] {
                    let usual = matches!((refused, attribute_of(refused)), ("unpack" | "store", "true" | "1"));
                    if exporter.attrs.contains_key(refused) && !usual && attribute_of(refused) != "false" {
                        let message = format!("the option {refused} of the exporter image is not supported");
                        return Err(Status::unsupported(message));
                    }
                }
                if is("push") && names(exporter).next().is_none() {
                    return Err(Status::invalid("tag is needed when pushing to registry"));
                }
            }
            "local" | "tar" => {
                if !matches!(attribute_of("platform-split"), "" | "true" | "1" | "false" | "0") {
                    return Err(Status::invalid(format!(
                        "non-bool value for platform-split: {}",
                        attribute_of("platform-split")
                    )));
                }
            }
            "docker" | "oci" => drop(packing(exporter)?),
            other => {
                let message =
                    format!("the exporter {other:?} is not supported: there are image, local, tar, docker and oci");
                return Err(Status::unsupported(message));
            }
        }
    }
    refuse_different(exporters)
}

/// There is one result, which all outputs get: refuses what only some of those are to have.
fn refuse_different(exporters: &[Exporter]) -> Result<(), Status> {
    let images: Vec<&Exporter> = exporters.iter().filter(|one| makes_image(one) || is_archive(one)).collect();
    if images.iter().any(|one| annotations([*one]) != annotations([images[0]])) {
        return Err(Status::unsupported(
            "different annotations of several outputs are not supported: build them one after another",
        ));
    }
    let mut forms = images.iter().filter(|one| makes_image(one)).map(|one| form(one));
    let first = forms.next().transpose()?.flatten();
    for other in forms {
        if other? != first {
            return Err(Status::unsupported(
                "different forms of compression of several images are not supported: build them one after another",
            ));
        }
    }
    Ok(())
}

fn is_archive(exporter: &Exporter) -> bool {
    matches!(exporter.kind.as_str(), "docker" | "oci")
}

/// How the layers of an archive are asked for; as BuildKit has it with gzip, if nothing is said.
fn packing(exporter: &Exporter) -> Result<Packing, Status> {
    match attribute(exporter, "compression") {
        "uncompressed" => Ok(Packing::Plain),
        _ => form(exporter).map(Packing::Compressed),
    }
}

/// The names that an exporter gives the image: between commas, whatever is around them.
fn names(exporter: &Exporter) -> impl Iterator<Item = &str> {
    attribute(exporter, "name").split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Repositories in which an exporter names the image by its digest alone.
fn repositories(exporter: &Exporter) -> Result<Vec<Reference>, Status> {
    if !is_by_digest(exporter) {
        return Ok(Vec::new());
    }
    let one = |name: &str| {
        let reference = Reference::parse(name).map_err(|e| Status::invalid(format!("invalid name {name:?}: {e}")))?;
        match reference.tag().is_none() && reference.digest().is_none() {
            true => Ok(reference),
            false => Err(Status::invalid(format!("can't push tagged ref {reference} by digest"))),
        }
    };
    names(exporter).map(one).collect()
}

/// Those of all exporters.
pub(crate) fn all_repositories(exporters: &[Exporter]) -> Result<Vec<Reference>, Status> {
    let mut all: Vec<Reference> = Vec::new();
    for repository in exporters.iter().map(repositories).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        if !all.contains(&repository) {
            all.push(repository);
        }
    }
    Ok(all)
}

/// The form that layers are pushed in, of all exporters that make images; of those that make archives where there are none.
pub(crate) fn all_forms(exporters: &[Exporter]) -> Result<Option<Form>, Status> {
    if let Some(exporter) = exporters.iter().find(|exporter| makes_image(exporter)) {
        return form(exporter);
    }
    let packings = exporters.iter().filter(|exporter| is_archive(exporter)).map(packing);
    for packing in packings {
        if let Packing::Compressed(Some(form)) = packing? {
            return Ok(Some(form));
        }
    }
    Ok(None)
}

/// The form that layers are pushed in, if another is asked for than they have.
fn form(exporter: &Exporter) -> Result<Option<Form>, Status> {
    let force = matches!(attribute(exporter, "force-compression"), "true" | "1");
    match attribute(exporter, "compression") {
        "" => Ok(None),
        "gzip" => Ok(force.then_some(Form::Gzip)),
        "zstd" => Ok(Some(Form::Zstd)),
        other => Err(Status::unsupported(format!(
            "compression={other} of the exporter {} is not supported: there are gzip and zstd{}",
            exporter.kind,
            if is_archive(exporter) { ", and uncompressed" } else { "" }
        ))),
    }
}

/// Refuses archives whose layers are to have another form than those of the index that states something about the result.
///
/// # Errors
/// Names what is not done.
pub(crate) fn check_stated(exporters: &[Exporter], statements: &[String]) -> Result<(), Status> {
    let stated = all_forms(exporters)?;
    for exporter in exporters.iter().filter(|exporter| is_archive(exporter) && !statements.is_empty()) {
        let fits = match packing(exporter)? {
            Packing::Plain => false,
            Packing::Compressed(form) => form.is_none() || form == stated,
        };
        if !fits {
            return Err(Status::unsupported(format!(
                "compression={} of the exporter {} is not supported where something is stated about the result: leave out \
                 --provenance and --sbom, or the compression",
                attribute(exporter, "compression"),
                exporter.kind
            )));
        }
    }
    Ok(())
}

/// Whether an index of the result is needed that has no name here: what is stated about it is in that.
pub(crate) fn needs_passing(exporters: &[Exporter], statements: &[String]) -> bool {
    !statements.is_empty() && exporters.iter().any(|exporter| !makes_image(exporter))
}

/// Names that the result has in archives alone.
pub(crate) fn elsewhere(exporters: &[Exporter]) -> Vec<Reference> {
    exporters
        .iter()
        .filter(|exporter| is_archive(exporter))
        .flat_map(names)
        .filter_map(|name| Reference::parse(name).ok())
        .collect()
}

/// `annotation.KEY`, `annotation-index.KEY`, `annotation[linux/amd64].KEY`, as `--annotation` has them.
pub(crate) fn annotations<'a>(exporters: impl IntoIterator<Item = &'a Exporter>) -> Vec<String> {
    let mut all = Vec::new();
    for (name, value) in exporters.into_iter().flat_map(|exporter| &exporter.attrs) {
        let Some(rest) = name.strip_prefix("annotation") else { continue };
        let Some((kind, key)) = rest.split_once('.') else { continue };
        let kind = kind.trim_start_matches('-');
        let annotation = match kind {
            "" => format!("{key}={value}"),
            kind if kind.starts_with('[') => format!("manifest{kind}:{key}={value}"),
            kind => format!("{kind}:{key}={value}"),
        };
        if !all.contains(&annotation) {
            all.push(annotation);
        }
    }
    all.sort();
    all
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn exporter(kind: &str, attrs: &[(&str, &str)]) -> Exporter {
        let attrs = attrs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Exporter { kind: kind.into(), attrs }
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (kind, attribute, named) in [
            ("moby", ("dangling-name-prefix", "x"), "dangling-name-prefix"),
            ("moby", ("compression", "estargz"), "compression=estargz"),
            ("moby", ("compression", "uncompressed"), "compression=uncompressed"),
            ("oci", ("compression", "foo"), "gzip and zstd, and uncompressed"),
            ("image", ("push", "true"), "tag is needed"),
            ("cloud", ("a", "b"), "\"cloud\""),
        ] {
            let refused = check(&[exporter(kind, &[attribute])]).unwrap_err();
            assert!(refused.message().contains(named), "{}", refused.message());
        }
        check(&[exporter("moby", &[("push", "true"), ("name", "a"), ("unpack", "true")]), exporter("local", &[])])
            .unwrap();
    }

    #[test]
    fn what_only_one_of_several_is_to_have_is_refused() {
        let noted = |kind: &str| exporter(kind, &[("annotation.a", "1")]);
        check(&[noted("oci"), noted("moby"), exporter("local", &[])]).unwrap();
        assert!(
            check(&[noted("oci"), exporter("docker", &[])]).unwrap_err().message().contains("different annotations")
        );
        let zstd = exporter("moby", &[("compression", "zstd")]);
        check(&[zstd.clone(), exporter("oci", &[])]).unwrap();
        assert!(check(&[zstd, exporter("moby", &[])]).unwrap_err().message().contains("different forms"));
    }

    #[test]
    fn layers_of_archives_are_compressed_unless_that_is_not_wanted() {
        for (attrs, expected) in [
            (&[][..], Packing::Compressed(None)),
            (&[("compression", "gzip")], Packing::Compressed(None)),
            (&[("compression", "gzip"), ("force-compression", "true")], Packing::Compressed(Some(Form::Gzip))),
            (&[("compression", "zstd")], Packing::Compressed(Some(Form::Zstd))),
            (&[("compression", "uncompressed")], Packing::Plain),
        ] {
            assert_eq!(packing(&exporter("oci", attrs)).unwrap(), expected);
        }
    }

    #[test]
    fn what_goes_by_its_digest_has_no_tag() {
        let by_digest = |name: &str| exporter("moby", &[("push-by-digest", "true"), ("name", name)]);
        let all = all_repositories(&[by_digest("h.example/a,h.example/b"), by_digest("h.example/a")]).unwrap();
        assert_eq!(all.iter().map(Reference::name).collect::<Vec<_>>(), ["h.example/a", "h.example/b"]);
        assert!(check(&[by_digest("a:1")]).unwrap_err().message().contains("can't push tagged ref"));
    }

    #[test]
    fn names_are_what_is_between_commas() {
        let named = |text: &str| exporter("moby", &[("push", "true"), ("name", text)]);
        assert_eq!(names(&named("a:1, h.example/b ,,")).collect::<Vec<_>>(), ["a:1", "h.example/b"]);
        assert!(check(&[named(" ,")]).unwrap_err().message().contains("tag is needed"));
    }

    #[test]
    fn annotations_are_read_from_the_options() {
        let all = [exporter(
            "moby",
            &[("annotation.a", "1"), ("annotation-index.b.c", "2"), ("annotation[linux/amd64].d", "3")],
        )];
        assert_eq!(annotations(&all), ["a=1", "index:b.c=2", "manifest[linux/amd64]:d=3"]);
    }
}
