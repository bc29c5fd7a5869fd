//! One instruction of a stage: found in the cache, or made.

use wharf_dockerfile::{Argument, Instruction, Statement};
use wharf_reference::Digest;
use wharf_snapshot::MARK;

use crate::cache::Defined;
use crate::command::{history_line, prepare};
use crate::error::Result;
use crate::metadata;
use crate::session::{Outcome, Session, lock};
use crate::state::State;
use crate::steps::Steps;

impl Session<'_> {
    /// One instruction of a stage.
    pub(crate) fn statement(&mut self, index: usize, state: &mut State, statement: &Statement) -> Result<()> {
        let escape = self.dockerfile.directives.escape;
        let instruction = statement.instruction.expand(escape, &state.scope)?;
        let takers = self.has_takers();
        let taken = if takers { self.taken_stages(index, &instruction, &statement.source)? } else { Vec::new() };
        let absent = taken.iter().any(|stage| self.stages[*stage].get().is_none());
        let mut definition = state.definition.clone();
        if absent || matches!(instruction, Instruction::Workdir(_)) {
            definition = self.define(index, state, &instruction, &statement.source)?;
        }
        let defined = if absent && !self.no_cache { self.known_by(definition.as_ref())? } else { None };
        let known = match &defined {
            Some(defined) => self.cached(&defined.key)?.map(|outcome| (defined.key.clone(), outcome)),
            None => None,
        };
        if absent && known.is_none() {
            self.spare_it()?;
        }
        let defined = defined.filter(|_| known.is_some());
        let (line, outcome, key) = match &instruction {
            Instruction::Arg(arguments) => (Some(self.declare(state, arguments)?), None, None),
            Instruction::Workdir(text) => {
                let path = metadata::workdir(state.workdir(), text);
                state.image.config.working_dir.clone_from(&path);
                let (key, outcome) = self.make_workdir(state, &path)?;
                // As BuildKit has it: an absolute path as it is written.
                let shown = if text.starts_with('/') { text } else { &path };
                (Some(format!("WORKDIR {shown}")), Some(outcome), Some(key))
            }
            Instruction::Add(copy) | Instruction::Copy(copy) => {
                let add = matches!(instruction, Instruction::Add(_));
                let (key, outcome) = match known {
                    Some(known) => known,
                    None => self.copy(index, state, copy, add, &statement.source)?,
                };
                (Some(crate::files::history_line(copy, add)), Some(outcome), Some(key))
            }
            Instruction::Run(run) => {
                let line = history_line(state, &prepare(state, run)?.args);
                let (key, outcome) = match known {
                    Some(known) => known,
                    None => self.run(index, state, run, &statement.source)?,
                };
                (Some(line), Some(outcome), Some(key))
            }
            other => (metadata::apply(other, &mut state.image, &mut state.scope, &mut state.cmd_set)?, None, None),
        };
        let cached = match outcome {
            Some(outcome) => {
                if takers && !absent && !matches!(instruction, Instruction::Workdir(_)) {
                    definition = self.define(index, state, &instruction, &statement.source)?;
                }
                let others = taken.iter().filter_map(|stage| Some(self.stages[*stage].get()?.newest)).max();
                let newest = defined.map_or(others.unwrap_or(0), |defined| defined.newest);
                if let (false, Some(definition), Some(key)) = (taken.is_empty(), &definition, &key) {
                    let defined = Defined { key: key.clone(), newest };
                    self.shared.cache.define(definition, &defined)?;
                    lock(&self.noted).definitions.insert(definition.to_string(), defined);
                }
                state.definition = definition;
                // What a linked layer is does not depend on what it lies upon; what the files are afterwards does.
                let files = key.map(|key| match &instruction {
                    Instruction::Add(copy) | Instruction::Copy(copy) if copy.link => state.upon(&key),
                    _ => key,
                });
                // A step that changed no file leaves them what they were.
                let files = files.filter(|_| outcome.layer.is_some());
                let copies = matches!(instruction, Instruction::Add(_) | Instruction::Copy(_));
                state.took(&outcome, newest, if copies { MARK } else { 0 });
                let created = self.moment(state.newest)?;
                state.add(outcome.layer, files, line.unwrap_or_default(), created);
                outcome.cached
            }
            None => {
                if let Some(line) = line {
                    state.add(None, None, line, self.moment(state.newest)?);
                }
                let noted = self.noted(&state.config_key(), &statement.source.text, state.date, self.no_cache)?;
                if noted.again > Some(state.newest) {
                    state.took(&noted, 0, 0);
                    let created = self.moment(state.newest)?;
                    state.redate(created);
                }
                noted.cached
            }
        };
        if cached {
            self.output.steps.iter().for_each(Steps::cached);
            self.output.text(" ---> Using cache\n")?;
        }
        self.show(state)
    }

    /// Arguments; the value is their line of history.
    pub(crate) fn declare(&self, state: &mut State, arguments: &[Argument]) -> Result<String> {
        let mut words = Vec::new();
        for argument in arguments {
            lock(&self.consumed).insert(argument.name.clone());
            words.push(match state.scope.declare(argument, self.dockerfile.directives.escape)? {
                Some(value) => format!("{}={value}", argument.name),
                None => argument.name.clone(),
            });
        }
        Ok(format!("ARG {}", words.join(" ")))
    }

    /// The outcome of an earlier build.
    pub(crate) fn cached(&mut self, key: &Digest) -> Result<Option<Outcome>> {
        if self.no_cache {
            return Ok(None);
        }
        let Some(record) = self.shared.cache.find(key)?.filter(|record| self.knows_secrets_of(record)) else {
            self.spare_it()?;
            return Ok(None);
        };
        let (date, again, layer) = (record.date(), self.again_of(&record), record.layer);
        // Held before it is looked for again: it may have been pruned between the two.
        self.hold(layer.as_slice());
        if layer.as_ref().is_some_and(|layer| !self.shared.layers.contains(layer)) {
            self.spare_it()?;
            return Ok(None);
        }
        lock(&self.used).push(key.clone());
        lock(&self.noted).keys.push(key.clone());
        Ok(Some(Outcome { layer, cached: true, date, again }))
    }
}
