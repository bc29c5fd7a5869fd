//! Layers on a real disk: in from tars of other tools, out byte for byte, hostile, broken off, killed.

mod crash;
mod hostile;
mod round_trip;
mod tar;
mod views;

use std::path::{Path, PathBuf};

use wharf_reference::Digest;
use wharf_snapshot::Layers;
use wharf_store::Store;

/// A store of its own, and the layers in it.
struct Place {
    dir: tempfile::TempDir,
    layers: Layers,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = open(&dir.path().join("data"));
        Self { dir, layers }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file or directory of a layer's tree.
    fn tree(&self, diff_id: &Digest, path: &str) -> PathBuf {
        self.path("data/layers").join(diff_id.hex()).join("root").join(path)
    }

    fn written(&self, diff_id: &Digest) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.layers.write_tar(diff_id, &mut bytes).unwrap();
        bytes
    }

    /// What is in the folder of the layers.
    fn names(&self) -> Vec<String> {
        names(&self.path("data/layers"))
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

fn open(root: &Path) -> Layers {
    Layers::open(store(root)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}
