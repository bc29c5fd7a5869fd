//! Manifest lists that are being put together: a folder for each below the configuration's `manifests`, as Docker's, with
//! a file for each image.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use wharf_reference::{Digest, Reference};

use crate::config::Config;
use crate::failure::Outcome;

/// An image of a list.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) platform: Json,
    /// The manifest itself.
    pub(super) bytes: Vec<u8>,
}

impl Entry {
    fn descriptor(&self) -> Json {
        let mut own = json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() });
        if !self.platform.is_null() {
            own["platform"] = self.platform.clone();
        }
        own
    }

    /// As `inspect --verbose` shows it.
    pub(super) fn verbose(&self) -> Json {
        let manifest: Json = serde_json::from_slice(&self.bytes).unwrap_or_default();
        let kind = if self.media_type.contains("oci") { "OCIManifest" } else { "SchemaV2Manifest" };
        json!({ "Ref": self.name, "Descriptor": self.descriptor(), "Raw": STANDARD.encode(&self.bytes), kind: manifest })
    }
}

/// All lists.
pub(super) struct Lists(PathBuf);

impl Lists {
    pub(super) fn of(config: &Config) -> Self {
        Self(config.dir.join("manifests"))
    }

    fn folder(&self, list: &Reference) -> PathBuf {
        self.0.join(safe(list))
    }

    /// The images of a list; none when there is no such list.
    pub(super) fn entries(&self, list: &Reference) -> Outcome<Vec<Entry>> {
        let folder = self.folder(list);
        let found = match fs::read_dir(&folder) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(wharf_report::path("open", &folder, &error).into()),
        };
        let mut paths = found.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
        paths.sort();
        paths
            .iter()
            .filter(|path| path.extension().is_none_or(|extension| extension != "new"))
            .map(|path| read(path))
            .collect()
    }

    pub(super) fn entry(&self, list: &Reference, image: &Reference) -> Outcome<Option<Entry>> {
        let path = self.folder(list).join(safe(image));
        if path.exists() { read(&path).map(Some) } else { Ok(None) }
    }

    pub(super) fn put(&self, list: &Reference, entry: &Entry) -> Outcome {
        let folder = self.folder(list);
        fs::create_dir_all(&folder).map_err(|error| wharf_report::path("mkdir", &folder, &error))?;
        let path = folder.join(safe(&crate::references::parse(&entry.name)?));
        let temporary = folder.join("writing.new");
        let written = fs::write(&temporary, entry.verbose().to_string()).and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|error| wharf_report::path("open", &path, &error).into())
    }

    /// Whether there was such a list.
    pub(super) fn remove(&self, list: &Reference) -> Outcome<bool> {
        let folder = self.folder(list);
        match fs::remove_dir_all(&folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(wharf_report::path("unlinkat", &folder, &error).into()),
        }
    }
}

/// A name that a file can have.
fn safe(reference: &Reference) -> String {
    reference.to_string().replace(':', "-").replace('/', "_")
}

fn read(path: &Path) -> Outcome<Entry> {
    let bytes = fs::read(path).map_err(|error| wharf_report::path("open", path, &error))?;
    let damaged =
        || format!("the manifest list's file {} is damaged; remove the list and create it again", path.display());
    let value: Json = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    let text = |value: &Json| value.as_str().map(str::to_owned).ok_or_else(damaged);
    let descriptor = &value["Descriptor"];
    let entry = Entry {
        name: text(&value["Ref"])?,
        media_type: text(&descriptor["mediaType"])?,
        digest: Digest::parse(&text(&descriptor["digest"])?).map_err(|_| damaged())?,
        platform: descriptor["platform"].clone(),
        bytes: STANDARD.decode(text(&value["Raw"])?).map_err(|_| damaged())?,
    };
    if Digest::of(entry.digest.algorithm(), &entry.bytes) != entry.digest {
        return Err(damaged().into());
    }
    Ok(entry)
}
