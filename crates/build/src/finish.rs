//! From the target of each platform to the image, with its names and what is said about it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wharf_dockerfile::{Instruction, Warning, forbidden};
use wharf_image::{ImageConfig, ImageRecord, Part, SealNames};
use wharf_reference::{Digest, Reference};
use wharf_snapshot::Hold;

use crate::attest::{self, Material};
use crate::builder::{Shared, Told};
use crate::error::{BuildError, ErrorKind, Result};
use crate::gathered::Gathered;
use crate::output::Output;
use crate::portable;
use crate::request::{BuildEvent, BuildRequest};
use crate::session::{Common, Session, lock};
use crate::sources::image_error;
use crate::steps::Warned;

/// What was built for one platform.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) image: ImageConfig,
    /// `linux/arm64`, if it was asked for.
    pub(crate) platform: Option<String>,
    /// The image that it stands on.
    pub(crate) base: Option<Digest>,
    /// What it was built from.
    pub(crate) materials: Vec<Material>,
    /// No command of it may have been in a network.
    pub(crate) hermetic: bool,
    /// Somebody has said how old it is to be.
    pub(crate) dated: bool,
    /// Something was made for it, and not all found in the cache.
    pub(crate) anew: bool,
    /// Its layers, as long as no image has them.
    _hold: Hold,
}

impl Common<'_> {
    /// Builds the target and what it needs.
    pub(crate) fn build(self) -> Result<Built> {
        if let Some(message) = forbidden(self.dockerfile, &self.warnings()) {
            self.tell_warnings(&self.warnings())?;
            return Err(BuildError::invalid(message));
        }
        let mut top = Session::new(&self, self.output.clone(), self.graph.target, 0);
        for statement in &self.dockerfile.globals {
            top.announce(&statement.source)?;
            if let Instruction::Arg(arguments) = &statement.instruction {
                lock(&self.consumed).extend(arguments.iter().map(|argument| argument.name.clone()));
            }
        }
        let first = top.step;
        let done = self.run_stages(&self.graph.needed(), first).and_then(|()| self.warn_of_arguments());
        // Of a build that has failed, too; that it is called off nobody hears.
        self.tell_warnings(&self.warnings())?;
        done?;
        let Some(mut state) = self.stages[self.graph.target].get().cloned() else {
            return Err(BuildError::new(ErrorKind::System, "the target was not built"));
        };
        if self.options.squash {
            top.squash(&mut state)?;
        }
        self.shared.cache.used(&lock(&self.used))?;
        let unlabelled = state.clone();
        if !self.options.labels.is_empty() {
            let labels = state.image.config.labels.get_or_insert_default();
            labels.extend(self.options.labels.clone());
        }
        if state.image.created.is_none() || !self.options.labels.is_empty() {
            // No step has given it a time, or it has more than the last step made.
            let noted = self.noted(&state.config_key(), "image", state.date, self.options.no_cache)?;
            state.took(&noted, 0, 0);
            state.image.created = Some(self.moment(state.newest)?);
        }
        self.tell_labels(&unlabelled, &state)?;
        self.search_for_secrets(&state)?;
        self.cancel.check()?;
        if self.globals.build_arg("BUILDKIT_INLINE_CACHE").is_some_and(|value| value == "1") {
            let inline = portable::inline(&self.shared.cache, &lock(&self.noted), state.layers())?;
            state.image.more.insert(portable::INLINE.into(), inline);
        }
        let platform = self.options.platform.as_ref().map(ToString::to_string);
        let (materials, hermetic) = (self.materials(), self.is_hermetic());
        let (dated, anew) = (self.clamp.is_some(), self.anew.load(Ordering::Relaxed));
        let hold = self.hold.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Of several layers made one, the base's image is no step on the way.
        let base = state.base_image.filter(|_| !self.options.squash);
        Ok(Built { image: state.image, platform, base, materials, hermetic, dated, anew, _hold: hold })
    }
}

impl Common<'_> {
    pub(crate) fn tell_warnings(&self, warnings: &[Warning]) -> Result<()> {
        tell_warnings(&self.output, &self.dockerfile.file, &self.context.dockerfile, warnings)
    }
}

/// Tells what is allowed in a Dockerfile and probably not meant.
pub(crate) fn tell_warnings(output: &Output, file: &str, text: &str, warnings: &[Warning]) -> Result<()> {
    let text: Arc<str> = text.into();
    for warning in warnings {
        if let Some(steps) = &output.steps {
            steps.warn(Warned {
                rule: warning.rule,
                message: warning.message.clone(),
                file: file.to_owned(),
                text: Arc::clone(&text),
                lines: (warning.span.line(), warning.span.end_line.max(warning.span.line())),
            })?;
        }
        output.text(format!("[Warning] {warning}\n"))?;
    }
    Ok(())
}

impl Built {
    /// `linux/arm64`, as its configuration says.
    pub(crate) fn platform_name(&self) -> String {
        let ImageConfig { os, architecture, variant, .. } = &self.image;
        let variant = variant.as_deref().filter(|variant| !variant.is_empty());
        let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{os}/{architecture}{variant}")
    }
}

/// Makes the images, gives them their names, and tells of it. The value is the image that the names lead to.
///
/// # Errors
/// When the store refuses.
pub(crate) fn finish(
    shared: &Shared,
    request: &BuildRequest,
    gathered: &Gathered,
    built: &[Built],
    told: &Told,
) -> Result<Digest> {
    let failing = |e| image_error("the image cannot be made", &e);
    let Gathered { annotations, attestations, .. } = gathered;
    let wanted = request.build_args.get("BUILDKIT_MULTI_PLATFORM");
    let indexed = wanted.is_some_and(|value| matches!(value.as_str(), "1" | "true"));
    let alone = built.len() == 1 && !attestations.any() && !indexed;
    annotations.check(built, alone)?;
    let (mut images, mut new) = (Vec::new(), Vec::new());
    for one in built {
        let bytes = serde_json::to_vec(&one.image).unwrap_or_default();
        let id = Digest::sha256(&bytes);
        if let Some(keep) = &request.keep {
            shared.images.keep_mounted(&mut lock(keep), Some(&id), &[]);
        }
        new.push(shared.images.resolve(id.as_str()).is_err());
        let parent = one.base.as_ref().filter(|base| request.classic && **base != id);
        let tags = if alone { request.tags.as_slice() } else { &[] };
        let images_of = &shared.images;
        let made = match one.dated {
            true => images_of.create(&one.image, parent, tags),
            false => images_of.create_now(&one.image, parent, tags, one.anew),
        };
        images.push(made.map_err(failing)?);
    }
    let mut index = None;
    let names_layers = request.form.is_some() || !request.repositories.is_empty();
    // Also where nothing is said: an earlier build of the same may have said something.
    if !alone || annotations.any() || !new.contains(&true) || names_layers {
        let mut parts = Vec::new();
        for (one, image) in built.iter().zip(&images) {
            let platform = one.platform_name();
            parts.push(Part {
                image: image.id.clone(),
                annotations: annotations.manifest(&platform),
                descriptor: annotations.descriptor(&platform),
                predicates: attestations.about(shared, request, gathered, one, image, told)?,
            });
        }
        let tags = [request.tags.as_slice(), request.passing.as_slice()].concat();
        if !alone && tags.is_empty() && request.repositories.is_empty() {
            let what = "[Warning] the index of this image is not kept, nor what is said about it: it has no name\n";
            told.output.text(what)?;
        }
        let BuildRequest { repositories, elsewhere, form, .. } = request;
        let names = SealNames { tags: &tags, repositories, elsewhere };
        let sealed = shared.images.seal(&parts, &annotations.index(), !alone, names, *form);
        index = sealed.map_err(failing)?;
    }
    let main = main(shared, request, &images);
    let id = images[main].id.clone();
    let mut order: Vec<usize> = (0..images.len()).filter(|at| *at != main).collect();
    order.push(main);
    for at in order {
        let platform = built[at].platform.clone().filter(|_| built.len() > 1);
        let digest = index.as_ref().map(ToString::to_string);
        let id = images[at].id.to_string();
        let one = &built[at];
        let provenance =
            request.tells_provenance.then(|| attest::to_remember(request, gathered, one, told).to_string());
        let (new, reference) = (new[at], String::new());
        told.output.event(BuildEvent::Made { id, new, reference, platform, digest, provenance })?;
        told.output.text(format!("Successfully built {}\n", images[at].id.short()))?;
    }
    for tag in &request.tags {
        let name = Reference::parse(tag).map(|name| name.tag_or_latest().familiar());
        told.output.text(format!("Successfully tagged {}\n", name.unwrap_or_else(|_| tag.clone())))?;
    }
    Ok(id)
}

/// The image that the names lead to.
fn main(shared: &Shared, request: &BuildRequest, images: &[ImageRecord]) -> usize {
    let named = request.tags.first().and_then(|tag| shared.images.resolve(tag).ok());
    let found = named.and_then(|named| images.iter().position(|image| image.id == named.id));
    found.unwrap_or(images.len() - 1)
}
