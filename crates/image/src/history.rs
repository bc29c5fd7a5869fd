//! How an image came to be.

use crate::images::Images;
use crate::{ImageRecord, Result};

/// A line of `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryItem {
    /// The image's ID on the topmost line; what lies below has none here.
    pub id: Option<String>,
    pub created: Option<String>,
    pub created_by: String,
    pub tags: Vec<String>,
    /// Bytes of the line's layer; 0 where it made none.
    pub size: u64,
    pub comment: String,
}

impl Images {
    /// The lines, the newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn history(&self, text: &str) -> Result<Vec<HistoryItem>> {
        let image: ImageRecord = self.resolve(text)?;
        let mut layers = image.diff_ids.iter();
        let mut items = Vec::new();
        for entry in &image.config.history {
            let own = if entry.empty_layer { None } else { layers.next() };
            let size = match own {
                Some(diff_id) => self.layers().get(diff_id)?.map_or(0, |layer| layer.size),
                None => 0,
            };
            items.push(HistoryItem {
                id: None,
                created: entry.created.clone(),
                created_by: entry.created_by.clone().unwrap_or_default(),
                tags: Vec::new(),
                size,
                comment: entry.comment.clone().unwrap_or_default(),
            });
        }
        items.reverse();
        if let Some(top) = items.first_mut() {
            top.id = Some(image.id.to_string());
            top.tags = image.tags;
        }
        Ok(items)
    }
}
