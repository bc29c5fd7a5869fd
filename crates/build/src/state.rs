//! A stage as far as it has come.

use std::sync::Arc;

use wharf_dockerfile::{Globals, Scope};
use wharf_image::{HistoryEntry, ImageConfig};
use wharf_reference::Digest;
use wharf_snapshot::Time;

use crate::cache::Key;
use crate::metadata;
use crate::portable;
use crate::session::Outcome;

/// What a stage has made so far.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// With the layers and the history.
    pub(crate) image: ImageConfig,
    /// What the files are, by everything that they were made from.
    pub(crate) files: Digest,
    /// The same without other stages' having been made (`build::definition`); none where only that tells.
    pub(crate) definition: Option<Digest>,
    pub(crate) scope: Scope,
    /// The newest time of the base and of files that were copied, in seconds since the epoch: what steps make has it in archives,
    /// which so depend on nothing but what goes in.
    pub(crate) date: i64,
    /// The newest time of all that is in it, with other stages' and what these were made from: the image's.
    pub(crate) newest: i64,
    /// Layers of its steps, each with the time of what was made there.
    pub(crate) made: Vec<(Digest, Time)>,
    /// Whether this stage has had a CMD of its own.
    pub(crate) cmd_set: bool,
    /// The image that it is based on, directly or by other stages, and how many layers and lines of history that has.
    pub(crate) base_image: Option<Digest>,
    pub(crate) base_layers: usize,
    pub(crate) base_history: usize,
}

/// What builders say of entries that they made.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// 1980-01-02, in seconds since the epoch: the time of what is made of nothing. Archives of zip's have no earlier one.
pub(crate) const DATE_OF_NOTHING: i64 = 315_619_200;

impl State {
    /// Begins with a base image, or with nothing; `dates` are the times that it has: of files, and its own.
    pub(crate) fn new(image: ImageConfig, files: Digest, globals: Arc<Globals>, dates: (i64, i64)) -> Self {
        let (date, newest) = dates;
        let mut image = image;
        // It speaks of the base image's own build.
        image.more.remove(portable::INLINE);
        let has_path = image.config.env.iter().flatten().any(|pair| pair.starts_with("PATH="));
        if !has_path {
            metadata::set_env(image.config.env.get_or_insert_default(), "PATH", metadata::DEFAULT_PATH);
        }
        let scope = Scope::new(globals, metadata::env_pairs(&image.config));
        let (base_layers, base_history) = (image.rootfs.diff_ids.len(), image.history.len());
        let definition = Some(files.clone());
        let newest = newest.max(date);
        Self {
            image,
            files,
            definition,
            scope,
            date,
            newest,
            made: Vec::new(),
            cmd_set: false,
            base_image: None,
            base_layers,
            base_history,
        }
    }

    /// Begins with what another stage has made. Its arguments go on to be known, and its triggers are for this one.
    pub(crate) fn on(base: &Self) -> Self {
        Self { cmd_set: false, scope: base.scope.of_next_stage(), ..base.clone() }
    }

    pub(crate) fn layers(&self) -> &[Digest] {
        &self.image.rootfs.diff_ids
    }

    /// Directories of volumes: a command finds them, as with Docker's classic builder.
    pub(crate) fn volumes(&self) -> Vec<&str> {
        let all = self.image.config.volumes.iter().flatten();
        all.map(|(path, _)| path.as_str()).filter(|path| path.starts_with('/') && *path != "/").collect()
    }

    pub(crate) fn workdir(&self) -> &str {
        &self.image.config.working_dir
    }

    /// What the files are when a linked layer lies upon them.
    pub(crate) fn upon(&self, layer: &Digest) -> Digest {
        Key::new("upon").text(self.files.as_str()).text(layer.as_str()).finish()
    }

    /// Takes the times of a step's outcome, and of other stages that it took from.
    pub(crate) fn took(&mut self, outcome: &Outcome, newest: i64, mark: u32) {
        self.date = self.date.max(outcome.date);
        self.newest = self.newest.max(self.date).max(newest).max(outcome.again.unwrap_or(0));
        self.made.extend(outcome.layer.clone().map(|layer| (layer, (outcome.date, mark))));
    }

    /// Takes a step's outcome: its layer, and its line of history.
    pub(crate) fn add(&mut self, layer: Option<Digest>, files: Option<Digest>, line: String, created: String) {
        self.image.history.push(HistoryEntry {
            created: Some(created.clone()),
            created_by: Some(line),
            comment: Some(HISTORY_COMMENT.into()),
            empty_layer: layer.is_none(),
            ..HistoryEntry::default()
        });
        self.image.created = Some(created);
        self.image.rootfs.diff_ids.extend(layer);
        if let Some(files) = files {
            self.files = files;
        }
    }

    /// Gives what was last added another time.
    pub(crate) fn redate(&mut self, created: String) {
        if let Some(last) = self.image.history.last_mut() {
            last.created = Some(created.clone());
        }
        self.image.created = Some(created);
    }

    /// The bytes of the configuration as it would be if the build ended here.
    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        // It was read from JSON, or is made of strings and lists: it has a JSON form.
        serde_json::to_vec(&self.image).unwrap_or_default()
    }

    /// Names a step that changes the configuration only, whenever it and those before it were made.
    pub(crate) fn config_key(&self) -> Digest {
        let mut image = ImageConfig { created: None, ..self.image.clone() };
        for entry in &mut image.history {
            entry.created = None;
        }
        Key::new("config").text(self.files.as_str()).bytes(&serde_json::to_vec(&image).unwrap_or_default()).finish()
    }
}
