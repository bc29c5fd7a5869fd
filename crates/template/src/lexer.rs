//! Text into tokens, as Go's lexer cuts it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Error,
    Bool,
    Char,
    CharConstant,
    Assign,
    Declare,
    Eof,
    Field,
    Identifier,
    LeftDelim,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelim,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    Keyword,
    Dot,
    Nil,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) pos: usize,
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Token {
    /// As error messages show it.
    pub(crate) fn shown(&self) -> String {
        match self.kind {
            Kind::Eof => "EOF".to_owned(),
            Kind::Error => self.text.clone(),
            Kind::Keyword | Kind::Dot | Kind::Nil => format!("<{}>", self.text),
            _ if self.text.chars().count() > 10 => {
                format!("{}...", crate::print::quote(&self.text.chars().take(10).collect::<String>()))
            }
            _ => crate::print::quote(&self.text),
        }
    }
}

const LEFT: &str = "{{";
const RIGHT: &str = "}}";
const KEYWORDS: [&str; 10] = ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    line: usize,
    parens: usize,
    tokens: Vec<Token>,
}

/// All tokens up to the end or to the first error, which is the last token then.
pub(crate) fn lex(input: &str) -> Vec<Token> {
    let mut lexer = Lexer { input, pos: 0, line: 1, parens: 0, tokens: Vec::new() };
    if let Err(message) = lexer.text() {
        lexer.emit(Kind::Error, lexer.pos, message);
    }
    lexer.tokens
}

type Step = Result<(), String>;

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.input[self.pos..]
    }

    fn emit(&mut self, kind: Kind, start: usize, text: String) {
        self.tokens.push(Token { kind, pos: start, text, line: self.line });
    }

    /// Emits the input up to `end`, counting its lines.
    fn take(&mut self, kind: Kind, end: usize) {
        let text = self.input[self.pos..end].to_owned();
        let lines = text.matches('\n').count();
        self.emit(kind, self.pos, text);
        self.line += lines;
        self.pos = end;
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.input[self.pos..self.pos + bytes].matches('\n').count();
        self.pos += bytes;
    }

    fn text(&mut self) -> Step {
        loop {
            let Some(at) = self.rest().find(LEFT) else {
                if !self.rest().is_empty() {
                    self.take(Kind::Text, self.input.len());
                }
                self.take(Kind::Eof, self.input.len());
                return Ok(());
            };
            let delimiter = self.pos + at;
            let trims = has_left_trim(&self.input[delimiter + LEFT.len()..]);
            let text = &self.input[self.pos..delimiter];
            let kept = if trims { text.trim_end_matches(is_space).len() } else { text.len() };
            if kept > 0 {
                let end = self.pos + kept;
                self.take(Kind::Text, end);
            }
            self.skip(delimiter - self.pos);
            let marker = if trims { 2 } else { 0 };
            if self.input[delimiter + LEFT.len() + marker..].starts_with("/*") {
                self.skip(LEFT.len() + marker);
                self.comment()?;
            } else {
                self.take(Kind::LeftDelim, delimiter + LEFT.len());
                self.skip(marker);
                self.parens = 0;
                self.action()?;
            }
        }
    }

    fn comment(&mut self) -> Step {
        let Some(end) = self.rest().find("*/") else { return Err("unclosed comment".to_owned()) };
        self.skip(end + 2);
        let (delimiter, trims) = self.right_delimiter();
        if !delimiter {
            return Err("comment ends before closing delimiter".to_owned());
        }
        self.close(trims);
        Ok(())
    }

    /// Whether a right delimiter is next, and whether it trims.
    fn right_delimiter(&self) -> (bool, bool) {
        let rest = self.rest();
        let mut chars = rest.chars();
        if chars.next().is_some_and(is_space) && chars.as_str().starts_with("-}}") {
            return (true, true);
        }
        (rest.starts_with(RIGHT), false)
    }

    fn close(&mut self, trims: bool) {
        if trims {
            self.skip(2);
        }
        self.skip(RIGHT.len());
        if trims {
            let rest = self.rest();
            let spaces = rest.len() - rest.trim_start_matches(is_space).len();
            self.skip(spaces);
        }
    }

    fn action(&mut self) -> Step {
        loop {
            let (delimiter, trims) = self.right_delimiter();
            if delimiter {
                if self.parens > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                let pos = self.pos + if trims { 2 } else { 0 };
                self.emit(Kind::RightDelim, pos, RIGHT.to_owned());
                self.close(trims);
                return Ok(());
            }
            let Some(first) = self.rest().chars().next() else { return Err("unclosed action".to_owned()) };
            let next = self.rest()[first.len_utf8()..].chars().next();
            match first {
                c if is_space(c) => self.spaces(),
                ':' if next == Some('=') => self.take(Kind::Declare, self.pos + 2),
                ':' => return Err("expected :=".to_owned()),
                '=' => self.take(Kind::Assign, self.pos + 1),
                '|' => self.take(Kind::Pipe, self.pos + 1),
                '"' => self.quoted('"', Kind::String, "unterminated quoted string")?,
                '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant")?,
                '`' => {
                    let Some(end) = self.rest()[1..].find('`') else {
                        return Err("unterminated raw quoted string".to_owned());
                    };
                    self.take(Kind::RawString, self.pos + end + 2);
                }
                '$' => self.field_or_variable(Kind::Variable)?,
                '.' if !next.is_some_and(|c| c.is_ascii_digit()) => self.field_or_variable(Kind::Field)?,
                '(' => {
                    self.parens += 1;
                    self.take(Kind::LeftParen, self.pos + 1);
                }
                ')' => {
                    if self.parens == 0 {
                        return Err("unexpected right paren".to_owned());
                    }
                    self.parens -= 1;
                    self.take(Kind::RightParen, self.pos + 1);
                }
                '+' | '-' | '.' | '0'..='9' => self.number()?,
                c if is_alphanumeric(c) => self.identifier()?,
                c if c.is_ascii() && !c.is_ascii_control() => self.take(Kind::Char, self.pos + 1),
                c => return Err(format!("unrecognized character in action: {}", shown(c))),
            }
        }
    }

    fn spaces(&mut self) {
        let rest = self.rest();
        let mut count = 0;
        for (at, c) in rest.char_indices() {
            // The space before `-}}` belongs to the delimiter.
            if !is_space(c) || (at > 0 && rest[at + c.len_utf8()..].starts_with("-}}")) {
                break;
            }
            count = at + c.len_utf8();
        }
        self.take(Kind::Space, self.pos + count);
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Step {
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                '\n' => break,
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == quote => {
                    self.take(kind, self.pos + at + 1);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(unterminated.to_owned())
    }

    fn word(&self, from: usize) -> usize {
        let rest = &self.input[from..];
        from + rest.find(|c| !is_alphanumeric(c)).unwrap_or(rest.len())
    }

    fn field_or_variable(&mut self, kind: Kind) -> Step {
        let end = self.word(self.pos + 1);
        if end == self.pos + 1 {
            // A lone `.` is the cursor, a lone `$` the root.
            self.take(if kind == Kind::Field { Kind::Dot } else { Kind::Variable }, end);
            return if kind == Kind::Field { self.terminator(end) } else { Ok(()) };
        }
        self.terminator(end)?;
        self.take(kind, end);
        Ok(())
    }

    /// What may follow a word: anything that does not run on into it.
    fn terminator(&self, end: usize) -> Step {
        match self.input[end..].chars().next() {
            None => Ok(()),
            Some(c) if is_space(c) || ".,|:()".contains(c) || self.input[end..].starts_with(RIGHT) => Ok(()),
            Some(c) => Err(format!("bad character {}", shown(c))),
        }
    }

    fn identifier(&mut self) -> Step {
        let end = self.word(self.pos);
        self.terminator(end)?;
        let kind = match &self.input[self.pos..end] {
            "true" | "false" => Kind::Bool,
            "nil" => Kind::Nil,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.take(kind, end);
        Ok(())
    }

    /// The shape of a number; whether it is one, the parser finds out.
    fn number(&mut self) -> Step {
        let rest = self.rest().as_bytes();
        let mut at = usize::from(matches!(rest.first(), Some(b'+' | b'-')));
        let run = |at: &mut usize, digits: &dyn Fn(u8) -> bool| {
            while rest.get(*at).is_some_and(|byte| *byte == b'_' || digits(*byte)) {
                *at += 1;
            }
        };
        let radix = match rest.get(at..at + 2).map(<[u8]>::to_ascii_lowercase).as_deref() {
            Some(b"0x") => 16,
            Some(b"0o") => 8,
            Some(b"0b") => 2,
            _ => 10,
        };
        if radix != 10 {
            at += 2;
        }
        let digit = |byte: u8| char::from(byte).is_digit(radix);
        run(&mut at, &digit);
        if rest.get(at) == Some(&b'.') {
            at += 1;
            run(&mut at, &digit);
        }
        let exponent: &[u8] = if radix == 16 { b"pP" } else { b"eE" };
        if rest.get(at).is_some_and(|byte| exponent.contains(byte)) {
            at += 1;
            at += usize::from(matches!(rest.get(at), Some(b'+' | b'-')));
            run(&mut at, &|byte| byte.is_ascii_digit());
        }
        let next = self.rest()[at..].chars().next();
        if let Some(next) = next.filter(|next| is_alphanumeric(*next)) {
            let text = &self.rest()[..at + next.len_utf8()];
            return Err(format!("bad number syntax: {}", crate::print::quote(text)));
        }
        self.take(Kind::Number, self.pos + at);
        Ok(())
    }
}

fn has_left_trim(after: &str) -> bool {
    let mut chars = after.chars();
    chars.next() == Some('-') && chars.next().is_some_and(is_space)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn shown(c: char) -> String {
    let code = format!("U+{:04X}", u32::from(c));
    if c.is_control() { code } else { format!("{code} '{c}'") }
}
