//! Images on a real disk: named, removed, saved, loaded, pulled and pushed, with other tools at the other end.

mod archives;
mod collecting;
mod crash;
mod fsck;
mod fuzzed;
mod fuzzed_archive;
mod hostile;
mod layouts;
mod names;
mod platforms;
mod pushes;
mod ranges;
mod registry;
mod registry_faults;
mod removing;

use std::path::{Path, PathBuf};

use wharf_archive::Writer;
use wharf_image::{HistoryEntry, ImageConfig, ImageRecord, Images, RootFs};
use wharf_reference::Digest;
use wharf_snapshot::Layers;
use wharf_store::Store;

/// A store of its own, and the images in it.
struct Place {
    dir: tempfile::TempDir,
    store: Store,
    images: Images,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir.path().join("data"));
        let images = images(&store);
        Self { dir, store, images }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn layer(&self, files: &[(&str, &[u8])]) -> Digest {
        self.images.layers().import(&mut tar(files).as_slice(), None).unwrap().diff_id
    }

    /// An image of these layers; `comment` makes it another one.
    fn image(&self, layers: &[Digest], comment: &str, tags: &[&str]) -> ImageRecord {
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self.images.create(&config(layers, comment), None, &tags).unwrap()
    }

    /// The simplest image there is.
    fn simple(&self, comment: &str, tags: &[&str]) -> ImageRecord {
        let layer = self.layer(&[("file", b"content")]);
        self.image(&[layer], comment, tags)
    }

    /// Files of the blob store.
    fn blobs(&self) -> Vec<String> {
        listing(&self.path("data/blobs/sha256"))
    }
}

/// Opens a store. Processes that other tests are just making hold on to its lock until they have become their programs.
fn store(root: &Path) -> Store {
    for _ in 0..100 {
        match Store::open(root) {
            Err(wharf_store::StoreError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            opened => return opened.unwrap(),
        }
    }
    panic!("the store stays in use");
}

fn open(root: &Path) -> Images {
    images(&store(root))
}

fn images(store: &Store) -> Images {
    let layers = Layers::open(store.clone()).unwrap();
    Images::open(store.clone(), layers).unwrap()
}

fn config(layers: &[Digest], comment: &str) -> ImageConfig {
    let entry =
        HistoryEntry { created_by: Some("test".into()), comment: Some(comment.into()), ..HistoryEntry::default() };
    ImageConfig {
        created: Some("2026-01-02T03:04:05Z".into()),
        architecture: wharf_distribution::Platform::host().architecture,
        os: "linux".into(),
        rootfs: RootFs { diff_ids: layers.to_vec(), ..RootFs::default() },
        history: layers.iter().map(|_| entry.clone()).collect(),
        ..ImageConfig::default()
    }
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes);
    for (name, content) in files {
        writer.file(name, content.len() as u64, &mut &**content).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

fn listing(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..size.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(size).collect()
}

/// Whether a program of this machine can be used as a peer; says so when not.
fn has(program: &str) -> bool {
    let found = std::process::Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("skipped: there is no {program} on this machine");
    }
    found
}
