//! Tokens into a tree, with the messages of Go's parser.

use std::collections::HashMap;

use crate::lexer::{Kind, Token, lex};
use crate::node::{Argument, ArgumentKind, Branch, Command, Node, Nodes, Pipe};
use crate::{Result, TemplateError, functions, number, print};

/// Reads a template and the templates that are defined in it.
pub(crate) fn parse(name: &str, text: &str) -> Result<(Nodes, HashMap<String, Nodes>)> {
    let mut parser = Parser {
        name: name.to_owned(),
        tokens: lex(text),
        at: 0,
        line: 1,
        action_line: 0,
        variables: vec!["$".to_owned()],
        defined: HashMap::new(),
        range_depth: 0,
        depth: 0,
    };
    let root = parser.top()?;
    Ok((root, parser.defined))
}

/// Deeper nesting is refused before it can exhaust the stack.
const MAX_DEPTH: usize = 100;

struct Parser {
    name: String,
    tokens: Vec<Token>,
    at: usize,
    line: usize,
    action_line: usize,
    variables: Vec<String>,
    defined: HashMap<String, Nodes>,
    range_depth: usize,
    depth: usize,
}

/// How a list of nodes ended.
enum End {
    End,
    Else,
}

impl Parser {
    fn next(&mut self) -> Token {
        let token = self.peek();
        self.line = token.line;
        // The last token (end or error) stays.
        self.at = (self.at + 1).min(self.tokens.len());
        token
    }

    fn peek(&self) -> Token {
        let last = self.tokens.len() - 1;
        self.tokens[self.at.min(last)].clone()
    }

    fn skip_spaces(&mut self) {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
    }

    fn next_solid(&mut self) -> Token {
        self.skip_spaces();
        self.next()
    }

    fn peek_solid(&mut self) -> Token {
        self.skip_spaces();
        self.peek()
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(TemplateError::Parse { file: self.name.clone(), line: self.line, message: message.into() })
    }

    fn unexpected<T>(&mut self, token: &Token, context: &str) -> Result<T> {
        self.line = token.line;
        if token.kind == Kind::Error {
            let mut extra = String::new();
            if self.action_line != 0 && self.action_line != token.line {
                extra = format!(" in action started at {}:{}", self.name, self.action_line);
                if token.text.ends_with(" action") {
                    extra = extra[" in action".len()..].to_owned();
                }
            }
            return self.fail(format!("{}{extra}", token.text));
        }
        self.fail(format!("unexpected {} in {context}", token.shown()))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<Token> {
        let token = self.next_solid();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn top(&mut self) -> Result<Nodes> {
        let mut nodes = Vec::new();
        while self.peek().kind != Kind::Eof {
            if self.peek().kind == Kind::LeftDelim {
                let before = self.at;
                let delimiter = self.next();
                let word = self.next_solid();
                if word.kind == Kind::Keyword && word.text == "define" {
                    self.action_line = delimiter.line;
                    self.definition()?;
                    continue;
                }
                self.at = before;
            }
            match self.text_or_action()? {
                Ok(node) => nodes.extend(node),
                Err(End::End) => return self.fail("unexpected {{end}}"),
                Err(End::Else) => return self.fail("unexpected {{else}}"),
            }
        }
        Ok(nodes)
    }

    fn definition(&mut self) -> Result<()> {
        let name = self.next_solid();
        if !matches!(name.kind, Kind::String | Kind::RawString) {
            return self.unexpected(&name, "define clause");
        }
        let name = self.unquote(&name)?;
        self.expect(Kind::RightDelim, "define clause")?;
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (nodes, end) = self.list()?;
        self.variables = outer;
        if matches!(end, End::Else) {
            return self.fail("unexpected {{else}} in define clause");
        }
        self.defined.insert(name, nodes);
        Ok(())
    }

    fn list(&mut self) -> Result<(Nodes, End)> {
        let mut nodes = Vec::new();
        while self.peek_solid().kind != Kind::Eof {
            match self.text_or_action()? {
                Ok(node) => nodes.extend(node),
                Err(end) => return Ok((nodes, end)),
            }
        }
        self.line = self.peek().line;
        self.fail("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Result<std::result::Result<Option<Node>, End>> {
        let token = self.next_solid();
        match token.kind {
            Kind::Text => Ok(Ok(Some(Node::Text(token.text)))),
            Kind::LeftDelim => {
                self.action_line = token.line;
                let node = self.action();
                self.action_line = 0;
                node
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Result<std::result::Result<Option<Node>, End>> {
        let word = self.peek_solid();
        if word.kind != Kind::Keyword {
            let pipe = self.pipeline("command", Kind::RightDelim)?;
            return Ok(Ok(Some(Node::Action(pipe))));
        }
        self.next_solid();
        let node = match word.text.as_str() {
            "end" => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Err(End::End));
            }
            "else" => {
                // The `if` of `else if` stays for the branch that goes on with it.
                let next = self.peek_solid();
                if !(next.kind == Kind::Keyword && (next.text == "if" || next.text == "with")) {
                    self.expect(Kind::RightDelim, "else")?;
                }
                return Ok(Err(End::Else));
            }
            "if" => Node::If(self.branch("if")?),
            "with" => Node::With(self.branch("with")?),
            "range" => Node::Range(self.branch("range")?),
            "break" | "continue" => {
                let context = format!("{{{{{}}}}}", word.text);
                let close = self.next_solid();
                if close.kind != Kind::RightDelim {
                    return self.unexpected(&close, &context);
                }
                if self.range_depth == 0 {
                    return self.fail(format!("{context} outside {{{{range}}}}"));
                }
                if word.text == "break" { Node::Break } else { Node::Continue }
            }
            "template" => self.invocation()?,
            "block" => self.block()?,
            _ => return self.unexpected(&word, "command"),
        };
        Ok(Ok(Some(node)))
    }

    fn branch(&mut self, context: &str) -> Result<Branch> {
        self.deeper()?;
        let variables = self.variables.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        self.range_depth += usize::from(context == "range");
        let (list, end) = self.list()?;
        self.range_depth -= usize::from(context == "range");
        let mut otherwise = None;
        if matches!(end, End::Else) {
            let next = self.peek_solid();
            let chained = next.kind == Kind::Keyword && next.text == context && context != "range";
            otherwise = Some(if chained {
                self.next_solid();
                let branch = self.branch(context)?;
                vec![if context == "if" { Node::If(branch) } else { Node::With(branch) }]
            } else {
                let (list, end) = self.list()?;
                if matches!(end, End::Else) {
                    return self.fail("expected end; found {{else}}");
                }
                list
            });
        }
        self.variables.truncate(variables);
        self.depth -= 1;
        Ok(Branch { pipe, list, otherwise })
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { self.fail("max expression depth exceeded") } else { Ok(()) }
    }

    fn template_name(&mut self, context: &str) -> Result<String> {
        let name = self.next_solid();
        match name.kind {
            Kind::String | Kind::RawString => self.unquote(&name),
            _ => self.unexpected(&name, context),
        }
    }

    fn optional_pipeline(&mut self, context: &str) -> Result<Option<Pipe>> {
        if self.peek_solid().kind == Kind::RightDelim {
            self.next_solid();
            return Ok(None);
        }
        self.pipeline(context, Kind::RightDelim).map(Some)
    }

    fn invocation(&mut self) -> Result<Node> {
        let pos = self.peek_solid().pos;
        let name = self.template_name("template clause")?;
        let pipe = self.optional_pipeline("template clause")?;
        Ok(Node::Template { pos, name, pipe })
    }

    fn block(&mut self) -> Result<Node> {
        let pos = self.peek_solid().pos;
        let name = self.template_name("block clause")?;
        let pipe = self.pipeline("block clause", Kind::RightDelim)?;
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (nodes, end) = self.list()?;
        self.variables = outer;
        if matches!(end, End::Else) {
            return self.fail("unexpected {{else}} in block clause");
        }
        self.defined.entry(name.clone()).or_insert(nodes);
        Ok(Node::Template { pos, name, pipe: Some(pipe) })
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe> {
        let first = self.peek_solid();
        let mut pipe = Pipe { pos: first.pos, assign: false, declared: Vec::new(), commands: Vec::new() };
        self.declarations(context, &mut pipe)?;
        loop {
            let token = self.next_solid();
            match token.kind {
                kind if kind == end => {
                    self.check(&pipe, context)?;
                    return Ok(pipe);
                }
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    self.at -= 1;
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&token, context),
            }
        }
    }

    /// `$x :=`, `$x =`, and `$i, $x :=` in a range.
    fn declarations(&mut self, context: &str, pipe: &mut Pipe) -> Result<()> {
        loop {
            let before = self.at;
            let variable = self.peek_solid();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            self.next_solid();
            let next = self.peek_solid();
            match next.kind {
                Kind::Assign | Kind::Declare => {
                    pipe.assign = next.kind == Kind::Assign;
                    self.next_solid();
                    pipe.declared.push(variable.text.clone());
                    if pipe.assign {
                        self.known(&variable.text)?;
                    } else {
                        self.variables.push(variable.text);
                    }
                    return Ok(());
                }
                Kind::Char if next.text == "," => {
                    self.next_solid();
                    pipe.declared.push(variable.text.clone());
                    self.variables.push(variable.text);
                    if context == "range" && pipe.declared.len() < 2 {
                        match self.peek_solid().kind {
                            Kind::Variable | Kind::RightDelim | Kind::RightParen => continue,
                            _ => return self.fail("range can only initialize variables"),
                        }
                    }
                    return self.fail(format!("too many declarations in {context}"));
                }
                _ => {
                    self.at = before;
                    return Ok(());
                }
            }
        }
    }

    fn known(&self, name: &str) -> Result<()> {
        if self.variables.iter().any(|known| known == name) {
            return Ok(());
        }
        self.fail(format!("undefined variable {}", print::quote(name)))
    }

    fn check(&self, pipe: &Pipe, context: &str) -> Result<()> {
        if pipe.commands.is_empty() {
            return self.fail(format!("missing value for {context}"));
        }
        for (at, command) in pipe.commands.iter().enumerate().skip(1) {
            let first = command.arguments.first().map(|argument| &argument.kind);
            if matches!(
                first,
                Some(
                    ArgumentKind::Bool(_)
                        | ArgumentKind::Dot
                        | ArgumentKind::Nil
                        | ArgumentKind::Number { .. }
                        | ArgumentKind::String { .. }
                )
            ) {
                return self.fail(format!("non executable command in pipeline stage {}", at + 1));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command> {
        let mut command = Command { arguments: Vec::new() };
        loop {
            self.skip_spaces();
            if let Some(operand) = self.operand()? {
                command.arguments.push(operand);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.at -= 1,
                Kind::Pipe => {}
                _ => return self.unexpected(&token, "operand"),
            }
            break;
        }
        if command.arguments.is_empty() {
            return self.fail("empty command");
        }
        Ok(command)
    }

    fn operand(&mut self) -> Result<Option<Argument>> {
        let Some(term) = self.term()? else { return Ok(None) };
        if self.peek().kind != Kind::Field {
            return Ok(Some(term));
        }
        let pos = self.peek().pos;
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.next().text[1..].to_owned());
        }
        let kind = match term.kind {
            ArgumentKind::Field(first) => ArgumentKind::Field([first, names].concat()),
            ArgumentKind::Variable(first) => ArgumentKind::Variable([first, names].concat()),
            ArgumentKind::Bool(_)
            | ArgumentKind::String { .. }
            | ArgumentKind::Number { .. }
            | ArgumentKind::Nil
            | ArgumentKind::Dot => {
                return self.fail(format!("unexpected . after term {}", print::quote(&term.to_string())));
            }
            _ => return Ok(Some(Argument { pos, kind: ArgumentKind::Chain(Box::new(term), names) })),
        };
        Ok(Some(Argument { pos, kind }))
    }

    fn term(&mut self) -> Result<Option<Argument>> {
        let token = self.next_solid();
        let kind = match token.kind {
            Kind::Identifier => {
                if !functions::exists(&token.text) {
                    return self.fail(format!("function {} not defined", print::quote(&token.text)));
                }
                ArgumentKind::Identifier(token.text)
            }
            Kind::Dot => ArgumentKind::Dot,
            Kind::Nil => ArgumentKind::Nil,
            Kind::Variable => {
                self.known(&token.text)?;
                ArgumentKind::Variable(vec![token.text])
            }
            Kind::Field => ArgumentKind::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => ArgumentKind::Bool(token.text == "true"),
            Kind::Number => match number::parse(&token.text) {
                Some(value) => ArgumentKind::Number { text: token.text, value },
                None => return self.fail(format!("illegal number syntax: {}", print::quote(&token.text))),
            },
            Kind::CharConstant => match number::character(&token.text) {
                Some(value) => ArgumentKind::Number { text: token.text, value: crate::Value::Int(value) },
                None => return self.fail(format!("malformed character constant: {}", token.text)),
            },
            Kind::LeftParen => {
                self.deeper()?;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                ArgumentKind::Pipe(pipe)
            }
            Kind::String | Kind::RawString => {
                let text = self.unquote(&token)?;
                ArgumentKind::String { quoted: token.text, text }
            }
            _ => {
                self.at -= usize::from(self.at > 0);
                return Ok(None);
            }
        };
        Ok(Some(Argument { pos: token.pos, kind }))
    }

    fn unquote(&self, token: &Token) -> Result<String> {
        let inner = &token.text[1..token.text.len() - 1];
        if token.kind == Kind::RawString {
            return Ok(inner.replace('\r', ""));
        }
        print::unquote_escapes(inner).map_or_else(|| self.fail("invalid syntax"), Ok)
    }
}
