//! Applies a template's tree to a value.

use crate::node::{Argument, ArgumentKind, Branch, Command, Node, Nodes, Pipe};
use crate::{MissingKey, Result, Template, TemplateError, Value, functions, print};

/// Templates that call each other deeper than this are taken for endless.
const MAX_DEPTH: usize = 100;

pub(crate) fn execute(template: &Template, data: &Value, output: &mut String, titles: bool) -> Result<()> {
    let variables = vec![("$".to_owned(), data.clone())];
    let mut state = State { template, name: &template.name, variables, output, depth: 0, titles };
    state.nodes(data, &template.root).map(|_| ())
}

struct State<'a> {
    template: &'a Template,
    name: &'a str,
    variables: Vec<(String, Value)>,
    output: &'a mut String,
    depth: usize,
    /// The data are titles: what would change a text leaves it alone.
    titles: bool,
}

/// How a list of nodes was left.
#[derive(PartialEq, Eq)]
enum Flow {
    Done,
    Break,
    Continue,
}

impl<'a> State<'a> {
    fn fail<T>(&self, pos: usize, context: &str, message: impl Into<String>) -> Result<T> {
        let before = self.template.text.get(..pos).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        Err(TemplateError::Execute {
            file: self.template.name.clone(),
            line: 1 + before.matches('\n').count(),
            column: pos - start,
            name: self.name.to_owned(),
            context: context.to_owned(),
            message: message.into(),
        })
    }

    fn nodes(&mut self, dot: &Value, nodes: &'a Nodes) -> Result<Flow> {
        for node in nodes {
            match node {
                Node::Text(text) => self.output.push_str(text),
                Node::Action(pipe) => {
                    let value = self.pipe(dot, pipe)?;
                    if pipe.declared.is_empty() {
                        self.output.push_str(&print::output(&value));
                    }
                }
                Node::If(branch) => {
                    let flow = self.condition(dot, branch, false)?;
                    if flow != Flow::Done {
                        return Ok(flow);
                    }
                }
                Node::With(branch) => {
                    let flow = self.condition(dot, branch, true)?;
                    if flow != Flow::Done {
                        return Ok(flow);
                    }
                }
                Node::Range(branch) => self.range(dot, branch)?,
                Node::Template { pos, name, pipe } => self.invoke(dot, *pos, name, pipe.as_ref())?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::Done)
    }

    fn condition(&mut self, dot: &Value, branch: &'a Branch, with: bool) -> Result<Flow> {
        let mark = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let flow = if value.is_true() {
            self.nodes(if with { &value } else { dot }, &branch.list)
        } else if let Some(otherwise) = &branch.otherwise {
            self.nodes(dot, otherwise)
        } else {
            Ok(Flow::Done)
        };
        self.variables.truncate(mark);
        flow
    }

    fn range(&mut self, dot: &Value, branch: &'a Branch) -> Result<()> {
        let outer = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let mark = self.variables.len();
        let pairs: Vec<(Value, Value)> = match &value {
            Value::List(list) => {
                list.items.iter().enumerate().map(|(at, item)| (Value::Int(at as i64), item.clone())).collect()
            }
            Value::Map(map) => map.sorted().into_iter().map(|(key, item)| (Value::text(key), item.clone())).collect(),
            Value::Int(count) => (0..*count).map(|at| (Value::Int(at), Value::Int(at))).collect(),
            Value::Missing | Value::Null => Vec::new(),
            other => {
                let shown = print::plain(other);
                let message = format!("range can't iterate over {shown}");
                return self.fail(branch.pipe.pos, &branch.pipe.to_string(), message);
            }
        };
        if pairs.is_empty()
            && let Some(otherwise) = &branch.otherwise
        {
            self.nodes(dot, otherwise)?;
        }
        for (key, item) in pairs {
            let declared = &branch.pipe.declared;
            match declared.as_slice() {
                [one] => self.set(one, item.clone()),
                [first, second] => {
                    self.set(first, key);
                    self.set(second, item.clone());
                }
                _ => {}
            }
            let flow = self.nodes(&item, &branch.list)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn invoke(&mut self, dot: &Value, pos: usize, name: &'a str, pipe: Option<&Pipe>) -> Result<()> {
        let template = self.template;
        let Some(nodes) = template.defined.get(name) else {
            let shown = format!("{{{{template {}}}}}", print::quote(name));
            return self.fail(pos, &shown, format!("template {} not defined", print::quote(name)));
        };
        if self.depth == MAX_DEPTH {
            return self.fail(pos, name, format!("exceeded maximum template depth ({MAX_DEPTH})"));
        }
        let value = pipe.map_or(Ok(Value::Null), |pipe| self.pipe(dot, pipe))?;
        let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), value.clone())]);
        let caller = std::mem::replace(&mut self.name, name);
        self.depth += 1;
        self.nodes(&value, nodes)?;
        self.depth -= 1;
        self.name = caller;
        self.variables = outer;
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value) {
        match self.variables.iter_mut().rev().find(|(known, _)| known == name) {
            Some(variable) => variable.1 = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipe(&mut self, dot: &Value, pipe: &Pipe) -> Result<Value> {
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or_default();
        for name in &pipe.declared {
            if pipe.assign {
                self.set(name, value.clone());
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, dot: &Value, command: &Command, last: Option<Value>) -> Result<Value> {
        let Some((first, rest)) = command.arguments.split_first() else { return Ok(Value::Missing) };
        let extra = !rest.is_empty() || last.is_some();
        match &first.kind {
            ArgumentKind::Field(names) => self.fields(dot, dot, first, names, rest, last),
            ArgumentKind::Variable(names) if names.len() > 1 => {
                let value = self.variable(&names[0]);
                self.fields(dot, &value, first, &names[1..], rest, last)
            }
            ArgumentKind::Chain(inner, names) => {
                let value = self.argument(dot, inner)?;
                self.fields(dot, &value, first, names, rest, last)
            }
            ArgumentKind::Identifier(name) => self.function(dot, name, first, rest, last),
            ArgumentKind::Nil => self.fail(first.pos, "nil", "nil is not a command"),
            _ if extra => {
                let shown = first.to_string();
                self.fail(first.pos, &shown, format!("can't give argument to non-function {shown}"))
            }
            _ => self.argument(dot, first),
        }
    }

    fn variable(&self, name: &str) -> Value {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found.map_or(Value::Missing, |(_, value)| value.clone())
    }

    fn argument(&mut self, dot: &Value, argument: &Argument) -> Result<Value> {
        match &argument.kind {
            ArgumentKind::Dot => Ok(dot.clone()),
            ArgumentKind::Nil => Ok(Value::Null),
            ArgumentKind::Bool(value) => Ok(Value::Bool(*value)),
            ArgumentKind::Number { value, .. } => Ok(value.clone()),
            ArgumentKind::String { text, .. } => Ok(Value::text(text)),
            ArgumentKind::Field(names) => self.fields(dot, dot, argument, names, &[], None),
            ArgumentKind::Variable(names) => {
                let value = self.variable(&names[0]);
                self.fields(dot, &value, argument, &names[1..], &[], None)
            }
            ArgumentKind::Chain(inner, names) => {
                let value = self.argument(dot, inner)?;
                self.fields(dot, &value, argument, names, &[], None)
            }
            ArgumentKind::Identifier(name) => self.function(dot, name, argument, &[], None),
            ArgumentKind::Pipe(pipe) => self.pipe(dot, pipe),
        }
    }

    fn arguments(&mut self, dot: &Value, rest: &[Argument], last: Option<Value>) -> Result<Vec<Value>> {
        let mut values = Vec::with_capacity(rest.len() + 1);
        for argument in rest {
            values.push(self.argument(dot, argument)?);
        }
        values.extend(last);
        Ok(values)
    }

    /// A chain of fields; only the last of them may take arguments.
    fn fields(
        &mut self,
        dot: &Value,
        start: &Value,
        node: &Argument,
        names: &[String],
        rest: &[Argument],
        last: Option<Value>,
    ) -> Result<Value> {
        let mut value = start.clone();
        // Go names the type that the program declares: inside plain JSON that is `interface {}`.
        let mut declared: Option<&str> = None;
        for (at, name) in names.iter().enumerate() {
            let is_last = at + 1 == names.len();
            let given = is_last && (!rest.is_empty() || last.is_some());
            let found = match self.field(&value, declared, name) {
                Ok(found) => found,
                Err(message) => return self.fail(node.pos, &node.to_string(), message),
            };
            declared = match &value {
                Value::Map(map) if matches!(map.element, crate::Type::Any) => Some("interface {}"),
                _ => None,
            };
            value = match found {
                Value::Method(method) => {
                    let arguments = if is_last { self.arguments(dot, rest, last.clone())? } else { Vec::new() };
                    match method.call(&arguments) {
                        Ok(result) => result,
                        Err(message) => {
                            let message = message.replace("{name}", name);
                            return self.fail(node.pos, &node.to_string(), message);
                        }
                    }
                }
                _ if given => {
                    let message = match &value {
                        Value::Map(_) => format!("{name} is not a method but has arguments"),
                        _ => format!("{name} has arguments but cannot be invoked as function"),
                    };
                    return self.fail(node.pos, &node.to_string(), message);
                }
                other => other,
            };
        }
        if names.is_empty() && (!rest.is_empty() || last.is_some()) {
            let shown = node.to_string();
            return self.fail(node.pos, &shown, format!("can't give argument to non-function {shown}"));
        }
        Ok(value)
    }

    fn field(&self, value: &Value, declared: Option<&str>, name: &str) -> std::result::Result<Value, String> {
        match value {
            Value::Missing if self.template.missing_key == MissingKey::Error => {
                Err(format!("nil data; no entry for key {}", print::quote(name)))
            }
            Value::Missing => Ok(Value::Missing),
            Value::Null => Err(format!("nil pointer evaluating interface {{}}.{name}")),
            Value::NilPointer(kind) => Err(format!("nil pointer evaluating *{}.{name}", kind.name())),
            Value::Map(map) => match map.get(name) {
                Some(found) => Ok(found.clone()),
                None if self.template.missing_key == MissingKey::Error => {
                    Err(format!("map has no entry for key {}", print::quote(name)))
                }
                None => Ok(Value::Missing),
            },
            Value::Struct(object) => object
                .get(name)
                .cloned()
                .ok_or_else(|| format!("can't evaluate field {name} in type {}", declared.unwrap_or(&object.name))),
            Value::Duration(nanoseconds) if duration_in(*nanoseconds, name).is_some() => {
                Ok(duration_in(*nanoseconds, name).unwrap_or_default())
            }
            other => {
                let kind = declared.map_or_else(|| other.type_name(), str::to_owned);
                Err(format!("can't evaluate field {name} in type {kind}"))
            }
        }
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &str,
        node: &Argument,
        rest: &[Argument],
        last: Option<Value>,
    ) -> Result<Value> {
        if matches!(name, "and" | "or") {
            return self.short_circuit(dot, name, node, rest, last);
        }
        let arguments = self.arguments(dot, rest, last)?;
        if self.titles && functions::changes_text(name) {
            return Ok(arguments.into_iter().next().unwrap_or_default());
        }
        functions::call(name, &arguments).or_else(|problem| match problem {
            functions::Problem::Call(message) => {
                // The whole command is to blame.
                let words: Vec<String> = std::iter::once(node).chain(rest).map(shown).collect();
                self.fail(node.pos, &words.join(" "), format!("error calling {name}: {message}"))
            }
            functions::Problem::Count { want } => {
                let message = format!("wrong number of args for {name}: want {want} got {}", arguments.len());
                self.fail(node.pos, &node.to_string(), message)
            }
            functions::Problem::Argument { at, message } => {
                let Some(argument) = rest.get(at) else { return self.fail(node.pos, &node.to_string(), message) };
                let text = argument.to_string();
                let message = match (&argument.kind, message.contains("expected int")) {
                    (ArgumentKind::Number { .. } | ArgumentKind::Bool(_), false) => {
                        format!("expected string; found {text}")
                    }
                    (ArgumentKind::String { .. } | ArgumentKind::Bool(_), true) => {
                        format!("expected integer; found {text}")
                    }
                    _ => message,
                };
                self.fail(argument.pos, &text, message)
            }
        })
    }

    /// `and` and `or` look at no more of their arguments than they need.
    fn short_circuit(
        &mut self,
        dot: &Value,
        name: &str,
        node: &Argument,
        rest: &[Argument],
        last: Option<Value>,
    ) -> Result<Value> {
        let decided = |value: &Value| value.is_true() == (name == "or");
        let mut value = None;
        for argument in rest {
            let next = self.argument(dot, argument)?;
            if decided(&next) {
                return Ok(next);
            }
            value = Some(next);
        }
        match last.or(value) {
            Some(value) => Ok(value),
            None => {
                let message = format!("wrong number of args for {name}: want at least 1 got 0");
                self.fail(node.pos, &node.to_string(), message)
            }
        }
    }
}

/// The methods of Go's `time.Duration`.
fn duration_in(nanoseconds: i64, method: &str) -> Option<Value> {
    #[expect(clippy::cast_precision_loss, reason = "Go's, too")]
    let fraction = |unit: f64| Value::Float(nanoseconds as f64 / unit);
    Some(match method {
        "Nanoseconds" => Value::Int(nanoseconds),
        "Microseconds" => Value::Int(nanoseconds / 1_000),
        "Milliseconds" => Value::Int(nanoseconds / 1_000_000),
        "Seconds" => fraction(1e9),
        "Minutes" => fraction(60e9),
        "Hours" => fraction(3600e9),
        "String" => Value::text(print::plain(&Value::Duration(nanoseconds))),
        _ => return None,
    })
}

/// An argument as it stands in a command.
fn shown(argument: &Argument) -> String {
    match &argument.kind {
        ArgumentKind::Pipe(pipe) => format!("({pipe})"),
        _ => argument.to_string(),
    }
}
