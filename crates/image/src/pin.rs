//! Which images stay, and which were used last.

use wharf_reference::Digest;

use crate::Result;
use crate::images::Images;
use crate::names::seconds_now;
use crate::rows::change;

/// A later use is not noted anew before so many seconds: a start of a container should not cost a write.
const USE_STEP: i64 = 3600;

impl Images {
    /// A pinned image is neither pruned nor evicted; answers with its ID. Whoever removes it by name may.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn pin(&self, text: &str, pinned: bool) -> Result<Digest> {
        let _gate = self.gate();
        let id = self.find(text)?;
        self.store().write(|tx| change(tx, &id, |row| row.pinned = pinned))?;
        Ok(id)
    }

    /// An image is used now. Of what is lost in a crash nothing depends.
    ///
    /// # Errors
    /// When the store fails.
    pub fn touch(&self, id: &Digest) -> Result<()> {
        let now = seconds_now();
        match self.row(id) {
            Ok(row) if now - row.used >= USE_STEP => {
                self.store().write_soon(|tx| change(tx, id, |row| row.used = now)).map(drop)
            }
            // It may have gone.
            _ => Ok(()),
        }
    }
}
