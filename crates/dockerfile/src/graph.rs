//! Stages: what each begins with, what it copies from, and which of them a target needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::expand::{ExpandError, Lexer, NoVariables};
use crate::instruction::Instruction;
use crate::nearest;
use crate::parse::{Dockerfile, Source};
use crate::position::Span;
use crate::scope::{Globals, Platform};

/// What a stage begins with, or what is copied from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// Nothing.
    Scratch,
    Stage(usize),
    Image(String),
    /// Files that the request gives under this name.
    Context(String),
}

/// What the request gives under names of its own (`--build-context`): they stand for stages and images of these names.
pub type Contexts = BTreeMap<String, Base>;

/// One stage with its names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub base: Base,
    pub platform: Option<Platform>,
    /// Stages that its instructions take files from.
    pub copies: BTreeSet<usize>,
    /// The request gives something under the stage's own name: its instructions do not count.
    pub replaced: bool,
    /// Why it cannot be built: it needs a stage that comes later. Nobody minds as long as nobody needs it.
    pub later: Option<GraphError>,
}

/// All stages and the one that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub target: usize,
    pub contexts: Contexts,
}

/// A mistake that shows only when names and variables are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphError {
    pub file: String,
    /// Where the instruction is, and its text; neither when the target is not there.
    pub span: Option<Span>,
    pub text: String,
    pub message: String,
    pub hint: Option<String>,
}

impl GraphError {
    /// What is wrong, and what would not be.
    pub fn words(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(" (did you mean {hint}?)"));
        format!("{}{}", self.message, hint.unwrap_or_default())
    }

    /// `Dockerfile:3:1: COPY --from=later / /`.
    pub fn place(&self) -> Option<String> {
        self.span.map(|span| format!("{}:{}: {}", self.file, span.start, self.text))
    }
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words())?;
        match self.place() {
            Some(place) => write!(f, "\n  {place}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for GraphError {}

impl Graph {
    /// Resolves the stages of a file.
    ///
    /// # Errors
    /// For a base without a name, a platform that is none, stages that need each other, and a target that is not
    /// there; the message points at the line.
    pub fn new(
        dockerfile: &Dockerfile,
        globals: &Globals,
        target: Option<&str>,
        contexts: Contexts,
    ) -> Result<Self, GraphError> {
        let mut nodes = Vec::new();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let fail = |message: String| error(dockerfile, Some(&stage.from), message);
            let unexpanded = |e: ExpandError| fail(e.to_string());
            let lexer = Lexer::new(dockerfile.directives.escape);
            let base = lexer.expand(&stage.base, globals).map_err(unexpanded)?;
            if base.text.is_empty() {
                let message = format!("base name ({}) should not be blank", stage.base);
                return Err(GraphError { hint: hint(&base.unset, globals), ..fail(message) });
            }
            let platform = match &stage.platform {
                None => None,
                Some(text) => {
                    let expanded = lexer.expand(text, globals).map_err(unexpanded)?;
                    let with_hint = |message| GraphError { hint: hint(&expanded.unset, globals), ..fail(message) };
                    if expanded.text.is_empty() {
                        return Err(with_hint(format!("empty platform value from expression {text}")));
                    }
                    let parsed = Platform::parse(&expanded.text);
                    Some(parsed.map_err(|e| with_hint(format!("failed to parse platform {text}: {e}")))?)
                }
            };
            let given = stage.name.as_deref().and_then(|name| contexts.get(name));
            // Only stages above: a stage may have the name of the image that it is based on.
            let base = match (given, base.text.as_str()) {
                (Some(given), _) => given.clone(),
                (None, name) => match find(dockerfile, &name.to_lowercase(), index) {
                    Some(stage) => Base::Stage(stage),
                    None if name == "scratch" => Base::Scratch,
                    None => named(&contexts, name).unwrap_or_else(|| Base::Image(name.to_owned())),
                },
            };
            let replaced = given.is_some();
            let mut node = Node { base, platform, copies: BTreeSet::new(), replaced, later: None };
            if !replaced {
                (node.copies, node.later) = copies(dockerfile, index, &contexts)?;
            }
            nodes.push(node);
        }
        let target = find_target(dockerfile, target)?;
        let graph = Self { nodes, target, contexts };
        match graph.needed().into_iter().find_map(|stage| graph.nodes.get(stage)?.later.clone()) {
            Some(error) => Err(error),
            None => Ok(graph),
        }
    }

    /// The stages that the target needs, in the order in which they can be built.
    pub fn needed(&self) -> Vec<usize> {
        let mut needed = BTreeSet::new();
        let mut open = vec![self.target];
        while let Some(stage) = open.pop() {
            if !needed.insert(stage) {
                continue;
            }
            let Some(node) = self.nodes.get(stage) else { continue };
            open.extend(&node.copies);
            if let Base::Stage(base) = node.base {
                open.push(base);
            }
        }
        needed.into_iter().collect()
    }

    /// How many instructions of a stage count.
    pub fn statements(&self, dockerfile: &Dockerfile, stage: usize) -> usize {
        let replaced = self.nodes.get(stage).is_some_and(|node| node.replaced);
        if replaced { 0 } else { dockerfile.stages.get(stage).map_or(0, |stage| stage.statements.len()) }
    }

    /// What a `--from` in the stage `index` means.
    ///
    /// # Errors
    /// When it is a stage that comes later, is the stage itself, or is not there.
    pub fn resolve_from(
        dockerfile: &Dockerfile,
        index: usize,
        from: &str,
        source: &Source,
        contexts: &Contexts,
    ) -> Result<Base, GraphError> {
        let fail = |message: String| error(dockerfile, Some(source), message);
        if from.contains('$') && Lexer::new('\\').expand(from, &NoVariables).is_ok_and(|e| e.text != from) {
            return Err(fail(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                 scope as a workaround"
                    .into(),
            ));
        }
        let stages = dockerfile.stages.len();
        let found = match from.parse::<usize>() {
            Ok(number) if number < stages => Some(number),
            Ok(number) => return Err(fail(format!("invalid stage index {number}"))),
            Err(_) => find(dockerfile, &from.to_lowercase(), stages),
        };
        let name = |stage: usize| dockerfile.stages[stage].label(stage);
        match found {
            Some(stage) if stage == index => {
                Err(fail(format!("circular dependency detected on stage: {}", name(stage))))
            }
            Some(stage) if stage > index => Err(comes_later(dockerfile, index, from, source)),
            Some(stage) => Ok(Base::Stage(stage)),
            None if from == "scratch" => Ok(Base::Scratch),
            None => Ok(named(contexts, from).unwrap_or_else(|| Base::Image(from.to_owned()))),
        }
    }
}

fn comes_later(dockerfile: &Dockerfile, index: usize, from: &str, source: &Source) -> GraphError {
    let name = dockerfile.stages[index].label(index);
    let message = format!("cannot copy from stage {from:?}, it needs to be defined before current stage {name:?}");
    error(dockerfile, Some(source), message)
}

/// What the request gives under the name of an image; `:latest` may be left out.
fn named(contexts: &Contexts, name: &str) -> Option<Base> {
    let name = name.to_lowercase();
    let found = contexts.get(&name).or_else(|| contexts.get(name.strip_suffix(":latest")?));
    found.or_else(|| contexts.get(&format!("{name}:latest"))).cloned()
}

pub(crate) fn error(dockerfile: &Dockerfile, source: Option<&Source>, message: String) -> GraphError {
    GraphError {
        file: dockerfile.file.clone(),
        span: source.map(|source| source.span),
        text: source.map(|source| source.text.clone()).unwrap_or_default(),
        message,
        hint: None,
    }
}

fn hint(unset: &BTreeSet<String>, globals: &Globals) -> Option<String> {
    unset.iter().find_map(|name| nearest(name, globals.names()).map(str::to_owned))
}

/// The last stage of this name before `end`: a later one hides it.
fn find(dockerfile: &Dockerfile, name: &str, end: usize) -> Option<usize> {
    dockerfile.stages[..end].iter().rposition(|stage| stage.name.as_deref() == Some(name))
}

fn find_target(dockerfile: &Dockerfile, target: Option<&str>) -> Result<usize, GraphError> {
    let last = dockerfile.stages.len() - 1;
    let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(last) };
    if let Some(found) = find(dockerfile, &target.to_lowercase(), last + 1) {
        return Ok(found);
    }
    if let Ok(number) = target.parse::<usize>()
        && number <= last
    {
        return Ok(number);
    }
    let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
    let hint = nearest(target, names).map(str::to_owned);
    Err(GraphError { hint, ..error(dockerfile, None, format!("target stage {target:?} could not be found")) })
}

/// Stages that the instructions of a stage take files from, and the first mistake that only counts if it is needed.
fn copies(
    dockerfile: &Dockerfile,
    index: usize,
    contexts: &Contexts,
) -> Result<(BTreeSet<usize>, Option<GraphError>), GraphError> {
    let (mut copies, mut later) = (BTreeSet::new(), None);
    for statement in &dockerfile.stages[index].statements {
        let froms = match &statement.instruction {
            Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
            Instruction::Run(run) => run.froms(),
            _ => continue,
        };
        for from in froms {
            match Graph::resolve_from(dockerfile, index, &from, &statement.source, contexts) {
                Ok(Base::Stage(stage)) => drop(copies.insert(stage)),
                Ok(_) => {}
                Err(error) if error == comes_later(dockerfile, index, &from, &statement.source) => {
                    later = later.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok((copies, later))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scope::Platforms;

    fn graph(text: &str, target: Option<&str>) -> Result<Graph, GraphError> {
        graph_with(text, target, Contexts::new())
    }

    fn graph_with(text: &str, target: Option<&str>, contexts: Contexts) -> Result<Graph, GraphError> {
        let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
        let platforms = Platforms { build: Platform::host(), target: Platform::host() };
        let globals = Globals::new(&dockerfile, &platforms, "", BTreeMap::new()).unwrap();
        Graph::new(&dockerfile, &globals, target, contexts)
    }

    #[test]
    fn named_contexts_stand_for_images_and_stages() {
        let local = |name: &str| (name.to_owned(), Base::Context(name.to_owned()));
        let contexts =
            Contexts::from([local("src"), local("right"), ("debian".to_owned(), Base::Image("busybox@x".into()))]);
        let text = "FROM debian:latest AS left\nFROM left AS right\nCOPY --from=0 a b\nFROM left\nCOPY --from=src x y\n\
                    COPY --from=right x y\n";
        let graph = graph_with(text, None, contexts).unwrap();
        assert_eq!(graph.nodes[0].base, Base::Image("busybox@x".into()));
        assert!(graph.nodes[1].replaced && graph.nodes[1].copies.is_empty());
        assert_eq!(graph.nodes[1].base, Base::Context("right".into()));
        assert_eq!((graph.needed(), graph.nodes[2].copies.len()), (vec![0, 1, 2], 1));
    }

    const FILE: &str = "ARG BASE=debian
FROM $BASE AS base
FROM base AS left
FROM scratch AS right
COPY --from=0 /a /a
FROM base AS unused
FROM base
COPY --from=left /x /x
RUN --mount=type=bind,from=right,target=/m true
COPY --from=busybox /bin/busybox /
";

    #[test]
    fn only_what_the_target_needs() {
        let whole = graph(FILE, None).unwrap();
        assert_eq!((whole.target, whole.needed()), (4, vec![0, 1, 2, 4]));
        assert_eq!(whole.nodes[0].base, Base::Image("debian".into()));
        assert_eq!(whole.nodes[2].base, Base::Scratch);
        assert_eq!(graph(FILE, Some("LEFT")).unwrap().needed(), [0, 1]);
        assert_eq!(graph(FILE, Some("2")).unwrap().needed(), [0, 2]);
    }

    #[test]
    fn a_name_is_that_of_the_last_stage_above() {
        let graph = graph("FROM alpine AS alpine\nFROM alpine AS alpine\nFROM alpine\n", None).unwrap();
        assert_eq!(graph.nodes[0].base, Base::Image("alpine".into()));
        assert_eq!((&graph.nodes[1].base, &graph.nodes[2].base), (&Base::Stage(0), &Base::Stage(1)));
    }

    #[test]
    fn what_cannot_be_resolved_is_said_with_its_line() {
        for (text, target, message, line) in [
            ("FROM $NOTHING\n", None, "base name ($NOTHING) should not be blank", 1),
            ("FROM a AS x\nCOPY --from=x a b\n", None, "circular dependency detected on stage: x", 2),
            ("FROM a AS x\nCOPY --from=5 a b\n", None, "invalid stage index 5", 2),
            ("FROM --platform=$X a\n", None, "empty platform value from expression $X", 1),
            ("FROM a\n", Some("nope"), "target stage \"nope\" could not be found", 0),
            (
                "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\n",
                Some("x"),
                "cannot copy from stage \"y\", it needs to be defined before current stage \"x\"",
                2,
            ),
        ] {
            let error = graph(text, target).unwrap_err();
            assert_eq!(error.message, message);
            assert_eq!(error.span.map_or(0, |span| span.line()), line, "{message}");
        }
        // As long as nobody needs it.
        assert!(graph("FROM a AS x\nCOPY --from=y a b\nFROM a AS y\n", None).is_ok());
        let error = graph("FROM a\nCOPY --from=$x a b\n", None).unwrap_err();
        assert!(error.message.starts_with("variable expansion is not supported for --from"));
        assert_eq!(graph("ARG BASE=x\nFROM $BAES\n", None).unwrap_err().hint.as_deref(), Some("BASE"));
        assert_eq!(graph("FROM a AS build\n", Some("biuld")).unwrap_err().hint.as_deref(), Some("build"));
    }
}
