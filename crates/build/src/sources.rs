//! Where a build's files come from: base images, other stages, the context, downloads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use wharf_dockerfile::{Base, Graph, Platform, Source};
use wharf_image::{ErrorKind as ImageErrorKind, ImageRecord};
use wharf_reference::{Digest, Reference};
use wharf_report::chain;

use crate::cache::Key;
use crate::cancel::Cancel;
use crate::error::{BuildError, ErrorKind, Result};
use crate::metadata;
use crate::request::RegistryCredentials;
use crate::session::{Session, lock};
use crate::state::State;
use crate::tree::Tree;
use crate::url::without_user;

impl Session<'_> {
    /// What a stage begins with.
    pub(crate) fn base(&mut self, index: usize) -> Result<State> {
        let node = self.graph.nodes[index].clone();
        match node.base {
            Base::Scratch => {
                self.output.text(" ---> \n")?;
                self.outer_base(index)
            }
            Base::Context(name) => {
                let state = self.base_of_context(index, &name)?;
                self.show(&state)?;
                Ok(state)
            }
            Base::Stage(base) => {
                // It may have been spared, and then so is most often what is made upon it.
                if self.stages[base].get().is_none() {
                    self.spare_it()?;
                    self.made_after_all(base)?;
                }
                let state = State::on(self.finished(base)?);
                self.show(&state)?;
                Ok(state)
            }
            Base::Image(_) => {
                let state = self.outer_base(index)?;
                let id = state.base_image.as_ref().map(Digest::short).unwrap_or_default();
                self.output.text(format!(" ---> {id}\n"))?;
                Ok(state)
            }
        }
    }

    /// The same of an image, or of nothing.
    pub(crate) fn outer_base(&mut self, index: usize) -> Result<State> {
        let node = self.graph.nodes[index].clone();
        let Base::Image(name) = &node.base else {
            let image = metadata::scratch(node.platform.as_ref().unwrap_or(&self.platforms.target));
            return Ok(State::new(image, Key::new("scratch").finish(), Arc::clone(&self.globals), self.dates(None)));
        };
        let image = self.image(name, node.platform.or_else(|| self.options.platform.clone()))?;
        let files = Key::new("image").text(image.id.as_str()).finish();
        let state = State::new(
            metadata::inherited(&image.config),
            files,
            Arc::clone(&self.globals),
            self.dates(Some(&image.config)),
        );
        Ok(State { base_image: Some(image.id), ..state })
    }

    fn finished(&self, stage: usize) -> Result<&State> {
        self.stages[stage].get().ok_or_else(|| BuildError::new(ErrorKind::System, "a stage was not built in order"))
    }

    /// The tree that `--from` means; the context without one.
    pub(crate) fn tree(&mut self, index: usize, from: Option<&str>, source: &Source) -> Result<(Tree, String)> {
        let Some(from) = from else {
            let tree = match self.at_triggers && self.context.partial {
                true => self.gathered.whole_context(self.shared, &self.cancel)?,
                false => self.gathered.known_context(),
            };
            return Ok((tree, "build context".into()));
        };
        let base = Graph::resolve_from(self.dockerfile, index, from, source, &self.graph.contexts)?;
        let place = match &base {
            Base::Stage(stage) => format!("stage {}", self.dockerfile.stages[*stage].label(*stage)),
            Base::Image(name) => format!("image {name}"),
            Base::Scratch => "scratch".to_owned(),
            Base::Context(name) => format!("context {name}"),
        };
        if let Base::Context(name) = &base {
            return Ok((self.context_named(name)?, place));
        }
        if let Some(tree) = lock(&self.trees).get(&base) {
            return Ok((tree.clone(), place));
        }
        let layers = self.layers_of(&base)?;
        let made = match &base {
            Base::Stage(stage) => self.finished(*stage)?.made.iter().cloned().collect(),
            _ => HashMap::new(),
        };
        let tree = Tree::new(self.shared.layers.dated_view_of(&layers, &made)?, true);
        lock(&self.trees).insert(base, tree.clone());
        Ok((tree, place))
    }

    /// Makes a stage that has its turn behind it, or never had one: a trigger may name one that the target did not seem to
    /// need.
    fn made_after_all(&mut self, stage: usize) -> Result<()> {
        if !self.wait_for(stage)? {
            let more = 1 + self.graph.statements(self.dockerfile, stage);
            self.steps.fetch_add(more, Ordering::Relaxed);
            self.stage(stage)?;
        }
        Ok(())
    }

    fn layers_of(&mut self, base: &Base) -> Result<Vec<Digest>> {
        match base {
            Base::Scratch | Base::Context(_) => Ok(Vec::new()),
            Base::Stage(stage) => {
                self.made_after_all(*stage)?;
                Ok(self.finished(*stage)?.layers().to_vec())
            }
            Base::Image(name) => Ok(self.image(name, self.options.platform.clone())?.diff_ids),
        }
    }

    /// An image by name, held until the build is over: one that is here, else pulled.
    pub(crate) fn image(&mut self, name: &str, platform: Option<Platform>) -> Result<ImageRecord> {
        /// So often it may be removed in the moment between its being found and its being held.
        const TRIES: u32 = 3;
        let known = (name.to_owned(), platform.clone());
        if let Some(image) = lock(&self.images).get(&known) {
            return Ok(image.clone());
        }
        for _ in 0..TRIES {
            let image = self.found_or_pulled(name, platform.as_ref())?;
            self.hold(&image.diff_ids);
            if image.diff_ids.iter().all(|layer| self.shared.layers.contains(layer)) {
                // Whoever was first: all stages see the same, though the name may move meanwhile.
                return Ok(lock(&self.images).entry(known).or_insert(image).clone());
            }
        }
        Err(BuildError::new(ErrorKind::NotFound, format!("No such image: {name}")))
    }

    fn found_or_pulled(&self, name: &str, platform: Option<&Platform>) -> Result<ImageRecord> {
        let asked = platform.map(Platform::to_string);
        let local = match self.shared.images.resolve_for(name, asked.as_deref()) {
            Ok(image) => Some(image).filter(|image| fits(image, platform)),
            Err(error) if error.kind() == ImageErrorKind::NotFound => None,
            Err(error) => return Err(image_error(name, &error)),
        };
        match local {
            // An image that is named by its ID is that and no newer one.
            Some(image) if !self.options.pull || image.id.as_str() == name => Ok(image),
            _ => self.pull(name, platform),
        }
    }

    /// The client's for the registry of an image, beside those that came with the request.
    fn credentials_for(&self, name: &str) -> Result<RegistryCredentials> {
        let mut all = self.options.credentials.clone();
        if let (Some(client), Ok(reference)) = (&self.options.asked.0, Reference::parse(name)) {
            let registry = reference.domain().to_owned();
            if let Some(credentials) = client.credentials(&registry)? {
                all.entry(registry).or_insert(credentials);
            }
        }
        Ok(all)
    }

    fn pull(&self, name: &str, platform: Option<&Platform>) -> Result<ImageRecord> {
        let credentials = self.credentials_for(name)?;
        let platform = platform.map(Platform::to_string);
        let (sender, mut progress) = tokio::sync::mpsc::unbounded_channel();
        let events = self.output.clone();
        let cancel = self.cancel.clone();
        self.runtime.block_on(async {
            let telling = async {
                while let Some(progress) = progress.recv().await {
                    if !events.progress(progress).await {
                        break;
                    }
                }
            };
            let fetching = self.shared.options.fetch.image(name, platform.as_deref(), &credentials, sender);
            tokio::select! {
                (image, ()) = async { tokio::join!(fetching, telling) } => image.map_err(|error| self.unfetched(name, error)),
                () = over(&cancel) => Err(BuildError::cancelled()),
            }
        })
    }

    /// Why an image could not be had: with its name, as BuildKit says it, and that of a stage that may have been meant.
    fn unfetched(&self, name: &str, error: BuildError) -> BuildError {
        if self.options.classic || error.kind == ErrorKind::Cancelled {
            return error;
        }
        let stages = self.dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
        let hint = wharf_dockerfile::nearest(name, stages).map(|stage| format!(" (did you mean {stage}?)"));
        let full = Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.tag_or_latest().to_string());
        let why = &error.message;
        let hint = hint.unwrap_or_default();
        let message = format!("{name}: failed to resolve source metadata for {full}: {why}{hint}");
        BuildError { message, ..error }
    }

    /// Downloads what ADD names.
    pub(crate) fn download(&mut self, url: &str) -> Result<(PathBuf, Option<i64>)> {
        let path = self.dir.path.join(format!("download-{}", self.number()));
        let failing = |e: std::io::Error| BuildError::system(format_args!("cannot write {}", without_user(url)), &e);
        let file = std::fs::File::create_new(&path).map_err(failing)?;
        let time = self.runtime.block_on(async {
            tokio::select! {
                time = self.shared.options.fetch.download(url, file) => time,
                () = over(&self.cancel) => Err(BuildError::cancelled()),
            }
        })?;
        Ok((path, time))
    }
}

/// Waits until nobody waits for the build any more.
async fn over(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn fits(image: &ImageRecord, platform: Option<&Platform>) -> bool {
    platform.is_none_or(|platform| {
        let variant = image.config.variant.as_deref().unwrap_or_default();
        image.config.os == platform.os
            && image.config.architecture == platform.architecture
            && (platform.variant.is_empty() || variant.is_empty() || variant == platform.variant)
    })
}

pub(crate) fn image_error(what: &str, error: &wharf_image::ImageError) -> BuildError {
    let kind = match error.kind() {
        ImageErrorKind::NotFound => ErrorKind::NotFound,
        ImageErrorKind::Invalid | ImageErrorKind::Conflict => ErrorKind::Invalid,
        ImageErrorKind::Denied => ErrorKind::Denied,
        ImageErrorKind::Full | ImageErrorKind::System => ErrorKind::System,
    };
    BuildError::new(kind, format!("{what}: {}", chain(error)))
}
