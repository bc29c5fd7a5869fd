//! What the engine does with images beside running them: the rules that need to know the containers, and events.

use std::collections::BTreeMap;

use wharf_image::registry::Credentials;
use wharf_image::{Form, ImageRecord, ImageSummary, ProgressSender, Pushed, Remove, Removed};
use wharf_reference::{Digest, Reference};

use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};

/// What a prune of images has removed.
#[derive(Clone, Debug, Default)]
pub struct PrunedImages {
    pub removed: Vec<Removed>,
    pub space_reclaimed: u64,
}

type Labels = BTreeMap<String, String>;

impl Engine {
    /// Gets an image from its registry.
    ///
    /// # Errors
    /// As the registry answers; `InvalidParameter` for what is no reference.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        auth: Option<Credentials>,
        progress: ProgressSender,
    ) -> Result<ImageRecord> {
        let registry = &self.inner.parts.registry;
        let image = self.images().pull(reference, platform, auth, registry, progress).await?;
        let name = reference.familiar();
        self.tell_of("image", "pull", &name, &[("name", &reference.familiar_name())]);
        Ok(image)
    }

    /// Sends an image to its registry.
    ///
    /// # Errors
    /// `NotFound`, and what the registry answers.
    pub async fn push(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        auth: Option<Credentials>,
        form: Option<Form>,
        progress: ProgressSender,
    ) -> Result<Pushed> {
        let registry = &self.inner.parts.registry;
        let pushed = self.images().push(reference, platform, auth, registry, form, progress).await?;
        self.tell_of("image", "push", &reference.familiar(), &[("name", &reference.familiar_name())]);
        Ok(pushed)
    }

    /// Checks credentials with a registry, and answers with its word.
    ///
    /// # Errors
    /// `Forbidden`-like: the registry's own answer.
    pub async fn login(&self, server: &str, credentials: &Credentials) -> Result<String> {
        Ok(self.inner.parts.registry.login(server, credentials).await?)
    }

    /// The registry client, for what asks a registry without keeping anything.
    pub fn registry(&self) -> &wharf_image::registry::Client {
        &self.inner.parts.registry
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// `NotFound`, `InvalidParameter`.
    pub async fn tag(&self, source: &str, target: &str) -> Result<()> {
        let (images, source, target) = (self.images().clone(), source.to_owned(), target.to_owned());
        let id = blocking(move || {
            images.tag(&source, &target)?;
            Ok((images.resolve(&target)?.id, target))
        })
        .await?;
        self.tell_tagged(&id.0, &id.1);
        Ok(())
    }

    /// An image was made.
    pub fn tell_created(&self, image: &Digest) {
        self.tell_image("create", image.as_str(), image.as_str(), self.image_labels(image.as_str()));
    }

    /// An image has gone into an archive.
    pub fn tell_saved(&self, image: &Digest) {
        self.tell_image("save", image.as_str(), image.as_str(), self.image_labels(image.as_str()));
    }

    /// An image has got a name.
    pub fn tell_tagged(&self, image: &Digest, name: &str) {
        let familiar = Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.tag_or_latest().familiar());
        self.tell_image("tag", image.as_str(), &familiar, self.image_labels(image.as_str()));
    }

    fn image_labels(&self, image: &str) -> Labels {
        self.images().resolve(image).ok().and_then(|image| image.config.config.labels).unwrap_or_default()
    }

    /// An image's labels are attributes, too.
    fn tell_image(&self, action: &str, image: &str, name: &str, mut attributes: Labels) {
        attributes.insert("name".into(), name.to_owned());
        self.events().publish("image", action, image, attributes.into_iter().collect());
    }

    /// Removes a name, and the image when it was the last; or what it has for `platforms`, if there are any.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a container uses it.
    pub async fn remove_image(
        &self,
        name: &str,
        platforms: Vec<String>,
        force: bool,
        prune: bool,
    ) -> Result<Vec<Removed>> {
        let (engine, name) = (self.clone(), name.to_owned());
        let (first, removed) = blocking(move || {
            let in_use = |id: &Digest| engine.users(id);
            let image = engine.images().resolve(&name).ok();
            let id = image.as_ref().map(|image| image.id.to_string());
            let labels = image.and_then(|image| image.config.config.labels).unwrap_or_default();
            let options = Remove { force, prune };
            let removed = match platforms.is_empty() {
                true => engine.images().remove(&name, options, &in_use)?,
                false => engine.images().remove_platforms(&name, &platforms, options, &in_use)?,
            };
            engine.collect()?;
            Ok((id.map(|id| (id, labels)), removed))
        })
        .await?;
        self.tell_removed(&removed, first.as_ref().map(|(id, labels)| (id.as_str(), labels.clone())));
        Ok(removed)
    }

    /// Removes an image that has no name, and leaves one that has.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when something uses it.
    pub async fn remove_unnamed_image(&self, id: &Digest) -> Result<()> {
        let (engine, own) = (self.clone(), id.clone());
        let removed = blocking(move || {
            let removed = engine.images().remove_unnamed(&own, &|id: &Digest| engine.users(id))?;
            engine.collect()?;
            Ok(removed)
        })
        .await?;
        self.tell_removed(&removed, Some((id.as_str(), Labels::default())));
        Ok(())
    }

    /// Pins an image, or lets it go: a pinned one is neither pruned nor evicted.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pin_image(&self, name: &str, pinned: bool) -> Result<()> {
        let (images, name) = (self.images().clone(), name.to_owned());
        let (id, name) = blocking(move || Ok((images.pin(&name, pinned)?, name))).await?;
        self.tell_of("image", if pinned { "pin" } else { "unpin" }, id.as_str(), &[("name", &name)]);
        Ok(())
    }

    /// Removes images that no container uses and that `choose` wants removed. `told` hears of each.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn prune_images(
        &self,
        dangling_only: bool,
        choose: impl Fn(&ImageSummary) -> bool + Send + 'static,
        told: impl Fn(&Removed) + Send + 'static,
    ) -> Result<PrunedImages> {
        let engine = self.clone();
        let pruned = blocking(move || {
            let in_use = |id: &Digest| !engine.users(id).is_empty();
            let removed = engine.images().prune_and_tell(dangling_only, &in_use, &choose, &told)?;
            let space_reclaimed = engine.collect()?;
            Ok(PrunedImages { removed, space_reclaimed })
        })
        .await?;
        self.tell_removed(&pruned.removed, None);
        Ok(pruned)
    }

    /// Removes an image that no container uses and nobody has pinned, whatever its names, with its parents that nothing
    /// else needs, and answers with the bytes that are free again. Waits for the disk.
    ///
    /// # Errors
    /// When the store fails.
    pub fn evict_image(&self, id: &Digest) -> Result<u64> {
        let in_use = |id: &Digest| !self.users(id).is_empty();
        let removed = self.images().prune(false, &in_use, &|image| image.id == *id)?;
        self.tell_removed(&removed, Some((id.as_str(), Labels::default())));
        self.collect()
    }

    /// As [`Self::collect`], and nothing is spared for its age.
    ///
    /// # Errors
    /// When the store fails.
    pub fn collect_all(&self) -> Result<u64> {
        self.images().spare_nothing();
        self.collect()
    }

    /// Frees what no image, container or build cache needs any more, and answers with the bytes. Waits for the disk.
    ///
    /// # Errors
    /// When the store fails.
    pub fn collect(&self) -> Result<u64> {
        let pinned = || {
            let mut pinned: Vec<Digest> =
                self.list().iter().flat_map(|record| record.all_layers().cloned().collect::<Vec<_>>()).collect();
            pinned.extend(self.inner.pins.get().into_iter().flat_map(|pins| (pins.0)()));
            pinned
        };
        Ok(self.images().collect(&pinned)?)
    }

    /// Containers made from an image, or with it mounted, and whether each runs.
    pub fn users(&self, image: &Digest) -> Vec<(String, bool)> {
        let of = self.list().into_iter().filter(|record| record.uses(image));
        of.map(|record| (record.id.clone(), record.state.status.is_active())).collect()
    }

    /// `first` is the image that the first names were of; those of others come right before their image's removal.
    fn tell_removed(&self, removed: &[Removed], first: Option<(&str, Labels)>) {
        for (index, one) in removed.iter().enumerate() {
            let (action, id) = match one {
                Removed::Deleted(id) => ("delete", id.as_str()),
                Removed::Untagged(name) => {
                    let next = removed[index..].iter().find_map(|one| match one {
                        Removed::Deleted(id) => Some(id.as_str()),
                        Removed::Untagged(_) => None,
                    });
                    ("untag", first.as_ref().map(|(id, _)| *id).or(next).unwrap_or(name))
                }
            };
            let labels = match (&first, action) {
                (Some((_, labels)), "untag") => labels.clone(),
                _ => Labels::default(),
            };
            self.tell_image(action, id, id, labels);
        }
    }

    /// Parses a reference of a request.
    ///
    /// # Errors
    /// `InvalidParameter` with Docker's words.
    pub fn parse_reference(text: &str) -> Result<Reference> {
        Reference::parse(text).map_err(|e| EngineError::invalid(e.to_string()))
    }
}
