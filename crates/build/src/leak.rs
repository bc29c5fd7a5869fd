//! Secrets that a build was given, looked for in what it has made, before that gets a name.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;

use crate::error::{BuildError, Result};
use crate::session::{Common, lock};
use crate::state::State;

/// What is shorter is found in files by chance, and is no secret.
const SHORTEST: usize = 8;
/// Read at once.
const CHUNK: usize = 1 << 20;

/// A secret's ID and content, without the white space around it.
type Secret<'a> = (&'a str, &'a [u8]);

impl Common<'_> {
    /// Refuses an image with a secret in its configuration, its history or a layer that this build has made. Stages that
    /// are no part of the image may have them.
    pub(crate) fn search_for_secrets(&self, state: &State) -> Result<()> {
        let given = self.client.as_ref().map(|client| client.given()).unwrap_or_default();
        let secrets =
            self.options.secrets.iter().chain(&given).map(|(id, content)| (id.as_str(), content.trim_ascii()));
        let secrets: Vec<Secret<'_>> = secrets.filter(|(_, content)| content.len() >= SHORTEST).collect();
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
            if let Some((id, _)) = secrets.iter().find(|(_, content)| find(text.as_bytes(), content)) {
                return refuse(id, place.into());
            }
        }
        let made = lock(&self.made).clone();
        for (number, layer) in state.layers().iter().enumerate().filter(|(_, layer)| made.contains(layer)) {
            if let Some((id, path)) = self.search_layer(layer, &secrets)? {
                let step = image.history.iter().filter(|entry| !entry.empty_layer).nth(number);
                let step = step.and_then(|entry| entry.created_by.as_deref()).unwrap_or_default();
                let step: String = step.chars().take(120).collect();
                return refuse(&id, format!("file /{}, made by: {step}", path.display()));
            }
        }
        Ok(())
    }

    fn search_layer(&self, layer: &Digest, secrets: &[Secret<'_>]) -> Result<Option<(String, PathBuf)>> {
        let view = self.shared.layers.view(std::slice::from_ref(layer), None)?;
        let root: &RootDir = &view;
        let mut stack = vec![PathBuf::new()];
        while let Some(dir) = stack.pop() {
            for name in root.read_dir(&dir)? {
                self.cancel.check()?;
                let path = dir.join(name);
                let stat = root.metadata(&path, false)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => stack.push(path),
                    FileType::RegularFile => {
                        if let Some(id) = self.search_file(root, &path, secrets)? {
                            return Ok(Some((id, path)));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    fn search_file(&self, root: &RootDir, path: &Path, secrets: &[Secret<'_>]) -> Result<Option<String>> {
        let failing = |e: std::io::Error| BuildError::system(format_args!("{} cannot be read", path.display()), &e);
        let longest = secrets.iter().map(|(_, content)| content.len()).max().unwrap_or(0);
        let mut file = root.open_file(path)?;
        let mut bytes = Vec::with_capacity(CHUNK + longest);
        loop {
            self.cancel.check()?;
            let count = file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes).map_err(failing)?;
            if let Some((id, _)) = secrets.iter().find(|(_, content)| find(&bytes, content)) {
                return Ok(Some((*id).to_owned()));
            }
            if count == 0 {
                return Ok(None);
            }
            // What begins in this piece may end in the next.
            let keep = bytes.len().min(longest - 1);
            bytes.drain(..bytes.len() - keep);
        }
    }
}

/// Whether the bytes have these in them.
fn find(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some((first, rest)) = wanted.split_first() else { return false };
    let mut left = bytes;
    while let Some(at) = left.iter().position(|byte| byte == first) {
        left = &left[at + 1..];
        if left.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_bytes() {
        assert!(find(b"xaab", b"aab") && find(b"aab", b"aab") && find(b"aaab", b"aab"));
        assert!(!find(b"aa", b"aab") && !find(b"", b"a") && !find(b"x", b""));
    }
}
