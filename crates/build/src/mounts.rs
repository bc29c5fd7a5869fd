//! What `RUN --mount` asks, found and opened before the command exists.
//!
//! Sources are held as fds and given to the runtime by the magic links of `/proc`, so that no path of a context or
//! an image is resolved a second time (CVE-2024-23651, CVE-2024-1753 and their kin).

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;
use wharf_dockerfile::{Ignore, Mount, MountKind, Sharing, Source};
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;

use crate::agent::{self, Forwarding};
use crate::bundle::{MountSource, Mounted};
use crate::cache_mount::{CacheMount, CacheMounts, Owner};
use crate::copy::Destination;
use crate::error::{BuildError, Result};
use crate::metadata;
use crate::plan::{Content, Entry, Plan};
use crate::scratch::Scratch;
use crate::select::{Selected, Selection, Shape, checksum};
use crate::session::{Session, lock};
use crate::state::{DATE_OF_NOTHING, State};
use crate::why::Inputs;

/// The mounts of one command, and what must be held while it runs.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) mounted: Vec<Mounted>,
    /// Variables that hold secrets.
    pub(crate) env: Vec<String>,
    /// Places that are no directories.
    pub(crate) files: Vec<String>,
    fds: Vec<OwnedFd>,
    forwardings: Vec<Forwarding>,
    /// By ID and origin: a command may mount one cache at two places.
    caches: BTreeMap<(String, String), CacheMount>,
}

impl Mounts {
    /// A path that means `fd` to every process of this host, as long as it is held.
    fn hold(&mut self, fd: OwnedFd) -> PathBuf {
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()));
        self.fds.push(fd);
        path
    }
}

/// A mount with its source selected, from which the key of the step is made.
#[derive(Debug)]
pub(crate) struct Asked {
    mount: Mount,
    target: String,
    /// What a bind shows, or what a cache begins with.
    selected: Option<Selected>,
    place: String,
}

impl Asked {
    fn cache_id(&self) -> &str {
        self.mount.id.as_deref().unwrap_or(&self.target)
    }
}

/// Notes what of the mounts went into a command.
pub(crate) fn inputs<'a>(mut inputs: Inputs<'a>, asked: &'a [Asked], key: &[(String, Option<Digest>)]) -> Inputs<'a> {
    for (one, (field, content)) in asked.iter().zip(key) {
        match (content, &one.selected) {
            (Some(checksum), Some(selected)) => inputs.files(checksum.to_string(), selected),
            _ => inputs = inputs.with(&format!("the mount {}", one.target), field),
        }
    }
    inputs
}

impl Session<'_> {
    /// Finds what the mounts of a command show.
    pub(crate) fn asked_mounts(
        &mut self,
        index: usize,
        state: &State,
        mounts: Vec<Mount>,
        source: &Source,
    ) -> Result<Vec<Asked>> {
        let mut all = Vec::new();
        for mount in mounts {
            let target = match (&mount.target, mount.kind) {
                (Some(target), _) => target.clone(),
                (None, MountKind::Secret) if mount.env.is_some() => String::new(),
                (None, MountKind::Secret) => format!("/run/secrets/{}", last_part(&secret_id(&mount))),
                (None, MountKind::Ssh) => {
                    let before = all.iter().filter(|one: &&Asked| one.mount.kind == MountKind::Ssh).count();
                    format!("/run/buildkit/ssh_agent.{before}")
                }
                (None, _) => return Err(BuildError::invalid(format!("{} mount needs a target", mount.kind.name()))),
            };
            let target = if target.is_empty() { target } else { metadata::workdir(state.workdir(), &target) };
            if target == "/" {
                return Err(BuildError::invalid("invalid mount target \"/\""));
            }
            let filled = mount.kind == MountKind::Bind || (mount.kind == MountKind::Cache && mount.from.is_some());
            let (mut selected, mut place) = (None, String::new());
            if filled {
                let (tree, label) = self.tree(index, mount.from.as_deref(), source)?;
                let none = Ignore::default();
                let selection = Selection {
                    tree: &tree,
                    exclude: &none,
                    parents: false,
                    instruction: "RUN --mount",
                    place: &label,
                    cancel: &self.cancel,
                };
                let from = mount.source.as_deref().unwrap_or("/");
                selected = selection.select_literal(from)?;
                place = label;
            }
            all.push(Asked { mount, target, selected, place });
        }
        Ok(all)
    }

    /// What of each mount decides what the command makes, and the checksum of the files that it shows. The content of a cache
    /// does not: that is what it is for.
    pub(crate) fn mounts_key(&self, asked: &[Asked]) -> Result<Vec<(String, Option<Digest>)>> {
        let mut fields = Vec::new();
        for one in asked {
            let content: Option<Digest> = match (&one.selected, one.mount.kind) {
                (Some(selected), MountKind::Bind) => Some(checksum(std::slice::from_ref(selected), &self.cancel)?),
                _ => None,
            };
            let mut mount = one.mount.clone();
            // Where a bind comes from does not matter, what it shows does.
            if content.is_some() {
                (mount.from, mount.source) = (None, None);
            }
            fields.push((format!("{mount:?} {} {content:?}", one.target), content));
        }
        Ok(fields)
    }

    /// Opens everything.
    pub(crate) fn open_mounts(&mut self, asked: &[Asked], dir: &Scratch, volatile: &Path) -> Result<Mounts> {
        let mut mounts = Mounts::default();
        // Commands that lock several caches take them in one order, or two of them would wait for each other.
        let mut caches: Vec<&Asked> = asked.iter().filter(|one| one.mount.kind == MountKind::Cache).collect();
        caches.sort_by_key(|one| one.cache_id());
        for one in caches {
            self.take_cache(one, &mut mounts)?;
        }
        for (number, one) in asked.iter().enumerate() {
            let source = match one.mount.kind {
                MountKind::Tmpfs => MountSource::Tmpfs(one.mount.size),
                MountKind::Bind => self.open_bind(one, number, dir, &mut mounts)?,
                MountKind::Cache => self.open_cache(one, &mut mounts)?,
                MountKind::Secret => match self.open_secret(one, number, volatile, &mut mounts)? {
                    Some(source) => source,
                    None => continue,
                },
                MountKind::Ssh => match self.open_agent(one, number, volatile, &mut mounts)? {
                    Some(source) => source,
                    None => continue,
                },
            };
            mounts.mounted.push(Mounted { target: one.target.clone(), source, read_only: one.mount.read_only });
        }
        // Whatever their order: none hides another that lies below it.
        mounts.mounted.sort_by_key(|mounted| Path::new(&mounted.target).components().count());
        Ok(mounts)
    }

    fn open_bind(&mut self, one: &Asked, number: usize, dir: &Scratch, mounts: &mut Mounts) -> Result<MountSource> {
        let Some((selected, top)) = one.selected.as_ref().and_then(|all| Some((all, all.items.first()?))) else {
            return Err(BuildError::invalid(format!("RUN --mount: the source in {} cannot be mounted", one.place)));
        };
        let fd = match selected.tree.directory().filter(|_| one.mount.read_only) {
            Some(root) => root.handle(&top.from)?,
            // A context is no directory.
            None if one.mount.read_only => self.materialized(selected, &one.place, &top.from)?,
            // What is written is dropped: it goes to a copy.
            None => {
                let copy = RootDir::open(dir.sub(&format!("mount-{number}"))?)?;
                self.fill(&copy, selected)?;
                copy.handle("x")?
            }
        };
        self.note_file(&fd, &one.target, mounts)?;
        Ok(MountSource::Path(mounts.hold(fd)))
    }

    /// A part of the context as files, made once for all commands that only read it.
    fn materialized(&mut self, selected: &Selected, place: &str, from: &Path) -> Result<OwnedFd> {
        let mut all = lock(&self.materialized);
        let key = (place.to_owned(), from.to_owned());
        if !all.contains_key(&key) {
            let copy = RootDir::open(self.dir.sub(&format!("context-{}", all.len()))?)?;
            self.fill(&copy, selected)?;
            all.insert(key.clone(), copy);
        }
        let copy = all.get(&key).ok_or_else(|| BuildError::invalid("a mount without a source"))?;
        Ok(copy.handle("x")?)
    }

    /// Copies what was selected to `x` in an empty directory.
    fn fill(&self, into: &RootDir, selected: &Selected) -> Result<()> {
        let mut plan = Plan::new(into, (0, 0), (self.clamp.unwrap_or(DATE_OF_NOTHING), 0));
        let destination = Destination {
            text: "/x",
            workdir: "/",
            owner: None,
            mode: None,
            instruction: "RUN --mount",
            sources: 1,
            replaces: false,
        };
        destination.copy(&mut plan, selected, &self.cancel)?;
        if let (Shape::Contents, Some(top)) = (&selected.shape, selected.items.first()) {
            // The command sees the directory itself, and not a copy of what is in it.
            let attributes = top.found.attributes.clone();
            plan.put(Path::new("x"), Entry { attributes, content: Content::Nothing })?;
        }
        plan.write(into, &self.cancel)
    }

    fn cache_key(&self, one: &Asked) -> Result<(String, String)> {
        let mut origin = match &one.selected {
            Some(selected) => checksum(std::slice::from_ref(selected), &self.cancel)?.to_string(),
            None => String::new(),
        };
        // As BuildKit has it: what one user may write to is not given to another one.
        let owner = owner(one);
        if owner != Owner::default() {
            origin.push_str(&format!(" {:o} {} {}", owner.mode, owner.uid, owner.gid));
        }
        let id = match self.globals.build_arg("BUILDKIT_CACHE_MOUNT_NS").filter(|space| !space.is_empty()) {
            Some(space) => format!("{space}/{}", one.cache_id()),
            None => one.cache_id().to_owned(),
        };
        Ok((id, origin))
    }

    /// Notes the caches of a command with the build, for whoever wants them with its steps.
    pub(crate) fn note_caches(&self, asked: &[Asked]) -> Result<()> {
        for one in asked.iter().filter(|one| one.mount.kind == MountKind::Cache) {
            let (id, origin) = self.cache_key(one)?;
            lock(&self.noted).mounts.insert(CacheMounts::name(&id, &origin));
        }
        Ok(())
    }

    /// Takes a cache, and fills it if it is new.
    fn take_cache(&self, one: &Asked, mounts: &mut Mounts) -> Result<()> {
        let key = self.cache_key(one)?;
        if mounts.caches.contains_key(&key) {
            return Ok(());
        }
        let owner = owner(one);
        // Who only reads disturbs nobody.
        let sharing = if one.mount.read_only { Sharing::Shared } else { one.mount.sharing };
        // What is not to come from the cache begins with an empty one, as with BuildKit, once in a build.
        let anew = self.no_cache && !self.options.keeps_mounts && lock(&self.emptied).insert(key.clone());
        let cache = self.shared.cache_mounts.take(&key.0, &key.1, sharing, owner, anew, &self.cancel)?;
        if let Some(selected) = one.selected.as_ref().filter(|_| cache.fresh) {
            let into = RootDir::open(&cache.path)?;
            let mut plan = Plan::new(&into, (owner.uid, owner.gid), (self.clamp.unwrap_or(DATE_OF_NOTHING), 0));
            let destination = Destination {
                text: "/",
                workdir: "/",
                owner: None,
                mode: None,
                instruction: "RUN --mount",
                sources: 1,
                replaces: false,
            };
            destination.copy(&mut plan, selected, &self.cancel)?;
            plan.write(&into, &self.cancel)?;
            if let (Shape::Contents, Some(top), true) =
                (&selected.shape, selected.items.first(), owner == Owner::default())
            {
                let attributes = &top.found.attributes;
                into.set_owner(".", attributes.owner.0, attributes.owner.1)?;
                into.set_mode(".", attributes.mode)?;
            }
        }
        mounts.caches.insert(key, cache);
        Ok(())
    }

    fn open_cache(&self, one: &Asked, mounts: &mut Mounts) -> Result<MountSource> {
        let key = self.cache_key(one)?;
        let cache = mounts.caches.get(&key).ok_or_else(|| BuildError::invalid("a cache that was not taken"))?;
        let fd = RootDir::open(&cache.path)?.into_fd();
        Ok(MountSource::Path(mounts.hold(fd)))
    }

    /// The secret that a mount means, by its ID, and what it is, if somebody gives it.
    ///
    /// # Errors
    /// When whoever may have it cannot be asked.
    pub(crate) fn secret_of(&self, mount: &Mount) -> Result<(String, Option<Vec<u8>>)> {
        let id = secret_id(mount);
        let secret = match (self.options.secrets.get(&id), &self.options.asked.0) {
            (None, Some(client)) => client.secret(&id)?,
            (known, _) => known.cloned(),
        };
        Ok((id, secret))
    }

    fn open_secret(
        &mut self,
        one: &Asked,
        number: usize,
        volatile: &Path,
        mounts: &mut Mounts,
    ) -> Result<Option<MountSource>> {
        let (id, asked) = self.secret_of(&one.mount)?;
        let Some(secret) = asked.as_deref() else {
            if one.mount.required {
                return Err(BuildError::invalid(format!("secret {id}: not found: the request gives no such secret")));
            }
            self.output.text(format!("[Warning] secret {id} was not given\n"))?;
            // There, so that a script with `set -u` gets as far as it would with the file.
            mounts.env.extend(one.mount.env.iter().map(|name| format!("{name}=")));
            return Ok(None);
        };
        if let Some(name) = &one.mount.env {
            mounts.env.push(format!("{name}={}", String::from_utf8_lossy(secret)));
            if one.mount.target.is_none() {
                return Ok(None);
            }
        }
        // In the volatile directory, which is in memory: a secret is never written to a disk.
        let path = volatile.join(format!("secret-{number}"));
        let failing = |e: std::io::Error| BuildError::system(format_args!("secret {id} cannot be given"), &e);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failing)?;
        std::io::Write::write_all(&mut file, secret).map_err(failing)?;
        std::os::unix::fs::fchown(&file, one.mount.uid, one.mount.gid).map_err(failing)?;
        let mode = one.mount.mode.unwrap_or(0o400) & 0o7777;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).map_err(failing)?;
        mounts.files.push(one.target.clone());
        Ok(Some(MountSource::Path(mounts.hold(OwnedFd::from(file)))))
    }

    fn open_agent(
        &mut self,
        one: &Asked,
        number: usize,
        volatile: &Path,
        mounts: &mut Mounts,
    ) -> Result<Option<MountSource>> {
        let id = one.mount.id.as_deref().unwrap_or("default");
        let asked = match (self.options.agents.0.get(id), &self.options.asked.0) {
            (None, Some(client)) => client.agent(id)?,
            (known, _) => known.map(Arc::clone),
        };
        let Some(agent) = asked else {
            if one.mount.required {
                let message = format!("RUN --mount=type=ssh: the request gives no SSH agent {id} (--ssh {id})");
                return Err(BuildError::invalid(message));
            }
            self.output.text(format!("[Warning] RUN --mount=type=ssh is ignored: no SSH agent {id} was given\n"))?;
            return Ok(None);
        };
        let path = volatile.join(format!("agent-{number}"));
        let (socket, forwarding) = agent::forward(&self.runtime, &path, agent, &one.mount)?;
        mounts.forwardings.push(forwarding);
        if !mounts.env.iter().any(|pair| pair.starts_with("SSH_AUTH_SOCK=")) {
            mounts.env.push(format!("SSH_AUTH_SOCK={}", one.target));
        }
        mounts.files.push(one.target.clone());
        Ok(Some(MountSource::Path(mounts.hold(socket))))
    }

    fn note_file(&self, fd: &OwnedFd, target: &str, mounts: &mut Mounts) -> Result<()> {
        let stat = rustix::fs::fstat(fd).map_err(|e| BuildError::system("a mount's source cannot be looked at", &e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            mounts.files.push(target.to_owned());
        }
        Ok(())
    }
}

fn secret_id(mount: &Mount) -> String {
    let named = mount.source.as_deref().or(mount.id.as_deref());
    named.or_else(|| mount.target.as_deref().map(last_part)).unwrap_or_default().to_owned()
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Who owns the cache that a mount asks for, if it is new.
fn owner(one: &Asked) -> Owner {
    let default = Owner::default();
    Owner {
        mode: one.mount.mode.unwrap_or(default.mode),
        uid: one.mount.uid.unwrap_or(default.uid),
        gid: one.mount.gid.unwrap_or(default.gid),
    }
}
