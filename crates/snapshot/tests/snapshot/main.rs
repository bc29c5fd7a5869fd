//! Layers on a real disk, in either form: in from tars of other tools, out byte for byte, hostile, broken off, killed.

mod crash;
mod forms;
mod hostile;
mod round_trip;
mod tar;
mod views;

use std::cell::RefCell;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use wharf_reference::Digest;
use wharf_snapshot::{Layers, Lower, Storage};
use wharf_store::Store;

/// A store of its own, and the layers in it.
struct Place {
    dir: tempfile::TempDir,
    layers: Layers,
    /// What [`Self::tree`] has led to.
    looked_at: RefCell<Vec<Lower>>,
}

/// A place for each form that layers can have here; for images, the kernel and `/tmp` must allow them.
fn both() -> impl Iterator<Item = Place> {
    [Storage::Dirs, Storage::Erofs].into_iter().filter_map(Place::of)
}

impl Place {
    /// In the form that this host prefers.
    fn new() -> Self {
        Self::with(|path| open(path, None))
    }

    fn of(form: Storage) -> Option<Self> {
        let place = match form {
            Storage::Dirs => Self::with(|path| open(path, Some(form))),
            Storage::Erofs => Self::new(),
        };
        if place.layers.form() != form {
            eprintln!("skipped for images: {}", place.layers.no_images().unwrap_or_default());
            return None;
        }
        println!("{form:?}");
        Some(place)
    }

    fn with(open: impl FnOnce(&Path) -> Layers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = open(&dir.path().join("data"));
        Self { dir, layers, looked_at: RefCell::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where a layer is.
    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.path("data/layers").join(diff_id.hex())
    }

    /// A file or directory of a layer, as it is mounted.
    fn tree(&self, diff_id: &Digest, path: &str) -> PathBuf {
        let lower = self.layers.lowers(std::slice::from_ref(diff_id)).unwrap().remove(0);
        let tree = match lower.mount() {
            None => lower.path().join(path),
            Some(mount) => format!("/proc/self/fd/{}/{path}", mount.as_raw_fd()).into(),
        };
        self.looked_at.borrow_mut().push(lower);
        tree
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

fn open(root: &Path, form: Option<Storage>) -> Layers {
    Layers::open_as(store(root), form).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}
