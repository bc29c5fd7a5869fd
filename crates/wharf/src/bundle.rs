//! A bundle on the disk (OCI runtime-spec, "Filesystem Bundle").

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use wharf_runtime::Rootfs;

use crate::oci::Failure;

/// More than this is no configuration; the bound is that of the design's parsers.
const MAX_CONFIG: u64 = 8 << 20;

/// What `oci spec` prints: a shell, isolated, with the limits that a container should always have.
pub(crate) const EXAMPLE: &str = include_str!("example.json");

/// A configuration and where its root is.
pub(crate) struct Bundle {
    pub(crate) spec: Spec,
    pub(crate) rootfs: Rootfs,
}

impl Bundle {
    pub(crate) fn read(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("config.json");
        let fail = |error: &dyn std::fmt::Display| Failure::system(format!("{}: {error}", path.display()));
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(|e| fail(&e))?;
        file.take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(fail(&format!("larger than {MAX_CONFIG} bytes")));
        }
        // serde_json bounds the depth at 128 by itself.
        let spec: Spec = serde_json::from_slice(&bytes).map_err(|e| fail(&e))?;
        if spec.hooks().is_some() {
            return Err(fail(&"hooks are not supported yet"));
        }
        let root = spec.root().as_ref().ok_or_else(|| fail(&"there is no root"))?.path().clone();
        let root: PathBuf = if root.is_absolute() { root } else { dir.join(root) };
        Ok(Self { spec, rootfs: Rootfs::Directory(root) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), EXAMPLE).unwrap();
        let bundle = Bundle::read(dir.path()).unwrap();
        assert_eq!(bundle.rootfs, Rootfs::Directory(dir.path().join("rootfs")));
        assert!(bundle.spec.linux().as_ref().unwrap().resources().is_some());
    }

    #[test]
    fn what_cannot_be_read_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Bundle::read(dir.path()).err().unwrap().to_string().contains("config.json"));
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        assert!(Bundle::read(dir.path()).is_err());
        std::fs::write(dir.path().join("config.json"), r#"{"ociVersion":"1.2.0","hooks":{}}"#).unwrap();
        assert!(Bundle::read(dir.path()).is_err());
    }
}
