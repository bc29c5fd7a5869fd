//! `--call`, `--check`: what a Dockerfile says, without a build and without an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_dockerfile::{
    Base, Contexts, Dockerfile, Globals, Graph, Ignore, Instruction, Known, MountKind, Platform, Platforms, Source,
    Variables, Warning, check, excerpt,
};

use super::context::Context;
use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::parse::{Matches, commas};
use crate::table;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Check,
    Outline,
    Targets,
}

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// Refuses what is no method.
pub(super) fn check_call(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

fn parse(text: &str) -> Result<(Option<Call>, Format), String> {
    let (mut call, mut format) = (None, Format::Text);
    for field in commas(text) {
        match field.as_str() {
            "build" => call = None,
            "check" | "lint" | "method=check" => call = Some(Call::Check),
            "outline" | "method=outline" => call = Some(Call::Outline),
            "targets" | "method=targets" => call = Some(Call::Targets),
            "format=text" => format = Format::Text,
            "format=json" => format = Format::Json,
            other => return Err(format!("{other:?} is neither build, check, outline or targets nor format=json")),
        }
    }
    Ok((call, format))
}

/// What the flags ask for; nothing when it is a build.
pub(super) fn of(matches: &Matches) -> Outcome<Option<(Call, Format)>> {
    let (call, format) = parse(matches.text("call"))?;
    let call = if matches.on("check") { Some(Call::Check) } else { call };
    Ok(call.map(|call| (call, format)))
}

/// Answers; the value is the exit code.
pub(super) fn answer(app: &App, matches: &Matches, context: &Context, call: Call, format: Format) -> Outcome<u8> {
    let looked = context.look()?;
    let Some((text, ignore)) = looked else {
        return Err("--call and --check need a context that is a directory, a repository or a Dockerfile alone".into());
    };
    let name = match matches.text("file") {
        "" | "-" => "Dockerfile",
        name => name,
    };
    let file = File::read(matches, name, &text)?;
    match call {
        Call::Check => {
            let found = file.check(&ignore);
            let shown = match format {
                Format::Json => pretty(&warnings_json(&file, &found)),
                Format::Text => warnings_text(&file, &found),
            };
            app.print(&shown)?;
            Ok(u8::from(!found.is_empty()))
        }
        Call::Outline => {
            let outline = file.outline();
            app.print(&if format == Format::Json { pretty(&outline) } else { outline_text(&outline) })?;
            Ok(0)
        }
        Call::Targets => {
            let targets = file.targets();
            app.print(&if format == Format::Json { pretty(&targets) } else { targets_text(&targets) })?;
            Ok(0)
        }
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

struct File<'a> {
    name: &'a str,
    text: &'a str,
    dockerfile: Dockerfile,
    globals: Arc<Globals>,
    graph: Graph,
}

impl<'a> File<'a> {
    fn read(matches: &Matches, name: &'a str, text: &'a str) -> Outcome<Self> {
        let wrong = |error: &dyn std::error::Error| Failure::new(error.to_string());
        let dockerfile = Dockerfile::parse(name, text).map_err(|e| wrong(&e))?;
        let target = matches.some("target");
        let asked = matches.all("platform").first().map(|text| Platform::parse(text)).transpose()?;
        let platforms = Platforms { build: Platform::host(), target: asked.unwrap_or_else(Platform::host) };
        let given: BTreeMap<String, String> = matches
            .all("build-arg")
            .iter()
            .filter_map(|text| match text.split_once('=') {
                Some((name, value)) => Some((name.to_owned(), value.to_owned())),
                None => Some((text.clone(), std::env::var(text).ok()?)),
            })
            .collect();
        let globals = Globals::new(&dockerfile, &platforms, target.unwrap_or_default(), given);
        let globals = Arc::new(globals.map_err(|e| wrong(&e))?);
        let named = |text: &String| {
            let name = text.split('=').next().unwrap_or_default().to_lowercase();
            (name.clone(), Base::Context(name))
        };
        let contexts: Contexts = matches.all("build-context").iter().map(named).collect();
        let graph = Graph::new(&dockerfile, &globals, target, contexts).map_err(|e| wrong(&e))?;
        Ok(Self { name, text, dockerfile, globals, graph })
    }

    fn check(&self, ignore: &Ignore) -> Vec<Warning> {
        // What an image has in its environment is not asked for: no variable of such a stage is called undefined.
        let known = Known { globals: Arc::clone(&self.globals), graph: &self.graph, ignore, base_env: &|_| None };
        check(&self.dockerfile, &known)
    }

    fn outline(&self) -> Value {
        let target = self.graph.target;
        let stage = &self.dockerfile.stages[target];
        let (mut arguments, mut seen) = (Vec::new(), BTreeSet::new());
        let (mut secrets, mut ssh): (BTreeMap<String, bool>, BTreeMap<String, bool>) = Default::default();
        let needed = self.graph.needed();
        let own = needed.iter().flat_map(|stage| &self.dockerfile.stages[*stage].statements);
        for statement in self.dockerfile.globals.iter().chain(own) {
            match &statement.instruction {
                Instruction::Arg(all) => {
                    for argument in all.iter().filter(|argument| seen.insert(argument.name.clone())) {
                        let given =
                            self.globals.build_arg(&argument.name).or_else(|| self.globals.value(&argument.name));
                        let value = given.or(argument.default.as_deref());
                        let description = described(&statement.source, &argument.name);
                        arguments.push(json!({ "name": argument.name, "description": description, "value": value }));
                    }
                }
                Instruction::Run(run) => {
                    for mount in run.mounts().unwrap_or_default() {
                        let last = |path: &String| path.rsplit('/').next().unwrap_or_default().to_owned();
                        let id = mount.id.clone().or_else(|| mount.target.as_ref().map(last)).unwrap_or_default();
                        match mount.kind {
                            MountKind::Secret => *secrets.entry(id).or_default() |= mount.required,
                            MountKind::Ssh => {
                                let id = if id.is_empty() { "default".to_owned() } else { id };
                                *ssh.entry(id).or_default() |= mount.required;
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let list = |all: BTreeMap<String, bool>| {
            all.into_iter().map(|(name, required)| json!({ "name": name, "required": required })).collect::<Vec<_>>()
        };
        json!({
            "name": stage.name,
            "description": described(&stage.from, stage.name.as_deref().unwrap_or_default()),
            "args": arguments,
            "secrets": list(secrets),
            "ssh": list(ssh),
        })
    }

    fn targets(&self) -> Value {
        let last = self.dockerfile.stages.len() - 1;
        let one = |(number, stage): (usize, &wharf_dockerfile::Stage)| {
            let base = match &self.graph.nodes[number].base {
                Base::Stage(base) => self.dockerfile.stages[*base].label(*base),
                Base::Image(name) | Base::Context(name) => name.clone(),
                Base::Scratch => "scratch".to_owned(),
            };
            let name = stage.name.clone().unwrap_or_default();
            json!({
                "name": name,
                "default": number == last,
                "description": described(&stage.from, &name),
                "base": base,
                "platform": self.graph.nodes[number].platform.as_ref().map(ToString::to_string),
            })
        };
        let all: Vec<Value> = self.dockerfile.stages.iter().enumerate().map(one).collect();
        json!({ "targets": all })
    }
}

/// The comment before an instruction that begins with the name: `# NAME what it is for`.
fn described(source: &Source, name: &str) -> Option<String> {
    let found = source.comments.iter().rev().find_map(|comment| {
        let rest = comment.trim_start_matches(['#', ' ']).strip_prefix(name)?;
        rest.starts_with(char::is_whitespace).then(|| rest.trim().to_owned())
    });
    found.filter(|_| !name.is_empty())
}

/// Where Docker explains a rule.
fn address(rule: &str) -> String {
    let characters: Vec<char> = rule.chars().collect();
    let mut name = String::new();
    for (at, letter) in characters.iter().enumerate() {
        let before_lower = characters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        let after_lower = at > 0 && characters[at - 1].is_ascii_lowercase();
        if at > 0 && letter.is_ascii_uppercase() && (after_lower || before_lower) {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    format!("https://docs.docker.com/go/dockerfile/rule/{name}/")
}

fn warnings_text(file: &File<'_>, found: &[Warning]) -> String {
    if found.is_empty() {
        return "Check complete, no warnings found.\n".into();
    }
    let (s, have) = if found.len() == 1 { ("", "has") } else { ("s", "have") };
    let mut text = format!("Check complete, {} warning{s} {have} been found!\n", found.len());
    for warning in found {
        let _ = write!(text, "\nWARNING: {} - {}\n{}\n", warning.rule, address(warning.rule), warning.message);
        text.push_str(&excerpt(file.name, file.text, warning.span));
    }
    text
}

fn warnings_json(file: &File<'_>, found: &[Warning]) -> Value {
    let one = |warning: &Warning| {
        json!({
            "ruleName": warning.rule,
            "detail": warning.message,
            "url": address(warning.rule),
            "location": {
                "sourceIndex": 0,
                "ranges": [{ "start": { "line": warning.span.line() }, "end": { "line": warning.span.end_line } }],
            },
        })
    };
    json!({
        "warnings": found.iter().map(one).collect::<Vec<_>>(),
        "sources": [{ "filename": file.name, "language": "Dockerfile" }],
    })
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn outline_text(outline: &Value) -> String {
    let mut text = String::new();
    for (title, key) in [("TARGET", "name"), ("DESCRIPTION", "description")] {
        if let Some(value) = outline[key].as_str().filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "{:<13}{value}", format!("{title}:"));
        }
    }
    let mut section = |header: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{}", table::align(&format!("{header}\n{}", lines.join("\n"))));
        }
    };
    let one =
        |value: &Value| format!("{}\t{}\t{}", word(&value["name"]), word(&value["value"]), word(&value["description"]));
    section("BUILD ARG\tVALUE\tDESCRIPTION", rows(&outline["args"]).iter().map(one).collect());
    for (header, key) in [("SECRET\tREQUIRED", "secrets"), ("SSH\tREQUIRED", "ssh")] {
        let one = |value: &Value| {
            format!("{}\t{}", word(&value["name"]), if value["required"] == true { "true" } else { "" })
        };
        section(header, rows(&outline[key]).iter().map(one).collect());
    }
    text
}

fn targets_text(targets: &Value) -> String {
    let one = |value: &Value| {
        let mark = if value["default"] == true { " (default)" } else { "" };
        format!("{}{mark}\t{}", word(&value["name"]), word(&value["description"]))
    };
    let lines: Vec<String> = rows(&targets["targets"]).iter().map(one).collect();
    format!("{}\n", table::align(&format!("TARGET\tDESCRIPTION\n{}", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_formats() {
        assert_eq!(parse("check").unwrap(), (Some(Call::Check), Format::Text));
        assert_eq!(parse("outline,format=json").unwrap(), (Some(Call::Outline), Format::Json));
        assert_eq!(parse("build").unwrap().0, None);
        assert!(parse("nope").is_err());
    }

    #[test]
    fn rules_have_addresses() {
        let of = |rule: &str| address(rule).rsplit('/').nth(1).unwrap().to_owned();
        assert_eq!(of("JSONArgsRecommended"), "json-args-recommended");
        assert_eq!(of("StageNameCasing"), "stage-name-casing");
    }
}
