//! What a Dockerfile can be asked for: its targets, and what one of them takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::expand::{Lexer, Variables};
use crate::graph::{Base, Graph};
use crate::instruction::{Argument, Instruction};
use crate::mount::MountKind;
use crate::parse::{Dockerfile, Source};
use crate::position::Span;
use crate::scope::{Globals, Scope};

/// What a target takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    pub name: Option<String>,
    pub description: Option<String>,
    pub arguments: Vec<OutlineArgument>,
    pub secrets: Vec<OutlineNeed>,
    pub agents: Vec<OutlineNeed>,
}

/// An argument, with the value that it would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineArgument {
    pub name: String,
    pub description: Option<String>,
    pub value: Option<String>,
    pub span: Span,
}

/// A secret or an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlineNeed {
    pub name: String,
    /// The build fails without it.
    pub required: bool,
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
    /// As it is written.
    pub platform: Option<String>,
    pub span: Span,
}

impl Outline {
    /// Of the graph's target, with all that it needs: each argument, secret and agent once.
    pub fn of(dockerfile: &Dockerfile, globals: &Arc<Globals>, graph: &Graph) -> Self {
        let stage = &dockerfile.stages[graph.target];
        let lexer = Lexer::new(dockerfile.directives.escape);
        let mut outline = Self {
            name: stage.name.clone(),
            description: described(&stage.from, stage.name.as_deref().unwrap_or_default()),
            ..Self::default()
        };
        let needed: BTreeSet<usize> = graph.needed().into_iter().collect();
        // Of the arguments of the whole file those that a FROM uses.
        let mut used = BTreeSet::new();
        for stage in needed.iter().map(|stage| &dockerfile.stages[*stage]) {
            for text in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
                used.extend(lexer.expand(text, &**globals).map(|expanded| expanded.used).unwrap_or_default());
            }
        }
        // And what the defaults of these use, which come before them.
        for argument in dockerfile.global_arguments().collect::<Vec<_>>().into_iter().rev() {
            if used.contains(&argument.name)
                && let Some(default) = &argument.default
            {
                used.extend(lexer.expand(default, &**globals).map(|expanded| expanded.used).unwrap_or_default());
            }
        }
        for statement in &dockerfile.globals {
            let Instruction::Arg(all) = &statement.instruction else { continue };
            for argument in all.iter().filter(|argument| used.contains(&argument.name)) {
                let value = globals.value(&argument.name).map(str::to_owned);
                outline.argument(&statement.source, argument, value);
            }
        }
        let mut scopes: BTreeMap<usize, Scope> = BTreeMap::new();
        for index in needed {
            let base = match graph.nodes[index].base {
                Base::Stage(base) => scopes.get(&base).cloned(),
                _ => None,
            };
            let mut scope = base.unwrap_or_else(|| Scope::new(Arc::clone(globals), Vec::new()));
            for statement in &dockerfile.stages[index].statements {
                outline.statement(dockerfile, &mut scope, &statement.instruction, &statement.source);
            }
            scopes.insert(index, scope);
        }
        outline
    }

    fn statement(&mut self, dockerfile: &Dockerfile, scope: &mut Scope, instruction: &Instruction, source: &Source) {
        let escape = dockerfile.directives.escape;
        match instruction {
            Instruction::Arg(all) => {
                for argument in all {
                    let value = scope.declare(argument, escape).ok().flatten();
                    // What only takes on an argument of the whole file is described there.
                    let global = dockerfile.globals.iter().find(|statement| {
                        let Instruction::Arg(all) = &statement.instruction else { return false };
                        argument.default.is_none() && all.iter().any(|global| global.name == argument.name)
                    });
                    self.argument(global.map_or(source, |statement| &statement.source), argument, value);
                }
            }
            Instruction::Env(_) => {
                if let Ok(Instruction::Env(pairs)) = instruction.expand(escape, scope) {
                    pairs.iter().for_each(|pair| scope.set(&pair.name, &pair.value));
                }
            }
            Instruction::Run(_) => {
                // Their IDs may have variables.
                let Ok(Instruction::Run(run)) = instruction.expand(escape, scope) else { return };
                for mount in run.mounts().unwrap_or_default() {
                    let last = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
                    match mount.kind {
                        MountKind::Secret => {
                            let id = mount.id.clone().or_else(|| mount.target.as_ref().map(last));
                            need(&mut self.secrets, source, id.unwrap_or_default(), mount.required);
                        }
                        MountKind::Ssh => {
                            let id = mount.id.clone().unwrap_or_else(|| "default".into());
                            need(&mut self.agents, source, id, mount.required);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn argument(&mut self, source: &Source, argument: &Argument, value: Option<String>) {
        let description = described(source, &argument.name);
        match self.arguments.iter_mut().find(|old| old.name == argument.name) {
            // A later one says more only if it has a value or a description.
            Some(old) => {
                old.value = value.or_else(|| old.value.take());
                old.description = description.or_else(|| old.description.take());
            }
            None => {
                let (name, span) = (argument.name.clone(), source.span);
                self.arguments.push(OutlineArgument { name, description, value, span });
            }
        }
    }
}

fn need(all: &mut Vec<OutlineNeed>, source: &Source, name: String, required: bool) {
    match all.iter_mut().find(|old| old.name == name) {
        Some(old) => old.required |= required,
        None => all.push(OutlineNeed { name, required, span: source.span }),
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
                platform: stage.platform.clone(),
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
