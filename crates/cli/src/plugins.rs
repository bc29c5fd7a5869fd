//! Commands that are programs of their own: `docker-NAME` in the plugin directories (`docker compose`, `docker buildx`).

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::app::App;
use crate::endpoint;
use crate::failure::{Failure, Outcome};

/// Where plugins are looked for, after the directories of the configuration.
const SYSTEM: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// The plugin for a command, if there is one.
pub(crate) fn find(app: &App, name: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || !name.chars().all(plain) {
        return None;
    }
    let config = app.config();
    let extra = config.content.get("cliPluginsExtraDirs").and_then(serde_json::Value::as_array);
    let extra = extra.into_iter().flatten().filter_map(|dir| dir.as_str()).map(PathBuf::from);
    let dirs = std::iter::once(config.dir.join("cli-plugins")).chain(extra).chain(SYSTEM.map(PathBuf::from));
    dirs.map(|dir| dir.join(format!("docker-{name}")))
        .find(|path| std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// Becomes the plugin. It is told where our engine is when nothing else says it: it would look for Docker's.
pub(crate) fn exec(app: &App, path: &std::path::Path, words: &[String]) -> Outcome<u8> {
    let mut command = Command::new(path);
    command.args(words);
    let default = app.endpoint().is_ok_and(|endpoint| endpoint.is_default);
    if default {
        command.env("DOCKER_HOST", format!("unix://{}", endpoint::default_socket().display()));
    }
    let error = command.exec();
    Err(Failure::new(format!("{}: {}", path.display(), wharf_report::os(&error))))
}
