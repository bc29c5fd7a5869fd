//! What a build has got before it begins: the context and the Dockerfile, the same for all platforms.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use wharf_dockerfile::{Contexts, Dockerfile, Platform, is_own_frontend};
use wharf_reference::Reference;

use crate::annotations::Annotations;
use crate::attest::Attestations;
use crate::builder::Shared;
use crate::cancel::Cancel;
use crate::context::{self, Context};
use crate::error::{BuildError, Result};
use crate::layouts::Layout;
use crate::listing;
use crate::missing::Answers;
use crate::named;
use crate::request::BuildRequest;
use crate::scratch::{Scratch, random_id};
use crate::tree::{Tree, moment};

/// All of it.
pub(crate) struct Gathered {
    pub(crate) dockerfile: Dockerfile,
    pub(crate) context: Context,
    /// What names of the request's mean.
    pub(crate) named: Contexts,
    /// Files that the request gives under names.
    pub(crate) contexts: BTreeMap<String, Tree>,
    /// What is to be said and stated about the result.
    pub(crate) annotations: Annotations,
    pub(crate) attestations: Attestations,
    /// The number that a listing of all of the context has.
    next_listing: usize,
    answers: Option<Arc<dyn Answers>>,
    /// That, once it was asked for.
    whole: Mutex<Option<Tree>>,
    /// None: this host's, and no more is said about it.
    pub(crate) platforms: Vec<Option<Platform>>,
    /// Images that are here for this build alone. Dropped before what notes them.
    _layouts: Vec<Layout>,
    /// Where files of it are.
    _dir: Scratch,
}

impl Gathered {
    /// Checks the request, takes the contexts in and reads the Dockerfile.
    ///
    /// # Errors
    /// For what is wrong with the request, a context that is hostile or damaged, and all that is wrong in the Dockerfile.
    pub(crate) fn read(shared: &Shared, request: &mut BuildRequest, cancel: &Cancel) -> Result<Self> {
        let name = if request.dockerfile.is_empty() { "Dockerfile".to_owned() } else { request.dockerfile.clone() };
        let platforms = platforms(request.platform.as_deref().unwrap_or_default())?;
        let annotations = Annotations::of(&request.annotations)?;
        let attestations = Attestations::of(&request.attestations)?;
        for tag in &request.tags {
            Reference::parse(tag).map_err(|e| BuildError::invalid(format!("invalid tag {tag:?}: {e}")))?;
        }
        if let Some(path) = request.cgroup_parent.as_deref().filter(|path| path.split('/').any(|part| part == "..")) {
            return Err(BuildError::invalid(format!("invalid cgroup-parent: {path:?} leads out")));
        }
        let dir = Scratch::new(shared.builds().join(format!("b-{}", &random_id()?[..16])))?;
        let answers = request.answers.clone();
        let listed = |input, number| {
            let nobody = || BuildError::invalid("nobody has the files of a listing");
            listing::read(input, number, answers.as_ref().ok_or_else(nobody)?, &shared.kept_contexts, cancel)
        };
        let input = std::mem::replace(&mut request.context, Box::new(io::empty()));
        let mut index = match request.listed {
            true => listed(input, 0)?,
            false => context::index(input, &dir.path.join("context"), cancel)?,
        };
        index.latest = request.committed;
        index.checked_out = is_checked_out(request).then(|| moment(jiff::Timestamp::now()));
        let context = Context::of(index, &name, request.shown.as_deref(), request.given.as_ref())?;
        let given = std::mem::take(&mut request.contexts);
        let next_listing = given.len() + 1;
        let (named, contexts, layouts) = named::read(&shared.images, given, &dir.path, cancel, &listed)?;
        let mut dockerfile = context.parsed.clone();
        let argument = |name: &str| request.build_args.get(name).filter(|value| !value.is_empty());
        if let Some(frontend) = argument("BUILDKIT_SYNTAX").filter(|frontend| !is_own_frontend(frontend)) {
            let message = format!("unknown frontend {frontend:?} in BUILDKIT_SYNTAX: there is docker/dockerfile alone");
            return Err(BuildError::invalid(message));
        }
        if let Some(rules) = argument("BUILDKIT_DOCKERFILE_CHECK") {
            let wrong = |why| BuildError::invalid(format!("BUILDKIT_DOCKERFILE_CHECK: {why}"));
            dockerfile.check_by(rules).map_err(wrong)?;
        }
        Ok(Self {
            dockerfile,
            context,
            named,
            contexts,
            annotations,
            attestations,
            platforms,
            next_listing,
            answers,
            whole: Mutex::default(),
            _layouts: layouts,
            _dir: dir,
        })
    }
}

impl Gathered {
    /// As much of the context as is known: what has come of the whole of it need not come again.
    pub(crate) fn known_context(&self) -> Tree {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.as_ref().unwrap_or(&self.context.tree).clone()
    }

    /// All of the context, where only a part came: a base image's trigger may ask for anything.
    ///
    /// # Errors
    /// When whoever has it does not list it.
    pub(crate) fn whole_context(&self, shared: &Shared, cancel: &Cancel) -> Result<Tree> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = &*whole {
            return Ok(tree.clone());
        }
        let answers = self.answers.as_ref().filter(|_| self.context.partial);
        let Some(answers) = answers else { return Ok(self.context.tree.clone()) };
        let input = answers.ask_whole(self.next_listing)?;
        let mut index = listing::read(input, self.next_listing, answers, &shared.kept_contexts, cancel)?;
        index.latest = self.context.latest;
        Ok(whole.insert(context::rest_of(index, &self.context.ignore)).clone())
    }
}

/// Whether the context is a repository that was got for this build.
fn is_checked_out(request: &BuildRequest) -> bool {
    request.checked_out || request.remote.as_deref().is_some_and(wharf_git::Repository::is_address)
}

/// `linux/amd64,linux/arm64`; each once.
fn platforms(text: &str) -> Result<Vec<Option<Platform>>> {
    let mut all = Vec::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let platform = Platform::parse(one).map_err(BuildError::invalid)?;
        if !all.contains(&Some(platform.clone())) {
            all.push(Some(platform));
        }
    }
    if all.is_empty() {
        all.push(None);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_listed_once() {
        assert_eq!(platforms("").unwrap(), [None]);
        let all = platforms("linux/arm64, linux/amd64,linux/arm64").unwrap();
        let names: Vec<String> = all.iter().flatten().map(Platform::to_string).collect();
        assert_eq!(names, ["linux/arm64", "linux/amd64"]);
        assert!(platforms("linux/amd64,nonsense/x/y/z").is_err());
    }
}
