//! Images that are made here: from layers, or from a tar of a root.

use std::io::{self, Read};

use serde::Deserialize;
use serde::de::IgnoredAny;
use wharf_distribution::Platform;
use wharf_reference::Digest;

use crate::config::{ContainerConfig, HistoryEntry, ImageConfig, RootFs};
use crate::images::{ImageRecord, Images, MAX_CONFIG};
use crate::index::{Member, Within, join, manifest_left, platform_of, point};
use crate::names::{now, seconds_now, tag_of};
use crate::rows::{IMAGES, LEFT, Row, StoredManifest, key};
use crate::summary::Short;
use crate::{ErrorKind, ImageError, Result, decompressed};

/// What an image is stored with, beside its configuration.
#[derive(Debug, Default)]
pub(crate) struct With<'a> {
    pub(crate) parent: Option<&'a Digest>,
    /// Keys of tags.
    pub(crate) tags: Vec<String>,
    /// Key of the digest that a repository has it under.
    pub(crate) digest: Option<String>,
    /// The bytes of its manifest, and their media type.
    pub(crate) manifest: Option<(Vec<u8>, String)>,
    /// The index that its names lead to.
    pub(crate) index: Option<Within>,
    /// [`Row::made`] is now: if it is new, or in any case.
    pub(crate) made: Option<bool>,
}

/// Of an archive that the disk has no room for, so many bytes more are counted to say what is missing: an end to what
/// inflates without one.
const MOST_COUNTED: u64 = 64 << 30;

/// A stream whose bytes are counted.
struct Counted<R> {
    input: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// What Docker requires of a configuration, wherever it comes from.
#[derive(Deserialize)]
struct Shape {
    rootfs: Option<IgnoredAny>,
}

/// Refuses what cannot run here.
fn check_os(os: &str) -> Result<()> {
    if os.is_empty() || os == "linux" {
        return Ok(());
    }
    Err(ImageError::Invalid(format!("image operating system {os:?} cannot be used on this platform")))
}

/// Refuses a configuration that is none of an image of ours.
pub(crate) fn check_config(bytes: &[u8], config: &ImageConfig) -> Result<()> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(ImageError::Config)?;
    if shape.rootfs.is_none() {
        return Err(ImageError::Invalid("invalid image JSON, no RootFS key".into()));
    }
    check_os(&config.os)
}

impl Images {
    /// Makes an image of layers that are here, and gives it names. The same configuration is the same image.
    ///
    /// # Errors
    /// `NoLayer`, and what is wrong with a name; then nothing has been made.
    pub fn create(&self, config: &ImageConfig, parent: Option<&Digest>, tags: &[String]) -> Result<ImageRecord> {
        self.create_with(config, parent, tags, None)
    }

    /// As [`Self::create`], of a configuration that says how old what it was made of is: lists say when it was made. One that is
    /// here already was made now if it was made `anew`.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_now(
        &self,
        config: &ImageConfig,
        parent: Option<&Digest>,
        tags: &[String],
        anew: bool,
    ) -> Result<ImageRecord> {
        self.create_with(config, parent, tags, Some(anew))
    }

    fn create_with(
        &self,
        config: &ImageConfig,
        parent: Option<&Digest>,
        tags: &[String],
        made: Option<bool>,
    ) -> Result<ImageRecord> {
        let bytes = serde_json::to_vec(config).map_err(ImageError::Config)?;
        let tags = tags.iter().map(|tag| Ok(key(&tag_of(tag)?))).collect::<Result<Vec<_>>>()?;
        self.store_image(&bytes, With { parent, tags, made, ..With::default() })
    }

    /// Stores an image whose layers are here, with the configuration's own bytes.
    pub(crate) fn store_image(&self, bytes: &[u8], with: With<'_>) -> Result<ImageRecord> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(ImageError::Invalid(format!("the image's configuration is larger than {MAX_CONFIG} bytes")));
        }
        let config: ImageConfig = serde_json::from_slice(bytes).map_err(ImageError::Config)?;
        check_config(bytes, &config)?;
        // Many small files, and not to be waited for behind the gate.
        let attestations = with.index.as_ref().map_or(&[][..], |within| &within.attestations);
        let digests: Vec<Digest> = attestations.iter().map(|bytes| Digest::sha256(bytes)).collect();
        let _held = self.hold(&digests);
        for (digest, bytes) in digests.iter().zip(attestations) {
            if !self.store().blobs().contains(digest) {
                let mut writer = self.store().blobs().writer(Some(digest))?;
                writer.append(bytes)?;
                writer.finish()?;
            }
        }
        let _gate = self.gate();
        let mut size = 0;
        for diff_id in &config.rootfs.diff_ids {
            let layer = self.layers().get(diff_id)?.filter(|_| self.layers().contains(diff_id));
            size += layer.ok_or_else(|| ImageError::NoLayer(diff_id.clone()))?.size;
        }
        // The blobs before the row that names them.
        let id = self.store().blobs().put(bytes)?;
        let stored = |(bytes, media_type): (Vec<u8>, String)| {
            Ok::<_, ImageError>(StoredManifest { digest: self.store().blobs().put(&bytes)?, media_type })
        };
        let manifest = with.manifest.map(stored).transpose()?;
        let index = match &with.index {
            Some(within) => Some((self.store().blobs().put(&within.bytes)?, within)),
            None => None,
        };
        self.store().write(|tx| {
            let known: Option<Row> = tx.get(IMAGES, id.as_str())?;
            // One that came from elsewhere keeps the time that it has come with.
            let is_own = known.as_ref().is_none_or(|row| row.made.is_some());
            let made = with.made.filter(|anew| is_own && (*anew || known.is_none())).map(|_| now());
            let mut row = known.unwrap_or_default();
            row.made = made.or(row.made);
            row.diff_ids.clone_from(&config.rootfs.diff_ids);
            row.size = size;
            row.parent = with.parent.cloned().or(row.parent);
            if let Some(new) = &manifest
                && let Some(old) = row.manifest.replace(new.clone())
                && old != *new
            {
                manifest_left(tx, &old.digest)?;
            }
            row.used = seconds_now();
            row.short = Some(Short { created: config.created.clone(), labels: config.config.labels.clone() });
            // A load of what has all these names gives none.
            if with.made.is_some() && !with.tags.is_empty() || with.tags.iter().any(|tag| !row.names.contains(tag)) {
                row.tagged = Some(now());
            }
            tx.put(IMAGES, id.as_str(), &row)?;
            for diff_id in &row.diff_ids {
                tx.delete(LEFT, diff_id.as_str())?;
            }
            let names: Vec<&String> = with.tags.iter().chain(&with.digest).collect();
            match &index {
                // Without a name nobody could ask for another platform of it.
                _ if names.is_empty() => Ok(()),
                None => names.iter().try_for_each(|name| point(tx, name, &id)),
                Some((digest, within)) => {
                    let (image, platform) = (id.clone(), platform_of(&config));
                    let member = Member { manifest: within.manifest.clone(), image, platform };
                    join(tx, digest, &within.media_type, member, &digests, &names)
                }
            }
        })?;
        self.get(&id)
    }

    /// Makes an image of one layer from the tar of a root, plain or compressed.
    ///
    /// # Errors
    /// For an archive that is hostile or damaged; then nothing of it stays.
    pub fn import(
        &self,
        tar: impl Read,
        config: ContainerConfig,
        message: &str,
        platform: Option<&str>,
        tag: Option<&str>,
    ) -> Result<ImageRecord> {
        let tags: Vec<String> = tag.map(tag_of).transpose()?.iter().map(key).collect();
        let platform = match platform.filter(|text| !text.is_empty()) {
            Some(text) => Platform::parse(text).map_err(|e| ImageError::Invalid(e.to_string()))?,
            None => Platform::host(),
        };
        // In moby's words for an import alone.
        check_os(&platform.os).map_err(|_| ImageError::Invalid("operating system is not supported".into()))?;
        let free = self.store().free();
        let mut tar = Counted { input: decompressed(tar)?, count: 0 };
        let layer = self.layers().import(&mut tar, None).map_err(|error| {
            let error = ImageError::from(error);
            if error.kind() == ErrorKind::Full {
                // How much it would have been, only its end says.
                let _ = io::copy(&mut (&mut tar).take(MOST_COUNTED), &mut io::sink());
            }
            error.with_missing(self.store(), tar.count, free)
        })?;
        let created = now();
        let history = HistoryEntry {
            created: Some(created.clone()),
            comment: Some(if message.is_empty() { "Imported from -".into() } else { message.into() }),
            ..HistoryEntry::default()
        };
        let config = ImageConfig {
            created: Some(created),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            config,
            rootfs: RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() },
            history: vec![history],
            ..ImageConfig::default()
        };
        let bytes = serde_json::to_vec(&config).map_err(ImageError::Config)?;
        self.store_image(&bytes, With { tags, ..With::default() })
    }
}
