//! Images about which something is stated, in an archive: what is stated is about the digests of their manifests, so these go
//! as they are, with the layers in the form that they name.

use wharf_distribution::{Descriptor, media_type};
use wharf_reference::Digest;

use crate::Result;
use crate::attestations::Whole;
use crate::images::{ImageRecord, Images};
use crate::index::{INDEXES, ImageIndex, IndexRow};
use crate::push::Plan;
use crate::rows::StoredManifest;
use crate::save::Archive;

/// All images of an index, and what it has about them.
pub(crate) struct Stated {
    pub(crate) images: Vec<(ImageRecord, Plan)>,
    index: ImageIndex,
    attestations: Vec<Whole>,
}

impl Images {
    /// What is stated about these images by an index. Nothing where not all that it lists is here as it says, or not all is
    /// asked for: then the images go without.
    pub(crate) fn stated(&self, images: &[ImageRecord], index: &Digest) -> Result<Option<Stated>> {
        let row: Option<IndexRow> = self.store().read(|tx| tx.get(INDEXES, index.as_str()))?;
        let whole = |row: &IndexRow| !row.attestations.is_empty() && row.members.len() == images.len();
        let Some(row) = row.filter(whole) else { return Ok(None) };
        let index = self.whole_index(index.clone(), &row)?;
        let (mut plans, mut attestations) = (Vec::new(), Vec::new());
        for entry in &index.manifests {
            let of = &entry.descriptor;
            if let Some(image) = entry.image.as_ref().and_then(|id| images.iter().find(|image| image.id == *id)) {
                let stored = StoredManifest { digest: of.digest.clone(), media_type: of.media_type.clone() };
                let Some(plan) = self.stored_plan(stored, image) else { return Ok(None) };
                plans.push((image.clone(), plan));
            } else {
                let Some(whole) = self.whole_attestation(of).filter(|_| entry.about.is_some()) else { return Ok(None) };
                attestations.push(whole);
            }
        }
        // The one that the name leads to is the first for older readers.
        plans.sort_by_key(|(image, _)| Some(&image.id) != images.first().map(|first| &first.id));
        Ok(Some(Stated { images: plans, index, attestations }))
    }
}

impl Stated {
    pub(crate) fn descriptor(&self) -> Descriptor {
        let kind = if self.index.media_type.is_empty() { media_type::OCI_INDEX } else { &self.index.media_type };
        Descriptor::new(kind, self.index.digest.clone(), self.index.bytes.len() as u64)
    }

    /// Writes all that the index names, and the index.
    ///
    /// # Errors
    /// When the output fails, or a blob has gone.
    pub(crate) fn write(&self, images: &Images, archive: &mut Archive<'_>) -> Result<()> {
        for (image, plan) in &self.images {
            archive.image(image);
            archive.stored(images, &image.id)?;
            plan.layers.iter().try_for_each(|layer| archive.stored(images, &layer.digest))?;
            archive.blob(&plan.stored.digest, &plan.bytes)?;
        }
        for attestation in &self.attestations {
            attestation.blobs.iter().try_for_each(|blob| archive.stored(images, &blob.digest))?;
            archive.blob(&attestation.descriptor.digest, &attestation.bytes)?;
        }
        archive.blob(&self.index.digest, &self.index.bytes)
    }
}
