//! What is stated about a result that is files: statements about these, in files beside them, as BuildKit's exporters `local` and
//! `tar` write them.
//!
//! Source: moby/buildkit `exporter/local/fs.go`.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde_json::{Value, json};
use wharf_reference::{Digest, Hasher};
use wharf_snapshot::DatedView;

use crate::images::{ImageRecord, Images};
use crate::index::{INDEXES, IndexRow};
use crate::names::moment;
use crate::{ImageError, Result};

/// A file of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementFile {
    pub name: String,
    pub bytes: Vec<u8>,
    /// That of the image, in seconds since the epoch: the same result has the same archive.
    pub time: u64,
}

impl Images {
    /// Statements about the files of an image: their predicates are those that `index` has about it. None without such. The
    /// names begin with `prefix`, and end with `suffix` before the extension.
    ///
    /// # Errors
    /// When files cannot be read.
    pub fn statement_files(
        &self,
        index: &Digest,
        image: &ImageRecord,
        view: &DatedView,
        prefix: &str,
        suffix: &str,
    ) -> Result<Vec<StatementFile>> {
        let row: Option<IndexRow> = self.store().read(|tx| tx.get(INDEXES, index.as_str()))?;
        let Some(row) = row else { return Ok(Vec::new()) };
        let about = self.attested(index, &row, &image.id)?;
        if about.is_empty() {
            return Ok(Vec::new());
        }
        let created = image.config.created.as_deref().map_or(0, |text| moment(text).as_second());
        let time = u64::try_from(created).unwrap_or(0);
        let subjects = subjects(view)?;
        let mut all = Vec::new();
        for statement in about {
            let Some(stem) = file_stem(&statement.predicate_type) else { continue };
            let bytes = self.statement(&statement)?;
            let mut whole: Value = serde_json::from_slice(&bytes).map_err(ImageError::Config)?;
            whole["subject"] = Value::from(subjects.clone());
            let bytes = serde_json::to_vec_pretty(&whole).map_err(ImageError::Config)?;
            all.push(StatementFile { name: format!("{prefix}{stem}{suffix}.json"), bytes, time });
        }
        Ok(all)
    }
}

/// What BuildKit calls the file of a kind of statement, without `.json`; none for what builds do not state.
fn file_stem(kind: &str) -> Option<&'static str> {
    match kind {
        "https://spdx.dev/Document" => Some("sbom.spdx"),
        kind if kind.starts_with("https://slsa.dev/provenance/") => Some("provenance"),
        _ => None,
    }
}

/// Each regular file with its digest, in the order of their paths.
fn subjects(view: &DatedView) -> Result<Vec<Value>> {
    let failing = |e: wharf_rooted_path::RootError| ImageError::Io("an image cannot be read", std::io::Error::other(e));
    let mut subjects = Vec::new();
    // A stack instead of recursion: a tree may be deeper than ours.
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        match FileType::from_raw_mode(view.metadata(&path, false).map_err(failing)?.st_mode) {
            FileType::Directory => {
                let mut names = view.read_dir(&path).map_err(failing)?;
                names.sort();
                left.extend(names.into_iter().rev().map(|name| path.join(name)));
            }
            FileType::RegularFile => {
                let hex = digest(view, &path)?;
                subjects.push(json!({ "name": path.to_string_lossy(), "digest": { "sha256": hex } }));
            }
            _ => {}
        }
    }
    Ok(subjects)
}

fn digest(view: &DatedView, path: &Path) -> Result<String> {
    let failing = |e| ImageError::Io("an image's file cannot be read", e);
    let mut file = view.open_file(path).map_err(|e| failing(std::io::Error::other(e)))?;
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failing)? {
            0 => return Ok(hasher.finish().hex().to_owned()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
