//! Parser directives: comments at the very top that change how the rest is read.

use crate::error::Mistake;

/// What the top of the file asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// The frontend image that was asked for. This builder is its own frontend; the value is only told.
    pub syntax: Option<String>,
    /// What continues a line and escapes a character: `\`, or a backtick.
    pub escape: char,
    pub check: Option<CheckDirective>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// `# check=skip=RULE,RULE;error=true`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckDirective {
    /// Rules that are not checked; `all` is every rule.
    pub skip: Vec<String>,
    pub experimental: Vec<String>,
    /// Whether a warning ends the build.
    pub error: bool,
}

/// Whether a frontend reads the language that is read here: Docker's own, from wherever it is got, or the one that BuildKit
/// has built in.
pub fn is_own_frontend(name: &str) -> bool {
    let name = name.split_whitespace().next().unwrap_or_default();
    let name = name.split('@').next().unwrap_or_default();
    let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
    let last = last.split(':').next().unwrap_or_default();
    let of_docker = path == "docker" || path.ends_with("/docker");
    name == "dockerfile.v0" || (of_docker && matches!(last, "dockerfile" | "dockerfile-upstream"))
}

fn check_frontend(name: &str) -> Result<(), Mistake> {
    if is_own_frontend(name) {
        return Ok(());
    }
    let text =
        format!("unknown frontend {name:?}: files are read as Dockerfiles (docker/dockerfile), and by nothing else");
    Err(Mistake::new(text).about(name))
}

impl CheckDirective {
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        let mut check = Self::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| Mistake::new(format!("invalid check option {option:?}")).about(option))?;
            let list = || value.split(',').map(|rule| rule.trim().to_owned()).filter(|rule| !rule.is_empty()).collect();
            match key.trim() {
                "skip" => check.skip = list(),
                "experimental" => check.experimental = list(),
                "error" => {
                    check.error = parse_bool(value.trim()).ok_or_else(|| {
                        Mistake::new(format!("failed to parse check option {value:?}: invalid boolean")).about(option)
                    })?;
                }
                key => {
                    let hint = crate::nearest(key, ["skip", "error", "experimental"]);
                    return Err(Mistake::new(format!("invalid check option {key:?}")).about(option).hint(hint));
                }
            }
        }
        Ok(check)
    }
}

/// The words that Go's `strconv.ParseBool` takes.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads directives until the first line that is none.
#[derive(Debug, Default)]
pub(crate) struct DirectiveReader {
    pub(crate) found: Directives,
    seen: Vec<String>,
    /// The first line names an interpreter.
    script: bool,
    done: bool,
}

impl DirectiveReader {
    /// Takes a line without the blanks before it.
    pub(crate) fn line(&mut self, number: u32, line: &str) -> Result<(), Mistake> {
        if self.done {
            return Ok(());
        }
        // A Dockerfile may be a script whose interpreter is a build tool.
        if number == 1 && line.starts_with("#!") {
            self.script = true;
            return Ok(());
        }
        // Other languages have other comments; whatever they are, it is none of ours.
        let foreign = line.strip_prefix("//").and_then(|rest| rest.split_once('='));
        if let Some((_, frontend)) = foreign.filter(|(key, _)| key.trim().eq_ignore_ascii_case("syntax")) {
            check_frontend(frontend.trim())?;
        }
        let pair = line.strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((key, value)) = pair.map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim())) else {
            self.done = true;
            return Ok(());
        };
        if !matches!(key.as_str(), "syntax" | "escape" | "check") || value.is_empty() {
            self.done = true;
            return Ok(());
        }
        if self.seen.contains(&key) {
            return Err(Mistake::new(format!("only one {key} parser directive can be used")));
        }
        match key.as_str() {
            "syntax" => {
                check_frontend(value)?;
                self.found.syntax = Some(value.to_owned());
            }
            "check" => self.found.check = Some(CheckDirective::parse(value)?),
            // BuildKit looks for this one only where no other comment is above it.
            _ if self.script => {}
            _ => match value {
                "\\" => self.found.escape = '\\',
                "`" => self.found.escape = '`',
                other => {
                    return Err(
                        Mistake::new(format!("invalid escape token '{other}' does not match ` or \\")).about(other)
                    );
                }
            },
        }
        self.seen.push(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Directives, Mistake> {
        let mut reader = DirectiveReader::default();
        for (at, line) in lines.iter().enumerate() {
            reader.line(u32::try_from(at).unwrap() + 1, line)?;
        }
        Ok(reader.found)
    }

    #[test]
    fn directives_are_read_until_something_else_comes() {
        let found = read(&["# syntax = docker/dockerfile:1", "#ESCAPE=`", "# comment", "# check=skip=all"]).unwrap();
        assert_eq!(found.syntax.as_deref(), Some("docker/dockerfile:1"));
        assert_eq!((found.escape, found.check), ('`', None));
        assert_eq!(read(&["", "# escape=`"]).unwrap().escape, '\\');
        assert_eq!(read(&["# about escape", "# escape=`"]).unwrap().escape, '\\');
        assert_eq!(read(&["FROM x", "# escape=`"]).unwrap().escape, '\\');
        assert_eq!(read(&["# unknown=x", "# escape=`"]).unwrap().escape, '\\');
        let script = read(&["#!/usr/bin/env builder", "# syntax=docker/dockerfile:1", "# escape=`"]).unwrap();
        assert_eq!((script.escape, script.syntax.as_deref()), ('\\', Some("docker/dockerfile:1")));
    }

    #[test]
    fn other_languages_are_refused() {
        for own in [
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile-upstream:master",
            "mirror.example:5000/docker/dockerfile@sha256:abc",
            "dockerfile.v0",
        ] {
            assert!(is_own_frontend(own), "{own}");
            assert_eq!(read(&[&format!("# syntax={own}")]).unwrap().syntax.as_deref(), Some(own));
        }
        for (line, name) in [("#syntax=r2d4/mocker", "r2d4/mocker"), ("// syntax = docker/other:1", "docker/other:1")] {
            let message = read(&[line]).unwrap_err().message;
            assert!(message.contains("unknown frontend") && message.contains(name), "{message}");
        }
        assert_eq!(read(&["// about syntax", "FROM x"]).unwrap(), Directives::default());
    }

    #[test]
    fn checks_are_configured() {
        let check = read(&["# check=skip=StageNameCasing, JSONArgsRecommended;error=true"]).unwrap().check.unwrap();
        assert_eq!(check.skip, ["StageNameCasing", "JSONArgsRecommended"]);
        assert!(check.error);
        assert!(read(&["# check=skipp=all"]).unwrap_err().hint.is_some());
        assert!(read(&["# check=error=perhaps"]).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_directive_is_said() {
        let message = |lines: &[&str]| read(lines).unwrap_err().message;
        assert_eq!(message(&["# escape=x"]), "invalid escape token 'x' does not match ` or \\");
        assert_eq!(message(&["# escape=`", "# escape=`"]), "only one escape parser directive can be used");
    }
}
