//! What can be asked about a Dockerfile without a build of it: what checks find, what a target takes, which targets there are.
//!
//! Source: moby/buildkit `frontend/subrequests`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::{Known, Warning, check, check_unresolved, first_failure};
use crate::error::ParseErrors;
use crate::graph::{Contexts, Graph, GraphError};
use crate::ignore::Ignore;
use crate::outline::{Outline, Target};
use crate::parse::Dockerfile;
use crate::position::{Position, Span};
use crate::scope::{Globals, Platform, Platforms};

/// What is asked about.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    /// The file's name, for messages.
    pub file: &'a str,
    pub text: &'a str,
    /// The stage that is asked about; the last one without a name.
    pub target: Option<&'a str>,
    pub platform: Option<Platform>,
    /// `BUILDKIT_DOCKERFILE_CHECK` among them counts.
    pub arguments: BTreeMap<String, String>,
    pub contexts: Contexts,
}

/// A Dockerfile whose stages and variables are known.
#[derive(Debug)]
pub struct Called<'a> {
    pub file: &'a str,
    pub text: &'a str,
    pub dockerfile: Dockerfile,
    pub globals: Arc<Globals>,
    pub graph: Graph,
    /// A target was asked for: what it does not need does not count.
    targeted: bool,
}

/// What checks have found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lint {
    pub warnings: Vec<Warning>,
    /// Why a build of it would fail.
    pub failure: Option<LintFailure>,
}

/// Why a build of a file would fail before it has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintFailure {
    pub message: String,
    /// Lines that are wrong.
    pub spans: Vec<Span>,
}

impl From<&GraphError> for LintFailure {
    fn from(error: &GraphError) -> Self {
        Self { message: error.words(), spans: error.span.into_iter().collect() }
    }
}

impl From<&ParseErrors> for LintFailure {
    fn from(errors: &ParseErrors) -> Self {
        let words: Vec<String> = errors.iter().map(|error| error.words()).collect();
        let span = |position: Position| Span { start: position, end_line: position.line };
        Self { message: words.join("\n"), spans: errors.iter().map(|error| span(error.position)).collect() }
    }
}

impl<'a> Called<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// Why a build of it would fail, with the warnings of what could be read.
    pub fn read(asked: Asked<'a>) -> Result<Self, Lint> {
        let Asked { file, text, target, platform, arguments, contexts } = asked;
        let rules = arguments.get("BUILDKIT_DOCKERFILE_CHECK").cloned();
        let by_rules = |dockerfile: &mut Dockerfile| match &rules {
            Some(rules) => dockerfile.check_by(rules),
            None => Ok(()),
        };
        let mut dockerfile = Dockerfile::parse(file, text).map_err(|errors| {
            let begin = text_before(text, &errors).and_then(|text| Dockerfile::parse(file, text).ok());
            let mut warnings = Vec::new();
            if let Some(mut begin) = begin
                && by_rules(&mut begin).is_ok()
            {
                warnings = check_unresolved(&begin, None);
                // Of the whole file nobody knows which case most have.
                warnings.retain(|warning| warning.rule != "ConsistentInstructionCasing");
            }
            Lint { warnings, failure: Some(LintFailure::from(&errors)) }
        })?;
        by_rules(&mut dockerfile).map_err(|why| {
            let message = format!("BUILDKIT_DOCKERFILE_CHECK: {why}");
            Lint { warnings: Vec::new(), failure: Some(LintFailure { message, spans: Vec::new() }) }
        })?;
        let platforms = Platforms { build: Platform::host(), target: platform.unwrap_or_else(Platform::host) };
        let broken = |globals: Option<&Globals>, error: &GraphError| Lint {
            warnings: check_unresolved(&dockerfile, globals),
            failure: Some(LintFailure::from(error)),
        };
        let globals = Globals::new(&dockerfile, &platforms, target.unwrap_or_default(), arguments);
        let globals = Arc::new(globals.map_err(|error| broken(None, &error))?);
        let graph = Graph::new(&dockerfile, &globals, target, contexts);
        let graph = graph.map_err(|error| broken(Some(&globals), &error))?;
        let targeted = target.is_some_and(|target| !target.is_empty());
        Ok(Self { file, text, dockerfile, globals, graph, targeted })
    }

    /// What checks find; see [`Known`].
    pub fn lint(&self, ignore: &Ignore, base_env: &dyn Fn(usize) -> Option<Vec<(String, String)>>) -> Lint {
        let stages = self.targeted.then(|| self.graph.needed().into_iter().collect());
        let known = Known { globals: Arc::clone(&self.globals), graph: &self.graph, ignore, base_env, stages };
        let warnings = check(&self.dockerfile, &known);
        // Of a target that was asked for the graph has looked at it.
        let later = (!self.targeted).then(|| self.graph.nodes.iter().find_map(|node| node.later.clone())).flatten();
        let failure = later.or_else(|| first_failure(&self.dockerfile, &known));
        let failure = failure.as_ref().map(LintFailure::from);
        let forbidden = failure.is_none().then(|| forbidden(&self.dockerfile, &warnings)).flatten();
        let forbidden = forbidden.map(|message| LintFailure { message, spans: Vec::new() });
        Lint { failure: failure.or(forbidden), warnings }
    }

    /// What the target takes.
    pub fn outline(&self) -> Outline {
        Outline::of(&self.dockerfile, &self.globals, &self.graph)
    }

    pub fn targets(&self) -> Vec<Target> {
        Target::all(&self.dockerfile, &self.graph)
    }
}

/// Why a file may not be built that has `# check=error=true` and of which something was found.
pub fn forbidden(dockerfile: &Dockerfile, found: &[Warning]) -> Option<String> {
    let strict = dockerfile.directives.check.as_ref().is_some_and(|check| check.error);
    if !strict || found.is_empty() {
        return None;
    }
    let mut rules: Vec<&str> = Vec::new();
    for warning in found {
        if !rules.contains(&warning.rule) {
            rules.push(warning.rule);
        }
    }
    Some(format!("lint violation found for rules: {}", rules.join(", ")))
}

/// The lines before the first that is wrong.
fn text_before<'a>(text: &'a str, errors: &ParseErrors) -> Option<&'a str> {
    let first = errors.iter().map(|error| error.position.line).min()?;
    let lines = usize::try_from(first).ok()?.checked_sub(1)?;
    let length: usize = text.split_inclusive('\n').take(lines).map(str::len).sum();
    text.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lint(text: &str, arguments: &[(&str, &str)]) -> (Vec<&'static str>, Option<(String, Vec<u32>)>) {
        let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let read = Called::read(Asked { file: "f", text, arguments, ..Asked::default() });
        let lint = match read {
            Ok(called) => called.lint(&Ignore::default(), &|_| None),
            Err(lint) => lint,
        };
        let rules = lint.warnings.iter().map(|warning| warning.rule).collect();
        let lines = |failure: LintFailure| (failure.message, failure.spans.iter().map(|span| span.line()).collect());
        (rules, lint.failure.map(lines))
    }

    #[test]
    fn what_is_found_is_told_though_the_file_is_wrong() {
        let failing = |text: &str| {
            let (rules, failure) = lint(text, &[]);
            (rules, failure.unwrap())
        };
        let (rules, (message, lines)) = failing("FROM scratch AS Bad\nMAINTAINER me\nBADCMD\nRUM x\nCMD x\n");
        assert_eq!(rules, ["StageNameCasing", "MaintainerDeprecated"]);
        assert!(message.starts_with("dockerfile parse error on line 3: unknown instruction: BADCMD\n"), "{message}");
        assert_eq!(lines, [3, 4]);
        let (rules, (message, lines)) = failing("FROM --platform=$BULIDPLATFORM scratch\n");
        assert_eq!((rules.as_slice(), lines.as_slice()), (&["UndefinedArgInFrom"][..], &[1][..]));
        assert_eq!(message, "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)");
        let (rules, (message, lines)) = failing("ARG FOO=${FOO?bar}\nFROM scratch as x\n");
        assert_eq!((rules.as_slice(), lines.as_slice()), (&["FromAsCasing"][..], &[1][..]));
        assert_eq!(message, "failed to process \"${FOO?bar}\": FOO: bar");
        let (rules, (_, lines)) = failing("FROM scratch as base\nCOPY --from=later / /\nFROM scratch AS later\n");
        assert_eq!((rules.as_slice(), lines.as_slice()), (&["FromAsCasing"][..], &[2][..]));
    }

    #[test]
    fn rules_that_are_given_take_the_place_of_the_files_own() {
        let text = "#check=skip=all\nFROM scratch as base\ncopy x .\n";
        assert_eq!(lint(text, &[]), (vec![], None));
        let (rules, failure) = lint(text, &[("BUILDKIT_DOCKERFILE_CHECK", "error=true")]);
        assert_eq!(rules, ["FromAsCasing", "ConsistentInstructionCasing"]);
        let words = "lint violation found for rules: FromAsCasing, ConsistentInstructionCasing";
        assert_eq!(failure, Some((words.to_owned(), vec![])));
        let (_, failure) = lint(text, &[("BUILDKIT_DOCKERFILE_CHECK", "erorr=true")]);
        assert!(failure.unwrap().0.starts_with("BUILDKIT_DOCKERFILE_CHECK: "));
    }
}
