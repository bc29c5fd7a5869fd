//! Names of builds' results that are nobody's: an index is there as long as it has a name, and what is stated about a result is in
//! its index. So one whose outputs are archives and files has such a name until these are there.

use crate::Result;
use crate::images::Images;
use crate::index::unpoint;

/// What they begin with.
const PREFIX: &str = "localhost/wharf-build-result-";

/// A name for a result; `random` tells it from others. It is in no output, is told to nobody, and with it goes nothing but the index.
/// [`Images::remove`] takes it away, and [`Images::forget_passing`] those that a killed process has left.
pub fn passing_name(random: &str) -> String {
    format!("{PREFIX}{random}:latest")
}

/// Whether a name is such a one.
pub fn is_passing(name: &str) -> bool {
    name.starts_with(PREFIX)
}

impl Images {
    /// Takes the names away whose builds ended with another process.
    ///
    /// # Errors
    /// When the store fails.
    pub fn forget_passing(&self) -> Result<()> {
        let names: Vec<String> =
            self.rows()?.into_iter().flat_map(|(_, row)| row.names).filter(|name| is_passing(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let _gate = self.gate();
        self.store().write(|tx| names.iter().try_for_each(|name| unpoint(tx, name)))
    }
}
