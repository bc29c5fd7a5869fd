//! Volumes that nobody has named and that are made for a container that is not there yet. They are noted in its directory before
//! they are made: what a kill leaves of such a container has no row, and neither the container nor these volumes are anybody's.

use std::io::Write as _;
use std::path::Path;

use crate::engine::Engine;
use crate::error::{EngineError, Result};

/// In the container's directory: names, each on a line. It goes when the container has its row.
const NOTE: &str = "new-volumes";

impl Engine {
    /// Chooses a name, and notes it. The note outlives this process; with the host's power its volumes go on being listed, and
    /// a prune takes them.
    pub(crate) fn name_new_volume(&self, container: &str) -> Result<String> {
        let name = crate::names::random_id()?;
        let failing = |e| EngineError::from_source("a volume cannot be noted", &e);
        let path = self.dir(container).join(NOTE);
        let mut note = std::fs::File::options().append(true).create(true).open(path).map_err(failing)?;
        writeln!(note, "{name}").map_err(failing)?;
        Ok(name)
    }

    /// The container is there: they are its own.
    pub(crate) fn keep_new_volumes(&self, container: &str) {
        let _ = std::fs::remove_file(self.dir(container).join(NOTE));
    }

    /// Removes those of a container that did not come to be; `dir` is its directory.
    pub(crate) fn sweep_new_volumes(&self, dir: &Path) {
        for name in std::fs::read_to_string(dir.join(NOTE)).unwrap_or_default().lines() {
            // Not one of a number of digits that is too small to be by chance.
            if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                continue;
            }
            let removed = self.volumes().remove(name, true, &|name| self.volume_users(name));
            if let Err(error) = removed.map_err(EngineError::from)
                && error.kind != crate::ErrorKind::NotFound
            {
                tracing::warn!("cannot remove volume {name}: {}", error.message);
                continue;
            }
            // Of one without a row there is a directory at most.
            let left = self.options().data_root.join("volumes").join(name);
            if left.exists()
                && let Err(error) = wharf_rooted_path::remove_dir_all(&left)
            {
                tracing::warn!("cannot remove {}: {error}", left.display());
            }
        }
    }
}
