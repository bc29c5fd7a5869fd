//! The cache of a build on its way to another engine (`--cache-to`, `--cache-from`): an OCI layout whose one manifest has
//! the steps' records as its configuration, and their layers; or the records alone, in an image's configuration.
//!
//! The configuration is BuildKit's (`application/vnd.buildkit.cacheconfig.v0`: `layers`, and `records` by digest), and has
//! our steps beside that. BuildKit's own keys mean nothing here, as ours mean nothing to it.
//!
//! Steps are known by what they were made from, so whoever builds the same of it finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wharf_archive::{PackOptions, UnpackOptions, Whiteouts, decompressed, pack, unpack};
use wharf_reference::{Digest, Hasher};
use wharf_rooted_path::RootDir;
use wharf_snapshot::{Clamped, MARK, RealTimes, Time};

use crate::Builder;
use crate::cache::{Cache, CacheRecord, Defined};
use crate::cache_mount::travel;
use crate::error::{BuildError, Result};
use crate::history::BuildRecord;
use crate::scratch::{Scratch, random_id};
use crate::why::Noted;

const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Where an image's configuration has the cache of its own build, in base64, as with BuildKit.
pub(crate) const INLINE: &str = "moby.buildkit.cache.v0";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Which layer a blob is.
pub const DIFF_ID: &str = "wharf.diff-id";
/// More of it is no list of steps.
const MAX_CONFIG: u64 = 64 << 20;
/// More of it is no manifest: those of registries have 4 MiB at most (OCI distribution-spec), to which an image's gets what
/// its layers are.
const MAX_MANIFEST: u64 = 16 << 20;
/// So many steps one cache has at most.
const MAX_STEPS: usize = 100_000;

// Caches come from strangers: what is not used of them takes no memory, and what is used is not small in their text and
// large here, as it were in a `Value`.

/// A manifest, or an index, as far as it is used.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    config: Option<Part>,
    layers: Option<Vec<Part>>,
    manifests: Option<Vec<Part>>,
}

/// What a manifest lists.
#[derive(Deserialize)]
struct Part {
    #[serde(default, rename = "mediaType")]
    media_type: Option<String>,
    digest: Digest,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Part {
    fn is_config(&self) -> bool {
        self.media_type.as_deref() == Some(CONFIG)
    }
}

/// The configuration of a cache, as far as it is used.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    steps: Option<Vec<Step>>,
    #[serde(default)]
    definitions: Definitions,
}

/// Steps by their definitions.
type Definitions = BTreeMap<String, Defined>;

/// A step, as it travels.
#[derive(Debug, Serialize, Deserialize)]
struct Step {
    key: Digest,
    layer: Option<Digest>,
    size: u64,
    description: String,
    created: i64,
    #[serde(default)]
    nanoseconds: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    date: Option<i64>,
}

impl Step {
    /// Whether what it has made itself is told from what it has copied by its time.
    fn copies(&self) -> bool {
        let word = self.description.split_whitespace().next().unwrap_or_default();
        ["COPY", "ADD"].iter().any(|copies| word.eq_ignore_ascii_case(copies))
    }
}

/// What of a build's cache travels, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheForm {
    /// With steps of stages that are no part of the image.
    pub all: bool,
    /// With the cache mounts that the build's commands ask for and that nobody uses now.
    pub mounts: bool,
    pub compression: CacheCompression,
    /// An index that lists the blobs, as BuildKit wrote it before 0.21, in place of a manifest.
    pub index: bool,
}

/// How the layers of a cache are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheCompression {
    #[default]
    Gzip,
    Zstd,
    None,
}

impl CacheCompression {
    fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::None => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

/// A cache that is on its way: an OCI layout below the engine's builds. Dropped, it goes.
#[derive(Debug)]
pub struct CacheLayout {
    dir: Scratch,
    /// What the index of the layout lists, which names the others.
    top: CacheBlob,
    blobs: Vec<CacheBlob>,
}

/// One blob of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheBlob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
}

impl CacheLayout {
    /// The manifest, or the index, of all others.
    pub fn top(&self) -> &CacheBlob {
        &self.top
    }

    /// What that names, each once.
    pub fn blobs(&self) -> &[CacheBlob] {
        &self.blobs
    }

    /// Where one of them is.
    pub fn path(&self, blob: &CacheBlob) -> PathBuf {
        self.dir.path.join("blobs/sha256").join(blob.digest.hex())
    }
}

impl Builder {
    /// Writes what [`Self::cache_layout`] makes, as an archive.
    ///
    /// # Errors
    /// When the store cannot be read, or the disk is full.
    pub fn export_cache(&self, build: &BuildRecord, form: CacheForm, output: &mut dyn Write) -> Result<()> {
        let layout = self.cache_layout(build, form)?;
        let root = RootDir::open(&layout.dir.path)?;
        let packed = pack(&root, Path::new(""), output, &PackOptions::default());
        packed.map_err(|e| BuildError::system("the cache cannot be packed", &e))
    }

    /// Makes an OCI layout of the steps of a build that are still here, with their layers: of those of its images, or of all.
    ///
    /// # Errors
    /// When the store cannot be read, or the disk is full.
    pub fn cache_layout(&self, build: &BuildRecord, form: CacheForm) -> Result<CacheLayout> {
        let failing = |e: io::Error| BuildError::system("the cache cannot be written", &e);
        let shared = &self.shared;
        let images = build.images.iter().chain(&build.image).filter_map(|id| shared.images.resolve(id).ok());
        let shipped: BTreeSet<Digest> = images.flat_map(|image| image.diff_ids).collect();
        let mut hold = shared.layers.hold(&[]);
        let mut steps = Vec::new();
        for key in &build.keys {
            let Some(step) = step(&shared.cache, key)? else { continue };
            if let Some(layer) = &step.layer {
                if !form.all && !shipped.contains(layer) {
                    continue;
                }
                shared.layers.hold_also(&mut hold, std::slice::from_ref(layer));
                if !shared.layers.contains(layer) {
                    continue;
                }
            }
            steps.push(step);
        }
        let dir = Scratch::new(shared.builds().join(format!("b-{}", &random_id()?[..16])))?;
        let place = dir.sub("blobs/sha256")?;
        let kind = form.compression;
        let (mut layers, mut names, mut seen) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let mut blobs = Vec::new();
        for layer in steps.iter().filter_map(|step| step.layer.as_ref()).filter(|layer| seen.insert((*layer).clone())) {
            let (digest, size, ()) = blob(&place, kind, &mut |output| Ok(shared.layers.write_tar(layer, output)?))?;
            names.insert(layer.clone(), digest.clone());
            let annotations = BTreeMap::from([(DIFF_ID, layer.to_string())]);
            blobs.push(CacheBlob { digest: digest.clone(), size, media_type: kind.media_type().into() });
            layers.push(
                json!({ "mediaType": kind.media_type(), "digest": digest, "size": size, "annotations": annotations }),
            );
        }
        for name in build.mounts.iter().filter(|_| form.mounts) {
            let Some(cache) = shared.cache_mounts.idle(name) else { continue };
            let (digest, size, annotations) = blob(&place, kind, &mut |output| cache.write(name, output))?;
            blobs.push(CacheBlob { digest: digest.clone(), size, media_type: kind.media_type().into() });
            layers.push(
                json!({ "mediaType": kind.media_type(), "digest": digest, "size": size, "annotations": annotations }),
            );
        }
        let put = |value: &Value, media_type: &str| -> Result<CacheBlob> {
            let bytes = serde_json::to_vec(value).unwrap_or_default();
            let digest = Digest::sha256(&bytes);
            fs::write(place.join(digest.hex()), &bytes).map_err(failing)?;
            Ok(CacheBlob { digest, size: bytes.len() as u64, media_type: media_type.to_owned() })
        };
        let described =
            |blob: &CacheBlob| json!({ "mediaType": blob.media_type, "digest": blob.digest, "size": blob.size });
        let defined = shared.cache.definitions(&steps.iter().map(|step| &step.key).collect())?;
        let config = put(&config(&steps, &defined, &|layer| names.get(layer).cloned()), CONFIG)?;
        let top = match form.index {
            false => {
                let config = described(&config);
                put(
                    &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }),
                    MANIFEST,
                )?
            }
            true => {
                layers.push(described(&config));
                put(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": layers }), INDEX)?
            }
        };
        blobs.push(config);
        let mut seen = BTreeSet::new();
        blobs.retain(|blob| seen.insert(blob.digest.clone()));
        // By this name BuildKit finds it.
        let mut listed = described(&top);
        listed["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed] });
        fs::write(dir.path.join("index.json"), index.to_string()).map_err(failing)?;
        fs::write(dir.path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failing)?;
        Ok(CacheLayout { dir, top, blobs })
    }

    /// Whether a layer of a cache need not come: it is here.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.shared.layers.contains(diff_id)
    }

    /// Takes in what [`Self::export_cache`] has written. The value is how many steps were not known before.
    ///
    /// # Errors
    /// For what is none, or is damaged: a layer that is not what its digest says.
    pub fn import_cache(&self, input: impl Read) -> Result<usize> {
        let shared = &self.shared;
        let dir = Scratch::new(shared.builds().join(format!("b-{}", &random_id()?[..16])))?;
        let root = RootDir::open(dir.sub("cache")?)?;
        let options = UnpackOptions { whiteouts: Whiteouts::Literal, same_owner: false, ..UnpackOptions::default() };
        unpack(input, &root, &options).map_err(|e| bad(&wharf_report::chain(&e)))?;
        let path = |digest: &Digest| Path::new("blobs/sha256").join(digest.hex());
        let read = |digest: &Digest, most: u64| -> Result<Vec<u8>> {
            let bytes = root.read_small(path(digest), most).map_err(|e| bad(&wharf_report::chain(&e)))?;
            if Digest::sha256(&bytes) != *digest {
                return Err(bad("a part of it is damaged"));
            }
            Ok(bytes)
        };
        let manifest = |bytes: &[u8]| serde_json::from_slice::<Manifest>(bytes).map_err(|e| bad(&e.to_string()));
        let index =
            root.read_small(Path::new("index.json"), MAX_MANIFEST).map_err(|e| bad(&wharf_report::chain(&e)))?;
        let top = manifest(&index)?.manifests.unwrap_or_default().into_iter().next();
        let top = top.ok_or_else(|| bad("its index lists nothing"))?;
        let manifest = manifest(&read(&top.digest, MAX_MANIFEST)?)?;
        // Of an index the configuration is one of those that it lists.
        let (configs, layers): (Vec<_>, Vec<_>) =
            manifest.manifests.or(manifest.layers).unwrap_or_default().into_iter().partition(Part::is_config);
        let found = configs.into_iter().chain(manifest.config).find(Part::is_config);
        let (steps, definitions) = steps(&read(&found.ok_or_else(|| bad("it is an image"))?.digest, MAX_CONFIG)?)?;
        let mut blobs = BTreeMap::new();
        for layer in layers {
            let mut annotations = layer.annotations.unwrap_or_default();
            if annotations.contains_key(travel::NAME) {
                let tar = decompressed(root.open_file(path(&layer.digest))?).map_err(|e| bad(&e.to_string()))?;
                shared.cache_mounts.take_in(&annotations, tar, &dir.path)?;
                continue;
            }
            blobs.insert(annotations.remove(DIFF_ID).unwrap_or_default(), layer.digest);
        }
        let mut hold = shared.layers.hold(&[]);
        let mut new = 0;
        for step in steps {
            if shared.cache.find(&step.key)?.is_some() {
                continue;
            }
            if let Some(layer) = &step.layer {
                shared.layers.hold_also(&mut hold, std::slice::from_ref(layer));
                if !shared.layers.contains(layer) {
                    let Some(digest) = blobs.get(layer.as_str()) else { continue };
                    let file = root.open_file(path(digest))?;
                    let tar = decompressed(file).map_err(|e| bad(&e.to_string()))?;
                    let mut tar = tar;
                    // What the step has made is as new here as where it was made.
                    let time = (step.date.unwrap_or(i64::MAX), if step.copies() { MARK } else { 0 });
                    let made = (step.created, step.nanoseconds.unsigned_abs());
                    let of = |_: &Path, said: Time| if said >= time && made > said { made } else { said };
                    let clamped = Clamped { from: made, until: made, time, whole: false, copied: true };
                    let times = step.date.filter(|date| *date < step.created).map(|_| RealTimes { clamped, of: &of });
                    shared.layers.import_with(&mut tar, Some(layer), times)?;
                }
            }
            let Step { key, layer, size, description, created, nanoseconds, date } = step;
            let record = CacheRecord {
                layer,
                size,
                description,
                created,
                nanoseconds,
                date,
                last_used: created,
                uses: 0,
                secrets: Vec::new(),
                again: None,
            };
            shared.cache.adopt(&key, &record)?;
            new += 1;
        }
        for (definition, defined) in definitions {
            let definition = Digest::parse(&definition).map_err(|e| bad(&e.to_string()))?;
            if shared.cache.defined(&definition)?.is_none() {
                shared.cache.define(&definition, &defined)?;
            }
        }
        Ok(new)
    }
}

/// Writes a compressed blob below `blobs`; its digest and size, and what `write` says.
fn blob<T>(
    blobs: &Path,
    kind: CacheCompression,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<T>,
) -> Result<(Digest, u64, T)> {
    let failing = |e: io::Error| BuildError::system("the cache cannot be written", &e);
    let path = blobs.join("new");
    let mut file = Hashed { file: BufWriter::new(File::create_new(&path).map_err(failing)?), hasher: Hasher::new() };
    let (said, file) = match kind {
        CacheCompression::Gzip => {
            let mut gzip = GzEncoder::new(file, Compression::fast());
            (write(&mut gzip)?, gzip.finish().map_err(failing)?)
        }
        CacheCompression::Zstd => {
            let mut zstd = zstd::Encoder::new(file, 0).map_err(failing)?;
            (write(&mut zstd)?, zstd.finish().map_err(failing)?)
        }
        CacheCompression::None => (write(&mut file)?, file),
    };
    let Hashed { mut file, hasher } = file;
    file.flush().map_err(failing)?;
    let (size, digest) = (hasher.count(), hasher.finish());
    fs::rename(&path, blobs.join(digest.hex())).map_err(failing)?;
    Ok((digest, size, said))
}

fn bad(what: &str) -> BuildError {
    BuildError::invalid(format!("this is no build cache: {what}"))
}

/// The steps of a configuration, and their definitions.
fn steps(config: &[u8]) -> Result<(Vec<Step>, Definitions)> {
    let config: Config = serde_json::from_slice(config).map_err(|e| bad(&e.to_string()))?;
    let steps = config.steps.ok_or_else(|| bad("it is the cache of another builder"))?;
    match steps.len() {
        count if count.max(config.definitions.len()) > MAX_STEPS => {
            Err(bad(&format!("it has {count} steps; at most {MAX_STEPS} are read")))
        }
        _ => Ok((steps, config.definitions)),
    }
}

/// A step that is known, if its layer is, and may leave this host: what has a secret in it stays.
fn step(cache: &Cache, key: &Digest) -> Result<Option<Step>> {
    let Some(record) = cache.find(key)?.filter(|record| record.secrets.is_empty()) else { return Ok(None) };
    let CacheRecord { layer, size, description, created, nanoseconds, date, .. } = record;
    Ok(Some(Step { key: key.clone(), layer, size, description, created, nanoseconds, date }))
}

/// The configuration of a cache; `blob` is a layer's.
fn config(steps: &[Step], defined: &Definitions, blob: &dyn Fn(&Digest) -> Option<Digest>) -> Value {
    let (mut layers, mut records) = (Vec::new(), Vec::new());
    for step in steps {
        let Some(blob) = step.layer.as_ref().and_then(blob) else { continue };
        let created = jiff::Timestamp::new(step.created, step.nanoseconds).unwrap_or_default().to_string();
        let result = json!({ "layer": layers.len(), "createdAt": created });
        records.push(json!({ "digest": step.key, "layers": [result] }));
        layers.push(json!({ "blob": blob, "parent": -1 }));
    }
    json!({ "layers": layers, "records": records, "steps": steps, "definitions": defined })
}

/// What an image's configuration says of the steps that it was made in: of those with layers that it has, and those
/// without.
///
/// # Errors
/// When the store cannot be read.
pub(crate) fn inline(cache: &Cache, noted: &Noted, image: &[Digest]) -> Result<Value> {
    let mut steps = Vec::new();
    for key in noted.keys.iter().collect::<BTreeSet<_>>() {
        let Some(mut step) = step(cache, key)? else { continue };
        // When it was made is another time for each who makes it.
        (step.created, step.nanoseconds) = (step.date.unwrap_or(step.created), 0);
        steps.extend(Some(step).filter(|step| step.layer.as_ref().is_none_or(|layer| image.contains(layer))));
    }
    let is_here = |(_, defined): &(&String, &Defined)| steps.iter().any(|step| step.key == defined.key);
    let defined = noted.definitions.iter().filter(is_here).map(|(name, it)| (name.clone(), it.clone())).collect();
    // Blobs have their names when they are pushed; by then this is part of the image's own.
    let text = config(&steps, &defined, &|_| None).to_string();
    Ok(base64::engine::general_purpose::STANDARD.encode(text).into())
}

struct Hashed {
    file: BufWriter<File>,
    hasher: Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_configuration_only_steps_are_read() {
        let own = Step {
            key: Digest::sha256(b"key"),
            layer: None,
            size: 1,
            description: "RUN".into(),
            created: 2,
            nanoseconds: 3,
            date: None,
        };
        let text =
            config(&[own], &Definitions::new(), &|_| None).to_string().replacen('{', r#"{"x":[{"":0},1e999,null],"#, 1);
        // A `Value` would refuse the number.
        assert!(serde_json::from_str::<Value>(&text).is_err());
        let read = steps(text.as_bytes()).unwrap().0;
        assert_eq!((read.len(), read[0].description.as_str()), (1, "RUN"));
        assert!(steps(br#"{"layers":[]}"#).unwrap_err().to_string().contains("another builder"));
        let one = serde_json::to_string(&read[0]).unwrap();
        let many = format!(r#"{{"steps":[{}{one}]}}"#, format!("{one},").repeat(MAX_STEPS));
        assert!(steps(many.as_bytes()).unwrap_err().to_string().contains("100001 steps"));
        assert!(serde_json::from_str::<Manifest>(r#"{"layers":[{}]}"#).is_err());
    }
}
