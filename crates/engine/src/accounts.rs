//! Every byte of the data root, by who has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use std::os::unix::fs::MetadataExt;

use serde::Serialize;
use wharf_image::ImageSummary;
use wharf_reference::Digest;
use wharf_rooted_path::disk_usage;
use wharf_snapshot::Layer;

use crate::consistency::strangers_in;
use crate::engine::Engine;
use crate::error::Result;
use crate::journal;

/// How long `system df` waits for the walks of what containers and builds write to.
pub const PATIENCE: Duration = Duration::from_millis(20);

/// Bytes on the disk, in blocks as du(1) counts them; the sum of all is [`Accounts::total`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Accounts {
    /// Layers that several images have.
    pub layers_shared: u64,
    /// Layers that one image has.
    pub layers_unique: u64,
    /// Layers that only containers have: their images are gone.
    pub layers_of_containers: u64,
    /// Layers that neither an image nor a container has: the build cache's, and those that wait to be collected.
    pub layers_of_cache: u64,
    /// Configurations, manifests and compressed layers.
    pub blobs: u64,
    /// What containers have written to their layers.
    pub containers_written: u64,
    /// Their logs.
    pub containers_logs: u64,
    /// Their other files.
    pub containers_files: u64,
    pub volumes: u64,
    /// Directories of cache mounts, and of builds under way.
    pub builds: u64,
    /// Blobs and archives on their way in.
    pub partial: u64,
    /// Layers on their way in or out.
    pub unpacking: u64,
    pub database: u64,
    /// Room for the database when the disk has none.
    pub reserve: u64,
    /// What the engine needs for itself.
    pub engine: u64,
    /// What is in the data root and none of the engine's.
    pub strangers: u64,
    /// Whether what is written to was walked just now; otherwise some of it is as it was when it was last asked for.
    pub exact: bool,
}

impl Accounts {
    /// All bytes together.
    pub fn total(&self) -> u64 {
        self.layers()
            + self.blobs
            + self.containers_written
            + self.containers_logs
            + self.containers_files
            + self.volumes
            + self.builds
            + self.partial
            + self.unpacking
            + self.database
            + self.reserve
            + self.engine
            + self.strangers
    }

    fn layers(&self) -> u64 {
        self.layers_shared + self.layers_unique + self.layers_of_containers + self.layers_of_cache
    }
}

/// The accounts, and the parts that lists show.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    pub accounts: Accounts,
    pub images: Vec<ImageSummary>,
    pub layers: Vec<Layer>,
    /// What each container has written to its layer, by ID.
    pub containers: BTreeMap<String, u64>,
    /// What each volume takes, by name.
    pub volumes: BTreeMap<String, u64>,
}

impl Engine {
    /// What takes room on the disk, in bounded time: sizes of images, layers and the build cache are in rows, and what is
    /// written to is walked for no longer than `patience` (see `measure`). Waits for the disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn disk_usage(&self, patience: Duration) -> Result<DiskUsage> {
        let root = self.inner.options.data_root.clone();
        let images = self.images().summaries()?;
        let layers = self.images().layers().list()?;
        let containers = self.list();
        let volumes = self.volumes().list()?;
        let upper = |id: &str| self.dir(id).join("upper");
        let volume_dir = |name: &str| root.join("volumes").join(name);
        let mut trees: Vec<PathBuf> = containers.iter().map(|c| upper(&c.id)).collect();
        trees.extend(volumes.iter().map(|volume| volume_dir(&volume.name)));
        trees.push(root.join("build"));
        let (archives, unpacking) = (named(root.clone(), "load-"), named(root.join("layers"), "tmp-"));
        trees.extend(archives.iter().chain(&unpacking).cloned());
        let (sizes, exact) = self.inner.measures.of(self.store(), &trees, patience);
        let sizes: BTreeMap<PathBuf, u64> = trees.into_iter().zip(sizes).collect();
        let size = |path: PathBuf| sizes.get(&path).copied().unwrap_or(0);

        let mut accounts = Accounts { exact, ..Accounts::default() };
        let containers: BTreeMap<String, u64> = containers.iter().map(|c| (c.id.clone(), size(upper(&c.id)))).collect();
        accounts.containers_written = containers.values().sum();
        let volumes: BTreeMap<String, u64> =
            volumes.iter().map(|v| (v.name.clone(), size(volume_dir(&v.name)))).collect();
        accounts.volumes = volumes.values().sum::<u64>() + own(&root.join("volumes"));
        accounts.builds = size(root.join("build"));
        self.count_layers(&images, &layers, &mut accounts);
        accounts.blobs = flat(&root.join("blobs/sha256")) + flat(&root.join("blobs/sha512")) + own(&root.join("blobs"));
        accounts.partial = flat(&root.join("ingest")) + archives.into_iter().map(size).sum::<u64>();
        accounts.unpacking = unpacking.into_iter().map(size).sum();
        for id in containers.keys() {
            let (logs, files) = beside_upper(&self.dir(id));
            accounts.containers_logs += logs;
            accounts.containers_files += files;
        }
        accounts.containers_files += own(&root.join("containers"));
        accounts.database = own(&root.join("wharf.redb"));
        accounts.reserve = own(&root.join("wharf.reserve"));
        // Each of a handful of files.
        accounts.engine = own(&root) + own(&root.join("layers"));
        accounts.engine += ["places", "empty", "engine-id", "format", "lock", "oci-layout", "turn.lock"]
            .iter()
            .map(|name| disk_usage(root.join(name)))
            .sum::<u64>();
        accounts.engine += journal::FILES.iter().map(|name| own(&root.join(name))).sum::<u64>();
        accounts.strangers = strangers_in(&root).iter().map(|path| own(path)).sum();
        Ok(DiskUsage { accounts, images, layers, containers, volumes })
    }

    fn count_layers(&self, images: &[ImageSummary], layers: &[Layer], accounts: &mut Accounts) {
        let mut users: BTreeMap<&Digest, usize> = BTreeMap::new();
        for image in images {
            for layer in image.diff_ids.iter().collect::<BTreeSet<_>>() {
                *users.entry(layer).or_default() += 1;
            }
        }
        let records = self.list();
        let of_containers: BTreeSet<&Digest> = records.iter().flat_map(|record| record.all_layers()).collect();
        for layer in layers {
            let place = match (users.get(&layer.diff_id), of_containers.contains(&layer.diff_id)) {
                (Some(1), _) => &mut accounts.layers_unique,
                (Some(_), _) => &mut accounts.layers_shared,
                (None, true) => &mut accounts.layers_of_containers,
                (None, false) => &mut accounts.layers_of_cache,
            };
            *place += layer.disk;
        }
    }
}

/// What is in a directory with a name that begins so.
fn named(dir: PathBuf, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path()).collect()
}

/// A container's logs, and the other files in its directory but what it writes to its layer.
fn beside_upper(dir: &Path) -> (u64, u64) {
    let (mut logs, mut files) = (0, own(dir));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            "upper" => {}
            // Of overlayfs's own: a directory or two.
            "work" => files += disk_usage(entry.path()),
            _ if name.contains(".log") => logs += disk_usage(entry.path()),
            _ => files += disk_usage(entry.path()),
        }
    }
    (logs, files)
}

/// A directory with the files in it.
fn flat(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    own(dir) + entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.blocks() * 512).sum::<u64>()
}

/// A file or directory without what is in it.
fn own(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| found.blocks() * 512)
}
