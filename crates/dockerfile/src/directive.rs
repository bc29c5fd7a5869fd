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

impl CheckDirective {
    fn parse(text: &str) -> Result<Self, Mistake> {
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
            return Ok(());
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
            "syntax" => self.found.syntax = Some(value.to_owned()),
            "check" => self.found.check = Some(CheckDirective::parse(value)?),
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
        assert_eq!(read(&["#!/usr/bin/env builder", "# escape=`"]).unwrap().escape, '`');
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
