//! Whether mounts can go on from the host to a container, or back: both ends have to want it.

use std::path::Path;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::record::{Container, MountPoint};

impl Engine {
    /// Refuses binds that ask for what the mount that their source is on does not do (moby, `ensureShared` and
    /// `ensureSharedOrSlave`).
    ///
    /// # Errors
    /// `System`, with Docker's words.
    pub(crate) fn check_propagation(&self, record: &Container) -> Result<()> {
        let root = &self.inner.options.data_root;
        let asks = |point: &&MountPoint| {
            let source = Path::new(&point.source);
            // There it is our own choice, and lets go of more than it needs to.
            let own = source.starts_with(root) || root.starts_with(source);
            let shared = matches!(point.propagation.as_str(), "shared" | "rshared");
            point.kind == "bind" && (shared || (!own && matches!(point.propagation.as_str(), "slave" | "rslave")))
        };
        let mut asking = record.mounts.iter().filter(asks).peekable();
        if asking.peek().is_none() {
            return Ok(());
        }
        let table = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(|e| EngineError::from_source("cannot read the mounts of the host", &e))?;
        asking.try_for_each(|point| {
            let source = std::fs::canonicalize(&point.source).unwrap_or_else(|_| point.source.clone().into());
            check(&table, &source, &point.propagation).map_err(EngineError::system)
        })
    }
}

/// The table is proc(5)'s `mountinfo`.
fn check(table: &str, source: &Path, propagation: &str) -> std::result::Result<(), String> {
    let mut found: Option<(String, Vec<&str>)> = None;
    for line in table.lines() {
        let mut fields = line.split(' ');
        let Some(at) = fields.nth(4).map(unescape) else { continue };
        // What is mounted later at the same place covers the other.
        let nearer = found.as_ref().is_none_or(|(before, _)| at.len() >= before.len());
        if source.starts_with(&at) && nearer {
            found = Some((at, fields.skip(1).take_while(|field| *field != "-").collect()));
        }
    }
    let Some((at, marks)) = found else { return Ok(()) };
    let is = |mark: &str| marks.iter().any(|one| one.starts_with(mark));
    let shown = source.display();
    if is("shared:") {
        return Ok(());
    }
    match propagation {
        "shared" | "rshared" => Err(format!("path {shown} is mounted on {at} but it is not a shared mount")),
        _ if is("master:") => Ok(()),
        _ => Err(format!("path {shown} is mounted on {at} but it is not a shared or slave mount")),
    }
}

/// Blanks and the like are written as octal numbers.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_a_path_is_on_decides() {
        let table = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:1 / /s rw shared:3 - tmpfs x rw\n3 1 0:2 / /s/m\\040n rw \
                     master:3 - tmpfs x rw\n4 1 0:3 / /both rw shared:4 master:3 - tmpfs x rw\n";
        let said = |path: &str, how: &str| check(table, Path::new(path), how);
        assert_eq!(said("/s/x", "rshared"), Ok(()));
        assert_eq!(said("/s/x", "slave"), Ok(()));
        assert_eq!(said("/s/m n/x", "rslave"), Ok(()));
        assert_eq!(said("/both", "shared"), Ok(()));
        let not = "path /s/m n/x is mounted on /s/m n but it is not a shared mount";
        assert_eq!(said("/s/m n/x", "shared").unwrap_err(), not);
        let not = "path /sx is mounted on / but it is not a shared or slave mount";
        assert_eq!(said("/sx", "rslave").unwrap_err(), not);
    }
}
