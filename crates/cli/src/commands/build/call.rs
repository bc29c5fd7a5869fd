//! `--call`, `--check`: what a Dockerfile says, without a build. An engine is asked what its images have in their
//! environment, if it answers.

mod report;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use wharf_dockerfile::{
    Base, Contexts, Dockerfile, Globals, Graph, Ignore, Known, Outline, Platform, Platforms, Target, check,
    first_failure,
};

use super::context::Context;
use crate::app::App;
use crate::failure::{Failure, Outcome};
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
    let file = File::read(matches, name, &text)?;
    match call {
        Call::Check => {
            let env = file.image_environments(app).await;
            let known = file.known(&ignore, &env);
            let found = check(&file.dockerfile, &known);
            let failure = first_failure(&file.dockerfile, &known);
            let shown = match format {
                Format::Json => pretty(&report::warnings_json(&file, &found)),
                Format::Text if found.is_empty() && failure.is_some() => String::new(),
                Format::Text => report::warnings_text(&file, &found),
            };
            app.print(&shown)?;
            match failure {
                Some(failure) => Err(failure.to_string().into()),
                None => Ok(u8::from(!found.is_empty())),
            }
        }
        Call::Outline => {
            let outline = Outline::of(&file.dockerfile, &file.globals, &file.graph);
            let shown = match format {
                Format::Json => pretty(&report::outline_json(&file, &outline)),
                Format::Text => report::outline_text(&outline),
            };
            app.print(&shown)?;
            Ok(0)
        }
        Call::Targets => {
            let targets = Target::all(&file.dockerfile, &file.graph);
            let shown = match format {
                Format::Json => pretty(&report::targets_json(&file, &targets)),
                Format::Text => report::targets_text(&targets),
            };
            app.print(&shown)?;
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
    /// A target was asked for: what it does not need does not count.
    targeted: bool,
}

impl<'a> File<'a> {
    fn read(matches: &Matches, name: &'a str, text: &'a str) -> Outcome<Self> {
        let wrong = |error: &dyn std::error::Error| Failure::new(error.to_string());
        let mut dockerfile = Dockerfile::parse(name, text).map_err(|e| wrong(&e))?;
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
        if let Some(rules) = given.get("BUILDKIT_DOCKERFILE_CHECK") {
            dockerfile.check_by(rules)?;
        }
        let globals = Globals::new(&dockerfile, &platforms, target.unwrap_or_default(), given);
        let globals = Arc::new(globals.map_err(|e| wrong(&e))?);
        let named = |text: &String| {
            let name = text.split('=').next().unwrap_or_default().to_lowercase();
            (name.clone(), Base::Context(name))
        };
        let contexts: Contexts = matches.all("build-context").iter().map(named).collect();
        let graph = Graph::new(&dockerfile, &globals, target, contexts).map_err(|e| wrong(&e))?;
        let targeted = target.is_some_and(|target| !target.is_empty());
        Ok(Self { name, text, dockerfile, globals, graph, targeted })
    }

    fn known<'k>(&'k self, ignore: &'k Ignore, env: &'k Environments) -> Known<'k> {
        let needed = || self.graph.needed().into_iter().collect();
        let stages = self.targeted.then(needed);
        Known { globals: Arc::clone(&self.globals), graph: &self.graph, ignore, base_env: &**env, stages }
    }

    /// The variables of the images that stages are based on, as far as an engine that runs has them. Of others no
    /// variable is called undefined.
    async fn image_environments(&self, app: &App) -> Environments {
        let mut found: HashMap<String, Vec<(String, String)>> = HashMap::new();
        if let Ok(client) = app.bare_client() {
            for node in &self.graph.nodes {
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
        let bases: Vec<Base> = self.graph.nodes.iter().map(|node| node.base.clone()).collect();
        Box::new(move |stage| match bases.get(stage) {
            Some(Base::Image(name)) => found.get(name).cloned(),
            _ => None,
        })
    }
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
