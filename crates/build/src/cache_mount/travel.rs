//! Cache mounts on their way to another engine, when that is asked for: each is a layer of the cache's manifest.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use wharf_archive::{PackOptions, UnpackOptions, Whiteouts, pack, unpack};
use wharf_report::chain;
use wharf_rooted_path::RootDir;

use super::{CacheMount, CacheMounts, Owner, Use, make};
use crate::error::{BuildError, Result};

/// Which cache mount a layer is, and mode (octal), user and group of its directory.
pub(crate) const NAME: &str = "wharf.cache-mount";
const OWNER: &str = "wharf.cache-mount-owner";

impl CacheMounts {
    /// Takes one that is here and that nobody uses; nothing if there is none such. What is used now may be half written.
    pub(crate) fn idle(&self, name: &str) -> Option<CacheMount> {
        let mut now = self.uses.now.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(format!("{name}-0"));
        if now.contains_key(&path) || !path.is_dir() {
            return None;
        }
        now.insert(path.clone(), Use { count: 1, alone: true });
        Some(CacheMount { path, fresh: false, uses: Arc::clone(&self.uses) })
    }

    /// Takes in one that is not here, unpacked below `scratch` first. Whether it was taken.
    ///
    /// # Errors
    /// For an archive that is hostile or damaged, and for what the disk refuses.
    pub(crate) fn take_in(
        &self,
        annotations: &BTreeMap<String, String>,
        tar: impl Read,
        scratch: &Path,
    ) -> Result<bool> {
        let Some(name) = annotations.get(NAME) else { return Ok(false) };
        let bad = |what: String| BuildError::invalid(format!("a cache mount cannot be taken over: {what}"));
        if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad(format!("{name:?} is no name of one")));
        }
        let owner = annotations.get(OWNER).and_then(|text| owner(text)).ok_or_else(|| bad("it has no owner".into()))?;
        let path = self.dir.join(format!("{name}-0"));
        if path.exists() {
            return Ok(false);
        }
        let new = scratch.join(name);
        make(&new, owner)?;
        let options = UnpackOptions { whiteouts: Whiteouts::Literal, ..UnpackOptions::default() };
        unpack(tar, &RootDir::open(&new)?, &options).map_err(|error| bad(chain(&error)))?;
        let failing = |e: std::io::Error| BuildError::system("a cache mount cannot be kept", &e);
        fs::create_dir_all(&self.dir).map_err(failing)?;
        // Whoever makes one has this.
        let _now = self.uses.now.lock().unwrap_or_else(PoisonError::into_inner);
        if path.exists() {
            return Ok(false);
        }
        fs::rename(&new, &path).map_err(failing)?;
        Ok(true)
    }
}

impl CacheMount {
    /// Writes what is in it as an archive; the value is what else has to be known of it.
    ///
    /// # Errors
    /// When it cannot be read, or the output fails.
    pub(crate) fn write(&self, name: &str, output: &mut dyn Write) -> Result<BTreeMap<String, String>> {
        let failing = |e: std::io::Error| BuildError::system("a cache mount cannot be read", &e);
        let about = fs::metadata(&self.path).map_err(failing)?;
        let packed = pack(&RootDir::open(&self.path)?, Path::new(""), output, &PackOptions::default());
        packed.map_err(|e| BuildError::system("a cache mount cannot be packed", &e))?;
        let owner = format!("{:o}:{}:{}", about.permissions().mode() & 0o7777, about.uid(), about.gid());
        Ok(BTreeMap::from([(NAME.to_owned(), name.to_owned()), (OWNER.to_owned(), owner)]))
    }
}

fn owner(text: &str) -> Option<Owner> {
    let mut fields = text.split(':');
    let mode = u32::from_str_radix(fields.next()?, 8).ok().filter(|mode| *mode <= 0o7777)?;
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(Owner { mode, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use wharf_dockerfile::Sharing;

    #[test]
    fn a_cache_mount_travels_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = wharf_store::Store::open(dir.path()).unwrap();
        let mounts = |name: &str| CacheMounts::new(dir.path().join(name), store.clone());
        let (ours, theirs) = (mounts("a"), mounts("b"));
        let made = Owner { mode: 0o1750, uid: 5, gid: 6 };
        let name = CacheMounts::name("id", "");
        let cache = ours.take("id", "", Sharing::Shared, made, false, &Cancel::new().unwrap()).unwrap();
        fs::write(cache.path.join("file"), "content").unwrap();
        assert!(ours.idle(&name).is_none(), "it is in use");
        drop(cache);
        let mut tar = Vec::new();
        let about = ours.idle(&name).unwrap().write(&name, &mut tar).unwrap();
        let scratch = tempfile::tempdir_in(dir.path()).unwrap();
        assert!(theirs.take_in(&about, tar.as_slice(), scratch.path()).unwrap());
        assert!(!theirs.take_in(&about, tar.as_slice(), scratch.path()).unwrap(), "what is there stays");
        let cache = theirs.idle(&name).unwrap();
        let meta = fs::metadata(&cache.path).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.uid(), meta.gid()), (0o1750, 5, 6));
        assert_eq!(fs::read(cache.path.join("file")).unwrap(), b"content");
        for (name, owner) in [("../../etc", "755:0:0"), (name.as_str(), "99999:0:0"), (name.as_str(), "755:0")] {
            let bad = BTreeMap::from([(NAME.to_owned(), name.to_owned()), (OWNER.to_owned(), owner.to_owned())]);
            let other = mounts("c");
            assert!(other.take_in(&bad, tar.as_slice(), scratch.path()).is_err(), "{name} {owner}");
        }
    }
}
