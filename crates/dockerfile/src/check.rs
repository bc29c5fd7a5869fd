//! What is allowed and probably not meant: BuildKit's build checks, by their names.
//!
//! Source: Docker's reference of build checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::directive::CheckDirective;
use crate::expand::{Lexer, NoVariables, Variables};
use crate::graph::{Base, Graph};
use crate::ignore::Ignore;
use crate::instruction::{Copy, Instruction, NAMES, Pair};
use crate::nearest;
use crate::parse::{Dockerfile, Source, Stage, Statement};
use crate::position::{Position, Span};
use crate::scope::{Globals, Platform, Scope};

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule's name, by which `# check=skip=` turns it off.
    pub rule: &'static str,
    pub message: String,
    pub span: Span,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (line {})", self.rule, self.message, self.span.line())
    }
}

/// What a check knows beside the file.
pub struct Known<'a> {
    pub globals: std::sync::Arc<Globals>,
    pub graph: &'a Graph,
    /// What of the context the build does not see.
    pub ignore: &'a Ignore,
    /// Variables of the image that a stage is based on; without them no variable of that stage is called undefined.
    pub base_env: &'a dyn Fn(usize) -> Option<Vec<(String, String)>>,
}

impl fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// Checks a file, in the order of its lines.
pub fn check(dockerfile: &Dockerfile, known: &Known<'_>) -> Vec<Warning> {
    let mut checker = Checker { dockerfile, found: Vec::new() };
    checker.casing();
    checker.stages(known);
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        checker.stage(stage, known.ignore);
        checker.shells(index, known.graph);
        checker.workdirs(index, known);
        checker.variables(index, known);
    }
    let default = CheckDirective::default();
    let directive = dockerfile.directives.check.as_ref().unwrap_or(&default);
    let skipped = |rule: &str| directive.skip.iter().any(|name| name == "all" || name.eq_ignore_ascii_case(rule));
    let mut found = checker.found;
    found.retain(|warning| !skipped(warning.rule));
    found.sort_by_key(|warning| warning.span.start);
    found
}

struct Checker<'a> {
    dockerfile: &'a Dockerfile,
    found: Vec<Warning>,
}

/// Words in a name that say that its value is nobody's business, and words that say that it is harmless after all.
const SECRET: &[&str] =
    &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const NOT_SECRET: &[&str] = &["public", "file", "version"];

impl Checker<'_> {
    fn warn(&mut self, rule: &'static str, source: &Source, message: impl Into<String>) {
        self.found.push(Warning { rule, message: message.into(), span: source.span });
    }

    /// All sources with the word that they begin with.
    fn words(&self) -> Vec<(Source, String)> {
        let file = self.dockerfile;
        let stages = file.stages.iter().flat_map(|stage| {
            std::iter::once(&stage.from).chain(stage.statements.iter().map(|statement| &statement.source))
        });
        let all = file.globals.iter().map(|statement| &statement.source).chain(stages);
        all.map(|source| (source.clone(), source.text.split_whitespace().next().unwrap_or_default().to_owned()))
            .collect()
    }

    fn casing(&mut self) {
        let words = self.words();
        let upper = words.iter().filter(|(_, word)| *word == word.to_uppercase()).count();
        let lower = words.iter().filter(|(_, word)| *word == word.to_lowercase()).count();
        let (case, right): (_, fn(&str) -> String) =
            if lower > upper { ("lowercase", |w| w.to_lowercase()) } else { ("uppercase", |w| w.to_uppercase()) };
        for (source, word) in words {
            let known = NAMES.iter().any(|name| word.eq_ignore_ascii_case(name));
            if known && word != right(&word) {
                let message = format!("Command '{word}' should match the case of the command majority ({case})");
                self.warn("ConsistentInstructionCasing", &source, message);
            }
            if source.empty_continuation {
                // With the last line of the instruction, as BuildKit tells it.
                let last = Position { line: source.span.end_line, column: 1 };
                let span = Span { start: last, end_line: last.line };
                self.found.push(Warning { rule: "NoEmptyContinuation", message: "Empty continuation line".into(), span });
            }
        }
    }

    /// FROM lines: names, platforms, bases.
    fn stages(&mut self, known: &Known<'_>) {
        let mut names = BTreeSet::new();
        for stage in &self.dockerfile.stages {
            let words: Vec<&str> = stage.from.text.split_whitespace().collect();
            if let [.., _, keyword, name] = words.as_slice()
                && keyword.eq_ignore_ascii_case("as")
            {
                if *name != name.to_lowercase() {
                    self.warn("StageNameCasing", &stage.from, format!("Stage name '{name}' should be lowercase"));
                }
                let from = words[0];
                let same = (from == from.to_uppercase()) == (*keyword == keyword.to_uppercase());
                if !same {
                    let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
                    self.warn("FromAsCasing", &stage.from, message);
                }
            }
            if let Some(name) = &stage.name {
                if matches!(name.as_str(), "scratch" | "context") {
                    let message = format!("Stage name should not use the same name as reserved stage {name:?}");
                    self.warn("ReservedStageName", &stage.from, message);
                }
                if !names.insert(name.clone()) {
                    let message = format!("Duplicate stage name {name:?}, stage names should be unique");
                    self.warn("DuplicateStageName", &stage.from, message);
                }
            }
            self.platform(stage);
            self.base(stage, known);
        }
    }

    fn platform(&mut self, stage: &Stage) {
        let Some(platform) = &stage.platform else { return };
        if matches!(platform.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!(
                "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            );
            self.warn("RedundantTargetPlatform", &stage.from, message);
        }
        let named_by_it = stage
            .name
            .as_deref()
            .zip(Platform::parse(platform).ok())
            .is_some_and(|(name, platform)| name.contains(&platform.architecture) || name.contains(&platform.os));
        if !platform.contains('$') && !named_by_it {
            let message = format!("FROM --platform flag should not use constant value {platform:?}");
            self.warn("FromPlatformFlagConstDisallowed", &stage.from, message);
        }
    }

    fn base(&mut self, stage: &Stage, known: &Known<'_>) {
        let lexer = Lexer::new(self.dockerfile.directives.escape);
        let mut undeclared = BTreeSet::new();
        for text in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
            if let Ok(expanded) = lexer.expand(text, &*known.globals) {
                undeclared.extend(expanded.unset);
            }
        }
        for name in undeclared.iter().filter(|name| !known.globals.declares(name)) {
            let hint = nearest(name, known.globals.names()).map(|hint| format!(" (did you mean {hint}?)"));
            let message = format!("FROM argument '{name}' is not declared{}", hint.unwrap_or_default());
            self.warn("UndefinedArgInFrom", &stage.from, message);
        }
        // As it would be if nobody gave an argument.
        let mut defaults: BTreeMap<String, String> = BTreeMap::new();
        for argument in self.dockerfile.global_arguments() {
            let text = argument.default.as_deref().unwrap_or_default();
            let value = lexer.expand(text, &defaults).map(|expanded| expanded.text).unwrap_or_default();
            defaults.insert(argument.name.clone(), value);
        }
        if let Ok(expanded) = lexer.expand(&stage.base, &defaults) {
            let global = expanded.used.iter().any(|name| known.globals.declares(name));
            if global && !is_image_name(&expanded.text) {
                let message =
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                self.warn("InvalidDefaultArgInFrom", &stage.from, message);
            }
        }
    }

    /// Instructions of a stage, each for itself.
    fn stage(&mut self, stage: &Stage, ignore: &Ignore) {
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
                Instruction::Maintainer(_) => self.warn(
                    "MaintainerDeprecated",
                    source,
                    "Maintainer instruction is deprecated in favor of using label",
                ),
                Instruction::Env(pairs) => self.pairs("ENV", pairs, source),
                Instruction::Label(pairs) => self.pairs("LABEL", pairs, source),
                Instruction::Arg(arguments) => {
                    for argument in arguments {
                        self.secret("ARG", &argument.name, source);
                    }
                }
                Instruction::Expose(ports) => ports.iter().for_each(|port| self.port(port, source)),
                Instruction::Add(copy) => self.ignored("Add", copy, source, ignore),
                Instruction::Copy(copy) if copy.from.is_none() => self.ignored("Copy", copy, source, ignore),
                _ => {}
            }
        }
    }

    /// Commands in shell form where nobody has chosen a shell.
    fn shells(&mut self, index: usize, graph: &Graph) {
        let is_shell = |statement: &Statement| matches!(statement.instruction, Instruction::Shell(_));
        let file = self.dockerfile;
        let mut chosen = false;
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

    /// The first working directory of a stage; those after it mean something by it.
    fn workdirs(&mut self, index: usize, known: &Known<'_>) {
        let file = self.dockerfile;
        let escape = file.directives.escape;
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

    fn pairs(&mut self, name: &str, pairs: &[Pair], source: &Source) {
        for pair in pairs {
            if pair.legacy {
                let message =
                    format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
                self.warn("LegacyKeyValueFormat", source, message);
            }
            if name == "ENV" {
                self.secret("ENV", &pair.name, source);
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
    fn variables(&mut self, index: usize, known: &Known<'_>) {
        let Some(mut scope) = self.scope(index, known) else { return };
        let escape = self.dockerfile.directives.escape;
        for statement in &self.dockerfile.stages[index].statements {
            let asked = Asked { scope: &scope, unset: std::cell::RefCell::default() };
            let expanded = statement.instruction.expand(escape, &asked);
            let unset = asked.unset.into_inner();
            for name in unset.into_iter().filter(|name| !scope.declares(name)) {
                let names = scope.environment().map(|(name, _)| name);
                let hint = nearest(&name, names).map(|hint| format!(" (did you mean ${hint}?)"));
                let message = format!("Usage of undefined variable '${name}'{}", hint.unwrap_or_default());
                self.warn("UndefinedVar", &statement.source, message);
            }
            step(&mut scope, &expanded.unwrap_or_else(|_| statement.instruction.clone()), escape);
        }
    }

    /// The scope that a stage begins with, when all of it is known.
    fn scope(&self, index: usize, known: &Known<'_>) -> Option<Scope> {
        let base = match known.graph.nodes.get(index)?.base {
            Base::Scratch => return Some(Scope::new(known.globals.clone(), vec![("PATH".into(), String::new())])),
            Base::Image(_) | Base::Context(_) => {
                return Some(Scope::new(known.globals.clone(), (known.base_env)(index)?));
            }
            Base::Stage(base) => base,
        };
        let mut scope = self.scope(base, known)?;
        let escape = self.dockerfile.directives.escape;
        for statement in &self.dockerfile.stages[base].statements {
            let expanded = statement.instruction.expand(escape, &scope);
            step(&mut scope, &expanded.unwrap_or_else(|_| statement.instruction.clone()), escape);
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

/// Roughly: neither empty nor with an empty part.
fn is_image_name(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(char::is_whitespace)
        && !text.starts_with([':', '/', '@'])
        && !text.ends_with([':', '/', '@'])
        && !text.contains("//")
        && !text.contains("/:")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::scope::Platforms;

    /// Rules and lines.
    fn found(text: &str) -> Vec<(&'static str, u32)> {
        let dockerfile = Dockerfile::parse("f", text).unwrap_or_else(|e| panic!("{text}\n{e}"));
        let platforms = Platforms { build: Platform::host(), target: Platform::host() };
        let globals = Arc::new(Globals::new(&dockerfile, &platforms, "", BTreeMap::new()).unwrap());
        let graph = Graph::new(&dockerfile, &globals, None, crate::Contexts::new()).unwrap();
        let ignore = Ignore::parse("secret.txt\n").unwrap();
        let env = |_: usize| Some(vec![("PATH".to_owned(), "/bin".to_owned())]);
        let known = Known { globals, graph: &graph, ignore: &ignore, base_env: &env };
        check(&dockerfile, &known).iter().map(|warning| (warning.rule, warning.span.line())).collect()
    }

    #[test]
    fn each_rule_finds_what_it_is_about() {
        for (text, rule, line) in [
            ("FROM a AS Build\n", "StageNameCasing", 1),
            ("FROM a as b\n", "FromAsCasing", 1),
            ("FROM a\nRUN x \\\n\n y\n", "NoEmptyContinuation", 4),
            ("FROM a\nRUN x\nrun y\n", "ConsistentInstructionCasing", 3),
            ("FROM a AS x\nFROM a AS x\n", "DuplicateStageName", 2),
            ("FROM a AS scratch\n", "ReservedStageName", 1),
            ("FROM a\nCMD x\n", "JSONArgsRecommended", 2),
            ("FROM a\nMAINTAINER me\n", "MaintainerDeprecated", 2),
            ("ARG BASE=x\nFROM ${BASE}${BASS:-a}\n", "UndefinedArgInFrom", 2),
            ("FROM a\nWORKDIR x\n", "WorkdirRelativePath", 2),
            ("FROM a\nWORKDIR $NOPE\n", "WorkdirRelativePath", 2),
            ("FROM a\nCMD x\nSHELL [\"y\"]\n", "JSONArgsRecommended", 2),
            ("FROM a\nCOPY $NOPE /x\n", "UndefinedVar", 2),
            ("FROM a\nENV PATH=$PAHT:/x\n", "UndefinedVar", 2),
            ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n", "MultipleInstructionsDisallowed", 2),
            ("FROM a\nENV a b\n", "LegacyKeyValueFormat", 2),
            ("FROM --platform=$TARGETPLATFORM a\n", "RedundantTargetPlatform", 1),
            ("FROM a\nENV AWS_SECRET_ACCESS=x\n", "SecretsUsedInArgOrEnv", 2),
            ("ARG TAG\nFROM busybox:$TAG\n", "InvalidDefaultArgInFrom", 2),
            ("FROM --platform=linux/arm64 a\n", "FromPlatformFlagConstDisallowed", 1),
            ("FROM a\nCOPY secret.txt /\n", "CopyIgnoredFile", 2),
            ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing", 2),
            ("FROM a\nEXPOSE 127.0.0.1:80:80\n", "ExposeInvalidFormat", 2),
        ] {
            assert!(found(text).contains(&(rule, line)), "{rule} in {text}: {:?}", found(text));
        }
    }

    #[test]
    fn what_is_meant_is_not_warned_of() {
        for text in [
            "FROM z\nFROM a AS build\nARG V\nENV X=$V Y=${PATH}\nCOPY --from=0 secret.txt /\nCMD [\"x\"]\nWORKDIR /a\nWORKDIR b\n",
            "from a as b\nrun x\n",
            "FROM a\nSHELL [\"/bin/bash\", \"-c\"]\nCMD x\n",
            "FROM a AS b\nSHELL [\"/bin/bash\", \"-c\"]\nFROM b AS c\nFROM c\nENTRYPOINT x\n",
            "FROM a\nARG V=/x\nWORKDIR \"/a b\"\nFROM a\nENV V=/x\nWORKDIR $V/y\nWORKDIR z\n",
            "ARG TAG=1\nFROM busybox:$TAG\nENV TOKEN_FILE=/x PUBLIC_KEY=y\n",
            "FROM --platform=linux/arm64 a AS arm64\n",
            "# check=skip=JSONArgsRecommended\nFROM a\nCMD x\n",
            "# check=skip=all\nFROM a\nCMD x\nMAINTAINER y\n",
            "FROM a\nARG X\nFROM a\nARG HTTP=$PATH\nRUN echo $ANY\n",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
