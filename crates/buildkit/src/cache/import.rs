//! Caches on their way here.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use wharf_build::DIFF_ID;
use wharf_image::registry::{Descriptor, Platform};
use wharf_reference::Digest;

use super::{CONFIG, Place, attribute};
use crate::BuildKit;
use crate::content::Store;
use crate::control::blocking;
use crate::grpc::Status;
use crate::job::Job;
use crate::layout::{self, Blobs, Incoming, MANIFEST, MAX_MANIFEST, Manifest, refused};
use crate::options::{Options, text};
use crate::proto::control::CacheOption;

/// More of it is no list of steps.
const MAX_CONFIG: u64 = 64 << 20;

/// The configuration of a cache, or of an image, as far as it is used. It comes from strangers: what they say beside that
/// takes no memory.
#[derive(Debug, Deserialize)]
struct Configuration {
    #[serde(default)]
    steps: Option<IgnoredAny>,
    /// Where an image's has the cache of its own build, in base64.
    #[serde(default, rename = "moby.buildkit.cache.v0")]
    inline: Option<String>,
    #[serde(default)]
    rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

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
        let archive =
            layout::archive(wanted, job.over()).map_err(|e| Status::unavailable(format!("no cache can come: {e}")))?;
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
        let mut about = Manifest::parse(bytes)?;
        let mut config = about.manifests.iter().flatten().find(|one| one.media_type == CONFIG).cloned();
        if let Some(all) = about.manifests.as_ref().filter(|_| config.is_none()) {
            let asked = platform.split(',').next().filter(|first| !first.is_empty());
            let platform = asked.and_then(|first| Platform::parse(first).ok()).unwrap_or_else(Platform::host);
            let near = |one: &&Descriptor| one.platform.as_ref().and_then(|offered| platform.distance(offered));
            let found = all.iter().filter(|one| near(one).is_some()).min_by_key(near);
            top = found.cloned().ok_or_else(|| Status::invalid("it has nothing for this platform"))?;
            about = Manifest::parse(&blobs.bytes(&top, MAX_MANIFEST).await?)?;
        }
        if config.is_none() {
            config = about.config.take();
        }
        let Some(config) = config else { return Err(Status::invalid("it is no manifest: it has no config")) };
        let bytes = blobs.bytes(&config, MAX_CONFIG).await?;
        let of: Configuration = serde_json::from_slice(&bytes)
            .map_err(|e| Status::invalid(format!("{} makes no sense: {e}", config.digest)))?;
        drop(bytes);
        let builder = self.inner.builder.clone();
        let spared = Box::new(move |one: &Descriptor| {
            let diff_id = one.annotations.get(DIFF_ID).and_then(|text| Digest::parse(text).ok());
            diff_id.is_some_and(|diff_id| builder.has_layer(&diff_id))
        });
        let wanted = |top, made| Incoming { blobs, top, name: None, platforms: Vec::new(), spared, made };
        if config.media_type == CONFIG {
            return match of.steps.is_some() {
                true => Ok(wanted(top, Vec::new())),
                false => Err(Status::invalid(
                    "it is the cache of another builder, whose steps are not known by what these are",
                )),
            };
        }
        let (made, top) = inline(of, about.layers.unwrap_or_default())?;
        Ok(wanted(top, made))
    }
}

/// What an image's configuration says of its own build, as a cache: its configuration and manifest.
fn inline(config: Configuration, mut layers: Vec<Descriptor>) -> Result<(Vec<Vec<u8>>, Descriptor), Status> {
    let none = || Status::invalid("it is an image without a cache in it (build it with --cache-to type=inline)");
    let wrong = || Status::invalid("what it says of its own build makes no sense");
    let steps = STANDARD.decode(config.inline.ok_or_else(none)?).map_err(|_| wrong())?;
    if serde_json::from_slice::<Configuration>(&steps).map_err(|_| wrong())?.steps.is_none() {
        return Err(Status::invalid("it has the cache of another builder in it"));
    }
    let diff_ids = config.rootfs.and_then(|rootfs| rootfs.diff_ids).unwrap_or_default();
    for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
        layer.annotations.insert(DIFF_ID.to_owned(), diff_id.to_string());
    }
    let described = Descriptor::new(CONFIG, Digest::sha256(&steps), steps.len() as u64);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers });
    let manifest = manifest.to_string().into_bytes();
    let top = Descriptor::new(MANIFEST, Digest::sha256(&manifest), manifest.len() as u64);
    Ok((vec![steps, manifest], top))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_configuration_only_what_is_used_is_read() {
        // A `Value` of it would not be: it refuses such numbers.
        let large = r#"{"steps":[{"":1e999}],"x":[{"":0},1e999]}"#;
        assert!(serde_json::from_str::<serde_json::Value>(large).is_err());
        assert!(serde_json::from_str::<Configuration>(large).unwrap().steps.is_some());
        let manifest = br#"{"x":[1e999],"layers":null,"manifests":[]}"#;
        let manifest = Manifest::parse(manifest).unwrap();
        assert!(manifest.layers.is_none() && manifest.manifests.is_some_and(|all| all.is_empty()));
        assert!(Manifest::parse(br#"{"layers":[{}]}"#).is_err());
    }

    #[test]
    fn the_cache_in_an_image() {
        let diff_id = Digest::sha256(b"layer");
        let image = |cache: &str| {
            let of = json!({ "rootfs": { "diff_ids": [diff_id] }, "moby.buildkit.cache.v0": STANDARD.encode(cache) });
            serde_json::from_value::<Configuration>(of).unwrap()
        };
        let layer = Descriptor::new("layer", Digest::sha256(b"packed"), 1);
        let (made, top) = inline(image(r#"{"steps":[]}"#), vec![layer.clone()]).unwrap();
        assert_eq!((made[0].as_slice(), top.digest), (br#"{"steps":[]}"#.as_slice(), Digest::sha256(&made[1])));
        let manifest = Manifest::parse(&made[1]).unwrap();
        assert_eq!(manifest.config.unwrap().digest, Digest::sha256(&made[0]));
        assert_eq!(manifest.layers.unwrap()[0].annotations[DIFF_ID], diff_id.as_str());
        for (bad, said) in [(r#"{"layers":[]}"#, "another builder"), ("[", "no sense")] {
            let refused = inline(image(bad), vec![layer.clone()]).unwrap_err();
            assert!(refused.message().contains(said), "{}", refused.message());
        }
        let without = serde_json::from_str("{}").unwrap();
        assert!(inline(without, Vec::new()).unwrap_err().message().contains("without a cache"));
    }
}
