//! Secrets of containers: files below `/run/secrets` whose content is in nobody's record.
//!
//! What is persisted and told (rows, `inspect`, events) has names and places alone ([`SecretFile`]). The content comes
//! beside the request, and stays in memory: in files of a tmpfs below the exec root, which only the daemon's user can
//! reach, and which the container has mounted read-only. So it is there for every start of the container, whatever
//! becomes of the daemon, and gone with the container or with the host's power: a start after that says so. On a disk it
//! would be found by whoever gets hold of that, and of its backups; what the host swaps out is the host's to encrypt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use crate::error::{EngineError, Result};
use crate::mounts;
use crate::record::Container;
use crate::slot::lock;
use crate::spec::{HostConfig, SecretFile};

/// Where they are in a container.
const PLACE: &str = "/run/secrets";
/// As swarm's (swarmkit, `MaxSecretSize`).
const MAX_BYTES: usize = 500 << 10;
/// As swarm's.
const MODE: u32 = 0o444;
/// Where those for [`PLACE`] are in a container's directory, and all others.
const TREE: &str = "tree";
const SINGLE: &str = "single";

/// Contents by the secrets' IDs. Shown to nobody, also not by a debugger's print.
#[derive(Clone, Default)]
pub struct SecretContents(BTreeMap<String, Vec<u8>>);

impl SecretContents {
    /// Takes contents by ID.
    pub fn new(contents: BTreeMap<String, Vec<u8>>) -> Self {
        Self(contents)
    }
}

impl fmt::Debug for SecretContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where the contents of all containers are.
#[derive(Debug)]
pub(crate) struct Secrets {
    root: PathBuf,
    /// Who makes or removes directories there.
    turn: Mutex<()>,
}

impl Secrets {
    pub(crate) fn new(exec_root: &Path) -> Self {
        Self { root: exec_root.join("secrets"), turn: Mutex::default() }
    }

    /// Keeps the contents for a new container.
    pub(crate) fn keep(&self, id: &str, files: &[SecretFile], contents: &SecretContents) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let fail = |e: std::io::Error| EngineError::from_source("cannot keep the container's secrets", &e);
        let _turn = lock(&self.turn);
        make_dir(&self.root, 0o700).map_err(fail)?;
        self.in_memory()?;
        let dir = self.root.join(id);
        make_dir(&dir, 0o700).map_err(fail)?;
        for (index, file) in files.iter().enumerate() {
            let (path, content) =
                (dir.join(file.kept_as(index)), contents.0.get(&file.id).map_or(&[][..], Vec::as_slice));
            let made = path.parent().map_or(Ok(()), |above| make_dir(above, 0o755));
            made.and_then(|()| write(&path, content)).map_err(fail)?;
        }
        Ok(())
    }

    /// Sees to it that nothing of it comes to a disk.
    fn in_memory(&self) -> Result<()> {
        let found = rustix::fs::statfs(&self.root).map_err(|e| EngineError::from_source("cannot keep secrets", &e))?;
        if found.f_type as u64 == TMPFS_MAGIC {
            return Ok(());
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("secrets", &self.root, "tmpfs", flags, Some(c"mode=700"))
            .map_err(|e| EngineError::from_source(&format!("cannot mount a tmpfs at {}", self.root.display()), &e))
    }

    /// The directory of a container that is to start, its files with their owners; `range` has the host's IDs of a
    /// container with a user namespace: the first, and how many there are.
    pub(crate) fn ready(&self, record: &Container, range: Option<(u32, u32)>) -> Result<Option<PathBuf>> {
        let files = record.host.secrets.as_deref().unwrap_or_default();
        if files.is_empty() {
            return Ok(None);
        }
        let dir = self.root.join(&record.id);
        for (index, file) in files.iter().enumerate() {
            let path = dir.join(file.kept_as(index));
            if !path.exists() {
                return Err(EngineError::conflict(format!(
                    "the secret {} of container {} is gone: it was kept in memory, and the host has been started since. \
                     Make the container anew with --secret",
                    file.id, record.name
                )));
            }
            let (uid, gid) = (host_id(file, file.uid, range)?, host_id(file, file.gid, range)?);
            let owned = chown(&path, Some(uid), Some(gid));
            // After the change of the owner, which takes bits away.
            let mode = std::fs::Permissions::from_mode(file.mode.unwrap_or(MODE));
            owned
                .and_then(|()| std::fs::set_permissions(&path, mode))
                .map_err(|e| EngineError::from_source("cannot give the container its secrets", &e))?;
        }
        Ok(Some(dir))
    }

    /// The directory of a container, if it has one.
    pub(crate) fn of(&self, id: &str) -> Option<PathBuf> {
        Some(self.root.join(id)).filter(|dir| dir.exists())
    }

    /// Forgets what a container had.
    pub(crate) fn forget(&self, id: &str) {
        let _turn = lock(&self.turn);
        let dir = self.root.join(id);
        if dir.exists() {
            remove(&dir);
            self.unmount_empty();
        }
    }

    /// Forgets what belongs to no container.
    pub(crate) fn sweep(&self, is_container: impl Fn(&str) -> bool) {
        let _turn = lock(&self.turn);
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if !is_container(&entry.file_name().to_string_lossy()) {
                remove(&entry.path());
            }
        }
        self.unmount_empty();
    }

    fn unmount_empty(&self) {
        let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&path.metadata().ok()?).into();
        let is_mounted = || device(&self.root) != self.root.parent().and_then(device);
        let is_empty = || std::fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_none());
        if self.root.exists() && is_mounted() && is_empty() {
            let unmounted = rustix::mount::unmount(&self.root, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            if let Err(error) = unmounted {
                tracing::warn!("cannot unmount {}: {error}", self.root.display());
            }
        }
    }
}

/// statfs(2), `TMPFS_MAGIC`.
const TMPFS_MAGIC: u64 = 0x0102_1994;

fn make_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)
}

fn remove(dir: &Path) {
    if let Err(error) = wharf_rooted_path::remove_dir_all(dir) {
        tracing::warn!("cannot remove {}: {error}; it is swept at the next start", dir.display());
    }
}

impl SecretFile {
    /// The path in the container.
    pub(crate) fn place(&self) -> String {
        match self.target.as_str() {
            "" => format!("{PLACE}/{}", self.id),
            target if target.starts_with('/') => mounts::clean(target),
            target => mounts::clean(&format!("{PLACE}/{target}")),
        }
    }

    /// The path below [`PLACE`], where it is there.
    fn below(&self) -> Option<String> {
        self.place().strip_prefix(PLACE).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned)
    }

    /// The file in the container's directory of secrets.
    fn kept_as(&self, index: usize) -> PathBuf {
        match self.below() {
            Some(path) => Path::new(TREE).join(path),
            None => Path::new(SINGLE).join(index.to_string()),
        }
    }
}

/// The host's ID of an ID in the container.
fn host_id(file: &SecretFile, id: u32, range: Option<(u32, u32)>) -> Result<u32> {
    let Some((first, count)) = range else { return Ok(id) };
    let host = first.checked_add(id).filter(|_| id < count);
    host.ok_or_else(|| {
        EngineError::invalid(format!("invalid secret '{}': the container has {count} IDs, and not {id}", file.id))
    })
}

/// Refuses secrets that cannot be, or have no content.
pub(crate) fn check(host: &HostConfig, contents: &SecretContents) -> Result<()> {
    let files = host.secrets.as_deref().unwrap_or_default();
    let (mut places, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for file in files {
        let bad = |why: &str| Err(EngineError::invalid(format!("invalid secret '{}': {why}", file.id)));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if file.id.is_empty() || file.id.len() > 64 || !file.id.chars().all(plain) || file.id.starts_with('.') {
            return bad("an ID has 1 to 64 letters, digits, '-', '_' and '.', and does not begin with '.'");
        }
        match contents.0.get(&file.id) {
            None => return bad("its content is missing (SecretData)"),
            Some(content) if content.len() > MAX_BYTES => return bad("it may have no more than 500 KiB"),
            Some(_) => {}
        }
        // To chown(2) it means that nothing is changed.
        if file.uid == u32::MAX || file.gid == u32::MAX {
            return bad("4294967295 is nobody's ID");
        }
        if file.mode.is_some_and(|mode| mode > 0o777) {
            return bad("a mode has the bits of 0777 alone");
        }
        if file.target.split('/').any(|part| part == "..") {
            return bad("its target may have no '..'");
        }
        let place = file.place();
        if matches!(place.as_str(), "/" | PLACE) || ["/proc", "/sys", "/dev"].iter().any(|top| is_below(&place, top)) {
            return bad(&format!("it cannot be at {place}"));
        }
        if !places.insert(place.clone()) {
            return Err(EngineError::invalid(format!("Duplicate mount point: {place}")));
        }
        ids.insert(file.id.as_str());
    }
    if let Some((one, other)) =
        places.iter().flat_map(|a| places.iter().map(move |b| (a, b))).find(|(a, b)| a != b && is_below(a, b))
    {
        return Err(EngineError::invalid(format!("the secret at {one} cannot be below that at {other}")));
    }
    match contents.0.keys().find(|id| !ids.contains(id.as_str())) {
        Some(id) => Err(EngineError::invalid(format!("SecretData has '{id}', which is none of HostConfig.Secrets"))),
        None => Ok(()),
    }
}

fn is_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses what else would be mounted where secrets are.
pub(crate) fn check_mounts(record: &Container) -> Result<()> {
    let files = record.host.secrets.as_deref().unwrap_or_default();
    let places = files.iter().map(|file| if file.below().is_some() { PLACE.to_owned() } else { file.place() });
    for place in places {
        if let Some(point) = record.mounts.iter().find(|point| is_below(&point.destination, &place)) {
            return Err(EngineError::invalid(format!(
                "conflicting options: {} is mounted where secrets are: {place}",
                point.destination
            )));
        }
    }
    Ok(())
}

/// The mounts of a container that has its secrets in `dir`.
pub(crate) fn mount_list(host: &HostConfig, dir: &Path) -> Vec<Value> {
    let files = host.secrets.as_deref().unwrap_or_default();
    let bind = |source: PathBuf, target: String| {
        json!({ "destination": target, "type": "bind", "source": source,
                "options": ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"] })
    };
    let mut list = Vec::new();
    if files.iter().any(|file| file.below().is_some()) {
        list.push(bind(dir.join(TREE), PLACE.to_owned()));
    }
    let single = files.iter().enumerate().filter(|(_, file)| file.below().is_none());
    list.extend(single.map(|(index, file)| bind(dir.join(file.kept_as(index)), file.place())));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> HostConfig {
        let file = |(id, target): &(&str, &str)| SecretFile {
            id: (*id).into(),
            target: (*target).into(),
            ..SecretFile::default()
        };
        HostConfig { secrets: Some(files.iter().map(file).collect()), ..HostConfig::default() }
    }

    fn contents(ids: &[&str]) -> SecretContents {
        SecretContents::new(ids.iter().map(|id| ((*id).to_owned(), b"hidden".to_vec())).collect())
    }

    #[test]
    fn what_cannot_be_is_refused() {
        check(&host(&[("a", ""), ("b", "c/d"), ("e", "/etc/key")]), &contents(&["a", "b", "e"])).unwrap();
        for (files, ids, words) in [
            (&[("a", "")][..], &[][..], "its content is missing"),
            (&[], &["a"], "which is none of HostConfig.Secrets"),
            (&[("a/b", "")], &["a/b"], "an ID has"),
            (&[("a", "../x")], &["a"], "'..'"),
            (&[("a", "/run/secrets")], &["a"], "cannot be at"),
            (&[("a", "/proc/1/environ")], &["a"], "cannot be at"),
            (&[("a", ""), ("b", "a")], &["a", "b"], "Duplicate mount point: /run/secrets/a"),
            (&[("a", ""), ("b", "a/b")], &["a", "b"], "cannot be below"),
        ] {
            let error = check(&host(files), &contents(ids)).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
        let large = SecretContents::new([("a".to_owned(), vec![0; MAX_BYTES + 1])].into());
        assert!(check(&host(&[("a", "")]), &large).unwrap_err().message.contains("500 KiB"));
    }

    #[test]
    fn contents_are_not_printed() {
        assert_eq!(format!("{:?}", contents(&["a"])), r#"{"a"}"#);
    }

    #[test]
    fn all_below_the_usual_place_are_one_mount() {
        let list = mount_list(&host(&[("a", ""), ("b", "/etc/key"), ("c", "/run/secrets/d/e")]), Path::new("/s"));
        let pairs: Vec<_> = list.iter().map(|mount| (&mount["source"], &mount["destination"])).collect();
        assert_eq!(pairs, [(&json!("/s/tree"), &json!("/run/secrets")), (&json!("/s/single/1"), &json!("/etc/key"))]);
    }
}
