//! Shell patterns inside of `${name#pattern}`: `*`, `?` and escapes, no brackets (POSIX.1-2017, XCU 2.13).

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Literal(char),
    One,
    Many,
}

impl Pattern {
    /// The error is what is wrong, with the pattern.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Many,
                '?' => Part::One,
                '\\' => match chars.next() {
                    // The braces' own characters are escaped for the braces, not for the pattern.
                    Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Part::Literal(c),
                    other => {
                        let escape: String = std::iter::once('\\').chain(other).collect();
                        return Err(format!("invalid pattern ({text}) in substitution: invalid escape '{escape}'"));
                    }
                },
                c => Part::Literal(c),
            });
        }
        // Several stars in a row are one.
        parts.dedup_by(|a, b| *a == Part::Many && *b == Part::Many);
        Ok(Self { parts })
    }

    /// The value without the shortest or longest beginning that matches.
    pub(crate) fn without_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        match pick(ends(&self.parts, &chars), longest) {
            Some(end) => chars[end..].iter().collect(),
            None => value.to_owned(),
        }
    }

    /// The value without the shortest or longest end that matches.
    pub(crate) fn without_suffix(&self, value: &str, longest: bool) -> String {
        let backwards: Vec<char> = value.chars().rev().collect();
        let parts: Vec<Part> = self.parts.iter().rev().copied().collect();
        match pick(ends(&parts, &backwards), longest) {
            Some(end) => backwards[end..].iter().rev().collect(),
            None => value.to_owned(),
        }
    }

    /// The value with the first match, or each, replaced; a match is as long as can be.
    pub(crate) fn replace(&self, value: &str, replacement: &str, everywhere: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let (mut text, mut at, mut replaced) = (String::new(), 0, None);
        while at <= chars.len() {
            let found = pick(ends(&self.parts, &chars[at..]), true);
            // Nothing at all may match, but not where another match has ended (Go's regular expressions).
            if let Some(length) = found.filter(|length| *length > 0 || replaced != Some(at)) {
                text.push_str(replacement);
                if !everywhere {
                    at += length;
                    break;
                }
                replaced = Some(at + length);
                at += length;
                if length > 0 {
                    continue;
                }
            }
            text.extend(chars.get(at));
            at += 1;
        }
        text.extend(chars.get(at..).unwrap_or_default());
        text
    }
}

fn pick(ends: Vec<usize>, longest: bool) -> Option<usize> {
    if longest { ends.last().copied() } else { ends.first().copied() }
}

/// Where a match that begins at the start can end, in order. All states at once: no pattern makes it slow.
fn ends(parts: &[Part], value: &[char]) -> Vec<usize> {
    let mut active = vec![false; parts.len() + 1];
    active[0] = true;
    let mut found = Vec::new();
    for at in 0..=value.len() {
        for state in 0..parts.len() {
            if active[state] && parts[state] == Part::Many {
                active[state + 1] = true;
            }
        }
        if active[parts.len()] {
            found.push(at);
        }
        let Some(c) = value.get(at) else { break };
        let mut next = vec![false; parts.len() + 1];
        for state in 0..parts.len() {
            match parts[state] {
                _ if !active[state] => {}
                Part::Many => next[state] = true,
                Part::One => next[state + 1] = true,
                Part::Literal(literal) => next[state + 1] |= literal == *c,
            }
        }
        active = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_and_ends_are_taken_off() {
        for (pattern, value, longest, prefix, suffix) in [
            ("*/", "a/b/c", false, "b/c", "a/b/c"),
            ("*/", "a/b/c", true, "c", "a/b/c"),
            ("/*", "a/b/c", false, "a/b/c", "a/b"),
            ("/*", "a/b/c", true, "a/b/c", "a"),
            ("?", "xyz", true, "yz", "xy"),
            ("", "xyz", true, "xyz", "xyz"),
            ("*", "xyz", true, "", ""),
            ("*", "xyz", false, "xyz", "xyz"),
            ("\\*", "*x*", true, "x*", "*x"),
            ("é", "éé", true, "é", "é"),
        ] {
            let compiled = Pattern::parse(pattern).unwrap();
            assert_eq!(compiled.without_prefix(value, longest), prefix, "{pattern} {value}");
            assert_eq!(compiled.without_suffix(value, longest), suffix, "{pattern} {value}");
        }
    }

    #[test]
    fn matches_are_replaced() {
        for (pattern, value, everywhere, expected) in [
            ("o", "foo boo", false, "f0o boo"),
            ("o", "foo boo", true, "f00 b00"),
            ("o*", "foo boo", true, "f0"),
            ("", "abc", true, "0a0b0c0"),
            ("", "abc", false, "0abc"),
            ("*", "abc", true, "0"),
            ("*", "", false, "0"),
            ("x", "", true, ""),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().replace(value, "0", everywhere), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn an_escape_must_escape_something() {
        assert!(Pattern::parse("a\\b").is_err());
        assert!(Pattern::parse("a\\").is_err());
    }

    #[test]
    fn many_stars_are_not_slow() {
        let pattern = Pattern::parse(&"*a".repeat(200)).unwrap();
        assert_eq!(pattern.without_prefix(&"a".repeat(5000), true), "");
    }
}
