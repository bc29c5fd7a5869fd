//! `--call`, `--check`: what a Dockerfile says, without a build. An engine is asked what its images have in their
//! environment, if it answers.

mod report;

use std::collections::HashMap;

use serde_json::Value;
use wharf_dockerfile::{Asked, Base, Called, Contexts, Lint, Platform};

use super::context::Context;
use crate::app::App;
use crate::failure::Outcome;
use crate::parse::{Matches, commas};

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
pub(super) async fn answer(app: &App, matches: &Matches, context: &Context, call: Call, format: Format) -> Outcome<u8> {
    let looked = context.look()?;
    let Some((text, ignore)) = looked else {
        return Err("--call and --check need a context that is a directory, a repository or a Dockerfile alone".into());
    };
    let name = match matches.text("file") {
        "" | "-" => "Dockerfile",
        name => name,
    };
    let read = Called::read(asked(matches, name, &text)?);
    let broken = |lint: &Lint| lint.failure.as_ref().map(|failure| failure.text(name, &text)).unwrap_or_default();
    match call {
        Call::Check => {
            let lint = match &read {
                Ok(called) => called.lint(&ignore, &*image_environments(called, app).await),
                Err(lint) => lint.clone(),
            };
            app.print(&match format {
                Format::Json => pretty(&lint.json(name, &text)),
                Format::Text => report::lint_text(name, &text, &lint),
            })?;
            match &lint.failure {
                Some(_) => {
                    app.print(if format == Format::Json || lint.warnings.is_empty() { "" } else { "\n" })?;
                    Err(format!("ERROR: {}", broken(&lint)).into())
                }
                None => Ok(u8::from(!lint.warnings.is_empty())),
            }
        }
        Call::Outline => {
            let called = read.map_err(|lint| broken(&lint))?;
            let outline = called.outline();
            app.print(&match format {
                Format::Json => pretty(&called.outline_json(&outline)),
                Format::Text => report::outline_text(&outline),
            })?;
            Ok(0)
        }
        Call::Targets => {
            let called = read.map_err(|lint| broken(&lint))?;
            let targets = called.targets();
            app.print(&match format {
                Format::Json => pretty(&called.targets_json(&targets)),
                Format::Text => report::targets_text(&targets),
            })?;
            Ok(0)
        }
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn asked<'a>(matches: &'a Matches, file: &'a str, text: &'a str) -> Outcome<Asked<'a>> {
    let platform = matches.all("platform").first().map(|text| Platform::parse(text)).transpose()?;
    let arguments = matches
        .all("build-arg")
        .iter()
        .filter_map(|text| match text.split_once('=') {
            Some((name, value)) => Some((name.to_owned(), value.to_owned())),
            None => Some((text.clone(), std::env::var(text).ok()?)),
        })
        .collect();
    let named = |text: &String| {
        let name = text.split('=').next().unwrap_or_default().to_lowercase();
        (name.clone(), Base::Context(name))
    };
    let contexts: Contexts = matches.all("build-context").iter().map(named).collect();
    Ok(Asked { file, text, target: matches.some("target"), platform, arguments, contexts })
}

/// The variables of the images that stages are based on, as far as an engine that runs has them. Of others no variable is
/// called undefined.
async fn image_environments(called: &Called<'_>, app: &App) -> Environments {
    let mut found: HashMap<String, Vec<(String, String)>> = HashMap::new();
    if let Ok(client) = app.bare_client() {
        for node in &called.graph.nodes {
            let Base::Image(name) = &node.base else { continue };
            if found.contains_key(name) {
                continue;
            }
            let Ok(response) = client.get(&format!("/images/{name}/json")).send().await else { continue };
            let Ok(image) = response.json::<Value>().await else { continue };
            let pairs = image["Config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let mut all: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            // A build sets it where an image does not.
            if all.iter().all(|(name, _)| name != "PATH") {
                all.push(("PATH".into(), String::new()));
            }
            found.insert(name.clone(), all);
        }
    }
    let bases: Vec<Base> = called.graph.nodes.iter().map(|node| node.base.clone()).collect();
    Box::new(move |stage| match bases.get(stage) {
        Some(Base::Image(name)) => found.get(name).cloned(),
        _ => None,
    })
}

/// What the image that a stage is based on has in its environment.
type Environments = Box<dyn Fn(usize) -> Option<Vec<(String, String)>>>;

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
}
