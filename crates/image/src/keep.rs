//! Images that somebody is about to use, before a row says so: a container that is being made of them.

use std::sync::Arc;

use wharf_reference::Digest;
use wharf_snapshot::{Hold, Holds};

use crate::images::{ImageRecord, Images};
use crate::{ImageError, Result};

/// The images that are kept now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Holds>);

/// Keeps images and their layers from removal, except by force, until it is dropped.
#[derive(Debug)]
pub struct Keep {
    images: Hold,
    layers: Hold,
}

impl Images {
    /// Keeps nothing yet.
    pub fn keep(&self) -> Keep {
        Keep { images: Hold::new(Arc::clone(&self.kept().0)), layers: self.hold(&[]) }
    }

    /// Keeps this image too.
    ///
    /// # Errors
    /// `NotFound` when it has been removed meanwhile, `NoLayer` for a layer of it.
    pub fn keep_also(&self, keep: &mut Keep, image: &ImageRecord) -> Result<()> {
        // A removal looks whether it is kept more than once, and must find the same each time.
        let _gate = self.gate();
        keep.images.add(std::slice::from_ref(&image.id));
        self.layers().hold_also(&mut keep.layers, &image.diff_ids);
        self.row(&image.id)?;
        match image.diff_ids.iter().find(|layer| !self.layers().contains(layer)) {
            Some(layer) => Err(ImageError::NoLayer(layer.clone())),
            None => Ok(()),
        }
    }

    /// Keeps what another container has: the image may have lost its row by force, and its layers are there all the same.
    pub fn keep_mounted(&self, keep: &mut Keep, image: Option<&Digest>, layers: &[Digest]) {
        keep.images.add(image.map(std::slice::from_ref).unwrap_or_default());
        self.layers().hold_also(&mut keep.layers, layers);
    }

    pub(crate) fn is_kept(&self, id: &Digest) -> bool {
        self.kept().0.contains(id)
    }
}
