//! Caches of builds in registries: what `wharf_build::portable` makes, as an OCI manifest; and the steps that an image says it
//! was made in.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};
use wharf_distribution::{Descriptor, ImageManifest, Manifest, Platform, Repository, media_type};
use wharf_reference::Digest;

use crate::app::App;
use crate::commands::manifest::{repository, wanted};
use crate::failure::{Failure, Outcome};
use crate::references;

const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
const INLINE: &str = "moby.buildkit.cache.v0";
/// Which layer a blob is.
const DIFF_ID: &str = "wharf.diff-id";
/// More is no list of steps.
const MAX_JSON: u64 = 64 << 20;

/// A directory with an OCI layout; dropped, it goes.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) path: PathBuf,
}

impl Drop for Layout {
    fn drop(&mut self) {
        let _ = wharf_rooted_path::remove_dir_all(&self.path);
    }
}

impl Layout {
    pub(super) fn new() -> Outcome<Self> {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("wharf-cache-{name}"));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| wharf_report::path("mkdir", &path, &error))?;
        Ok(Self { path })
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Outcome {
        Ok(std::fs::write(path, bytes).map_err(|error| wharf_report::path("write", path, &error))?)
    }

    fn put_json(&self, value: &Value) -> Outcome<(Digest, usize)> {
        let bytes = serde_json::to_vec(value)?;
        let digest = Digest::sha256(&bytes);
        self.put(&self.blob(&digest), &bytes)?;
        Ok((digest, bytes.len()))
    }
}

fn said(error: wharf_distribution::DistributionError) -> Failure {
    Failure::new(error.message())
}

/// Pushes a layout's one manifest and what it names.
pub(super) async fn push(app: &App, layout: &Layout, name: &str, insecure: bool) -> Outcome {
    let reference = references::parse(name)?.tag_or_latest();
    let repository = repository(app, &reference, insecure)?;
    let read = |path: &Path| std::fs::read(path).map_err(|error| wharf_report::path("open", path, &error));
    let index: Value = serde_json::from_slice(&read(&layout.path.join("index.json"))?)?;
    let entry: Descriptor = serde_json::from_value(index["manifests"][0].clone())?;
    let bytes = read(&layout.blob(&entry.digest))?;
    let manifest: ImageManifest = serde_json::from_slice(&bytes)?;
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if repository.blob_exists(&blob.digest).await.map_err(said)? {
            continue;
        }
        let path = layout.blob(&blob.digest);
        let file = tokio::fs::File::open(&path).await.map_err(|error| wharf_report::path("open", &path, &error))?;
        repository.push_blob(&blob.digest, blob.size, file, |_| {}).await.map_err(said)?;
    }
    repository.push_manifest(&wanted(&reference), &entry.media_type, &bytes).await.map_err(said)?;
    Ok(())
}

/// Fetches a cache, or what an image says of its own build, with its layers.
pub(super) async fn fetch(app: &App, name: &str, insecure: bool) -> Outcome<Layout> {
    let reference = references::parse(name)?.tag_or_latest();
    let repository = repository(app, &reference, insecure)?;
    let fetched = repository.manifest(&wanted(&reference)).await.map_err(said)?;
    let manifest = match fetched.parse().map_err(said)? {
        Manifest::Image(manifest) => manifest,
        Manifest::Index(index) => {
            let found = index.select(&Platform::host()).ok_or("it has nothing for this platform")?;
            let fetched = repository.manifest(found.digest.as_str()).await.map_err(said)?;
            match fetched.parse().map_err(said)? {
                Manifest::Image(manifest) => manifest,
                Manifest::Index(_) => return Err("it is an index of indexes".into()),
            }
        }
    };
    let config = repository.blob_bytes(&manifest.config, MAX_JSON).await.map_err(said)?;
    let config: Value = serde_json::from_slice(&config)?;
    let (steps, layers) = match manifest.config.media_type.as_str() {
        CACHE_CONFIG => (config, manifest.layers),
        media_type::OCI_CONFIG | media_type::DOCKER_CONFIG => inline(&config, manifest.layers)?,
        other => return Err(format!("it is no cache and no image: its configuration is of type {other}").into()),
    };
    if steps.get("steps").is_none() {
        return Err("it is the cache of another builder".into());
    }
    let layout = Layout::new()?;
    let blobs = layout.path.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(|error| wharf_report::path("mkdir", &blobs, &error))?;
    for layer in &layers {
        download(&repository, layer, &layout.blob(&layer.digest)).await?;
    }
    let (digest, size) = layout.put_json(&steps)?;
    let config = json!({ "mediaType": CACHE_CONFIG, "digest": digest, "size": size });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
    });
    let (digest, size) = layout.put_json(&manifest)?;
    let entry = json!({ "mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": size });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    layout.put(&layout.path.join("index.json"), index.to_string().as_bytes())?;
    Ok(layout)
}

/// What an image's configuration says of its own build, and its layers with the names that they have there.
fn inline(config: &Value, mut layers: Vec<Descriptor>) -> Outcome<(Value, Vec<Descriptor>)> {
    let text =
        config[INLINE].as_str().ok_or("it is an image without a cache in it (build it with --cache-to type=inline)")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|_| "what it says of its own build makes no sense")?;
    let diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
    for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
        layer.annotations.insert(DIFF_ID.to_owned(), diff_id.as_str().unwrap_or_default().to_owned());
    }
    Ok((serde_json::from_slice(&bytes)?, layers))
}

/// The engine checks what comes by its content.
async fn download(repository: &Repository, layer: &Descriptor, path: &Path) -> Outcome {
    if path.exists() {
        return Ok(());
    }
    let failing = |error| wharf_report::path("write", path, &error);
    let mut file = std::fs::File::create(path).map_err(failing)?;
    let mut stream = repository.blob(layer, 0).await.map_err(said)?;
    while let Some(chunk) = stream.chunk().await.map_err(said)? {
        file.write_all(&chunk).map_err(failing)?;
    }
    Ok(())
}
