//! Which image another was made from, as archives tell it (moby's `image/tarexport`).

use wharf_reference::Digest;

use crate::Result;
use crate::config::{HistoryEntry, ImageConfig};
use crate::images::Images;
use crate::names::moment;
use crate::rows::change;

impl Images {
    /// Of each of these images, the parent that is among them and that Docker takes for one.
    ///
    /// # Errors
    /// `NotFound`, and when the store fails.
    pub(crate) fn parents_among(&self, ids: &[Digest]) -> Result<Vec<Option<Digest>>> {
        ids.iter()
            .map(|id| {
                let Some(parent) = self.row(id)?.parent.filter(|parent| parent != id && ids.contains(parent)) else {
                    return Ok(None);
                };
                // Docker loads no image whose parent is more than a step behind it.
                let (above, own) = (self.get(&parent)?.config, self.get(id)?.config);
                let is_step = own.history.len() == above.history.len() + 1 && goes_on(&above, &own);
                Ok(Some(parent).filter(|_| is_step))
            })
            .collect()
    }

    /// Notes parents that an archive has told of, child first, where both came with it and the one goes on with what the
    /// other is. An archive that says something else is no less an archive: what it says so is left out.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn note_parents(&self, told: &[(Digest, Digest)]) -> Result<()> {
        let _gate = self.gate();
        for (id, parent) in told.iter().filter(|(id, parent)| id != parent) {
            let (Ok(above), Ok(own)) = (self.get(parent), self.get(id)) else { continue };
            if goes_on(&above.config, &own.config) {
                self.store().write(|tx| change(tx, id, |row| row.parent = Some(parent.clone())).map(drop))?;
            }
        }
        Ok(())
    }
}

/// Whether an image has all layers and the whole history of another, and more history than that: so nothing is its own
/// parent in the end.
fn goes_on(above: &ImageConfig, own: &ImageConfig) -> bool {
    let same = |(a, b): (&HistoryEntry, &HistoryEntry)| {
        let times = (a.created.as_deref().map(moment), b.created.as_deref().map(moment));
        times.0 == times.1 && HistoryEntry { created: b.created.clone(), ..a.clone() } == *b
    };
    own.history.len() > above.history.len()
        && above.history.iter().zip(&own.history).all(same)
        && own.rootfs.diff_ids.starts_with(&above.rootfs.diff_ids)
}
