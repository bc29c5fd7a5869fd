//! `$name`, `${name}` and the operators in the braces.

use super::{Run, Step, Variables};
use crate::pattern::Pattern;

impl<V: Variables + ?Sized> Run<'_, V> {
    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.variables.value(name).map(str::to_owned);
        if value.is_some() { &mut self.used } else { &mut self.unset }.insert(name.to_owned());
        value
    }

    /// From a `$` to the value that takes its place.
    pub(super) fn dollar(&mut self) -> Step<String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.lookup(&name) {
                None if self.lexer.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        let operator = self.next().ok_or("syntax error: missing '}'")?;
        match operator {
            '}' => Ok(match self.lookup(&name) {
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            ':' => {
                let operator = self.next().ok_or("syntax error: missing '}'")?;
                self.modified(&name, operator, true)
            }
            '/' => self.replaced(&name),
            other => self.modified(&name, other, false),
        }
    }

    /// `${name-word}` and its like; with a colon an empty value counts as none.
    fn modified(&mut self, name: &str, operator: char, colon: bool) -> Step<String> {
        let shown = format!("{}{operator}", if colon { ":" } else { "" });
        if colon && operator == '}' {
            return Err("syntax error: missing '}'".into());
        }
        if !matches!(operator, '-' | '+' | '?') && (colon || !matches!(operator, '#' | '%')) {
            return Err(format!("unsupported modifier ({shown}) in substitution"));
        }
        let word = if matches!(operator, '#' | '%') {
            self.pattern_until('}')
        } else {
            self.until(Some('}')).map(|(text, _)| text)
        };
        let word =
            word.map_err(|e| if self.at >= self.input.len() { "syntax error: missing '}'".into() } else { e })?;
        let value = self.lookup(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let counts = value.clone().filter(|value| !(colon && value.is_empty()));
        match operator {
            '-' => Ok(counts.unwrap_or(word)),
            '+' => Ok(counts.map(|_| word).unwrap_or_default()),
            '?' => counts.ok_or_else(|| {
                let why = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                format!("{name}: {}", if word.is_empty() { why } else { &word })
            }),
            _ => {
                let value = value.unwrap_or_default();
                let (longest, text) = match word.strip_prefix(operator) {
                    Some(rest) => (true, rest),
                    None => (false, word.as_str()),
                };
                let pattern = Pattern::parse(text)?;
                Ok(if operator == '#' {
                    pattern.without_prefix(&value, longest)
                } else {
                    pattern.without_suffix(&value, longest)
                })
            }
        }
    }

    /// `${name/pattern/replacement}`, with `//` everywhere.
    fn replaced(&mut self, name: &str) -> Step<String> {
        let everywhere = self.peek() == Some('/');
        self.at += usize::from(everywhere);
        let end = |run: &Self, e: String, what: &str| if run.at >= run.input.len() { what.to_owned() } else { e };
        let pattern = match self.pattern_until('/') {
            Err(e) => return Err(end(self, e, "syntax error: missing '/' in ${}")),
            Ok(text) => text,
        };
        let replacement = match self.pattern_until('}') {
            Err(e) => return Err(end(self, e, "syntax error: missing '}'")),
            Ok(text) => text,
        };
        match self.lookup(name) {
            None if self.lexer.keep_unset => Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            value => Ok(Pattern::parse(&pattern)?.replace(&value.unwrap_or_default(), &replacement, everywhere)),
        }
    }

    /// A name, a run of digits, or one special parameter.
    fn name(&mut self) -> String {
        let first = match self.peek() {
            Some(c) if c.is_numeric() => {
                let digits: String = self.input[self.at..].iter().take_while(|c| c.is_numeric()).collect();
                self.at += digits.chars().count();
                return digits;
            }
            Some(c) if "@*#?-$!".contains(c) => {
                self.at += 1;
                return c.to_string();
            }
            first => first,
        };
        if first.is_none() {
            return String::new();
        }
        let rest = &self.input[self.at..];
        let name: String = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
        self.at += name.chars().count();
        name
    }
}
