//! An image from a container's changes.

use wharf_image::{HistoryEntry, ImageRecord};
use wharf_reference::Reference;

use crate::engine::{Engine, blocking, now};
use crate::error::{EngineError, Result};
use crate::record::Status;
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
        let slot = self.inner.slots.find(name)?;
        let record = slot.record();
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(EngineError::conflict(format!(
                "You cannot commit container {} which is being removed",
                slot.id
            )));
        }
        let frozen = options.pause && record.state.status == Status::Running;
        if frozen {
            self.tell(&record, "pause");
        }
        let group = self.group(&record)?;
        let (engine, dir) = (self.clone(), self.dir(&slot.id));
        let (comment, name) = (options.comment.clone(), options.reference.clone().unwrap_or_default());
        let committed = blocking(move || {
            if frozen {
                group.freeze(true).map_err(|e| EngineError::from_source("cannot pause the container", &e))?;
            }
            let layer = engine.images().layers().commit(&dir.join("upper"), None);
            if frozen {
                group.freeze(false).map_err(|e| EngineError::from_source("cannot unpause the container", &e))?;
            }
            let layer = layer?;
            let base = engine.images().resolve(record.image.as_str());
            let mut config = base.map(|image| image.config.clone()).unwrap_or_default();
            let own = serde_json::to_value(join(options.config, &record.config))
                .and_then(serde_json::from_value)
                .map_err(|e| EngineError::from_source("the configuration cannot be an image's", &e))?;
            config.config = own;
            config.created = Some(now());
            config.author = Some(options.author).filter(|author| !author.is_empty()).or(config.author);
            config.rootfs.diff_ids = record.layers.clone();
            config.rootfs.diff_ids.push(layer.diff_id);
            config.history.push(HistoryEntry {
                created: Some(now()),
                created_by: Some(record.args.iter().fold(record.path.clone(), |all, word| format!("{all} {word}"))),
                author: config.author.clone(),
                comment: Some(options.comment).filter(|comment| !comment.is_empty()),
                empty_layer: false,
            });
            let tags: Vec<String> = options.reference.into_iter().collect();
            Ok(engine.images().create(&config, Some(&record.image), &tags)?)
        })
        .await;
        let record = slot.record();
        let unfrozen = || {
            if frozen {
                self.tell(&record, "unpause");
            }
        };
        let committed = committed.inspect_err(|_| unfrozen())?;
        if !name.is_empty() {
            self.tell_tagged(&committed.id, &name);
        }
        let familiar = Reference::parse(&name).map_or(name, |name| name.tag_or_latest().familiar());
        let attributes = [("comment", comment.as_str()), ("imageID", committed.id.as_str()), ("imageRef", &familiar)];
        self.tell_with(&record, "commit", &attributes);
        unfrozen();
        Ok(committed)
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
    if asked.cmd.is_some() {
        config.cmd = asked.cmd;
    }
    if asked.entrypoint.is_some() {
        config.entrypoint = asked.entrypoint;
    }
    for pair in asked.env.into_iter().flatten() {
        let key = pair.split('=').next().unwrap_or("").to_owned();
        let env = config.env.get_or_insert_default();
        env.retain(|have| have.split('=').next() != Some(&key));
        env.push(pair);
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
