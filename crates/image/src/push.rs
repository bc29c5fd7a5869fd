//! Sending an image to a registry: only what it does not have.

use serde_json::json;
use wharf_distribution::{Client, Credentials, Repository, media_type};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::LayerBlob;

use crate::images::{IMAGES, ImageRecord, Images, Row, StoredManifest};
use crate::progress::{Progress, ProgressSender};
use crate::pull::spawn;
use crate::{ImageError, Result};

/// What the registry has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    pub tag: String,
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

/// More than this is no manifest.
const MAX_MANIFEST: u64 = 4 << 20;

impl Images {
    /// Pushes the image of `reference` to the repository that it names.
    ///
    /// An image that came from a registry goes back byte for byte, if its layers are still here as they came.
    ///
    /// # Errors
    /// `NotFound` with Docker's words, and what the registry answers.
    pub async fn push(
        &self,
        reference: &Reference,
        auth: Option<Credentials>,
        registry: &Client,
        progress: ProgressSender,
    ) -> Result<Pushed> {
        let reference = reference.clone().tag_or_latest();
        let say = |id: &str, status: String| drop(progress.send(Progress::new(id, status)));
        let id = self.by_name(&reference)?.ok_or_else(|| ImageError::NotFound(reference.familiar()));
        let id = id.map_err(|_| {
            ImageError::Invalid(format!("An image does not exist locally with the tag: {}", reference.familiar_name()))
        })?;
        say("", format!("The push refers to repository [{}]", reference.name()));
        let image = self.get(&id)?;
        for diff_id in &image.diff_ids {
            say(diff_id.short(), "Preparing".into());
        }
        let repository = registry.repository(&reference, auth);
        let mut layers = Vec::new();
        for diff_id in &image.diff_ids {
            layers.push(self.push_layer(&repository, diff_id, &progress).await?);
        }
        let images = self.clone();
        let own = image.clone();
        let (manifest, bytes) = spawn(move || images.manifest_of(&own, &layers)).await?;
        self.push_config(&repository, &image.id).await?;
        let tag = reference.tag().unwrap_or_default().to_owned();
        let digest = repository.push_manifest(&tag, &manifest.media_type, &bytes).await?;
        let (images, target, own) = (self.clone(), reference.clone(), digest.clone());
        spawn(move || images.set_digest(&target, &own, &id)).await?;
        say("", format!("{tag}: digest: {digest} size: {}", bytes.len()));
        Ok(Pushed { tag, digest, size: bytes.len() as u64 })
    }

    async fn push_layer(
        &self,
        repository: &Repository,
        diff_id: &Digest,
        progress: &ProgressSender,
    ) -> Result<LayerBlob> {
        let id = diff_id.short();
        let (images, own) = (self.clone(), diff_id.clone());
        let blob = spawn(move || Ok(images.layers().compressed(&own)?)).await?;
        if repository.blob_exists(&blob.digest).await? {
            let _ = progress.send(Progress::new(id, "Layer already exists"));
            return Ok(blob);
        }
        let file = tokio::fs::File::from_std(self.store().blobs().reader(&blob.digest)?);
        let mut told = 0;
        let tell = |have: u64| {
            if have - told >= (512 << 10) {
                told = have;
                let _ = progress.send(Progress::bytes(id, "Pushing", have, blob.size));
            }
        };
        repository.push_blob(&blob.digest, blob.size, file, tell).await?;
        let _ = progress.send(Progress::new(id, "Pushed"));
        Ok(blob)
    }

    async fn push_config(&self, repository: &Repository, id: &Digest) -> Result<()> {
        if repository.blob_exists(id).await? {
            return Ok(());
        }
        let size = self.store().blobs().size(id).unwrap_or(0);
        let file = tokio::fs::File::from_std(self.store().blobs().reader(id)?);
        Ok(repository.push_blob(id, size, file, |_| {}).await?)
    }

    /// The manifest that the image came with, if it names these very layers; else one that is made, and kept.
    fn manifest_of(&self, image: &ImageRecord, layers: &[LayerBlob]) -> Result<(StoredManifest, Vec<u8>)> {
        let row = self.row(&image.id)?;
        if let Some(stored) = row.manifest {
            let kept = self.store().blobs().read(&stored.digest, MAX_MANIFEST);
            if let Ok(bytes) = kept
                && names(&bytes, layers)
            {
                return Ok((stored, bytes));
            }
        }
        let config_size = self.store().blobs().size(&image.id).unwrap_or(0);
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": { "mediaType": media_type::OCI_CONFIG, "digest": image.id, "size": config_size },
            "layers": layers,
        });
        let bytes = serde_json::to_vec(&manifest).map_err(ImageError::Config)?;
        let digest = self.store().blobs().put(&bytes)?;
        let stored = StoredManifest { digest, media_type: media_type::OCI_MANIFEST.into() };
        self.store().write(|tx| {
            let row: Option<Row> = tx.get(IMAGES, image.id.as_str())?;
            if let Some(mut row) = row {
                row.manifest = Some(stored.clone());
                tx.put(IMAGES, image.id.as_str(), &row)?;
            }
            Ok::<_, ImageError>(())
        })?;
        Ok((stored, bytes))
    }
}

/// Whether a manifest names these layers, in this order.
fn names(bytes: &[u8], layers: &[LayerBlob]) -> bool {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return false };
    let own = value["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    own.len() == layers.len()
        && own.iter().zip(layers).all(|(own, layer)| own["digest"].as_str() == Some(layer.digest.as_str()))
}
