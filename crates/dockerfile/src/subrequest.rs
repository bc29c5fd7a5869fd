//! Answers to what is asked about a Dockerfile, as BuildKit's clients read them.
//!
//! Source: moby/buildkit `frontend/subrequests/{lint,outline,targets}`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::call::{Called, Lint, LintFailure};
use crate::check::{Warning, address, description};
use crate::excerpt::excerpt;
use crate::outline::{Outline, OutlineArgument, OutlineNeed, Target};
use crate::position::Span;

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

fn ranges(spans: &[Span]) -> Value {
    let one =
        |span: &Span| json!({ "start": { "line": span.line() }, "end": { "line": span.end_line.max(span.line()) } });
    match spans {
        [] => json!({}),
        spans => json!({ "ranges": spans.iter().map(one).collect::<Vec<_>>() }),
    }
}

fn location(span: Span) -> Value {
    ranges(&[span])
}

fn sources(called: &Called<'_>) -> Value {
    json!([STANDARD.encode(called.text)])
}

impl Lint {
    /// As `--call=check,format=json` has it, of a file of this name and text.
    pub fn json(&self, file: &str, text: &str) -> Value {
        let one = |warning: &Warning| {
            json!({
                "ruleName": warning.rule,
                "description": description(warning.rule),
                "url": address(warning.rule),
                "detail": warning.message,
                "location": location(warning.span),
            })
        };
        let all: Vec<Value> = self.warnings.iter().map(one).collect();
        let mut whole = json!({
            "warnings": if all.is_empty() { Value::Null } else { Value::Array(all) },
            "sources": [{ "filename": file, "data": STANDARD.encode(text), "language": "Dockerfile" }],
        });
        if let Some(LintFailure { message, spans }) = &self.failure {
            whole["buildError"] = json!({ "message": message, "location": ranges(spans) });
        }
        whole
    }

    /// The warnings, each with the lines that it is about.
    pub fn text(&self, file: &str, text: &str) -> String {
        let mut shown = String::new();
        for warning in &self.warnings {
            let _ = write!(shown, "\nWARNING: {} - {}\n{}\n", warning.rule, address(warning.rule), warning.message);
            shown.push_str(&excerpt(file, text, warning.span));
        }
        shown
    }
}

impl LintFailure {
    /// With the lines that are wrong.
    pub fn text(&self, file: &str, text: &str) -> String {
        let lines: String =
            self.spans.iter().map(|span| format!("\n{}", excerpt(file, text, *span).trim_end())).collect();
        format!("{}{lines}", self.message)
    }
}

impl Called<'_> {
    /// As `--call=outline,format=json` has it.
    pub fn outline_json(&self, outline: &Outline) -> Value {
        let mut object = named(outline.name.as_deref().unwrap_or_default(), outline.description.as_deref());
        let argument = |argument: &OutlineArgument| {
            let mut one = named(&argument.name, argument.description.as_deref());
            if let Some(value) = argument.value.as_ref().filter(|value| !value.is_empty()) {
                one.insert("value".into(), json!(value));
            }
            one.insert("location".into(), location(argument.span));
            Value::Object(one)
        };
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
        let args = outline.arguments.iter().map(argument).collect();
        for (key, list) in [("args", args), ("secrets", needs(&outline.secrets)), ("ssh", needs(&outline.agents))] {
            if !list.is_empty() {
                object.insert(key.into(), Value::Array(list));
            }
        }
        object.insert("sources".into(), sources(self));
        Value::Object(object)
    }

    /// As `--call=targets,format=json` has it.
    pub fn targets_json(&self, targets: &[Target]) -> Value {
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
        json!({ "targets": targets.iter().map(one).collect::<Vec<_>>(), "sources": sources(self) })
    }
}
