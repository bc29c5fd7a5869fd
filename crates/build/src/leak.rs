//! Secrets that a build was given, looked for in what it has made (contents, names and links), before that gets a name.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use rustix::fs::FileType;
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;

use crate::cache::CacheRecord;
use crate::error::{BuildError, Result};
use crate::session::{Common, lock};
use crate::state::State;

/// What is shorter is found in files by chance, and is no secret.
const SHORTEST: usize = 8;
/// Read at once.
const CHUNK: usize = 1 << 20;

/// A secret's ID, and its content without the white space around it.
struct Secret<'a> {
    id: &'a str,
    finder: Finder<'a>,
}

impl Secret<'_> {
    fn is_in(&self, bytes: &[u8]) -> bool {
        self.finder.find(bytes).is_some()
    }
}

/// Secrets by their IDs, ready to be looked for.
fn secrets(given: &BTreeMap<String, Vec<u8>>) -> Vec<Secret<'_>> {
    let all = given.iter().map(|(id, content)| (id.as_str(), content.trim_ascii()));
    let long = all.filter(|(_, content)| content.len() >= SHORTEST);
    long.map(|(id, content)| Secret { id, finder: Finder::new(content) }).collect()
}

/// Whether anybody wants the result yet.
pub(crate) type Wanted<'a> = &'a dyn Fn() -> bool;

impl Common<'_> {
    /// All that the build was given until now.
    fn given_secrets(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = self.client.as_ref().map(|client| client.given()).unwrap_or_default();
        all.extend(self.options.secrets.clone());
        all
    }

    /// The IDs of secrets in a layer that a step has just made. They are kept with what is cached: the step may be taken from
    /// there by a build that names the layer.
    ///
    /// # Errors
    /// When it cannot be read, or nobody wants it any more.
    pub(crate) fn secrets_in(&self, layer: &Digest, wanted: Wanted<'_>) -> Result<Vec<String>> {
        let given = self.given_secrets();
        let mut left = secrets(&given);
        let mut found = Vec::new();
        while !left.is_empty()
            && let Some((id, _)) = self.search_layer(layer, &left, wanted)?
        {
            left.retain(|secret| secret.id != id);
            found.push(id);
        }
        if !found.is_empty() {
            lock(&self.leaky).insert(layer.clone(), found.clone());
        }
        Ok(found)
    }

    /// Whether a step may be taken from the cache: what is made of one with secrets in its layer is to be searched for them, so
    /// the build has to have them.
    pub(crate) fn knows_secrets_of(&self, record: &CacheRecord) -> bool {
        if record.secrets.is_empty() {
            return true;
        }
        let given = self.given_secrets();
        let known = record.secrets.iter().all(|id| given.contains_key(id));
        if let Some(layer) = record.layer.as_ref().filter(|_| known) {
            lock(&self.leaky).insert(layer.clone(), record.secrets.clone());
        }
        known
    }

    /// Refuses an image with a secret in its configuration, its history or a layer of its own. Stages that are no part of the
    /// image may have them.
    pub(crate) fn search_for_secrets(&self, state: &State) -> Result<()> {
        let given = self.given_secrets();
        let secrets = secrets(&given);
        if secrets.is_empty() {
            return Ok(());
        }
        let refuse = |id: &str, place: String| {
            let message = format!("the secret {id} is in the image's {place}: nothing was tagged");
            Err(BuildError::invalid(message))
        };
        let image = &state.image;
        let lines = image.history.iter().filter_map(|entry| entry.created_by.as_deref());
        let config = [image.config.env.as_ref(), image.config.cmd.as_ref(), image.config.entrypoint.as_ref()];
        let labels = image.config.labels.iter().flatten().map(|(_, value)| value.as_str());
        let words = config.into_iter().flatten().flatten().map(String::as_str).chain(labels);
        for (place, text) in lines.map(|text| ("history", text)).chain(words.map(|text| ("configuration", text))) {
            if let Some(secret) = secrets.iter().find(|secret| secret.is_in(text.as_bytes())) {
                return refuse(secret.id, place.into());
            }
        }
        let leaky = lock(&self.leaky).clone();
        let mut own = state.layers().iter().enumerate().skip(state.base_layers);
        if let Some((number, layer, ids)) = own.find_map(|(number, layer)| Some((number, layer, leaky.get(layer)?))) {
            let step = image.history.iter().filter(|entry| !entry.empty_layer).nth(number);
            let step = step.and_then(|entry| entry.created_by.as_deref()).unwrap_or_default();
            let step: String = step.chars().take(120).collect();
            // With other contents than when it was made, it is not found: it is what the step has written all the same.
            let (id, place) = match self.search_layer(layer, &secrets, &|| !self.cancel.is_cancelled())? {
                Some((id, path)) => (id, format!("file /{}", path.display())),
                None => (ids.first().cloned().unwrap_or_default(), "files".to_owned()),
            };
            return refuse(&id, format!("{place}, made by: {step}"));
        }
        Ok(())
    }

    fn search_layer(
        &self,
        layer: &Digest,
        secrets: &[Secret<'_>],
        wanted: Wanted<'_>,
    ) -> Result<Option<(String, PathBuf)>> {
        let view = self.shared.layers.view(std::slice::from_ref(layer), None)?;
        let root: &RootDir = &view;
        let mut stack = vec![PathBuf::new()];
        while let Some(dir) = stack.pop() {
            for name in root.read_dir(&dir)? {
                check(wanted)?;
                let path = dir.join(name);
                let own = path.file_name().unwrap_or_default().as_bytes();
                if let Some(secret) = secrets.iter().find(|secret| secret.is_in(own)) {
                    return Ok(Some((secret.id.to_owned(), dir)));
                }
                let stat = match root.metadata(&path, false) {
                    // Of a removal there is the name alone.
                    Err(error) if error.is_not_found() => continue,
                    stat => stat?,
                };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => stack.push(path),
                    FileType::RegularFile => {
                        if let Some(id) = search_file(root, &path, secrets, wanted)? {
                            return Ok(Some((id, path)));
                        }
                    }
                    FileType::Symlink => {
                        let target = root.read_link(&path)?;
                        if let Some(secret) = secrets.iter().find(|secret| secret.is_in(target.as_bytes())) {
                            return Ok(Some((secret.id.to_owned(), path)));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }
}

fn check(wanted: Wanted<'_>) -> Result<()> {
    if wanted() { Ok(()) } else { Err(BuildError::cancelled()) }
}

fn search_file(root: &RootDir, path: &Path, secrets: &[Secret<'_>], wanted: Wanted<'_>) -> Result<Option<String>> {
    let failing = |e: std::io::Error| BuildError::system(format_args!("{} cannot be read", path.display()), &e);
    let longest = secrets.iter().map(|secret| secret.finder.needle().len()).max().unwrap_or(0);
    let mut file = root.open_file(path)?;
    let mut bytes = Vec::with_capacity(CHUNK + longest);
    loop {
        check(wanted)?;
        let count = file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes).map_err(failing)?;
        if let Some(secret) = secrets.iter().find(|secret| secret.is_in(&bytes)) {
            return Ok(Some(secret.id.to_owned()));
        }
        if count == 0 {
            return Ok(None);
        }
        // What begins in this piece may end in the next.
        let keep = bytes.len().min(longest - 1);
        bytes.drain(..bytes.len() - keep);
    }
}
