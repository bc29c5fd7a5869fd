//! `docker manifest`: lists of images for several platforms, put together here and pushed. The engine is not asked.

use serde_json::{Value as Json, json};
use wharf_distribution::{Client, ClientOptions, Manifest, Repository, media_type};
use wharf_reference::Reference;

use super::manifest_store::{Entry, Lists};
use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::parse::{Matches, commas};
use crate::{auth, references};

/// The help of a command, with what Docker says of all of this group.
macro_rules! experimental {
    ($about:literal, $name:literal) => {
        concat!(
            $about,
            "\n\nEXPERIMENTAL:\n  docker manifest ",
            $name,
            " is an experimental feature.\n  Experimental features provide early access to product functionality. These\n  \
             features may change between releases without warning, or can be removed from a\n  future release. Learn more \
             about experimental features in our documentation:\n  https://docs.docker.com/go/experimental/"
        )
    };
}

const INSECURE: Flag = Flag::switch("insecure", "Allow communication with an insecure registry");
/// More is no configuration of an image.
const MAX_CONFIG: u64 = 8 << 20;
/// As the daemon's.
const CERTS_DIRS: [&str; 2] = ["/etc/wharf/certs.d", "/etc/docker/certs.d"];

pub(crate) static CREATE: Command = Command::new(
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Create a local manifest list for annotating and pushing to a registry",
    Arity::AtLeast(2),
    |app, matches| Box::pin(create(app, matches)),
)
.long(experimental!("Create a local manifest list for annotating and pushing to a registry", "create"))
.flags(&[Flag::switch("amend", "Amend an existing manifest list").short('a'), INSECURE]);

pub(crate) static ANNOTATE: Command = Command::new(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Add additional information to a local image manifest",
    Arity::Exactly(2),
    |app, matches| Box::pin(annotate(app, matches)),
)
.long(experimental!("Add additional information to a local image manifest", "annotate"))
.flags(&[
    Flag::text("arch", "Set architecture"),
    Flag::text("os", "Set operating system"),
    Flag::strings("os-features", "Set operating system feature"),
    Flag::text("os-version", "Set operating system version"),
    Flag::text("variant", "Set architecture variant"),
]);

pub(crate) static INSPECT: Command = Command::new(
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    "Display an image manifest, or manifest list",
    Arity::Between(1, 2),
    |app, matches| Box::pin(inspect(app, matches)),
)
.long(experimental!("Display an image manifest, or manifest list", "inspect"))
.flags(&[INSECURE, Flag::switch("verbose", "Output additional info including layers and platform").short('v')]);

pub(crate) static PUSH: Command = Command::new(
    "[OPTIONS] MANIFEST_LIST",
    "Push a manifest list to a repository",
    Arity::Exactly(1),
    |app, matches| Box::pin(push(app, matches)),
)
.long(experimental!("Push a manifest list to a repository", "push"))
.flags(&[
    Flag::switch("insecure", "Allow push to an insecure registry"),
    Flag::switch("purge", "Remove the local manifest list after push").short('p'),
]);

pub(crate) static REMOVE: Command = Command::new(
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Delete one or more manifest lists from local storage",
    Arity::AtLeast(1),
    |app, matches| Box::pin(remove(app, matches)),
)
.long(experimental!("Delete one or more manifest lists from local storage", "rm"));

fn named(text: &str, what: &str) -> Outcome<Reference> {
    let parsed = references::parse(text)
        .map_err(|e| Failure::new(format!("error parsing name for {what} {text}: {}", e.text)))?;
    Ok(if parsed.digest().is_some() { parsed } else { parsed.tag_or_latest() })
}

pub(crate) fn repository(app: &App, reference: &Reference, insecure: bool) -> Outcome<Repository> {
    let known = auth::find_if_there(app.config(), auth::server_of(reference));
    let mut credentials = wharf_distribution::Credentials::new(known.username, known.password);
    credentials.identity_token = Some(known.identity_token).filter(|token| !token.is_empty());
    let options = ClientOptions {
        insecure: if insecure { vec![reference.domain().to_owned()] } else { Vec::new() },
        certs_dirs: CERTS_DIRS.map(Into::into).to_vec(),
        ..ClientOptions::default()
    };
    let client = Client::new(options).map_err(|error| error.message())?;
    Ok(client.repository(reference, Some(credentials)))
}

pub(crate) fn wanted(reference: &Reference) -> String {
    reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), ToString::to_string)
}

/// The manifest of one image, from its registry.
async fn image_of(app: &App, reference: &Reference, insecure: bool) -> Outcome<Entry> {
    let repository = repository(app, reference, insecure)?;
    let fetched = repository.manifest(&wanted(reference)).await.map_err(|error| error.message())?;
    match fetched.parse().map_err(|error| error.message())? {
        Manifest::Index(_) => Err(format!("{reference} is a manifest list").into()),
        Manifest::Image(manifest) => entry(&repository, reference, &fetched, &manifest.config).await,
    }
}

async fn entry(
    repository: &Repository,
    reference: &Reference,
    fetched: &wharf_distribution::FetchedManifest,
    config: &wharf_distribution::Descriptor,
) -> Outcome<Entry> {
    let bytes = repository.blob_bytes(config, MAX_CONFIG).await.map_err(|error| error.message())?;
    // What is no configuration of an image has no platform.
    let config: Json = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut platform = json!({ "architecture": config["architecture"].as_str().unwrap_or_default(), "os": config["os"].as_str().unwrap_or_default() });
    for key in ["os.version", "os.features", "variant"] {
        if let Some(value) = config.get(key).filter(|value| !value.is_null()) {
            platform[key] = value.clone();
        }
    }
    Ok(Entry {
        name: reference.to_string(),
        media_type: fetched.media_type.clone(),
        digest: fetched.digest.clone(),
        platform,
        bytes: fetched.bytes.to_vec(),
    })
}

async fn create(app: &App, matches: &Matches) -> Outcome<u8> {
    let target = named(matches.argument(0), "manifest list")?;
    let lists = Lists::of(app.config());
    if !lists.entries(&target)?.is_empty() && !matches.on("amend") {
        return Err("refusing to amend an existing manifest list with no --amend flag".into());
    }
    let mut new = Vec::new();
    for text in &matches.arguments[1..] {
        let reference = named(text, "manifest")?;
        new.push(match lists.entry(&target, &reference)? {
            Some(known) => known,
            None => image_of(app, &reference, matches.on("insecure")).await?,
        });
    }
    // When all are there: half a list is none.
    new.iter().try_for_each(|entry| lists.put(&target, entry))?;
    app.say(&format!("Created manifest list {target}"))?;
    Ok(0)
}

async fn annotate(app: &App, matches: &Matches) -> Outcome<u8> {
    let target = named(matches.argument(0), "manifest list")?;
    let reference = named(matches.argument(1), "manifest")?;
    let lists = Lists::of(app.config());
    let mut entry = lists
        .entry(&target, &reference)?
        .ok_or_else(|| format!("manifest for image {reference} does not exist in {target}"))?;
    for (flag, key) in [("os", "os"), ("arch", "architecture"), ("variant", "variant"), ("os-version", "os.version")] {
        if let Some(text) = matches.some(flag) {
            entry.platform[key] = text.into();
        }
    }
    let features: Vec<String> = matches.all("os-features").iter().flat_map(|text| commas(text)).collect();
    if !features.is_empty() {
        let mut all: Vec<Json> = entry.platform["os.features"].as_array().cloned().unwrap_or_default();
        all.extend(features.into_iter().map(Json::from).filter(|feature| !all.contains(feature)).collect::<Vec<_>>());
        entry.platform["os.features"] = all.into();
    }
    let part = |key: &str| entry.platform[key].as_str().unwrap_or_default().to_owned();
    if !supported(&part("os"), &part("architecture")) {
        return Err(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            part("os"),
            part("architecture")
        )
        .into());
    }
    lists.put(&target, &entry)?;
    Ok(0)
}

/// The pairs that Docker's command line takes.
fn supported(os: &str, architecture: &str) -> bool {
    let of = match os {
        "darwin" => "386 amd64 arm arm64",
        "dragonfly" => "amd64",
        "freebsd" | "netbsd" | "openbsd" => "386 amd64 arm",
        "linux" => "386 amd64 arm arm64 ppc64le mips64 mips64le riscv64 s390x loong64",
        "plan9" => "386 amd64",
        "solaris" => "amd64",
        "windows" => "386 amd64 arm arm64",
        _ => "",
    };
    of.split(' ').any(|known| !known.is_empty() && known == architecture)
}

async fn inspect(app: &App, matches: &Matches) -> Outcome<u8> {
    let (insecure, verbose) = (matches.on("insecure"), matches.on("verbose"));
    let lists = Lists::of(app.config());
    if matches.arguments.len() == 2 {
        let target = named(matches.argument(0), "manifest list")?;
        let reference = named(matches.argument(1), "manifest")?;
        let entry = match lists.entry(&target, &reference)? {
            Some(entry) => entry,
            None => image_of(app, &reference, insecure).await?,
        };
        return show(app, &if verbose { entry.verbose() } else { serde_json::from_slice(&entry.bytes)? });
    }
    let reference = named(matches.argument(0), "manifest")?;
    let local = lists.entries(&reference)?;
    if !local.is_empty() {
        let all: Vec<Json> = local.iter().map(Entry::verbose).collect();
        return show(app, &if verbose { all.into() } else { list_of(&local)? });
    }
    let repository = repository(app, &reference, insecure)?;
    let fetched = repository.manifest(&wanted(&reference)).await.map_err(|error| error.message())?;
    let raw: Json = serde_json::from_slice(&fetched.bytes)?;
    match fetched.parse().map_err(|error| error.message())? {
        _ if !verbose => show(app, &raw),
        Manifest::Image(manifest) => {
            show(app, &entry(&repository, &reference, &fetched, &manifest.config).await?.verbose())
        }
        Manifest::Index(index) => {
            let mut all = Vec::new();
            for descriptor in &index.manifests {
                let own = reference.with_digest(descriptor.digest.clone());
                let fetched = repository.manifest(descriptor.digest.as_str()).await.map_err(|error| error.message())?;
                let mut one = Entry {
                    name: own.to_string(),
                    media_type: fetched.media_type,
                    digest: fetched.digest,
                    platform: Json::Null,
                    bytes: fetched.bytes.to_vec(),
                };
                one.platform = descriptor.platform.as_ref().map_or(Json::Null, |platform| json!(platform));
                all.push(one.verbose());
            }
            show(app, &all.into())
        }
    }
}

/// Docker indents a list by three spaces, and all else by tabs.
fn show(app: &App, value: &Json) -> Outcome<u8> {
    let indent: &[u8] = if value.get("manifests").is_some() { b"   " } else { b"\t" };
    app.say(&indented(value, indent)?)?;
    Ok(0)
}

fn indented(value: &Json, indent: &[u8]) -> Outcome<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The list itself. Of images of OCI's form it is an OCI index.
fn list_of(entries: &[Entry]) -> Outcome<Json> {
    let mut all = Vec::new();
    for entry in entries {
        let known = |key: &str| entry.platform[key].as_str().is_some_and(|text| !text.is_empty());
        if !known("architecture") || !known("os") {
            let name = &entry.name;
            return Err(format!("manifest {name} must have an OS and Architecture to be pushed to a registry").into());
        }
        all.push(json!({
            "mediaType": entry.media_type,
            "size": entry.bytes.len(),
            "digest": entry.digest,
            "platform": entry.platform,
        }));
    }
    let oci = entries.iter().all(|entry| entry.media_type == media_type::OCI_MANIFEST);
    let own = if oci { media_type::OCI_INDEX } else { media_type::DOCKER_LIST };
    Ok(json!({ "schemaVersion": 2, "mediaType": own, "manifests": all }))
}

async fn push(app: &App, matches: &Matches) -> Outcome<u8> {
    let target = named(matches.argument(0), "manifest list")?;
    let lists = Lists::of(app.config());
    let entries = lists.entries(&target)?;
    if entries.is_empty() {
        return Err(format!("{target} not found").into());
    }
    let list = list_of(&entries)?;
    let repository = repository(app, &target, matches.on("insecure"))?;
    for entry in &entries {
        let source = references::parse(&entry.name)?;
        if source.domain() != target.domain() {
            return Err(format!(
                "cannot use source images from a different registry than the target image: {} != {}",
                source.domain(),
                target.domain()
            )
            .into());
        }
        if source.path() != target.path() {
            share(&repository, &source, entry).await?;
            app.say(&format!("Pushed ref {} with digest: {}", target.with_digest(entry.digest.clone()), entry.digest))?;
        }
    }
    // Three spaces, as Docker's: the same list is the same digest.
    let text = indented(&list, b"   ")?;
    let own = list["mediaType"].as_str().unwrap_or_default();
    let digest = repository.push_manifest(&wanted(&target), own, text.as_bytes()).await.map_err(|e| e.message())?;
    app.say(digest.as_str())?;
    if matches.on("purge") {
        lists.remove(&target)?;
    }
    Ok(0)
}

/// Puts an image of another repository in this one, without its blobs passing here.
async fn share(repository: &Repository, source: &Reference, entry: &Entry) -> Outcome {
    let parsed = Manifest::parse(&entry.bytes, &entry.media_type).map_err(|error| error.message())?;
    let Manifest::Image(manifest) = parsed else { return Err(format!("{source} is a manifest list").into()) };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let elsewhere = media_type::is_foreign_layer(&blob.media_type);
        if elsewhere || repository.blob_exists(&blob.digest).await.map_err(|error| error.message())? {
            continue;
        }
        if !repository.mount_blob(&blob.digest, source.path()).await.map_err(|error| error.message())? {
            return Err(format!(
                "the registry does not give blob {} of {source} to another repository: push the image there",
                blob.digest
            )
            .into());
        }
    }
    let named = entry.digest.as_str();
    repository.push_manifest(named, &entry.media_type, &entry.bytes).await.map_err(|error| error.message())?;
    Ok(())
}

async fn remove(app: &App, matches: &Matches) -> Outcome<u8> {
    let lists = Lists::of(app.config());
    let mut failures = Vec::new();
    for text in &matches.arguments {
        let removed = named(text, "manifest list").and_then(|target| match lists.remove(&target)? {
            true => Ok(()),
            false => Err(format!("No such manifest: {target}").into()),
        });
        failures.extend(removed.err().map(|failure| failure.text));
    }
    if failures.is_empty() { Ok(0) } else { Err(failures.join("\n").into()) }
}
