//! What a step is made from, as far as the Dockerfile and what comes from outside say it: the other level of keys.
//!
//! A step's key has the content of what it takes from other stages, which nobody knows before they were made. Its definition has
//! theirs in place of that. So whoever has the result of a step need not have, or make, what only leads to it: caches travel
//! without it (`mode=min`, `inline`), and it may have been pruned.
//!
//! A stage that has to make a step asks first whether anybody needs it ([`Session::is_needed`]). As long as everything is found
//! nobody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wharf_dockerfile::{Base, Copy, Dockerfile, Graph, Ignore, Instruction, MountKind, Run, RunNetwork, Source};
use wharf_git::Repository;
use wharf_reference::Digest;

use crate::cache::{Defined, Key};
use crate::command::prepare;
use crate::error::{BuildError, Result};
use crate::metadata;
use crate::select::{Selected, Selection, checksum};
use crate::session::{Session, lock};
use crate::state::State;
use crate::tree::Tree;
use crate::url::is_url;

/// What is known of a stage that was not made.
#[derive(Debug, Default)]
pub(crate) struct Foreseen {
    /// Its configuration and its definition in the end; none where only its making tells.
    state: Option<State>,
    /// Steps that take from other stages: their definitions, and which stages.
    takes: Vec<(Option<Digest>, Vec<usize>)>,
}

/// Whose files are taken, as an instruction says it.
struct Taken<'a> {
    index: usize,
    from: Option<&'a str>,
    sources: Vec<&'a str>,
    exclude: &'a [String],
    parents: bool,
    literal: bool,
    instruction: &'static str,
}

impl Session<'_> {
    /// Whether any stage of the build takes files from another.
    pub(crate) fn has_takers(&self) -> bool {
        self.graph.nodes.iter().any(|node| !node.copies.is_empty())
    }

    /// The stages that an instruction takes files from.
    pub(crate) fn taken_stages(&self, index: usize, instruction: &Instruction, source: &Source) -> Result<Vec<usize>> {
        let mut stages = Vec::new();
        let mut add = |from: Option<&str>| {
            if let Some(from) = from
                && let Base::Stage(stage) =
                    Graph::resolve_from(self.dockerfile, index, from, source, &self.graph.contexts)?
            {
                stages.push(stage);
            }
            Ok::<_, BuildError>(())
        };
        match instruction {
            Instruction::Add(copy) | Instruction::Copy(copy) => add(copy.from.as_deref())?,
            Instruction::Run(run) => {
                for mount in run.mounts().map_err(BuildError::invalid)? {
                    add(mount.from.as_deref())?;
                }
            }
            _ => {}
        }
        Ok(stages)
    }

    /// The definition of what the files are after an instruction; none where only its making tells.
    pub(crate) fn define(
        &mut self,
        index: usize,
        state: &State,
        instruction: &Instruction,
        source: &Source,
    ) -> Result<Option<Digest>> {
        let Some(below) = state.definition.clone() else { return Ok(None) };
        match instruction {
            Instruction::Run(run) => self.define_run(index, state, &below, run, source),
            Instruction::Copy(copy) => self.define_copy(index, state, &below, copy, false, source),
            Instruction::Add(copy) => self.define_copy(index, state, &below, copy, true, source),
            Instruction::Workdir(text) => {
                let path = metadata::workdir(state.workdir(), text);
                let key = Key::new("workdir").text(below.as_str()).text(&path).text(&state.image.config.user);
                Ok(Some(key.text(&self.clamp_text()).finish()))
            }
            _ => Ok(Some(below)),
        }
    }

    fn define_run(
        &mut self,
        index: usize,
        state: &State,
        below: &Digest,
        run: &Run,
        source: &Source,
    ) -> Result<Option<Digest>> {
        let denied = run.insecure && !self.options.insecure;
        if denied || (run.network == RunNetwork::Host && !self.options.host_network) || !run.devices.is_empty() {
            return Ok(None);
        }
        let mut mounts = Vec::new();
        for mount in run.mounts().map_err(BuildError::invalid)? {
            let mut text = format!("{mount:?}");
            if mount.kind == MountKind::Bind || (mount.kind == MountKind::Cache && mount.from.is_some()) {
                let taken = Taken {
                    index,
                    from: mount.from.as_deref(),
                    sources: vec![mount.source.as_deref().unwrap_or("/")],
                    exclude: &[],
                    parents: false,
                    literal: true,
                    instruction: "RUN --mount",
                };
                let Some(origin) = self.origin(&taken, source)? else { return Ok(None) };
                text.push_str(&origin);
            }
            mounts.push(text);
        }
        let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
        let prepared = prepare(state, run)?;
        Ok(Some(self.command_key(below.as_str(), state, &prepared, self.network_name(run), &mounts)))
    }

    fn define_copy(
        &mut self,
        index: usize,
        state: &State,
        below: &Digest,
        copy: &Copy,
        add: bool,
        source: &Source,
    ) -> Result<Option<Digest>> {
        if add && copy.sources.iter().any(|source| is_url(source) || Repository::is_address(source)) {
            return Ok(None);
        }
        let taken = Taken {
            index,
            from: copy.from.as_deref(),
            sources: copy.sources.iter().map(String::as_str).collect(),
            exclude: &copy.exclude,
            parents: copy.parents,
            literal: false,
            instruction: if add { "ADD" } else { "COPY" },
        };
        let Some(origin) = self.origin(&taken, source)? else { return Ok(None) };
        let key = Key::new(taken.instruction).text(below.as_str()).text(&format!("{copy:?}")).text(state.workdir());
        Ok(Some(key.text(&self.clamp_text()).text(&self.options.classic.to_string()).text(&origin).finish()))
    }

    /// What names the files that are taken: their content where they come from outside, a definition where they are made.
    fn origin(&mut self, taken: &Taken<'_>, source: &Source) -> Result<Option<String>> {
        let base = match taken.from {
            None => None,
            Some(from) => Some(Graph::resolve_from(self.dockerfile, taken.index, from, source, &self.graph.contexts)?),
        };
        match base {
            Some(Base::Stage(stage)) => Ok(self.foresee(stage)?.definition().map(|digest| digest.to_string())),
            Some(Base::Image(name)) => Ok(Some(self.image(&name, self.options.platform.clone())?.id.to_string())),
            Some(Base::Scratch) => Ok(Some("scratch".into())),
            None | Some(Base::Context(_)) => {
                let (tree, place) = self.tree(taken.index, taken.from, source)?;
                let mut all = Vec::new();
                for path in &taken.sources {
                    all.extend(self.sums_of(taken, &tree, &place, path)?.iter().map(Digest::to_string));
                }
                Ok(Some(all.join(" ")))
            }
        }
    }

    fn sums_of(&self, taken: &Taken<'_>, tree: &Tree, place: &str, path: &str) -> Result<Vec<Digest>> {
        let literal = if taken.literal { "literally" } else { "" };
        let name = sums_name(place, path, taken.exclude, taken.parents) + literal;
        if let Some(known) = lock(&self.sums).get(&name) {
            return Ok(known.clone());
        }
        let exclude = Ignore::new(taken.exclude.iter().map(String::as_str))?;
        let Taken { parents, instruction, .. } = *taken;
        let selection = Selection { tree, exclude: &exclude, parents, instruction, place, cancel: &self.cancel };
        let found = match taken.literal {
            true => selection.select_literal(path)?.into_iter().collect(),
            false => selection.select(path)?,
        };
        self.checksums(Some(name), &found)
    }

    /// The checksum of each. Of files that come from outside, which have a name, it is remembered: they are the same for the
    /// whole build.
    pub(crate) fn checksums(&self, name: Option<String>, all: &[Selected]) -> Result<Vec<Digest>> {
        if let Some(known) = name.as_ref().and_then(|name| lock(&self.sums).get(name).cloned()) {
            return Ok(known);
        }
        let sums =
            all.iter().map(|one| checksum(std::slice::from_ref(one), &self.cancel)).collect::<Result<Vec<_>>>()?;
        if let Some(name) = name {
            lock(&self.sums).insert(name, sums.clone());
        }
        Ok(sums)
    }

    /// What is known of a stage without its being made.
    fn foresee(&mut self, index: usize) -> Result<Arc<Foreseen>> {
        if let Some(known) = lock(&self.foreseen).get(&index) {
            return Ok(Arc::clone(known));
        }
        let at_triggers = std::mem::take(&mut self.at_triggers);
        let found = self.foresee_itself(index);
        self.at_triggers = at_triggers;
        let found = Arc::new(found?);
        Ok(Arc::clone(lock(&self.foreseen).entry(index).or_insert(found)))
    }

    fn foresee_itself(&mut self, index: usize) -> Result<Foreseen> {
        let common = self.common;
        let (stage, node) = (&common.dockerfile.stages[index], &common.graph.nodes[index]);
        let base = match &node.base {
            Base::Stage(base) => self.foresee(*base)?.state.as_ref().map(State::on),
            // It is a layer of its own, which has to be made.
            Base::Context(_) => None,
            Base::Scratch | Base::Image(_) => Some(self.outer_base(index)?),
        };
        let Some(mut state) = base else { return Ok(Foreseen::default()) };
        lock(&self.base_env).insert(index, state.scope.env().to_vec());
        let mut takes = Vec::new();
        self.at_triggers = true;
        for trigger in state.image.config.on_build.take().unwrap_or_default() {
            let statement = Dockerfile::parse_trigger(&common.dockerfile.file, &trigger, &stage.from)?;
            self.foresee_step(index, &mut state, &statement.instruction, &statement.source, &mut takes)?;
        }
        self.at_triggers = false;
        for statement in stage.statements.iter().filter(|_| !node.replaced) {
            self.foresee_step(index, &mut state, &statement.instruction, &statement.source, &mut takes)?;
        }
        Ok(Foreseen { state: Some(state), takes })
    }

    fn foresee_step(
        &mut self,
        index: usize,
        state: &mut State,
        instruction: &Instruction,
        source: &Source,
        takes: &mut Vec<(Option<Digest>, Vec<usize>)>,
    ) -> Result<()> {
        let escape = self.dockerfile.directives.escape;
        let instruction = instruction.expand(escape, &state.scope)?;
        state.definition = self.define(index, state, &instruction, source)?;
        let stages = self.taken_stages(index, &instruction, source)?;
        if !stages.is_empty() {
            takes.push((state.definition.clone(), stages));
        }
        match &instruction {
            Instruction::Arg(arguments) => drop(self.declare(state, arguments)?),
            Instruction::Workdir(text) => {
                state.image.config.working_dir = metadata::workdir(state.workdir(), text);
            }
            Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) => {}
            other => drop(metadata::apply(other, &mut state.image, &mut state.scope, &mut state.cmd_set)?),
        }
        Ok(())
    }

    /// A step that has this definition, if its result is here.
    pub(crate) fn known_by(&self, definition: Option<&Digest>) -> Result<Option<Defined>> {
        let Some(defined) = definition.map(|digest| self.shared.cache.defined(digest)).transpose()?.flatten() else {
            return Ok(None);
        };
        let record = self.shared.cache.find(&defined.key)?.filter(|record| self.knows_secrets_of(record));
        Ok(record.map(|_| defined))
    }

    /// Whether somebody needs the files of a stage who has not the result of what takes them.
    pub(crate) fn is_needed(&mut self, stage: usize) -> bool {
        let common = self.common;
        let mut needed = lock(&common.truly_needed);
        let all = match &mut *needed {
            Some(all) => all,
            // Where it cannot be told, all that the target names are; the stage itself says what is wrong.
            none => none.insert(self.needed_stages().unwrap_or_else(|_| common.graph.needed().into_iter().collect())),
        };
        all.contains(&stage)
    }

    fn needed_stages(&mut self) -> Result<BTreeSet<usize>> {
        let (mut needed, mut left) = (BTreeSet::new(), vec![self.graph.target]);
        let mut known = BTreeMap::new();
        while let Some(stage) = left.pop() {
            if !needed.insert(stage) {
                continue;
            }
            if let Base::Stage(base) = self.graph.nodes[stage].base {
                left.push(base);
            }
            let foreseen = self.foresee(stage)?;
            if foreseen.state.is_none() {
                left.extend(&self.graph.nodes[stage].copies);
            }
            for (definition, stages) in &foreseen.takes {
                let is_known = match definition {
                    Some(digest) if !self.is_made_again(stage) => match known.get(digest) {
                        Some(is_known) => *is_known,
                        None => *known.entry(digest.clone()).or_insert(self.known_by(Some(digest))?.is_some()),
                    },
                    _ => false,
                };
                let wanted = |from: &&usize| !is_known || self.is_made_again(**from);
                left.extend(stages.iter().filter(wanted));
            }
        }
        Ok(needed)
    }
}

impl Foreseen {
    fn definition(&self) -> Option<&Digest> {
        self.state.as_ref()?.definition.as_ref()
    }
}

/// What checksums of selected files are remembered under.
pub(crate) fn sums_name(place: &str, path: &str, exclude: &[String], parents: bool) -> String {
    format!("{place}\0{path}\0{exclude:?}\0{parents}")
}
