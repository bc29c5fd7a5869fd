//! The body of the fuzz target `image_archive`, which is an ordinary test as well.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::json;
use wharf_image::{ErrorKind, Images, Remove};
use wharf_reference::Digest;
use wharf_snapshot::Layers;
use wharf_store::Store;
use wharf_store::fsck::Fsck;

/// What an archive may not touch, beside the data root.
const OUTSIDE: &str = "outside";
/// Names that lead somewhere, and those that make others do so.
const NAMES: &[&str] = &[
    "a",
    "d/a",
    "d",
    "..",
    "../outside/f",
    "../../../../../../outside/f",
    "d/../../../outside/f",
    "/etc/f",
    "./a/./b",
    "",
    ".",
    "l",
    "l/f",
    ".wh.a",
    ".wh..wh..opq",
    "d/.wh..wh..opq",
    ".wh...",
    ".wh.",
    "\u{fffd}",
    "a\nb",
];

/// A data root that is used for one input after another, and has nothing in it between them.
pub(crate) struct Root {
    dir: tempfile::TempDir,
    images: Images,
}

impl Root {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join(OUTSIDE)).expect("a directory");
        fs::write(dir.path().join(OUTSIDE).join("f"), "untouched").expect("a file");
        let store = Store::open(&dir.path().join("data")).expect("a store");
        let layers = Layers::open(store.clone()).expect("layers");
        let images = Images::open(store, layers).expect("images");
        Self { dir, images }
    }

    /// Bytes as an archive, or as choices of what is in one, are loaded whole or refused without a trace, and touch nothing
    /// outside. Whether they were loaded.
    pub(crate) fn check(&self, data: &[u8]) -> bool {
        let archive = match data.split_first() {
            Some((0, choices)) => chosen(choices, &self.dir.path().join(OUTSIDE)),
            _ => with_checksums(data),
        };
        let loaded = self.images.load(archive.as_slice(), &[], &|_| {});
        if let Err(error) = &loaded {
            assert_ne!(error.kind(), ErrorKind::System, "{error:?}");
            assert!(!error.to_string().is_empty());
        }
        self.is_sound(loaded.is_ok());
        for image in self.images.list().expect("images") {
            let remove = Remove { force: true, ..Remove::default() };
            self.images.remove(image.id.as_str(), remove, &|_| Vec::new()).expect("it goes");
        }
        self.images.prune(true, &|_| false, &|_| true).expect("a prune");
        self.images.collect(&Vec::new).expect("a collection");
        self.is_empty();
        loaded.is_ok()
    }

    fn is_sound(&self, loaded: bool) {
        assert_eq!(names(self.dir.path()), ["data", OUTSIDE]);
        assert_eq!(names(&self.dir.path().join(OUTSIDE)), ["f"]);
        assert_eq!(fs::read_to_string(self.dir.path().join(OUTSIDE).join("f")).expect("a file"), "untouched");
        let mut fsck = Fsck::new(true, true);
        self.images.fsck(&mut fsck, &|_| None).expect("a look");
        assert!(fsck.findings().is_empty() && fsck.notes().is_empty(), "{fsck:?}");
        if !loaded && self.images.list().expect("images").is_empty() {
            self.is_empty();
        }
    }

    fn is_empty(&self) {
        let data = self.dir.path().join("data");
        assert!(self.images.layers().list().expect("layers").is_empty());
        for dir in ["blobs/sha256", "blobs/sha512", "ingest", "layers"] {
            assert!(names(&data.join(dir)).is_empty(), "{dir}: {:?}", names(&data.join(dir)));
        }
        assert!(!names(&data).iter().any(|name| name.starts_with("load-")));
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut all: Vec<_> = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

/// An archive in which what looks like a header has the right checksum: a changed byte in it would end the reading there.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        checksum(block);
    }
    bytes
}

fn checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An entry as no sound tool would write it.
fn entry(tar: &mut Vec<u8>, name: &str, kind: u8, link: &str, content: &[u8]) {
    let mut header = [0; 512];
    let put = |header: &mut [u8], at: usize, most: usize, text: &str| {
        let text = &text.as_bytes()[..text.len().min(most)];
        header[at..at + text.len()].copy_from_slice(text);
    };
    put(&mut header, 0, 100, name);
    put(&mut header, 100, 7, "0000644");
    put(&mut header, 108, 7, "0000000");
    put(&mut header, 116, 7, "0000000");
    put(&mut header, 124, 11, &format!("{:011o}", content.len()));
    put(&mut header, 136, 11, "00000000000");
    header[156] = kind;
    put(&mut header, 157, 100, link);
    put(&mut header, 257, 8, "ustar\u{0}00");
    checksum(&mut header);
    tar.extend(header);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// Bytes as choices.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of the names, or the path of what is outside.
    fn name(&mut self, outside: &str) -> Option<String> {
        let at = usize::from(self.byte()?);
        Some(NAMES.get(at % (NAMES.len() + 1)).map_or_else(|| format!("{outside}/f"), |name| (*name).to_owned()))
    }
}

/// A Docker archive, or an OCI layout, whose layers and other entries are chosen, with digests that fit.
fn chosen(choices: &[u8], outside: &Path) -> Vec<u8> {
    let mut choices = Choices(choices);
    let outside = outside.to_str().unwrap_or_default();
    let form = choices.byte().unwrap_or(0);
    let mut layers = Vec::new();
    for _ in 0..=form & 3 {
        let mut tar = Vec::new();
        while let Some(kind) = choices.byte().filter(|kind| *kind < 200) {
            let Some(name) = choices.name(outside) else { break };
            let kind = b"0012345670gxLK"[usize::from(kind) % 14];
            match kind {
                b'1' | b'2' => entry(&mut tar, &name, kind, &choices.name(outside).unwrap_or_default(), b""),
                b'0' | b'7' => entry(&mut tar, &name, kind, "", b"content"),
                b'g' | b'x' => {
                    let line = format!(" path={}\n", choices.name(outside).unwrap_or_default());
                    let record = format!("{}{line}", line.len() + 2);
                    entry(&mut tar, &name, kind, "", record.as_bytes());
                }
                b'L' | b'K' => entry(&mut tar, "././@LongLink", kind, "", format!("{name}\0").as_bytes()),
                _ => entry(&mut tar, &name, kind, "", b""),
            }
        }
        tar.extend([0; 1024]);
        layers.push(tar);
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": []
    })
    .to_string();
    let packed = form & 4 != 0;
    let blobs: Vec<Vec<u8>> = layers.into_iter().map(|layer| if packed { gzip(&layer) } else { layer }).collect();
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::sha256(bytes).hex());
    let mut archive = Vec::new();
    // What comes before the rest, and in its way.
    while let Some(kind) = choices.byte().filter(|kind| *kind < 100) {
        let Some(name) = choices.name(outside) else { break };
        let link = choices.name(outside).unwrap_or_default();
        entry(&mut archive, &name, b"01257"[usize::from(kind) % 5], &link, b"");
    }
    for blob in &blobs {
        entry(&mut archive, &path(blob), b'0', "", blob);
    }
    entry(&mut archive, &path(config.as_bytes()), b'0', "", config.as_bytes());
    let named: Vec<String> = blobs.iter().map(|blob| path(blob)).collect();
    let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::sha256(bytes), "size": bytes.len() });
    let layer = if packed { "layer.v1.tar+gzip" } else { "layer.v1.tar" };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config.as_bytes()),
        "layers": blobs.iter().map(|blob| descriptor(layer, blob)).collect::<Vec<_>>()
    })
    .to_string();
    entry(&mut archive, &path(manifest.as_bytes()), b'0', "", manifest.as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest.as_bytes())] });
    entry(&mut archive, "index.json", b'0', "", index.to_string().as_bytes());
    if form & 8 != 0 {
        let own = json!([{ "Config": path(config.as_bytes()), "RepoTags": ["x:1"], "Layers": named }]);
        entry(&mut archive, "manifest.json", b'0', "", own.to_string().as_bytes());
    }
    archive.extend([0; 1024]);
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[cfg(test)]
mod tests {
    use super::Root;
    use crate::fuzzed::mutate;

    #[test]
    fn archives_are_loaded_whole_or_refused_without_a_trace() {
        let root = Root::new();
        let seeds = mutate::seeds("image_archive");
        let loaded = seeds.iter().filter(|seed| root.check(seed)).count();
        assert!(loaded >= seeds.len() / 2, "{loaded} of {}", seeds.len());
        let near: Vec<Vec<u8>> = (0..120).map(|number| mutate::mutated(&seeds, number)).collect();
        let taken = near.iter().filter(|data| root.check(data)).count();
        assert!((10..110).contains(&taken), "{taken}");
    }
}
