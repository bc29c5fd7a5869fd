//! Variables in words, as Docker's builder expands them: a subset of the POSIX shell's parameter expansion.
//!
//! Here a word is taken apart at its quotes and blanks; `substitution` is what stands after a `$`.
//!
//! Source: Dockerfile reference, "Environment replacement"; the behaviour of details is BuildKit's lexer's.

mod substitution;

use std::collections::{BTreeMap, BTreeSet};

/// Values by name.
pub trait Variables {
    fn value(&self, name: &str) -> Option<&str>;
}

impl Variables for BTreeMap<String, String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl Variables for [(&str, &str)] {
    fn value(&self, name: &str) -> Option<&str> {
        self.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// No variable at all.
#[derive(Clone, Copy, Debug)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn value(&self, _: &str) -> Option<&str> {
        None
    }
}

/// A word that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {reason}")]
pub struct ExpandError {
    pub word: String,
    pub reason: String,
}

/// How a word is taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape characters stay in the result.
    pub raw_escapes: bool,
    /// Quotes mean nothing, as in a heredoc.
    pub ignore_quotes: bool,
    /// A variable without a value stays as it is written.
    pub keep_unset: bool,
}

/// What has become of a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    /// The text split at blanks that no quote protects.
    pub words: Vec<String>,
    /// Variables that were asked for and have a value, or have none.
    pub used: BTreeSet<String>,
    pub unset: BTreeSet<String>,
}

/// `${a:-${b:-…}}` deeper than this is an attack on the stack.
const MAX_DEPTH: usize = 64;
/// No longer text comes out of one word: `ENV A=$A$A` in a row would double it without end, and the kernel takes
/// no longer variable than 128 KiB anyway.
const MAX_LENGTH: usize = 4 << 20;

impl Lexer {
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, ignore_quotes: false, keep_unset: false }
    }

    /// Expands the variables of `word` and takes its quotes away.
    ///
    /// # Errors
    /// For quotes and braces that do not close, operators that do not exist, `${name:?message}`, and results
    /// without bound.
    pub fn expand(&self, word: &str, variables: &(impl Variables + ?Sized)) -> Result<Expanded, ExpandError> {
        let mut run = Run {
            lexer: *self,
            variables,
            input: word.chars().collect(),
            at: 0,
            depth: 0,
            raw_escapes: self.raw_escapes,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        };
        let (text, words) =
            run.until(None).map_err(|reason| ExpandError { word: word.chars().take(200).collect(), reason })?;
        Ok(Expanded { text, words, used: run.used, unset: run.unset })
    }
}

struct Run<'a, V: ?Sized> {
    lexer: Lexer,
    variables: &'a V,
    input: Vec<char>,
    at: usize,
    depth: usize,
    raw_escapes: bool,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

type Step<T> = Result<T, String>;

/// Words as they grow: a blank ends one unless it came from inside quotes.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn char(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

impl<V: Variables + ?Sized> Run<'_, V> {
    fn peek(&self) -> Option<char> {
        self.input.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>) -> Step<(String, Vec<String>)> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("substitutions are nested too deeply".into());
        }
        let (mut text, mut words) = (String::new(), Words::default());
        while let Some(c) = self.peek() {
            if text.len() > MAX_LENGTH {
                return Err(format!("the result is longer than {MAX_LENGTH} bytes"));
            }
            match c {
                _ if Some(c) == stop => {
                    self.at += 1;
                    self.depth -= 1;
                    return Ok((text, words.finish()));
                }
                '\'' | '"' if !self.lexer.ignore_quotes => {
                    let quoted = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    words.word.push_str(&quoted);
                    text.push_str(&quoted);
                }
                '<' if self.input.get(self.at + 1) == Some(&'<') => {
                    // `<< NAME` announces a heredoc as well as `<<NAME` does.
                    let blanks = self.input[self.at + 2..].iter().take_while(|c| c.is_whitespace()).count();
                    let announced: String = self.input[self.at..self.at + 2 + blanks].iter().collect();
                    self.at += 2 + blanks;
                    words.word.push_str(&announced);
                    text.push_str(&announced);
                }
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.char(c));
                    text.push_str(&value);
                }
                _ => {
                    self.at += 1;
                    if c != self.lexer.escape {
                        words.char(c);
                        text.push(c);
                        continue;
                    }
                    if self.raw_escapes {
                        words.word.push(c);
                        text.push(c);
                    }
                    // At the end there is nothing to escape.
                    let Some(escaped) = self.next() else { break };
                    words.word.push(escaped);
                    text.push(escaped);
                }
            }
        }
        if let Some(stop) = stop {
            return Err(format!("unexpected end of statement while looking for matching {stop}"));
        }
        self.depth -= 1;
        Ok((text, words.finish()))
    }

    /// As `until(Some(stop))`, where escapes stay in the text because it is a pattern.
    fn pattern_until(&mut self, stop: char) -> Step<String> {
        let before = std::mem::replace(&mut self.raw_escapes, true);
        let read = self.until(Some(stop));
        self.raw_escapes = before;
        read.map(|(text, _)| text)
    }

    fn single_quoted(&mut self) -> Step<String> {
        let mut text = String::new();
        let open = self.next();
        text.extend(open.filter(|_| self.lexer.raw_quotes));
        loop {
            match self.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote".into()),
                Some('\'') => {
                    text.extend(open.filter(|_| self.lexer.raw_quotes));
                    return Ok(text);
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Step<String> {
        let mut text = String::new();
        let open = self.next();
        text.extend(open.filter(|_| self.lexer.raw_quotes));
        loop {
            match self.peek() {
                None => return Err("unexpected end of statement while looking for matching double-quote".into()),
                Some('"') => {
                    text.extend(self.next().filter(|_| self.lexer.raw_quotes));
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) => {
                    self.at += 1;
                    if c != self.lexer.escape {
                        text.push(c);
                        continue;
                    }
                    // Only these can be escaped; before anything else the character means itself.
                    let special = self.peek().filter(|next| matches!(next, '"' | '$') || *next == self.lexer.escape);
                    if self.raw_escapes || special.is_none() {
                        text.push(c);
                    }
                    text.extend(special);
                    self.at += usize::from(special.is_some());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENV: &[(&str, &str)] = &[
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("EMPTY", ""),
        ("TWO", "a  b"),
        ("PATTERN", "foo/bar/baz.tar.gz"),
        ("1", "one"),
        ("KO", "한글"),
    ];

    fn expand(word: &str) -> Result<String, String> {
        Lexer::new('\\').expand(word, ENV).map(|e| e.text).map_err(|e| e.reason)
    }

    #[test]
    fn variables_and_their_operators() {
        for (word, expected) in [
            ("hello", "hello"),
            ("he$SHELL", "hebash"),
            ("he${SHELL}xx", "hebashxx"),
            ("$SHELL.x", "bash.x"),
            ("$NOPE", ""),
            ("${NOPE}", ""),
            ("he$", "he$"),
            ("he$.", "he$."),
            ("he\\$SHELL", "he$SHELL"),
            ("he\\\\$SHELL", "he\\bash"),
            ("'he$SHELL'", "he$SHELL"),
            ("\"he$SHELL\"", "hebash"),
            ("\"he\\$SHELL\"", "he$SHELL"),
            ("\"a\\b\\\"c\"", "a\\b\"c"),
            ("'a\\'", "a\\"),
            ("\"'\"", "'"),
            ("he\\", "he"),
            ("he\\llo", "hello"),
            ("\"\"", ""),
            ("$1x", "onex"),
            ("$12", ""),
            ("$@x", "x"),
            ("${SHELL:-x}", "bash"),
            ("${NOPE:-x}", "x"),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY-x}", ""),
            ("${NOPE-x}", "x"),
            ("${NOPE:-}", ""),
            ("${NOPE:-$SHELL}", "bash"),
            ("${NOPE:-${ALSO:-${SHELL}}}", "bash"),
            ("${NOPE:-'a b'}", "a b"),
            ("${NOPE:-a\\}b}", "a}b"),
            ("${SHELL:+x}", "x"),
            ("${EMPTY:+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${NOPE+x}", ""),
            ("${SHELL:?no}", "bash"),
            ("${EMPTY?no}", ""),
            ("${PATTERN#*/}", "bar/baz.tar.gz"),
            ("${PATTERN##*/}", "baz.tar.gz"),
            ("${PATTERN%.*}", "foo/bar/baz.tar"),
            ("${PATTERN%%.*}", "foo/bar/baz"),
            ("${PATTERN%/*}", "foo/bar"),
            ("${PATTERN#nope}", "foo/bar/baz.tar.gz"),
            ("${PATTERN/ba/X}", "foo/Xr/baz.tar.gz"),
            ("${PATTERN//ba/X}", "foo/Xr/Xz.tar.gz"),
            ("${PATTERN//\\//-}", "foo-bar-baz.tar.gz"),
            ("${PATTERN/o*r/_}", "f_.gz"),
            ("${NOPE/a/b}", ""),
            ("${SHELL///-}", "-b-a-s-h-"),
            ("${KO}", "한글"),
            ("안녕$KO", "안녕한글"),
            ("${KO#?}", "글"),
        ] {
            assert_eq!(expand(word).as_deref(), Ok(expected), "{word}");
        }
    }

    #[test]
    fn what_cannot_be_expanded() {
        for (word, reason) in [
            ("${", "syntax error: missing '}'"),
            ("${SHELL", "syntax error: missing '}'"),
            ("${SHELL:", "syntax error: missing '}'"),
            ("${SHELL:-x", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${{x}}", "syntax error: bad substitution"),
            ("${:-x}", "syntax error: bad substitution"),
            ("${SHELL:}", "syntax error: missing '}'"),
            ("${SHELL:x}", "unsupported modifier (:x) in substitution"),
            ("${SHELL:#x}", "unsupported modifier (:#) in substitution"),
            ("${SHELL^^}", "unsupported modifier (^) in substitution"),
            ("${SHELL/a}", "syntax error: missing '/' in ${}"),
            ("${SHELL/a/b", "syntax error: missing '}'"),
            ("${NOPE:?}", "NOPE: is not allowed to be unset"),
            ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
            ("${NOPE?say it}", "NOPE: say it"),
            ("'open", "unexpected end of statement while looking for matching single-quote"),
            ("\"open", "unexpected end of statement while looking for matching double-quote"),
            ("${PATTERN#a\\b}", "invalid pattern (a\\b) in substitution: invalid escape '\\b'"),
        ] {
            assert_eq!(expand(word).unwrap_err(), reason, "{word}");
        }
        assert!(expand(&format!("{}x{}", "${a:-".repeat(500), "}".repeat(500))).is_err());
        let big = "x".repeat(1 << 20);
        assert!(Lexer::new('\\').expand(&"$B".repeat(64), [("B", big.as_str())].as_slice()).is_err());
    }

    #[test]
    fn words_are_split_where_no_quote_protects_them() {
        let words = |word| Lexer::new('\\').expand(word, ENV).unwrap().words;
        assert_eq!(words("a  b"), ["a", "b"]);
        assert_eq!(words("a\\ b"), ["a b"]);
        assert_eq!(words("'a b' c"), ["a b", "c"]);
        assert_eq!(words("x$TWO"), ["xa", "b"]);
        assert_eq!(words("\"x$TWO\""), ["xa  b"]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn a_lexer_can_leave_things_as_they_are() {
        let expand = |lexer: Lexer, word| lexer.expand(word, ENV).unwrap().text;
        let keep = Lexer { keep_unset: true, ..Lexer::new('\\') };
        assert_eq!(
            expand(keep, "$NOPE ${NOPE} ${NOPE:-x} ${NOPE#x} ${NOPE/a/b} $SHELL"),
            "$NOPE ${NOPE} ${NOPE:-x} ${NOPE#x} ${NOPE/a/b} bash"
        );
        let raw = Lexer { raw_quotes: true, raw_escapes: true, ..Lexer::new('\\') };
        assert_eq!(expand(raw, "'a' \"b\" \\c"), "'a' \"b\" \\c");
        let heredoc = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
        assert_eq!(expand(heredoc, "don't \"$SHELL\" \\$x"), "don't \"bash\" $x");
        assert_eq!(expand(Lexer::new('`'), "a\\b `$SHELL"), "a\\b $SHELL");
    }

    #[test]
    fn it_is_told_which_variables_were_asked_for() {
        let expanded = Lexer::new('\\').expand("$SHELL ${NOPE:-$PWD}", ENV).unwrap();
        assert_eq!(expanded.used.into_iter().collect::<Vec<_>>(), ["PWD", "SHELL"]);
        assert_eq!(expanded.unset.into_iter().collect::<Vec<_>>(), ["NOPE"]);
    }
}
