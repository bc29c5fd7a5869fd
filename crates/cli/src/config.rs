//! `config.json`: what the user has set for all commands.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::failure::Outcome;

/// The user's configuration. Keys that we do not know are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) dir: PathBuf,
    pub(crate) content: Map<String, Value>,
}

/// The directory of the configuration: `DOCKER_CONFIG`, else `~/.docker`.
pub(crate) fn default_dir() -> PathBuf {
    match std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => home().join(".docker"),
    }
}

/// The user's home directory.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}

impl Config {
    /// Reads the configuration; none is an empty one.
    pub(crate) fn load(dir: &Path) -> Outcome<Self> {
        let path = dir.join("config.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(format!("loading config file: {}", wharf_report::path("open", &path, &error)).into());
            }
        };
        let content = if bytes.trim_ascii().is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(&bytes)
                .map_err(|error| format!("loading config file: {}: {error}", path.display()))?
        };
        Ok(Self { dir: dir.to_owned(), content })
    }

    /// A text setting; `None` when it is not set or empty.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.content.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// What lists look like (`psFormat`, `imagesFormat` and the others).
    pub(crate) fn formats(&self) -> impl Iterator<Item = &str> {
        let formats = self.content.iter().filter(|(key, _)| key.ends_with("Format"));
        formats.filter_map(|(_, value)| value.as_str())
    }

    /// A table of texts (`HttpHeaders`, `credHelpers`).
    pub(crate) fn texts(&self, key: &str) -> impl Iterator<Item = (&str, &str)> {
        let table = self.content.get(key).and_then(Value::as_object);
        table.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    /// Writes the configuration, readable by the user only, in one step.
    pub(crate) fn save(&self) -> Outcome {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        std::fs::create_dir_all(&self.dir).map_err(|error| wharf_report::path("mkdir", &self.dir, &error))?;
        let path = self.dir.join("config.json");
        // A link is followed: people keep the file elsewhere.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let temporary = path.with_extension(format!("json{}", std::process::id()));
        let mut bytes = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, tabs);
        serde::Serialize::serialize(&self.content, &mut serializer)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&temporary).and_then(|mut file| file.write_all(&bytes));
        written
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|error| wharf_report::path("open", &path, &error))?;
        Ok(())
    }
}
