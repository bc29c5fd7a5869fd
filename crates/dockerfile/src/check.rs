//! What is allowed and probably not meant: BuildKit's build checks, by their names.
//!
//! Source: Docker's reference of build checks.

mod rules;
mod statements;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::directive::CheckDirective;
use crate::expand::{Lexer, Variables};
use crate::graph::{Graph, GraphError};
use crate::ignore::Ignore;
use crate::instruction::{Instruction, NAMES};
use crate::nearest;
use crate::parse::{Dockerfile, Source, Stage, Statement};
use crate::position::{Position, Span};
use crate::scope::{Globals, Platform, Scope};

pub use rules::{address, description};

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
    /// Stages whose instructions count; all of them if it is not known which.
    pub stages: Option<BTreeSet<usize>>,
}

impl fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("graph", &self.graph).finish_non_exhaustive()
    }
}

/// Checks a file, in the order of its lines.
pub fn check(dockerfile: &Dockerfile, known: &Known<'_>) -> Vec<Warning> {
    let mut checker = Checker::new(dockerfile);
    checker.before_names(Some(&known.globals));
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        if known.stages.as_ref().is_some_and(|needed| !needed.contains(&index)) {
            continue;
        }
        checker.stage(stage, known.ignore);
        checker.shells(index, known.graph);
        checker.workdirs(index, known);
        checker.variables(index, known);
    }
    checker.asked_for()
}

/// What can be said of a file whose stages nobody knows, for one of them is wrong; of what follows FROM only with `globals`.
pub fn check_unresolved(dockerfile: &Dockerfile, globals: Option<&Globals>) -> Vec<Warning> {
    let mut checker = Checker::new(dockerfile);
    checker.before_names(globals);
    checker.asked_for()
}

/// The first mistake that shows only when variables have values, which ends a build.
pub fn first_failure(dockerfile: &Dockerfile, known: &Known<'_>) -> Option<GraphError> {
    let checker = Checker::new(dockerfile);
    let needed = |index: &usize| known.stages.as_ref().is_none_or(|needed| needed.contains(index));
    (0..dockerfile.stages.len()).filter(needed).find_map(|index| {
        let (source, error) = checker.unexpandable(index, known)?;
        Some(GraphError {
            file: dockerfile.file.clone(),
            span: Some(source.span),
            text: source.text.clone(),
            message: error.to_string(),
            hint: None,
        })
    })
}

/// Rules that are kept to only where `# check=experimental=` asks for them.
const EXPERIMENTAL: &[&str] = &["CopyIgnoredFile", "InvalidDefinitionDescription"];

struct Checker<'a> {
    dockerfile: &'a Dockerfile,
    found: Vec<Warning>,
    /// What stages end with, where that is known.
    ended: RefCell<HashMap<usize, Scope>>,
}

impl<'a> Checker<'a> {
    fn new(dockerfile: &'a Dockerfile) -> Self {
        Self { dockerfile, found: Vec::new(), ended: RefCell::default() }
    }

    /// What shows before names of stages are resolved, of all stages.
    fn before_names(&mut self, globals: Option<&Globals>) {
        self.casing();
        self.stages(globals);
        self.definitions();
        for stage in &self.dockerfile.stages {
            self.maintainers(stage);
            self.legacy(stage);
        }
    }

    /// What was found, as far as the file wants to hear it, in the order of its lines. What is experimental has to be asked for,
    /// and is then not skipped.
    fn asked_for(self) -> Vec<Warning> {
        let default = CheckDirective::default();
        let directive = self.dockerfile.directives.check.as_ref().unwrap_or(&default);
        let among =
            |list: &[String], rule: &str| list.iter().any(|name| name == "all" || name.eq_ignore_ascii_case(rule));
        let mut found = self.found;
        found.retain(|warning| match EXPERIMENTAL.contains(&warning.rule) {
            true => among(&directive.experimental, warning.rule),
            false => !among(&directive.skip, warning.rule),
        });
        found.sort_by_key(|warning| warning.span.start);
        found
    }

    fn warn(&mut self, rule: &'static str, source: &Source, message: impl Into<String>) {
        self.found.push(Warning { rule, message: message.into(), span: source.span });
    }

    /// The instructions of the stages with the word that they begin with; those before the first FROM do not count.
    fn words(&self) -> Vec<(Source, String)> {
        let stages = self.dockerfile.stages.iter().flat_map(|stage| {
            std::iter::once(&stage.from).chain(stage.statements.iter().map(|statement| &statement.source))
        });
        let word = |source: &Source| source.text.split_whitespace().next().unwrap_or_default().to_owned();
        stages.map(|source| (source.clone(), word(source))).collect()
    }

    fn maintainers(&mut self, stage: &Stage) {
        for Statement { instruction, source } in &stage.statements {
            if matches!(instruction, Instruction::Maintainer(_)) {
                let message = "Maintainer instruction is deprecated in favor of using label";
                self.warn("MaintainerDeprecated", source, message);
            }
        }
    }

    /// Comments above what an outline lists: they are descriptions, and begin with the name of what they describe.
    fn definitions(&mut self) {
        let file = self.dockerfile;
        let statements = file.globals.iter().chain(file.stages.iter().flat_map(|stage| &stage.statements));
        for Statement { instruction, source } in statements {
            if let Instruction::Arg(arguments) = instruction {
                self.definition("ARG", source, &arguments.iter().map(|a| a.name.as_str()).collect::<Vec<_>>());
            }
        }
        for stage in &file.stages {
            let written = stage.from.text.split_whitespace().next_back();
            self.definition(
                "FROM",
                &stage.from,
                &written.filter(|_| stage.name.is_some()).into_iter().collect::<Vec<_>>(),
            );
        }
    }

    fn definition(&mut self, instruction: &str, source: &Source, names: &[&str]) {
        let (Some(comment), Some(first)) = (source.comments.last(), names.first()) else { return };
        // An empty one ends the comment above it.
        if comment.is_empty() || names.iter().any(|name| comment.split(' ').next() == Some(name)) {
            return;
        }
        let name = if names.len() > 1 { "<arg_key>" } else { first };
        let message = format!("Comment for {instruction} should follow the format: `# {name} <description>`");
        self.warn("InvalidDefinitionDescription", source, message);
    }

    fn casing(&mut self) {
        let words = self.words();
        for statement in &self.dockerfile.globals {
            self.continuation(&statement.source);
        }
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
            self.continuation(&source);
        }
    }

    fn continuation(&mut self, source: &Source) {
        if source.empty_continuation {
            // With the last line of the instruction, as BuildKit tells it.
            let last = Position { line: source.span.end_line, column: 1 };
            let span = Span { start: last, end_line: last.line };
            self.found.push(Warning { rule: "NoEmptyContinuation", message: "Empty continuation line".into(), span });
        }
    }

    /// FROM lines: names, platforms, bases.
    fn stages(&mut self, globals: Option<&Globals>) {
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
            if let Some(globals) = globals {
                self.platform(stage, globals);
                self.base(stage, globals);
            }
        }
    }

    fn platform(&mut self, stage: &Stage, globals: &Globals) {
        let Some(platform) = &stage.platform else { return };
        let redundant = Lexer::new(self.dockerfile.directives.escape).expand(platform, globals).is_ok_and(|expanded| {
            let alone = expanded.used.len() == 1 && expanded.unset.is_empty();
            alone && expanded.used.contains("TARGETPLATFORM") && globals.value("TARGETPLATFORM") == Some(&expanded.text)
        });
        if redundant {
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

    fn base(&mut self, stage: &Stage, globals: &Globals) {
        let lexer = Lexer::new(self.dockerfile.directives.escape);
        let mut undeclared = BTreeSet::new();
        for text in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
            if let Ok(expanded) = lexer.expand(text, globals) {
                undeclared.extend(expanded.unset);
            }
        }
        for name in undeclared.iter().filter(|name| !globals.declares(name)) {
            let hint = nearest(name, globals.names()).map(|hint| format!(" (did you mean {hint}?)"));
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
            let global = expanded.used.iter().any(|name| globals.declares(name));
            if global && !is_image_name(&expanded.text) {
                let message =
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                self.warn("InvalidDefaultArgInFrom", &stage.from, message);
            }
        }
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
        let known = Known { globals, graph: &graph, ignore: &ignore, base_env: &env, stages: None };
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
            ("# check=experimental=all\nFROM a\nCOPY secret.txt /\n", "CopyIgnoredFile", 3),
            (
                "# check=experimental=InvalidDefinitionDescription\n\n# X y\nARG V\nFROM a\n",
                "InvalidDefinitionDescription",
                4,
            ),
            ("FROM a\nARG P=80:90\nEXPOSE $P\n", "ExposeInvalidFormat", 3),
            ("FROM --platform=${TARGETPLATFORM:-x} a\n", "RedundantTargetPlatform", 1),
            ("# check=skip=all;experimental=CopyIgnoredFile\nFROM a\nADD secret.txt /\n", "CopyIgnoredFile", 3),
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
            "# check=experimental=InvalidDefinitionDescription\n\n# no name\n#\nARG A\nFROM a\n",
            "FROM a\nARG X\nFROM a\nARG HTTP=$PATH\nRUN echo $ANY\n",
            "FROM a\nCOPY secret.txt /\n",
            "arg A\nFROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y\n",
            "# check=experimental=all\n\n# A and B\n# B both\nARG A B\n# base is it\nFROM a AS base\n# no name\nFROM b\n",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn thousands_of_stages_on_one_another_are_checked() {
        let mut text = "FROM scratch AS s0\nENV known=1\n".to_owned();
        for number in 1..4000 {
            text.push_str(&format!("FROM s{} AS s{number}\n", number - 1));
        }
        text.push_str("COPY $known $unknown /\n");
        let rules: Vec<&str> = std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(move || found(&text).into_iter().map(|(rule, _)| rule).collect())
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(rules, ["UndefinedVar"]);
    }
}
