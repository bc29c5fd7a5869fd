//! Commands that are programs of their own: `docker-NAME` in the plugin directories (`docker compose`, `docker buildx`).
//!
//! A program there is a plugin when it answers `docker-cli-plugin-metadata` with what it is; all others are named as
//! invalid and not run.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::app::App;
use crate::commands::{GROUPS, TREE};
use crate::endpoint;
use crate::failure::{Failure, Outcome};

/// Where plugins are looked for, after the directories of the configuration.
const SYSTEM: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// What a plugin's file is named before the plugin's own name.
const PREFIX: &str = "docker-";
/// Asks a plugin what it is.
const ASK: &str = "docker-cli-plugin-metadata";
/// Tells a plugin how to call the program that called it.
const CALLER: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";

/// What a plugin says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Metadata {
    schema_version: String,
    pub(crate) vendor: String,
    pub(crate) version: String,
    pub(crate) short_description: String,
    #[serde(rename = "URL")]
    url: String,
}

/// A program in a plugin directory.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Others of the name, in directories that come later.
    shadowed: Vec<PathBuf>,
    /// What it says of itself, or why it is none.
    pub(crate) metadata: Result<Metadata, String>,
}

impl Plugin {
    /// As `docker info` has it.
    pub(crate) fn json(&self) -> Json {
        let (mut fields, path) = (serde_json::Map::new(), self.path.display().to_string());
        let mut some = |key: &str, value: &str| {
            if !value.is_empty() {
                fields.insert(key.to_owned(), value.into());
            }
        };
        if let Ok(metadata) = &self.metadata {
            some("SchemaVersion", &metadata.schema_version);
            some("Vendor", &metadata.vendor);
            some("Version", &metadata.version);
            some("ShortDescription", &metadata.short_description);
            some("URL", &metadata.url);
        }
        some("Name", &self.name);
        some("Path", &path);
        if let Err(reason) = &self.metadata {
            some("Err", reason);
        }
        if !self.shadowed.is_empty() {
            let paths: Vec<_> = self.shadowed.iter().map(|path| path.display().to_string()).collect();
            fields.insert("ShadowedPaths".to_owned(), json!(paths));
        }
        Json::Object(fields)
    }
}

/// The plugin for a command, if there is one.
pub(crate) fn find(app: &App, name: &str) -> Option<PathBuf> {
    check_name(name).ok()?;
    let path = dirs(app).map(|dir| dir.join(format!("{PREFIX}{name}"))).find(|path| can_run(path))?;
    ask(name, &path).ok().map(|_| path)
}

/// All that is in the plugin directories, by name.
pub(crate) fn all(app: &App) -> Vec<Plugin> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for dir in dirs(app) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let (file, path) = (entry.file_name(), entry.path());
            let Some(name) = file.to_str().and_then(|file| file.strip_prefix(PREFIX)) else { continue };
            if can_run(&path) {
                found.entry(name.to_owned()).or_default().push(path);
            }
        }
    }
    let plugin = |(name, mut paths): (String, Vec<PathBuf>)| {
        let shadowed = paths.split_off(1);
        let path = paths.swap_remove(0);
        let metadata = check_name(&name).and_then(|()| ask(&name, &path));
        Plugin { name, path, shadowed, metadata }
    };
    found.into_iter().map(plugin).collect()
}

fn dirs(app: &App) -> impl Iterator<Item = PathBuf> {
    let config = app.config();
    let extra = config.content.get("cliPluginsExtraDirs").and_then(Json::as_array);
    let extra = extra.into_iter().flatten().filter_map(|dir| dir.as_str()).map(PathBuf::from);
    std::iter::once(config.dir.join("cli-plugins")).chain(extra).chain(SYSTEM.map(PathBuf::from))
}

fn can_run(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!("plugin candidate {name:?} did not match \"^[a-z][a-z0-9]*$\""))
}

fn ask(name: &str, path: &Path) -> Result<Metadata, String> {
    let top = TREE.iter().filter(|entry| entry.group.is_empty());
    if top.clone().any(|entry| entry.name == name) || GROUPS.iter().any(|group| group.name == name) {
        return Err(format!("plugin {name:?} duplicates builtin command"));
    }
    let failed = |reason: String| format!("failed to fetch metadata: {reason}");
    let said = Command::new(path).arg(ASK).output().map_err(|error| failed(wharf_report::os(&error)))?;
    if !said.status.success() {
        return Err(failed(said.status.to_string()));
    }
    let metadata: Metadata =
        serde_json::from_slice(&said.stdout).map_err(|error| format!("invalid metadata: {error}"))?;
    let version = &metadata.schema_version;
    match version.split('.').next().map(str::parse::<u32>) {
        _ if version.is_empty() => Err("plugin SchemaVersion version cannot be empty".to_owned()),
        Some(Ok(0 | 1)) if metadata.vendor.is_empty() => Err("plugin metadata does not define a vendor".to_owned()),
        Some(Ok(0 | 1)) => Ok(metadata),
        Some(Ok(_)) => Err(format!("plugin SchemaVersion {version:?} is not supported: must be lower than 2.0.0")),
        _ => Err(format!("plugin SchemaVersion {version:?} has wrong format: must be <major>.<minor>.<patch>")),
    }
}

/// It is told where our engine is when nothing else says it, for it would look for Docker's.
fn command(app: &App, path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env(CALLER, std::env::args_os().next().unwrap_or_else(|| app.program.clone().into()));
    let default = app.endpoint().is_ok_and(|endpoint| endpoint.is_default);
    if default {
        command.env("DOCKER_HOST", format!("unix://{}", endpoint::default_socket().display()));
    }
    command
}

/// What the plugin says may come next, the last of the words begun: as programs that are made with Cobra do, a word a line, a
/// tab before what is said of it, and a line with a colon at the end.
pub(crate) fn complete(app: &App, path: &Path, words: &[String]) -> (Vec<String>, u32) {
    let said = command(app, path).arg("__complete").args(words).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let lines = text.lines().take_while(|line| !line.starts_with(':'));
    let words = lines.map(|line| line.split('\t').next().unwrap_or(line).to_owned()).filter(|word| !word.is_empty());
    let directive = text.lines().find_map(|line| line.strip_prefix(':')?.parse().ok());
    (words.collect(), directive.unwrap_or_default())
}

/// Becomes the plugin, which is given all words: it reads the global flags itself.
pub(crate) fn exec(app: &App, path: &Path, words: &[String]) -> Outcome<u8> {
    let error = command(app, path).args(words).exec();
    Err(Failure::new(format!("{}: {}", path.display(), wharf_report::os(&error))))
}
