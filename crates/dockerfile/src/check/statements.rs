//! Rules about the instructions of a stage.

use std::collections::BTreeSet;

use super::{Checker, Known};
use crate::expand::{ExpandError, Lexer, NoVariables, Variables};
use crate::graph::{Base, Graph};
use crate::ignore::Ignore;
use crate::instruction::{Copy, Instruction};
use crate::nearest;
use crate::parse::{Source, Stage, Statement};
use crate::scope::Scope;

/// Words in a name that say that its value is nobody's business, and words that say that it is harmless after all.
const SECRET: &[&str] =
    &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const NOT_SECRET: &[&str] = &["public", "file", "version"];

impl Checker<'_> {
    /// Instructions of a stage, each for itself.
    pub(super) fn stage(&mut self, stage: &Stage, ignore: &Ignore) {
        for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
            let all: Vec<&Statement> = stage.statements.iter().filter(|s| s.instruction.name() == name).collect();
            for statement in all.iter().take(all.len().saturating_sub(1)) {
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because only the last one will \
                     be used"
                );
                self.warn("MultipleInstructionsDisallowed", &statement.source, message);
            }
        }
        for Statement { instruction, source } in &stage.statements {
            match instruction {
                Instruction::Env(pairs) => {
                    for pair in pairs {
                        self.secret("ENV", &pair.name, source);
                    }
                }
                Instruction::Arg(arguments) => {
                    for argument in arguments {
                        self.secret("ARG", &argument.name, source);
                    }
                }
                Instruction::Add(copy) => self.ignored("Add", copy, source, ignore),
                Instruction::Copy(copy) if copy.from.is_none() => self.ignored("Copy", copy, source, ignore),
                _ => {}
            }
        }
    }

    /// Commands in shell form where nobody has chosen a shell.
    pub(super) fn shells(&mut self, index: usize, graph: &Graph) {
        let is_shell = |statement: &Statement| matches!(statement.instruction, Instruction::Shell(_));
        let file = self.dockerfile;
        let mut chosen = false;
        // A stage goes on with what the one that it is based on has chosen.
        let mut base = graph.nodes.get(index).map(|node| &node.base);
        while let Some(Base::Stage(stage)) = base {
            chosen |= file.stages[*stage].statements.iter().any(is_shell);
            base = graph.nodes.get(*stage).map(|node| &node.base);
        }
        for statement in &file.stages[index].statements {
            chosen |= is_shell(statement);
            let (Instruction::Cmd(command) | Instruction::Entrypoint(command)) = &statement.instruction else {
                continue;
            };
            if command.shell && !chosen {
                let message = format!(
                    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                    statement.instruction.name()
                );
                self.warn("JSONArgsRecommended", &statement.source, message);
            }
        }
    }

    /// The first working directory of a stage and those that it is based on; those after it mean something by it.
    pub(super) fn workdirs(&mut self, index: usize, known: &Known<'_>) {
        let file = self.dockerfile;
        let escape = file.directives.escape;
        let mut base = known.graph.nodes.get(index).map(|node| &node.base);
        while let Some(Base::Stage(stage)) = base {
            let mut statements = file.stages[*stage].statements.iter();
            if statements.any(|statement| matches!(statement.instruction, Instruction::Workdir(_))) {
                return;
            }
            base = known.graph.nodes.get(*stage).map(|node| &node.base);
        }
        let mut scope = self.scope(index, known);
        for statement in &file.stages[index].statements {
            let Instruction::Workdir(text) = &statement.instruction else {
                if let Some(scope) = &mut scope {
                    let expanded = statement.instruction.expand(escape, scope);
                    step(scope, &expanded.unwrap_or_else(|_| statement.instruction.clone()), escape);
                }
                continue;
            };
            let expanded = match &scope {
                Some(scope) => Lexer::new(escape).expand(text, scope),
                None if text.contains('$') => return,
                None => Lexer::new(escape).expand(text, &NoVariables),
            };
            if let Some(path) = expanded.ok().map(|expanded| expanded.text).filter(|path| !path.starts_with('/')) {
                let message =
                    format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                self.warn("WorkdirRelativePath", &statement.source, message);
            }
            return;
        }
    }

    /// `ENV key value`.
    pub(super) fn legacy(&mut self, stage: &Stage) {
        for Statement { instruction, source } in &stage.statements {
            let (Instruction::Env(pairs) | Instruction::Label(pairs)) = instruction else { continue };
            for _ in pairs.iter().filter(|pair| pair.legacy) {
                let name = instruction.name();
                let message =
                    format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
                self.warn("LegacyKeyValueFormat", source, message);
            }
        }
    }

    fn secret(&mut self, instruction: &str, name: &str, source: &Source) {
        let lower = name.to_ascii_lowercase();
        let words: Vec<&str> = lower.split('_').collect();
        if words.iter().any(|word| SECRET.contains(word)) && !words.iter().any(|word| NOT_SECRET.contains(word)) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.warn("SecretsUsedInArgOrEnv", source, message);
        }
    }

    fn port(&mut self, port: &str, source: &Source) {
        let (numbers, protocol) = port.split_once('/').unwrap_or((port, ""));
        if protocol != protocol.to_lowercase() {
            let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.warn("ExposeProtoCasing", source, message);
        }
        if numbers.contains(':') && !numbers.contains('$') {
            let message =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
            self.warn("ExposeInvalidFormat", source, message);
        }
    }

    fn ignored(&mut self, verb: &str, copy: &Copy, source: &Source, ignore: &Ignore) {
        for path in &copy.sources {
            if !path.contains(['$', '*', '?', '[']) && !path.contains("://") && ignore.is_ignored(path) {
                let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.warn("CopyIgnoredFile", source, message);
            }
        }
    }

    /// Variables that nothing gives a value.
    pub(super) fn variables(&mut self, index: usize, known: &Known<'_>) {
        let statements = &self.dockerfile.stages[index].statements;
        let Some(mut scope) = self.scope(index, known) else {
            for statement in statements {
                if let Instruction::Expose(ports) = &statement.instruction {
                    ports.iter().for_each(|port| self.port(port, &statement.source));
                }
            }
            return;
        };
        let escape = self.dockerfile.directives.escape;
        for statement in statements {
            let asked = Asked { scope: &scope, unset: std::cell::RefCell::default() };
            let expanded = statement.instruction.expand(escape, &asked);
            let unset = asked.unset.into_inner();
            for name in unset.into_iter().filter(|name| !scope.declares(name)) {
                let names = scope.environment().map(|(name, _)| name);
                let hint = nearest(&name, names).map(|hint| format!(" (did you mean ${hint}?)"));
                let message = format!("Usage of undefined variable '${name}'{}", hint.unwrap_or_default());
                self.warn("UndefinedVar", &statement.source, message);
            }
            let expanded = expanded.unwrap_or_else(|_| statement.instruction.clone());
            if let Instruction::Expose(ports) = &expanded {
                ports.iter().for_each(|port| self.port(port, &statement.source));
            }
            step(&mut scope, &expanded, escape);
        }
    }

    /// The first instruction whose variables cannot be expanded.
    pub(super) fn unexpandable(&self, index: usize, known: &Known<'_>) -> Option<(&Source, ExpandError)> {
        let mut scope = self.scope(index, known)?;
        let escape = self.dockerfile.directives.escape;
        for Statement { instruction, source } in &self.dockerfile.stages[index].statements {
            match instruction.expand(escape, &scope) {
                Ok(expanded) => step(&mut scope, &expanded, escape),
                Err(error) => return Some((source, error)),
            }
        }
        None
    }

    /// The scope that a stage begins with, when all of it is known.
    fn scope(&self, index: usize, known: &Known<'_>) -> Option<Scope> {
        // Not one within the other: a file has as many stages as it likes.
        let (mut at, mut chain) = (index, Vec::new());
        let mut scope = loop {
            match known.graph.nodes.get(at)?.base {
                Base::Scratch => break Scope::new(known.globals.clone(), vec![("PATH".into(), String::new())]),
                Base::Image(_) | Base::Context(_) => break Scope::new(known.globals.clone(), (known.base_env)(at)?),
                Base::Stage(base) => {
                    if let Some(ended) = self.ended.borrow().get(&base) {
                        break ended.clone();
                    }
                    chain.push(base);
                    at = base;
                }
            }
        };
        let escape = self.dockerfile.directives.escape;
        for base in chain.into_iter().rev() {
            for statement in &self.dockerfile.stages[base].statements {
                let expanded = statement.instruction.expand(escape, &scope);
                step(&mut scope, &expanded.unwrap_or_else(|_| statement.instruction.clone()), escape);
            }
            self.ended.borrow_mut().insert(base, scope.clone());
        }
        Some(scope)
    }
}

/// A scope that remembers what it had no answer to.
struct Asked<'a> {
    scope: &'a Scope,
    unset: std::cell::RefCell<BTreeSet<String>>,
}

impl Variables for Asked<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        let value = self.scope.value(name);
        if value.is_none() {
            self.unset.borrow_mut().insert(name.to_owned());
        }
        value
    }
}

fn step(scope: &mut Scope, instruction: &Instruction, escape: char) {
    match instruction {
        Instruction::Env(pairs) => pairs.iter().for_each(|pair| scope.set(&pair.name, &pair.value)),
        Instruction::Arg(arguments) => {
            for argument in arguments {
                // A default that cannot be expanded is an error of the build, not of the check.
                let _ = scope.declare(argument, escape);
            }
        }
        _ => {}
    }
}
