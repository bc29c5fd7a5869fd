//! What a request gives under names of its own (`--build-context`), and what it begins stages with.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use wharf_dockerfile::{Base, Contexts, Copy, Platform, Source};
use wharf_image::Images;
use wharf_reference::Reference;
use wharf_snapshot::MARK;

use crate::cache::Key;
use crate::cancel::Cancel;
use crate::context;
use crate::error::{BuildError, Result};
use crate::index::Index;
use crate::layouts::{self, Layout};
use crate::metadata;
use crate::session::Session;
use crate::state::State;
use crate::tree::Tree;

/// One of them.
pub enum NamedContext {
    /// Files: a tar archive, plain or compressed.
    Archive(Box<dyn Read + Send>),
    /// Files: a listing of them.
    Listing(Box<dyn Read + Send>),
    /// An image, by its reference.
    Image(String),
    /// An image that comes as an archive of an OCI layout, with the name that it has there.
    Layout(String, Box<dyn Read + Send>),
}

impl std::fmt::Debug for NamedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Archive(_) => f.write_str("Archive"),
            Self::Listing(_) => f.write_str("Listing"),
            Self::Image(reference) => f.debug_tuple("Image").field(reference).finish(),
            Self::Layout(name, _) => f.debug_tuple("Layout").field(name).finish(),
        }
    }
}

/// Reads all that come with the request, in this order, below `dir`; `listed` reads listings. The values are what their
/// names mean, the files, and images that are here for the build alone.
///
/// # Errors
/// For an archive that is hostile or damaged, and for a name twice.
pub(crate) fn read(
    images: &Images,
    given: Vec<(String, NamedContext)>,
    dir: &Path,
    cancel: &Cancel,
    listed: &dyn Fn(Box<dyn Read + Send>, usize) -> Result<Index>,
) -> Result<(Contexts, BTreeMap<String, Tree>, Vec<Layout>)> {
    let (mut contexts, mut trees, mut layouts) = (Contexts::new(), BTreeMap::new(), Vec::new());
    for (number, (name, context)) in given.into_iter().enumerate() {
        let name = name.to_lowercase();
        let base = match context {
            NamedContext::Image(reference) if is_nothing(&reference) => Base::Scratch,
            NamedContext::Image(reference) => Base::Image(reference),
            NamedContext::Layout(own, input) => {
                layouts.push(layouts::load(images, &own, input, dir)?);
                Base::Image(own)
            }
            NamedContext::Archive(input) => {
                let tree = context::files(input, &dir.join(format!("context-of-{}", trees.len())), cancel)?;
                trees.insert(name.clone(), tree);
                Base::Context(name.clone())
            }
            NamedContext::Listing(input) => {
                trees.insert(name.clone(), context::files_of(listed(input, number + 1)?));
                Base::Context(name.clone())
            }
        };
        if contexts.insert(name.clone(), base).is_some() {
            return Err(BuildError::invalid(format!("there are two build contexts named {name}")));
        }
    }
    Ok((contexts, trees, layouts))
}

/// Whether an image is `scratch`, which no registry has.
fn is_nothing(image: &str) -> bool {
    Reference::parse(image).is_ok_and(|image| image.tag_or_latest().familiar() == "scratch:latest")
}

/// What the names mean for one platform: one that ends with `::PLATFORM` is for that alone.
pub(crate) fn for_platform(named: &Contexts, platform: &Platform) -> Contexts {
    let platform = platform.to_string();
    let one = |(name, base): (&String, &Base)| match name.split_once("::") {
        None => Some((name.clone(), base.clone())),
        Some((name, of)) => (of == platform).then(|| (name.to_owned(), base.clone())),
    };
    named.iter().filter_map(one).collect()
}

impl Session<'_> {
    /// The files that the request gives under a name.
    pub(crate) fn context_named(&self, name: &str) -> Result<Tree> {
        let found = self.contexts.get(name).cloned();
        found.ok_or_else(|| BuildError::invalid(format!("there is no build context named {name}")))
    }

    /// A stage that begins with such files: an image of nothing else.
    pub(crate) fn base_of_context(&mut self, index: usize, name: &str) -> Result<State> {
        let platform = self.graph.nodes[index].platform.clone().unwrap_or_else(|| self.platforms.target.clone());
        let image = metadata::scratch(&platform);
        let mut state =
            State::new(image, Key::new("scratch").finish(), std::sync::Arc::clone(&self.globals), self.dates(None));
        let copy =
            Copy { from: Some(name.to_owned()), sources: vec![".".into()], destination: "/".into(), ..Copy::default() };
        let from = &self.common.dockerfile.stages[index].from;
        let source = Source { text: format!("COPY --from={name} . /"), ..from.clone() };
        let tree = self.context_named(name)?;
        let (key, outcome) = self.copy_of(tree, &format!("context {name}"), &state, &copy, false, &source)?;
        state.definition = None;
        state.took(&outcome, 0, MARK);
        let created = self.moment(state.newest)?;
        let files = outcome.layer.as_ref().map(|_| key);
        state.add(outcome.layer, files, format!("COPY . / # context {name}"), created);
        Ok(state)
    }
}
