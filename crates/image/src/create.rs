//! Images that are made here: from layers, or from a tar of a root.

use std::io::Read;

use wharf_distribution::Platform;
use wharf_reference::Digest;

use crate::compression::decompressed;
use crate::config::{ContainerConfig, HistoryEntry, ImageConfig, RootFs};
use crate::images::{ImageRecord, Images, MAX_CONFIG};
use crate::names::{now, tag_of};
use crate::rows::{IMAGES, LEFT, Row, StoredManifest, key, point};
use crate::{ImageError, Result};

/// What an image is stored with, beside its configuration.
#[derive(Debug, Default)]
pub(crate) struct With<'a> {
    pub(crate) parent: Option<&'a Digest>,
    /// Keys of tags.
    pub(crate) tags: Vec<String>,
    /// Key of the digest that a repository has it under.
    pub(crate) digest: Option<String>,
    pub(crate) manifest: Option<StoredManifest>,
}

impl Images {
    /// Makes an image of layers that are here, and gives it names. The same configuration is the same image.
    ///
    /// # Errors
    /// `NoLayer`, and what is wrong with a name; then nothing has been made.
    pub fn create(&self, config: &ImageConfig, parent: Option<&Digest>, tags: &[String]) -> Result<ImageRecord> {
        let bytes = serde_json::to_vec(config).map_err(ImageError::Config)?;
        let tags = tags.iter().map(|tag| Ok(key(&tag_of(tag)?))).collect::<Result<Vec<_>>>()?;
        self.store_image(&bytes, With { parent, tags, ..With::default() })
    }

    /// Stores an image whose layers are here, with the configuration's own bytes.
    pub(crate) fn store_image(&self, bytes: &[u8], with: With<'_>) -> Result<ImageRecord> {
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(ImageError::Invalid(format!("the image's configuration is larger than {MAX_CONFIG} bytes")));
        }
        let config: ImageConfig = serde_json::from_slice(bytes).map_err(ImageError::Config)?;
        let _gate = self.gate();
        let mut size = 0;
        for diff_id in &config.rootfs.diff_ids {
            let layer = self.layers().get(diff_id)?.filter(|_| self.layers().contains(diff_id));
            size += layer.ok_or_else(|| ImageError::NoLayer(diff_id.clone()))?.size;
        }
        // The blob before the row that names it.
        let id = self.store().blobs().put(bytes)?;
        self.store().write(|tx| {
            let mut row: Row = tx.get(IMAGES, id.as_str())?.unwrap_or_default();
            row.diff_ids.clone_from(&config.rootfs.diff_ids);
            row.size = size;
            row.parent = with.parent.cloned().or(row.parent);
            row.manifest = with.manifest.or(row.manifest);
            if !with.tags.is_empty() {
                row.tagged = Some(now());
            }
            tx.put(IMAGES, id.as_str(), &row)?;
            for diff_id in &row.diff_ids {
                tx.delete(LEFT, diff_id.as_str())?;
            }
            with.tags.iter().chain(&with.digest).try_for_each(|name| point(tx, name, &id))
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
        let layer = self.layers().import(&mut decompressed(tar)?, None)?;
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
