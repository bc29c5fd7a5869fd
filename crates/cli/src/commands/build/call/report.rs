//! Answers as BuildKit shows them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use wharf_dockerfile::{Outline, OutlineArgument, OutlineNeed, Span, Target, Warning, excerpt};

use super::File;
use crate::table;

/// What something is called and is for, as far as that is said.
fn named(name: &str, description: Option<&str>) -> Map<String, Value> {
    let mut object = Map::new();
    for (key, value) in [("name", Some(name)), ("description", description)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            object.insert(key.into(), json!(value));
        }
    }
    object
}

/// What each rule is about, in Docker's words.
fn description(rule: &str) -> &'static str {
    match rule {
        "ConsistentInstructionCasing" => {
            "All commands within the Dockerfile should use the same casing (either upper or lower)"
        }
        "CopyIgnoredFile" => "Attempting to Copy file that is excluded by .dockerignore",
        "DuplicateStageName" => "Stage names should be unique",
        "ExposeInvalidFormat" => {
            "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
        }
        "ExposeProtoCasing" => "Protocol in EXPOSE instruction should be lowercase",
        "FromAsCasing" => "The 'as' keyword should match the case of the 'from' keyword",
        "FromPlatformFlagConstDisallowed" => "FROM --platform flag should not use a constant value",
        "InvalidDefaultArgInFrom" => "Default value for global ARG results in an empty or invalid base image name",
        "InvalidDefinitionDescription" => {
            "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment."
        }
        "JSONArgsRecommended" => {
            "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
        }
        "LegacyKeyValueFormat" => "Legacy key/value format with whitespace separator should not be used",
        "MaintainerDeprecated" => {
            "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
        }
        "MultipleInstructionsDisallowed" => {
            "Multiple instructions of the same type should not be used in the same stage"
        }
        "NoEmptyContinuation" => "Empty continuation lines will become errors in a future release",
        "RedundantTargetPlatform" => {
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
        }
        "ReservedStageName" => "Reserved words should not be used as stage names",
        "SecretsUsedInArgOrEnv" => "Sensitive data should not be used in the ARG or ENV commands",
        "StageNameCasing" => "Stage names should be lowercase",
        "UndefinedArgInFrom" => "FROM command must use declared ARGs",
        "UndefinedVar" => "Variables should be defined before their use",
        "WorkdirRelativePath" => {
            "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
        }
        _ => "",
    }
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

pub(super) fn warnings_text(file: &File<'_>, found: &[Warning]) -> String {
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

fn location(span: Span) -> Value {
    json!({ "ranges": [{ "start": { "line": span.line() }, "end": { "line": span.end_line } }] })
}

pub(super) fn warnings_json(file: &File<'_>, found: &[Warning]) -> Value {
    let one = |warning: &Warning| {
        json!({
            "ruleName": warning.rule,
            "description": description(warning.rule),
            "url": address(warning.rule),
            "detail": warning.message,
            "location": location(warning.span),
        })
    };
    let all: Vec<Value> = found.iter().map(one).collect();
    json!({
        "warnings": if all.is_empty() { Value::Null } else { Value::Array(all) },
        "sources": [{ "filename": file.name, "data": STANDARD.encode(file.text), "language": "Dockerfile" }],
    })
}

pub(super) fn outline_json(file: &File<'_>, outline: &Outline) -> Value {
    let mut object = named(outline.name.as_deref().unwrap_or_default(), outline.description.as_deref());
    let args = outline.arguments.iter().map(|argument| {
        let mut one = named(&argument.name, argument.description.as_deref());
        if let Some(value) = argument.value.as_ref().filter(|value| !value.is_empty()) {
            one.insert("value".into(), json!(value));
        }
        one.insert("location".into(), location(argument.span));
        Value::Object(one)
    });
    let needs = |all: &[OutlineNeed]| {
        let one = |need: &OutlineNeed| {
            let mut one = named(&need.name, None);
            if need.required {
                one.insert("required".into(), json!(true));
            }
            one.insert("location".into(), location(need.span));
            Value::Object(one)
        };
        all.iter().map(one).collect::<Vec<_>>()
    };
    for (key, list) in [("args", args.collect()), ("secrets", needs(&outline.secrets)), ("ssh", needs(&outline.agents))]
    {
        if !list.is_empty() {
            object.insert(key.into(), Value::Array(list));
        }
    }
    object.insert("sources".into(), json!([STANDARD.encode(file.text)]));
    Value::Object(object)
}

pub(super) fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    for (title, value) in [("TARGET", outline.name.as_deref()), ("DESCRIPTION", outline.description.as_deref())] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "{title}:\t{value}");
        }
    }
    if !text.is_empty() {
        text = table::align_with(&text, 0, 1);
    }
    let mut section = |header: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{}", table::align_with(&format!("{header}\n{}", lines.join("\n")), 0, 3));
        }
    };
    let one = |argument: &OutlineArgument| {
        let description = argument.description.as_deref().unwrap_or_default();
        format!("{}\t{}\t{description}", argument.name, argument.value.as_deref().unwrap_or_default())
    };
    section("BUILD ARG\tVALUE\tDESCRIPTION", outline.arguments.iter().map(one).collect());
    for (header, all) in [("SECRET\tREQUIRED", &outline.secrets), ("SSH\tREQUIRED", &outline.agents)] {
        let one = |need: &OutlineNeed| format!("{}\t{}", need.name, if need.required { "true" } else { "" });
        section(header, all.iter().map(one).collect());
    }
    text
}

pub(super) fn targets_json(file: &File<'_>, targets: &[Target]) -> Value {
    let one = |target: &Target| {
        let mut one = named(&target.name, target.description.as_deref());
        if target.default {
            one.insert("default".into(), json!(true));
        }
        one.insert("base".into(), json!(target.base));
        if let Some(platform) = &target.platform {
            one.insert("platform".into(), json!(platform));
        }
        one.insert("location".into(), location(target.span));
        Value::Object(one)
    };
    json!({ "targets": targets.iter().map(one).collect::<Vec<_>>(), "sources": [STANDARD.encode(file.text)] })
}

pub(super) fn targets_text(targets: &[Target]) -> String {
    let one = |target: &Target| {
        let name = [target.name.as_str(), if target.default { "(default)" } else { "" }].join(" ");
        format!("{}\t{}", name.trim(), target.description.as_deref().unwrap_or_default())
    };
    let lines: Vec<String> = targets.iter().map(one).collect();
    format!("{}\n", table::align_with(&format!("TARGET\tDESCRIPTION\n{}", lines.join("\n")), 0, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_addresses() {
        let of = |rule: &str| address(rule).rsplit('/').nth(1).unwrap().to_owned();
        assert_eq!(of("JSONArgsRecommended"), "json-args-recommended");
        assert_eq!(of("StageNameCasing"), "stage-name-casing");
    }
}
