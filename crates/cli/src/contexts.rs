//! Contexts: named engines, kept as Docker keeps them (`contexts/meta/SHA256/meta.json`).

use std::path::PathBuf;

use serde_json::{Value, json};
use wharf_client::TlsOptions;
use wharf_reference::Digest;

use crate::app::Globals;
use crate::config::Config;
use crate::endpoint;
use crate::failure::Outcome;

/// The context that is made of flags and environment.
pub(crate) const DEFAULT: &str = "default";

/// A stored context.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) host: String,
    pub(crate) skip_verify: bool,
    pub(crate) tls: Option<TlsOptions>,
    /// The file's content.
    pub(crate) meta: Value,
}

/// The context in use, and by whose word.
pub(crate) fn current(globals: &Globals, config: &Config) -> String {
    if let Some(name) = &globals.context {
        return name.clone();
    }
    if !globals.hosts.is_empty() || endpoint::environment_host().is_some() {
        return DEFAULT.to_owned();
    }
    let environment = std::env::var("DOCKER_CONTEXT").ok().filter(|name| !name.is_empty());
    environment.or_else(|| config.text("currentContext").map(str::to_owned)).unwrap_or_else(|| DEFAULT.to_owned())
}

/// The directory of a context's metadata, and of its TLS files.
pub(crate) fn dirs(config: &Config, name: &str) -> (PathBuf, PathBuf) {
    let id = Digest::sha256(name.as_bytes());
    let root = config.dir.join("contexts");
    (root.join("meta").join(id.hex()), root.join("tls").join(id.hex()))
}

/// Reads a context.
pub(crate) fn load(config: &Config, name: &str) -> Outcome<Context> {
    let (meta, tls) = dirs(config, name);
    let bytes = std::fs::read(meta.join("meta.json")).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("context {name:?}: context not found: open {}/meta.json: no such file or directory", meta.display())
        }
        _ => format!("context {name:?}: {}", wharf_report::path("open", &meta, &error)),
    })?;
    Ok(read(serde_json::from_slice(&bytes)?, tls.join("docker")))
}

fn read(meta: Value, tls_dir: PathBuf) -> Context {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let endpoint = &meta["Endpoints"]["docker"];
    let skip_verify = endpoint["SkipTLSVerify"].as_bool().unwrap_or(false);
    let file = |name: &str| Some(tls_dir.join(name)).filter(|path| path.exists());
    let options = TlsOptions { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem"), verify: !skip_verify };
    let has_tls = options.ca.is_some() || options.cert.is_some() || skip_verify;
    Context {
        name: text(&meta["Name"]),
        description: text(&meta["Metadata"]["Description"]),
        host: text(&endpoint["Host"]),
        skip_verify,
        tls: has_tls.then_some(options),
        meta,
    }
}

/// All stored contexts, by name.
pub(crate) fn list(config: &Config) -> Vec<Context> {
    let root = config.dir.join("contexts");
    let Ok(entries) = std::fs::read_dir(root.join("meta")) else { return Vec::new() };
    let mut contexts: Vec<Context> = entries
        .flatten()
        .filter_map(|entry| {
            let bytes = std::fs::read(entry.path().join("meta.json")).ok()?;
            let meta = serde_json::from_slice(&bytes).ok()?;
            Some(read(meta, root.join("tls").join(entry.file_name()).join("docker")))
        })
        .collect();
    contexts.sort_by(|a, b| a.name.cmp(&b.name));
    contexts
}

/// The metadata of a new context.
pub(crate) fn meta(name: &str, description: &str, host: &str, skip_verify: bool) -> Value {
    let metadata = if description.is_empty() { json!({}) } else { json!({"Description": description}) };
    json!({"Name": name, "Metadata": metadata, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip_verify}}})
}
