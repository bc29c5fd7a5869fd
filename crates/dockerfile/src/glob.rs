//! Patterns for paths: `*`, `?`, `[a-z]`, `\` as in Go's `filepath.Match`, and `**` for any depth as in ignore files.

use std::iter::Peekable;
use std::str::Chars;

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {0:?}")]
pub struct GlobError(pub String);

/// A compiled pattern. It matches whole paths without a slash at the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    Exact(String),
    /// `dir/**`: everything below.
    Prefix(String),
    /// `**/name`; without the slash it ends longer names too, which Docker's users rely on.
    Suffix(String),
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(char),
    /// `?`.
    One,
    /// `*`: no slash.
    Many,
    /// `**` at the end.
    Rest,
    /// `**/`: no directory, or what [`Part::Directories`] reads.
    Optional,
    /// Anything up to and with a slash.
    Directories,
    /// `[…]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Compiles a pattern that is clean already: no `.`, `..` or double slashes in it.
    ///
    /// # Errors
    /// For a class that does not close and an escape at the end.
    pub fn new(text: &str) -> Result<Self, GlobError> {
        let bad = || GlobError(text.to_owned());
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    chars.next_if_eq(&'/');
                    if chars.peek().is_none() {
                        parts.push(Part::Rest);
                    } else {
                        parts.extend([Part::Optional, Part::Directories]);
                    }
                }
                '*' => parts.push(Part::Many),
                '?' => parts.push(Part::One),
                '[' => parts.push(class(&mut chars).ok_or_else(bad)?),
                '\\' => parts.push(Part::Literal(chars.next().ok_or_else(bad)?)),
                c => parts.push(Part::Literal(c)),
            }
        }
        let plain = |text: &str| !text.contains(['*', '?', '[', '\\']);
        let matcher = if plain(text) {
            Matcher::Exact(text.to_owned())
        } else if let Some(suffix) = text.strip_prefix("**").filter(|rest| plain(rest)) {
            Matcher::Suffix(suffix.to_owned())
        } else if let Some(prefix) = text.strip_suffix("**").filter(|rest| plain(rest)) {
            Matcher::Prefix(prefix.to_owned())
        } else {
            Matcher::Parts(parts)
        };
        Ok(Self { text: text.to_owned(), matcher })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `text` has a character that is special in patterns.
    pub fn is_pattern(text: &str) -> bool {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' | '?' | '[' => return true,
                '\\' => drop(chars.next()),
                _ => {}
            }
        }
        false
    }

    /// Whether all of `path` is meant.
    pub fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact(text) => path == text,
            Matcher::Prefix(text) => path.starts_with(text.as_str()),
            Matcher::Suffix(text) => path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path),
            Matcher::Parts(parts) => matches(parts, path),
        }
    }
}

/// What follows `[`: `^`, ranges, `]`. An empty class is none.
fn class(chars: &mut Peekable<Chars<'_>>) -> Option<Part> {
    let one = |chars: &mut Peekable<Chars<'_>>| match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        c => Some(c),
    };
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Some(Part::Class { negated, ranges });
        }
        let low = one(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { one(chars)? } else { low };
        ranges.push((low, high));
    }
}

/// All states at once, so that no pattern is slow.
fn matches(parts: &[Part], path: &str) -> bool {
    let mut active = vec![false; parts.len() + 1];
    active[0] = true;
    skip(parts, &mut active);
    for c in path.chars() {
        let mut next = vec![false; parts.len() + 1];
        for (state, part) in parts.iter().enumerate().filter(|(state, _)| active[*state]) {
            match part {
                Part::Literal(literal) => next[state + 1] |= c == *literal,
                Part::One => next[state + 1] |= c != '/',
                Part::Many => next[state] |= c != '/',
                Part::Rest => next[state] = true,
                Part::Optional => {}
                Part::Directories => {
                    next[state] = true;
                    next[state + 1] |= c == '/';
                }
                Part::Class { negated, ranges } => {
                    let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                    next[state + 1] |= inside != *negated;
                }
            }
        }
        active = next;
        skip(parts, &mut active);
    }
    active[parts.len()]
}

/// Goes on past the parts that can match nothing.
fn skip(parts: &[Part], active: &mut [bool]) {
    for (state, part) in parts.iter().enumerate() {
        if !active[state] {
            continue;
        }
        match part {
            Part::Many | Part::Rest => active[state + 1] = true,
            Part::Optional => {
                active[state + 1] = true;
                active[state + 2] = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_paths() {
        for (pattern, path, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "a", true),
            ("*", "a/b", false),
            ("a*/b", "axx/b", true),
            ("a*/b", "a/x/b", false),
            ("?", "é", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[\\]]", "]", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("**", "a/b/c", true),
            ("**", "a", true),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "ax", false),
            ("**x", "ax", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "ab", false),
            ("a/**/b", "a/xb", false),
            ("**/*.go", "a/b.go", true),
            ("**/*.go", "b.go", true),
            ("**/*.go", "b.goo", false),
            ("**/a/**/b", "x/a/y/b", true),
            ("a**", "abc/d", true),
            ("*.tar.*", "x.tar.gz", true),
            ("a.b", "axb", false),
            ("a+(b)|{c}$", "a+(b)|{c}$", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn patterns_that_are_none() {
        for bad in ["[", "[]", "[a", "[a-", "[-]", "a\\", "[^]"] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
        assert!(Glob::is_pattern("a*") && Glob::is_pattern("[a]") && !Glob::is_pattern("a\\*b"));
    }

    #[test]
    fn no_pattern_is_slow() {
        let glob = Glob::new(&format!("{}b", "*a".repeat(100))).unwrap();
        assert!(!glob.matches(&"a".repeat(5_000)));
    }
}
