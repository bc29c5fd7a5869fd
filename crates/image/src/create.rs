//! Images that are made here: from layers, or from a tar of a root.

use std::io::Read;

use wharf_reference::{Digest, Reference};

use crate::config::{ContainerConfig, HistoryEntry, ImageConfig, RootFs};
use crate::images::{GARBAGE, IMAGES, ImageRecord, Images, Row, StoredManifest, TAGS};
use crate::names::{now, tag_key};
use crate::{ImageError, Result};

impl Images {
    /// Makes an image of layers that are here, and gives it names. The same configuration is the same image.
    ///
    /// # Errors
    /// `NoLayer`, and what is wrong with a name; then nothing has been made.
    pub fn create(&self, config: &ImageConfig, parent: Option<&Digest>, tags: &[String]) -> Result<ImageRecord> {
        let bytes = serde_json::to_vec(config).map_err(ImageError::Config)?;
        let tags = tags.iter().map(|tag| Reference::parse(tag)).collect::<std::result::Result<Vec<_>, _>>()?;
        self.create_raw(&bytes, parent, &tags, None)
    }

    /// As [`Self::create`] with the configuration's own bytes.
    pub(crate) fn create_raw(
        &self,
        bytes: &[u8],
        parent: Option<&Digest>,
        tags: &[Reference],
        manifest: Option<StoredManifest>,
    ) -> Result<ImageRecord> {
        let config: ImageConfig = serde_json::from_slice(bytes).map_err(ImageError::Config)?;
        if let Some(bad) = tags.iter().find(|tag| tag.digest().is_some()) {
            return Err(ImageError::Invalid(format!("refusing to create a tag with a digest reference: {bad}")));
        }
        let _gate = self.gate();
        let mut size = 0;
        for diff_id in &config.rootfs.diff_ids {
            let layer = self.layers().get(diff_id)?.filter(|_| self.layers().contains(diff_id));
            size += layer.ok_or_else(|| ImageError::NoLayer(diff_id.clone()))?.size;
        }
        // The blob before the row that names it.
        let id = self.store().blobs().put(bytes)?;
        self.store().write(|tx| {
            let before: Option<Row> = tx.get(IMAGES, id.as_str())?;
            let row = Row {
                diff_ids: config.rootfs.diff_ids.clone(),
                size,
                tagged: if tags.is_empty() { before.as_ref().and_then(|row| row.tagged.clone()) } else { Some(now()) },
                parent: parent.cloned().or(before.as_ref().and_then(|row| row.parent.clone())),
                manifest: manifest.or(before.and_then(|row| row.manifest)),
            };
            tx.put(IMAGES, id.as_str(), &row)?;
            for diff_id in &row.diff_ids {
                tx.delete(GARBAGE, diff_id.as_str())?;
            }
            for tag in tags {
                tx.put(TAGS, &tag_key(tag), &id)?;
            }
            Ok::<_, ImageError>(())
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
        let tag = tag.map(Reference::parse).transpose()?;
        let platform = match platform {
            Some(text) => wharf_distribution::Platform::parse(text).map_err(|e| ImageError::Invalid(e.to_string()))?,
            None => wharf_distribution::Platform::host(),
        };
        let mut tar = crate::load::decompressed(tar)?;
        let layer = self.layers().adopt(&mut tar)?;
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
        self.create_raw(&bytes, None, tag.as_slice(), None)
    }
}
