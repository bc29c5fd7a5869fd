//! Ignore files: what of a context a build does not see.
//!
//! Source: Dockerfile reference, ".dockerignore file": a line is a pattern, `!` takes back, the last that
//! matches decides; what is below a matched directory is matched too.

use crate::glob::{Glob, GlobError};

/// The patterns of an ignore file or of `--exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    /// `!`: what it matches is kept after all.
    keeps: bool,
}

/// What is known of a directory, so that its children need not ask about all parents again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub ignored: bool,
    matched: Vec<bool>,
}

impl Ignore {
    /// Reads an ignore file.
    ///
    /// # Errors
    /// With the first pattern that is none.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // A comment begins at the very beginning of a line: `#` is a good first letter of a name.
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
        Self::new(lines)
    }

    /// Takes patterns one by one.
    ///
    /// # Errors
    /// With the first that is none.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, GlobError> {
        let mut rules = Vec::new();
        for text in patterns.into_iter().map(str::trim).filter(|text| !text.is_empty()) {
            let (keeps, pattern) = match text.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, text),
            };
            if pattern.is_empty() {
                return Err(GlobError(text.to_owned()));
            }
            rules.push(Rule { glob: Glob::new(&clean(pattern))?, keeps });
        }
        Ok(Self { rules })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether something below an ignored directory may be kept, so that it must be looked into.
    pub fn keeps_some(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }

    /// Decides about `path` (relative, without a slash at its beginning); `above` is the verdict on its directory.
    pub fn decide(&self, above: &Verdict, path: &str) -> Verdict {
        let mut verdict = Verdict { ignored: false, matched: vec![false; self.rules.len()] };
        for (at, rule) in self.rules.iter().enumerate() {
            let inherited = above.matched.get(at).copied().unwrap_or(false);
            // A rule that could change nothing is not asked.
            let matched = inherited || (rule.keeps == verdict.ignored && rule.glob.matches(path));
            verdict.matched[at] = matched;
            if matched {
                verdict.ignored = !rule.keeps;
            }
        }
        verdict
    }

    /// Decides about a path of which nothing is known.
    pub fn is_ignored(&self, path: &str) -> bool {
        let path = clean(path);
        let mut verdict = Verdict::default();
        if path == "." {
            return false;
        }
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            verdict = self.decide(&verdict, &path[..end]);
        }
        verdict.ignored
    }
}

/// The path without `.`, `..`, double slashes and a slash at either end, as text. `..` above the top stays, unless the
/// path begins with a slash: nothing in the context is called so.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".into() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_decides() {
        // Patterns, path, ignored.
        for (patterns, path, expected) in [
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "b/a", false),
            ("/a", "a", true),
            ("a/", "a", true),
            ("./a", "a", true),
            ("a/../b", "b", true),
            ("../b", "b", false),
            ("a/../../b", "b", false),
            ("/../b", "b", true),
            ("*.md", "x.md", true),
            ("*.md", "d/x.md", false),
            ("**/*.md", "d/x.md", true),
            ("*/temp*", "d/temporary", true),
            ("*/temp*", "d/e/temp", false),
            ("*/*/temp*", "d/e/temp", true),
            ("temp?", "tempa", true),
            ("temp?", "temp", false),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "OTHER.md", true),
            ("!README.md\n*.md", "README.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-open.md", false),
            ("*\n!src", "src/a", false),
            ("*\n!src", "other", true),
            ("*\n!src/keep", "src/keep", false),
            ("*\n!src/keep", "src/drop", true),
            ("*\n! src", "src/a", false),
            ("src\n!src/**/*.go", "src/a/b.go", false),
            ("src\n!src/**/*.go", "src/a/b.c", true),
            ("# a\n#b\n\n  \na", "a", true),
            ("# a\n#b", "#b", false),
            (" #b", "#b", true),
            ("\u{feff}a", "a", true),
            ("a\r\nb\r\n", "b", true),
            ("**", "anything/at/all", true),
            ("**\n!keep", "keep", false),
            ("docs\n!docs/README.md", "docs", true),
            ("docs\n!docs/README.md", "docs/README.md", false),
            (".", "a", false),
            ("..", "a", false),
        ] {
            assert_eq!(Ignore::parse(patterns).unwrap().is_ignored(path), expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn verdicts_are_inherited() {
        let ignore = Ignore::parse("a\n!a/b").unwrap();
        let a = ignore.decide(&Verdict::default(), "a");
        assert!(a.ignored && ignore.keeps_some());
        assert!(ignore.decide(&a, "a/c").ignored);
        let b = ignore.decide(&a, "a/b");
        assert!(!b.ignored);
        assert!(!ignore.decide(&b, "a/b/deep").ignored);
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["!", "[", "a\n[x"] {
            assert!(Ignore::parse(bad).is_err(), "{bad}");
        }
    }
}
