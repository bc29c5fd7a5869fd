//! How an image came to be.

use crate::Result;
use crate::images::Images;

/// A line of `history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryItem {
    /// The ID of the image that ends with this line, if it is here: the topmost has one, and those that are its
    /// parents.
    pub id: Option<String>,
    pub created: Option<String>,
    pub created_by: String,
    pub tags: Vec<String>,
    /// Bytes of the line's layer; 0 where it made none.
    pub size: u64,
    pub comment: String,
}

impl Images {
    /// The lines, the newest first; of the image for a platform, if one is asked for.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn history(&self, text: &str, platform: Option<&str>) -> Result<Vec<HistoryItem>> {
        let image = self.resolve_for(text, platform)?;
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
        let (lines, mut next) = (items.len(), Some(image));
        while let Some(image) = next {
            // A parent may be several steps behind, and ends where its own lines do.
            let at = lines.checked_sub(image.config.history.len());
            let Some(item) = at.and_then(|at| items.get_mut(at)).filter(|item| item.id.is_none()) else { break };
            item.id = Some(image.id.to_string());
            item.tags = image.tags;
            next = image.parent.and_then(|parent| self.get(&parent).ok());
        }
        Ok(items)
    }
}
