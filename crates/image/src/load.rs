//! Images from an archive: Docker's of every age, or an OCI layout; plain, gzip or zstd.

use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use wharf_archive::{UnpackOptions, Whiteouts, unpack};
use wharf_distribution::{Index, Manifest, Platform, media_type};
use wharf_reference::{Digest, Reference};
use wharf_rooted_path::RootDir;

use crate::config::ImageConfig;
use crate::images::{Images, MAX_CONFIG};
use crate::progress::Progress;
use crate::{ImageError, Result};

/// Prefix of folders that archives are unpacked in.
const TEMPORARY: &str = "load-";
/// An archive of images has a handful of entries for each layer; a bomb has more.
const MAX_ENTRIES: u64 = 200_000;
/// Indexes that name indexes: deeper ones are a loop.
const MAX_DEPTH: u32 = 4;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Removes what a crash has left.
pub(crate) fn sweep(root: &Path) -> Result<()> {
    let fail = |e| ImageError::Io("cannot sweep what a load has left", e);
    for entry in fs::read_dir(root).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_dir_all(entry.path()).map_err(fail)?;
        }
    }
    Ok(())
}

/// One image of a Docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Images {
    /// Loads all images of an archive, and answers with a line for each name, as Docker has it.
    ///
    /// # Errors
    /// For an archive that is none, hostile or damaged. Images that were complete before stay.
    pub fn load(&self, input: impl Read, progress: &dyn Fn(Progress)) -> Result<Vec<String>> {
        let folder = Folder::new(self.store().root())?;
        let root = RootDir::open(&folder.0).map_err(|e| ImageError::Invalid(e.to_string()))?;
        let options = UnpackOptions {
            whiteouts: Whiteouts::Literal,
            same_owner: false,
            max_entries: MAX_ENTRIES,
            ..UnpackOptions::default()
        };
        unpack(decompressed(input)?, &root, &options)?;
        if let Some(bytes) = small(&root, "manifest.json")? {
            let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes)
                .map_err(|e| ImageError::Invalid(format!("the archive's manifest.json is damaged: {e}")))?;
            let mut lines = Vec::new();
            for entry in entries {
                lines.extend(self.load_docker(&root, entry, progress)?);
            }
            return Ok(lines);
        }
        if let Some(bytes) = small(&root, "index.json")? {
            let Ok(Manifest::Index(index)) = Manifest::parse(&bytes, media_type::OCI_INDEX) else {
                return Err(ImageError::Invalid("the archive's index.json is no OCI index".into()));
            };
            let mut lines = Vec::new();
            self.load_index(&root, &index, None, 0, progress, &mut lines)?;
            return Ok(lines);
        }
        Err(ImageError::Invalid("invalid archive: does not contain a manifest.json or an index.json".into()))
    }

    fn load_docker(&self, root: &RootDir, entry: DockerEntry, progress: &dyn Fn(Progress)) -> Result<Vec<String>> {
        let bytes = small(root, &entry.config)?
            .ok_or_else(|| ImageError::Invalid(format!("the archive has no configuration {}", entry.config)))?;
        let tags = entry.repo_tags.unwrap_or_default();
        self.load_image(root, &bytes, &entry.layers, &tags, progress)
    }

    fn load_index(
        &self,
        root: &RootDir,
        index: &Index,
        name: Option<&str>,
        depth: u32,
        progress: &dyn Fn(Progress),
        lines: &mut Vec<String>,
    ) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(ImageError::Invalid("the archive's indexes are nested too deeply".into()));
        }
        // At the top each entry is an image; below, each is one platform of the same image.
        let chosen: Vec<_> = if depth == 0 {
            index.manifests.iter().collect()
        } else {
            index.select(&Platform::host()).into_iter().collect()
        };
        for descriptor in chosen {
            let annotation = |key: &str| descriptor.annotations.get(key).map(String::as_str);
            let own = annotation("io.containerd.image.name")
                .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|text| text.contains([':', '/'])));
            let own = own.or(name);
            let path = format!("blobs/{}/{}", descriptor.digest.algorithm(), descriptor.digest.hex());
            let Some(bytes) = small(root, &path)? else {
                // Other platforms of an image may be left out.
                continue;
            };
            if Digest::sha256(&bytes) != descriptor.digest {
                return Err(ImageError::Invalid(format!("manifest {} of the archive is damaged", descriptor.digest)));
            }
            match Manifest::parse(&bytes, &descriptor.media_type)? {
                Manifest::Index(below) => self.load_index(root, &below, own, depth + 1, progress, lines)?,
                Manifest::Image(manifest) if manifest.is_image() => {
                    let blob = |digest: &Digest| format!("blobs/{}/{}", digest.algorithm(), digest.hex());
                    let config = small(root, &blob(&manifest.config.digest))?
                        .ok_or_else(|| ImageError::Invalid("the archive has no configuration".into()))?;
                    if Digest::sha256(&config) != manifest.config.digest {
                        return Err(ImageError::Invalid("a configuration of the archive is damaged".into()));
                    }
                    let layers: Vec<String> = manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
                    let tags: Vec<String> = own.map(str::to_owned).into_iter().collect();
                    lines.extend(self.load_image(root, &config, &layers, &tags, progress)?);
                }
                Manifest::Image(_) => {}
            }
        }
        Ok(())
    }

    fn load_image(
        &self,
        root: &RootDir,
        config: &[u8],
        layers: &[String],
        tags: &[String],
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<String>> {
        let parsed: ImageConfig = serde_json::from_slice(config).map_err(ImageError::Config)?;
        if parsed.rootfs.diff_ids.len() != layers.len() {
            return Err(ImageError::Invalid("invalid manifest, layers length mismatch".into()));
        }
        let tags = tags.iter().map(|tag| Reference::parse(tag)).collect::<std::result::Result<Vec<_>, _>>()?;
        for (diff_id, path) in parsed.rootfs.diff_ids.iter().zip(layers) {
            let id = diff_id.short();
            if self.layers().contains(diff_id) {
                progress(Progress::new(id, "Already exists"));
                continue;
            }
            let file = root
                .open_file(path)
                .map_err(|e| ImageError::Invalid(format!("the archive has no layer {path}: {e}")))?;
            let size = file.metadata().map_or(0, |found| found.len());
            progress(Progress::bytes(id, "Loading layer", 0, size));
            let mut tar = decompressed(file)?;
            self.layers().import_exact(&mut tar, diff_id)?;
            progress(Progress::bytes(id, "Loading layer", size, size));
        }
        let image = self.create_raw(config, None, &tags, None)?;
        if tags.is_empty() {
            return Ok(vec![format!("Loaded image ID: {}", image.id)]);
        }
        Ok(tags.iter().map(|tag| format!("Loaded image: {}", tag.clone().tag_or_latest().familiar())).collect())
    }
}

fn small(root: &RootDir, path: &str) -> Result<Option<Vec<u8>>> {
    match root.read_small(path, MAX_CONFIG) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(ImageError::Invalid(format!("{path} of the archive cannot be read: {error}"))),
    }
}

/// The stream without its compression, which its first bytes tell: none, gzip or zstd.
///
/// # Errors
/// `Invalid` for bzip2 and xz; when the stream cannot be read.
pub fn decompressed<'a>(input: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut input = io::BufReader::with_capacity(1 << 18, input);
    let fail = |e| ImageError::Io("the archive cannot be read", e);
    // Two bytes may come alone through a pipe; a frame of either kind has more than four.
    let start = input.fill_buf().map_err(fail)?;
    let (gzip, zstd) = (start.starts_with(&[0x1f, 0x8b]), start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    let (bzip2, xz) = (start.starts_with(b"BZh"), start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z']));
    if bzip2 || xz {
        let kind = if xz { "xz" } else { "bzip2" };
        return Err(ImageError::Invalid(format!(
            "archives compressed with {kind} are not supported: use gzip or zstd"
        )));
    }
    Ok(if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(input))
    } else if zstd {
        Box::new(zstd::Decoder::with_buffer(input).map_err(fail)?)
    } else {
        Box::new(input)
    })
}

/// A folder for an unpacked archive, gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new(root: &Path) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|e| ImageError::Io("cannot make a folder for the archive", e))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is swept when the images are opened.
        let _ = fs::remove_dir_all(&self.0);
    }
}
