//! Caches on their way here.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_build::DIFF_ID;
use wharf_image::registry::{Descriptor, Platform};
use wharf_reference::Digest;

use super::{CONFIG, Place, attribute};
use crate::BuildKit;
use crate::content::Store;
use crate::control::blocking;
use crate::grpc::Status;
use crate::job::Job;
use crate::layout::{self, Blobs, Incoming, MANIFEST, MAX_MANIFEST, json_of, refused};
use crate::options::{Options, text};
use crate::proto::control::CacheOption;

/// Where an image's configuration has the cache of its own build, in base64.
const INLINE: &str = "moby.buildkit.cache.v0";

/// One of the option `cache-imports`, as Go writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Import {
    r#type: String,
    #[serde(default)]
    attrs: Option<HashMap<String, String>>,
}

/// What is to be imported: what the request says, the call, and options of clients that know the frontend alone.
fn imports(job: &Job, options: &Options, of_call: &[CacheOption]) -> Vec<CacheOption> {
    let mut all: Vec<CacheOption> = Vec::new();
    let mut add = |one: CacheOption| {
        if !all.contains(&one) {
            all.push(one);
        }
    };
    job.request.cache.iter().flat_map(|cache| &cache.imports).chain(of_call).cloned().for_each(&mut add);
    let of_options: Vec<Import> = serde_json::from_str(text(options, "cache-imports")).unwrap_or_default();
    of_options.into_iter().for_each(|one| add(CacheOption { kind: one.r#type, attrs: one.attrs.unwrap_or_default() }));
    if all.is_empty() {
        for name in text(options, "cache-from").split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let attrs = HashMap::from([("ref".to_owned(), name.to_owned()), (PLAIN.to_owned(), String::new())]);
            all.push(CacheOption { kind: "registry".into(), attrs });
        }
    }
    all
}

/// Marks what is a name and nothing else: of an image that is here, maybe, whose steps are known if they are.
const PLAIN: &str = "wharf-plain";

impl BuildKit {
    /// Takes in caches, each once for a build. As with BuildKit one that cannot be had is told of, and its steps are made.
    pub(crate) async fn import_caches(&self, job: &Job, options: &Options, of_call: &[CacheOption]) {
        for one in imports(job, options, of_call) {
            if !job.imports_first(&one) {
                continue;
            }
            let name = ["ref", "src"].into_iter().find_map(|name| one.attrs.get(name)).unwrap_or(&one.kind);
            let step = job.progress.step(&format!("importing cache manifest from {name}"));
            let platform = text(options, "platform");
            let imported = self.import_cache(job, &one, platform).await;
            step.end(false, imported.err().map(|status| status.message().to_owned()));
        }
    }

    async fn import_cache(&self, job: &Job, one: &CacheOption, platform: &str) -> Result<(), Status> {
        let (blobs, top, bytes) = match one.kind.as_str() {
            "registry" => {
                let Place::Registry { reference, insecure } = super::registry(one)? else { return Ok(()) };
                let (images, own) = (self.inner.engine.images().clone(), reference.to_string());
                let is_here = || blocking(move || Ok(images.resolve(&own).is_ok()));
                if one.attrs.contains_key(PLAIN) && is_here.clone()().await? {
                    return Ok(());
                }
                let repository = self.repository(job, &reference, insecure).await?;
                let name = reference.digest().map_or_else(|| reference.tag().unwrap_or_default(), Digest::as_str);
                let fetched = match repository.manifest(name).await {
                    Ok(fetched) => fetched,
                    // As BuildKit in Docker has it: an image that is here is as good.
                    Err(_) if is_here().await? => return Ok(()),
                    Err(error) => return Err(refused(&error)),
                };
                let bytes = fetched.bytes.to_vec();
                let top = Descriptor::new(fetched.media_type, fetched.digest, bytes.len() as u64);
                (Blobs::Registry(repository), top, bytes)
            }
            "local" => {
                let session = self.inner.sessions.get(&job.request.session).await?;
                let store = Store::new(&session, &format!("local:{}", attribute(one, "src")))?;
                let (top, bytes) = store.top(attribute(one, "digest")).await?;
                (Blobs::Client(store), top, bytes)
            }
            other => return Err(super::unknown(other)),
        };
        let wanted = self.wanted(blobs, top, &bytes, platform).await?;
        let archive = layout::archive(wanted).map_err(|e| Status::unavailable(format!("no cache can come: {e}")))?;
        let builder = self.inner.builder.clone();
        blocking(move || builder.import_cache(archive).map_err(|e| crate::failure::status(&e))).await?;
        Ok(())
    }

    /// What of a cache, or of an image that has one in it, is to come.
    async fn wanted(
        &self,
        blobs: Blobs,
        mut top: Descriptor,
        bytes: &[u8],
        platform: &str,
    ) -> Result<Incoming, Status> {
        let parse = |bytes: &[u8]| {
            serde_json::from_slice::<Value>(bytes).map_err(|e| Status::invalid(format!("it is no manifest: {e}")))
        };
        let list = |all: &Value| -> Result<Vec<Descriptor>, Status> {
            let all = all.as_array().into_iter().flatten().map(|one| serde_json::from_value(one.clone()));
            all.collect::<Result<_, _>>().map_err(|e| Status::invalid(format!("it is no manifest: {e}")))
        };
        let mut about = parse(bytes)?;
        let mut config = list(&about["manifests"])?.into_iter().find(|one| one.media_type == CONFIG);
        if config.is_none() && about["manifests"].is_array() {
            let asked = platform.split(',').next().filter(|first| !first.is_empty());
            let platform = asked.and_then(|first| Platform::parse(first).ok()).unwrap_or_else(Platform::host);
            let all = list(&about["manifests"])?;
            let near = |one: &&Descriptor| one.platform.as_ref().and_then(|offered| platform.distance(offered));
            let found = all.iter().filter(|one| near(one).is_some()).min_by_key(near);
            top = found.cloned().ok_or_else(|| Status::invalid("it has nothing for this platform"))?;
            about = parse(&blobs.bytes(&top, MAX_MANIFEST).await?)?;
        }
        if config.is_none() {
            let own = serde_json::from_value(about["config"].clone());
            config = Some(own.map_err(|e| Status::invalid(format!("it is no manifest: {e}")))?);
        }
        let Some(config) = config else { return Err(Status::invalid("it is no manifest")) };
        let of = json_of(&blobs, &config).await?;
        let builder = self.inner.builder.clone();
        let spared = Box::new(move |one: &Descriptor| {
            let diff_id = one.annotations.get(DIFF_ID).and_then(|text| Digest::parse(text).ok());
            diff_id.is_some_and(|diff_id| builder.has_layer(&diff_id))
        });
        let wanted = |top, made| Incoming { blobs, top, name: None, platforms: Vec::new(), spared, made };
        if config.media_type == CONFIG {
            return match of.get("steps").is_some() {
                true => Ok(wanted(top, Vec::new())),
                false => Err(Status::invalid(
                    "it is the cache of another builder, whose steps are not known by what these are",
                )),
            };
        }
        let (made, top) = inline(&of, list(&about["layers"])?)?;
        Ok(wanted(top, made))
    }
}

/// What an image's configuration says of its own build, as a cache: its configuration and manifest.
fn inline(config: &Value, mut layers: Vec<Descriptor>) -> Result<(Vec<Vec<u8>>, Descriptor), Status> {
    let none = || Status::invalid("it is an image without a cache in it (build it with --cache-to type=inline)");
    let text = config[INLINE].as_str().ok_or_else(none)?;
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let steps = bytes.ok_or_else(|| Status::invalid("what it says of its own build makes no sense"))?;
    if steps.get("steps").is_none() {
        return Err(Status::invalid("it has the cache of another builder in it"));
    }
    let diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
        layer.annotations.insert(DIFF_ID.to_owned(), diff_id.as_str().unwrap_or_default().to_owned());
    }
    let steps = steps.to_string().into_bytes();
    let described = Descriptor::new(CONFIG, Digest::sha256(&steps), steps.len() as u64);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers });
    let manifest = manifest.to_string().into_bytes();
    let top = Descriptor::new(MANIFEST, Digest::sha256(&manifest), manifest.len() as u64);
    Ok((vec![steps, manifest], top))
}
