//! An image from a container's changes.

use std::sync::Arc;

use wharf_image::{HistoryEntry, ImageRecord};
use wharf_reference::Reference;

use crate::container_root;
use crate::engine::{Engine, blocking, now, to_its_end};
use crate::error::{EngineError, Result};
use crate::record::Status;
use crate::slot::Slot;
use crate::spec::Config;

/// The query and body of `POST /commit`.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// `name:tag`, if it gets one.
    pub reference: Option<String>,
    pub comment: String,
    pub author: String,
    /// Freezes the container meanwhile.
    pub pause: bool,
    /// Replaces the container's configuration; what it leaves empty is the container's.
    pub config: Option<Config>,
    /// Dockerfile instructions, already applied to `config` by whoever parsed them.
    pub message: String,
}

impl Engine {
    /// Makes an image of the container's layers and its own changes.
    ///
    /// # Errors
    /// `Conflict` when it is being removed; `System` when the disk fails.
    pub async fn commit(&self, name: &str, options: CommitOptions) -> Result<ImageRecord> {
        let (engine, slot) = (self.clone(), self.inner.slots.find(name)?);
        to_its_end(async move { engine.commit_now(&slot, options).await }).await
    }

    async fn commit_now(&self, slot: &Arc<Slot>, options: CommitOptions) -> Result<ImageRecord> {
        let record = slot.record();
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!(
                "You cannot commit container {} which is being removed",
                slot.id
            )));
        }
        let paused = options.pause && self.pause_for_commit(slot).await?;
        let (engine, upper) = (self.clone(), self.dir(&slot.id).join("upper"));
        let (below, ids) = (record.layers.clone(), container_root::ids(&record));
        let layer = blocking(move || {
            let layers = engine.images().layers();
            let failing = |e| EngineError::from_source("what the container has written cannot be read", &e);
            if std::fs::read_dir(&upper).map_err(failing)?.next().is_none() {
                return Ok(None);
            }
            let below = layers.view(&below, None)?;
            Ok(Some(layers.commit_of(&upper, Some(below), ids)?))
        })
        .await;
        if paused {
            self.unpause_after_commit(slot).await?;
        }
        let layer = layer?;
        let engine = self.clone();
        let (comment, name) = (options.comment.clone(), options.reference.clone().unwrap_or_default());
        let committed = blocking(move || {
            let base = engine.images().resolve(record.image.as_str());
            let mut config = base.map(|image| image.config.clone()).unwrap_or_default();
            let own = serde_json::to_value(join(options.config, &record.config))
                .and_then(serde_json::from_value)
                .map_err(|e| EngineError::from_source("the configuration cannot be an image's", &e))?;
            config.config = own;
            config.created = Some(now());
            config.author = Some(options.author).filter(|author| !author.is_empty()).or(config.author);
            config.rootfs.diff_ids = record.layers.clone();
            let empty_layer = layer.is_none();
            config.rootfs.diff_ids.extend(layer.map(|layer| layer.diff_id));
            config.history.push(HistoryEntry {
                created: Some(now()),
                created_by: Some(record.args.iter().fold(record.path.clone(), |all, word| format!("{all} {word}"))),
                author: config.author.clone(),
                comment: Some(options.comment).filter(|comment| !comment.is_empty()),
                empty_layer,
            });
            // As Docker: older clients are shown it.
            config.more.insert("container".into(), record.id.as_str().into());
            let container = serde_json::to_value(&record.config);
            let container = container.map_err(|e| EngineError::from_source("the configuration cannot be kept", &e))?;
            config.more.insert("container_config".into(), container);
            let tags: Vec<String> = options.reference.into_iter().collect();
            Ok(engine.images().create(&config, Some(&record.image), &tags)?)
        })
        .await?;
        let record = slot.record();
        self.tell_created(&committed.id);
        if !name.is_empty() {
            self.tell_tagged(&committed.id, &name);
        }
        let familiar = Reference::parse(&name).map_or(name, |name| name.tag_or_latest().familiar());
        let attributes = [("comment", comment.as_str()), ("imageID", committed.id.as_str()), ("imageRef", &familiar)];
        self.tell_with(&record, "commit", &attributes);
        Ok(committed)
    }
}

/// Gives a variable (`NAME=value`) its value, at the place that it has, or behind the others.
pub fn set_variable(env: &mut Vec<String>, pair: String) {
    let key = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    match env.iter_mut().find(|have| key(have) == key(&pair)) {
        Some(have) => *have = pair,
        None => env.push(pair),
    }
}

/// The request's configuration where it says something, else the container's.
fn join(asked: Option<Config>, own: &Config) -> Config {
    let mut config = own.clone();
    // What is about the running container and not about the image.
    config.hostname.clear();
    config.domainname.clear();
    config.image.clear();
    (config.attach_stdin, config.attach_stdout, config.attach_stderr) = (false, false, false);
    (config.tty, config.open_stdin, config.stdin_once) = (false, false, false);
    let Some(asked) = asked else { return config };
    if !asked.user.is_empty() {
        config.user = asked.user;
    }
    if !asked.working_dir.is_empty() {
        config.working_dir = asked.working_dir;
    }
    // Behind another entrypoint the container's command has no meaning.
    let given = |words: Option<Vec<String>>| words.filter(|words| !words.is_empty());
    let (entrypoint, cmd) = (given(asked.entrypoint.clone()), given(asked.cmd));
    if entrypoint.is_some() || cmd.is_some() {
        config.cmd = cmd;
    }
    if asked.entrypoint.is_some() {
        config.entrypoint = entrypoint;
    }
    if let Some(mut env) = asked.env.filter(|env| !env.is_empty()) {
        let key = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        let own = config.env.take().unwrap_or_default();
        let more: Vec<_> = own.into_iter().filter(|pair| !env.iter().any(|asked| key(asked) == key(pair))).collect();
        env.extend(more);
        config.env = Some(env);
    }
    if let Some(labels) = asked.labels {
        config.labels.get_or_insert_default().extend(labels);
    }
    if let Some(ports) = asked.exposed_ports {
        config.exposed_ports.get_or_insert_default().extend(ports);
    }
    if let Some(volumes) = asked.volumes {
        config.volumes.get_or_insert_default().extend(volumes);
    }
    config.healthcheck = asked.healthcheck.or(config.healthcheck);
    config.stop_signal = asked.stop_signal.or(config.stop_signal);
    config.on_build = asked.on_build.or(config.on_build);
    config.shell = asked.shell.or(config.shell);
    config
}
