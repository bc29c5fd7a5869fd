//! What is asked about a Dockerfile without building it (`--call`, `--check`).
//!
//! Source: moby/buildkit `frontend/subrequests`. Clients read `result.json` and write text of it themselves; `version` tells them that
//! they can.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wharf_dockerfile::{
    Base, Contexts, Dockerfile, Globals, Graph, Ignore, Known, Outline, OutlineNeed, Platform, Platforms, Span, Target,
    check, excerpt,
};
use wharf_image::Images;

use crate::BuildKit;
use crate::contexts::{Asked, parsed};
use crate::control::blocking;
use crate::failure;
use crate::grpc::{Code, Status};
use crate::options::{self, Options, below};
use crate::proto::gateway::PbResult;

const VERSION: &str = "1.0.0";
const CALLS: &[(&str, &str)] = &[
    ("frontend.outline", "List all parameters current build target supports"),
    ("frontend.targets", "List all targets current build supports"),
    ("frontend.lint", "Lint a Dockerfile"),
    ("frontend.subrequests.describe", "List available subrequest types"),
];

impl BuildKit {
    /// Answers one.
    ///
    /// # Errors
    /// For one that is not known, and for a Dockerfile that cannot be read.
    pub(crate) async fn answer_call(&self, asked: Asked<'_>, request: &str) -> Result<PbResult, Status> {
        let answer = match request {
            "frontend.subrequests.describe" => Answer::of(described()),
            "frontend.outline" | "frontend.targets" | "frontend.lint" => {
                let (name, given) = self.dockerfile(asked).await?;
                let (options, request) = (asked.options.clone(), request.to_owned());
                let images = self.inner.engine.images().clone();
                blocking(move || {
                    let file = File::read(&options, name, &given.text)?;
                    Ok(match request.as_str() {
                        "frontend.outline" => Answer::of(file.outline()),
                        "frontend.targets" => Answer::of(file.targets()),
                        _ => file.lint(&Ignore::parse(&given.ignore).unwrap_or_default(), &images),
                    })
                })
                .await?
            }
            other => return Err(failure::unsupported_call(other)),
        };
        let mut metadata = HashMap::from([
            ("result.json".to_owned(), format!("{:#}", answer.json).into_bytes()),
            ("version".to_owned(), VERSION.as_bytes().to_vec()),
        ]);
        if let Some(text) = answer.text {
            metadata.insert("result.txt".into(), text.into_bytes());
        }
        if let Some(code) = answer.code {
            metadata.insert("result.statuscode".into(), code.to_string().into_bytes());
        }
        Ok(PbResult { refs: None, metadata })
    }
}

struct Answer {
    json: Value,
    text: Option<String>,
    code: Option<u8>,
}

impl Answer {
    fn of(json: Value) -> Self {
        Self { json, text: None, code: None }
    }
}

fn described() -> Value {
    let one = |(name, description): &(&str, &str)| {
        json!({
            "name": name,
            "version": VERSION,
            "type": "rpc",
            "description": description,
            "opts": [],
            "metadata": [{ "name": "result.json", "description": "" }],
            "refs": null,
        })
    };
    json!(CALLS.iter().map(one).collect::<Vec<_>>())
}

struct File {
    name: String,
    text: String,
    dockerfile: Dockerfile,
    globals: Arc<Globals>,
    graph: Graph,
}

impl File {
    fn read(options: &Options, name: String, bytes: &[u8]) -> Result<Self, Status> {
        let wrong = |error: &dyn std::error::Error| Status::new(Code::Unknown, error.to_string());
        let (text, dockerfile) = parsed(&name, bytes)?;
        let request = options::request(options)?;
        let first = request.platform.as_deref().and_then(|all| all.split(',').next());
        let platform = first.map(Platform::parse).transpose().map_err(Status::invalid)?;
        let platforms = Platforms { build: Platform::host(), target: platform.unwrap_or_else(Platform::host) };
        let target = request.target.as_deref();
        let globals = Globals::new(&dockerfile, &platforms, target.unwrap_or_default(), request.build_args);
        let globals = Arc::new(globals.map_err(|e| wrong(&e))?);
        let named = |(name, _): (&str, &str)| {
            let name = name.split("::").next().unwrap_or_default().to_lowercase();
            (name.clone(), Base::Context(name))
        };
        let contexts: Contexts = below(options, "context:").into_iter().map(named).collect();
        let graph = Graph::new(&dockerfile, &globals, target, contexts).map_err(|e| wrong(&e))?;
        Ok(Self { name, text, dockerfile, globals, graph })
    }

    fn sources(&self) -> Value {
        json!([STANDARD.encode(self.text.as_bytes())])
    }

    fn outline(&self) -> Value {
        let outline = Outline::of(&self.dockerfile, &self.globals, &self.graph);
        let one = |need: &OutlineNeed| json!({ "name": need.name, "required": need.required, "location": location(need.span) });
        let list = |all: &[OutlineNeed]| all.iter().map(one).collect::<Vec<_>>();
        let argument = |argument: &wharf_dockerfile::OutlineArgument| {
            json!({
                "name": argument.name,
                "description": argument.description.as_deref().unwrap_or_default(),
                "value": argument.value.as_deref().unwrap_or_default(),
                "location": location(argument.span),
            })
        };
        json!({
            "name": outline.name.unwrap_or_default(),
            "description": outline.description.unwrap_or_default(),
            "args": outline.arguments.iter().map(argument).collect::<Vec<_>>(),
            "secrets": list(&outline.secrets),
            "ssh": list(&outline.agents),
            "sources": self.sources(),
        })
    }

    fn targets(&self) -> Value {
        let one = |target: Target| {
            json!({
                "name": target.name,
                "default": target.default,
                "description": target.description.unwrap_or_default(),
                "base": target.base,
                "platform": target.platform.unwrap_or_default(),
                "location": location(target.span),
            })
        };
        let all: Vec<Value> = Target::all(&self.dockerfile, &self.graph).into_iter().map(one).collect();
        json!({ "targets": all, "sources": self.sources() })
    }

    fn lint(&self, ignore: &Ignore, images: &Images) -> Answer {
        // Of an image that is not here no variable is called undefined: it is not pulled for that.
        let base_env = |stage: usize| {
            let Base::Image(name) = &self.graph.nodes.get(stage)?.base else { return None };
            let image = images.resolve(name).ok()?;
            let pairs = image.config.config.env.iter().flatten();
            let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let mut env: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            // A build sets it where an image does not.
            if env.iter().all(|(name, _)| name != "PATH") {
                env.push(("PATH".into(), String::new()));
            }
            Some(env)
        };
        let globals = Arc::clone(&self.globals);
        let known = Known { globals, graph: &self.graph, ignore, base_env: &base_env, stages: None };
        let found = check(&self.dockerfile, &known);
        let mut text = String::new();
        let mut warnings = Vec::new();
        for warning in &found {
            let url = failure::address(warning.rule);
            text.push_str(&format!("\nWARNING: {} - {url}\n{}\n", warning.rule, warning.message));
            text.push_str(&excerpt(&self.name, &self.text, warning.span));
            warnings.push(json!({
                "ruleName": warning.rule,
                "detail": warning.message,
                "url": url,
                "location": location(warning.span),
            }));
        }
        let source =
            json!({ "fileName": self.name, "language": "Dockerfile", "data": STANDARD.encode(self.text.as_bytes()) });
        let json = json!({ "warnings": warnings, "sources": [source] });
        Answer { json, text: Some(text), code: Some(u8::from(!found.is_empty())) }
    }
}

fn location(span: Span) -> Value {
    let (first, last) = (span.line(), span.end_line.max(span.line()));
    json!({ "sourceIndex": 0, "ranges": [{ "start": { "line": first }, "end": { "line": last } }] })
}
