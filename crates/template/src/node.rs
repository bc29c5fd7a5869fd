//! The tree of a template, and how Go writes it in messages.

use std::fmt;

use crate::Value;

pub(crate) type Nodes = Vec<Node>;

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    Range(Branch),
    With(Branch),
    Template { pos: usize, name: String, pipe: Option<Pipe> },
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) pipe: Pipe,
    pub(crate) list: Nodes,
    pub(crate) otherwise: Option<Nodes>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    pub(crate) pos: usize,
    pub(crate) assign: bool,
    pub(crate) declared: Vec<String>,
    pub(crate) commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) arguments: Vec<Argument>,
}

#[derive(Clone, Debug)]
pub(crate) struct Argument {
    pub(crate) pos: usize,
    pub(crate) kind: ArgumentKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ArgumentKind {
    Dot,
    Nil,
    Bool(bool),
    Number {
        text: String,
        value: Value,
    },
    String {
        quoted: String,
        text: String,
    },
    Field(Vec<String>),
    /// The name with its `$`, then fields.
    Variable(Vec<String>),
    Identifier(String),
    Chain(Box<Argument>, Vec<String>),
    Pipe(Pipe),
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.declared.is_empty() {
            let operator = if self.assign { "=" } else { ":=" };
            write!(f, "{} {operator} ", self.declared.join(", "))?;
        }
        for (at, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if at > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, argument) in self.arguments.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            match &argument.kind {
                ArgumentKind::Pipe(pipe) => write!(f, "{space}({pipe})")?,
                _ => write!(f, "{space}{argument}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ArgumentKind::Dot => f.write_str("."),
            ArgumentKind::Nil => f.write_str("nil"),
            ArgumentKind::Bool(value) => write!(f, "{value}"),
            ArgumentKind::Number { text, .. } => f.write_str(text),
            ArgumentKind::String { quoted, .. } => f.write_str(quoted),
            ArgumentKind::Field(names) => names.iter().try_for_each(|name| write!(f, ".{name}")),
            ArgumentKind::Variable(names) => f.write_str(&names.join(".")),
            ArgumentKind::Identifier(name) => f.write_str(name),
            ArgumentKind::Chain(inner, names) => {
                match &inner.kind {
                    ArgumentKind::Pipe(pipe) => write!(f, "({pipe})")?,
                    _ => write!(f, "{inner}")?,
                }
                names.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            ArgumentKind::Pipe(pipe) => write!(f, "{pipe}"),
        }
    }
}

/// Shows every chain of field names in the nodes to `look`, and an empty one wherever a value is taken as a whole.
pub(crate) fn fields(nodes: &Nodes, look: &mut impl FnMut(&[String])) {
    for node in nodes {
        match node {
            Node::Text(_) | Node::Break | Node::Continue => {}
            Node::Action(pipe) => pipe_fields(pipe, look),
            Node::Template { pipe, .. } => pipe.iter().for_each(|pipe| pipe_fields(pipe, look)),
            Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
                pipe_fields(&branch.pipe, look);
                fields(&branch.list, look);
                branch.otherwise.iter().for_each(|nodes| fields(nodes, look));
            }
        }
    }
}

/// Whether `json .` or `json $` is somewhere in the nodes.
pub(crate) fn writes_all(nodes: &Nodes) -> bool {
    let whole = |pipe: &Pipe| {
        let mut arguments = pipe.commands.iter().flat_map(|command| &command.arguments);
        let has_json = arguments.clone().any(|a| matches!(&a.kind, ArgumentKind::Identifier(name) if name == "json"));
        has_json
            && arguments.any(|argument| match &argument.kind {
                ArgumentKind::Dot => true,
                ArgumentKind::Variable(names) => names.len() == 1,
                _ => false,
            })
    };
    nodes.iter().any(|node| match node {
        Node::Action(pipe) => whole(pipe),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
            whole(&branch.pipe) || writes_all(&branch.list) || branch.otherwise.as_ref().is_some_and(writes_all)
        }
        _ => false,
    })
}

fn pipe_fields(pipe: &Pipe, look: &mut impl FnMut(&[String])) {
    pipe.commands.iter().flat_map(|command| &command.arguments).for_each(|argument| argument_fields(argument, look));
}

fn argument_fields(argument: &Argument, look: &mut impl FnMut(&[String])) {
    match &argument.kind {
        ArgumentKind::Dot => look(&[]),
        ArgumentKind::Field(names) => look(names),
        ArgumentKind::Variable(names) => look(&names[1..]),
        ArgumentKind::Chain(inner, names) => {
            argument_fields(inner, look);
            look(names);
        }
        ArgumentKind::Pipe(pipe) => pipe_fields(pipe, look),
        _ => {}
    }
}
