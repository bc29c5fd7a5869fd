//! What a Dockerfile can be asked for: its targets, and what one of them takes.

use std::collections::{BTreeMap, BTreeSet};

use crate::expand::Variables;
use crate::graph::{Base, Graph};
use crate::instruction::Instruction;
use crate::mount::MountKind;
use crate::parse::{Dockerfile, Source};
use crate::position::Span;
use crate::scope::Globals;

/// What a target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    pub name: Option<String>,
    pub description: Option<String>,
    pub arguments: Vec<OutlineArgument>,
    /// Names, and whether the build fails without them.
    pub secrets: Vec<(String, bool)>,
    pub agents: Vec<(String, bool)>,
}

/// An argument, with the value that it would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArgument {
    pub name: String,
    pub description: Option<String>,
    pub value: Option<String>,
    pub span: Span,
}

/// A stage that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Empty for one without a name.
    pub name: String,
    /// It is the one that is built when none is asked for.
    pub default: bool,
    pub description: Option<String>,
    pub base: String,
    pub platform: Option<String>,
    pub span: Span,
}

impl Outline {
    /// Of the graph's target, with all that it needs.
    pub fn of(dockerfile: &Dockerfile, globals: &Globals, graph: &Graph) -> Self {
        let stage = &dockerfile.stages[graph.target];
        let (mut arguments, mut seen) = (Vec::new(), BTreeSet::new());
        let (mut secrets, mut agents): (BTreeMap<String, bool>, BTreeMap<String, bool>) = Default::default();
        let needed = graph.needed();
        let own = needed.iter().flat_map(|stage| &dockerfile.stages[*stage].statements);
        for statement in dockerfile.globals.iter().chain(own) {
            match &statement.instruction {
                Instruction::Arg(all) => {
                    for argument in all.iter().filter(|argument| seen.insert(argument.name.clone())) {
                        let given = globals.build_arg(&argument.name).or_else(|| globals.value(&argument.name));
                        let value = given.or(argument.default.as_deref()).map(str::to_owned);
                        let description = described(&statement.source, &argument.name);
                        let (name, span) = (argument.name.clone(), statement.source.span);
                        arguments.push(OutlineArgument { name, description, value, span });
                    }
                }
                Instruction::Run(run) => {
                    for mount in run.mounts().unwrap_or_default() {
                        let last = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
                        let id = mount.id.clone().or_else(|| mount.target.as_ref().map(last)).unwrap_or_default();
                        match mount.kind {
                            MountKind::Secret => *secrets.entry(id).or_default() |= mount.required,
                            MountKind::Ssh => {
                                let id = if id.is_empty() { "default".to_owned() } else { id };
                                *agents.entry(id).or_default() |= mount.required;
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Self {
            name: stage.name.clone(),
            description: described(&stage.from, stage.name.as_deref().unwrap_or_default()),
            arguments,
            secrets: secrets.into_iter().collect(),
            agents: agents.into_iter().collect(),
        }
    }
}

impl Target {
    /// All of a Dockerfile.
    pub fn all(dockerfile: &Dockerfile, graph: &Graph) -> Vec<Self> {
        let last = dockerfile.stages.len() - 1;
        let one = |(number, stage): (usize, &crate::parse::Stage)| {
            let base = match &graph.nodes[number].base {
                Base::Stage(base) => dockerfile.stages[*base].label(*base),
                Base::Image(name) | Base::Context(name) => name.clone(),
                Base::Scratch => "scratch".to_owned(),
            };
            let name = stage.name.clone().unwrap_or_default();
            Self {
                default: number == last,
                description: described(&stage.from, &name),
                base,
                platform: graph.nodes[number].platform.as_ref().map(ToString::to_string),
                span: stage.from.span,
                name,
            }
        };
        dockerfile.stages.iter().enumerate().map(one).collect()
    }
}

/// The comment before an instruction that begins with the name: `# NAME what it is for`.
fn described(source: &Source, name: &str) -> Option<String> {
    let found = source.comments.iter().rev().find_map(|comment| {
        let rest = comment.trim_start_matches(['#', ' ']).strip_prefix(name)?;
        rest.starts_with(char::is_whitespace).then(|| rest.trim().to_owned())
    });
    found.filter(|_| !name.is_empty())
}
