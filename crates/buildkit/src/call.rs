//! What is asked about a Dockerfile without building it (`--call`, `--check`).
//!
//! Source: moby/buildkit `frontend/subrequests`. Clients read `result.json` and write text of it themselves; `version` tells them that
//! they can.

use std::collections::HashMap;

use serde_json::{Value, json};
use wharf_dockerfile::{Asked, Base, Called, Contexts, Ignore, Platform};
use wharf_image::Images;

use crate::BuildKit;
use crate::contexts::{self, parsed};
use crate::control::blocking;
use crate::failure;
use crate::grpc::Status;
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
    pub(crate) async fn answer_call(&self, asked: contexts::Asked<'_>, request: &str) -> Result<PbResult, Status> {
        let answer = match request {
            "frontend.subrequests.describe" => Answer::of(described()),
            "frontend.outline" | "frontend.targets" | "frontend.lint" => {
                let (name, given) = self.dockerfile(asked).await?;
                let (options, request) = (asked.options.clone(), request.to_owned());
                let images = self.inner.engine.images().clone();
                blocking(move || answer(&request, &options, &name, &given, &images)).await?
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

fn answer(
    request: &str,
    options: &Options,
    name: &str,
    given: &wharf_build::Given,
    images: &Images,
) -> Result<Answer, Status> {
    let text = String::from_utf8_lossy(&given.text);
    let asked = asked(options, name, &text)?;
    if request == "frontend.lint" {
        let lint = match Called::read(asked) {
            Ok(called) => called
                .lint(&Ignore::parse(&given.ignore).unwrap_or_default(), &|stage| base_env(&called, images, stage)),
            Err(lint) => lint,
        };
        let mut answer = Answer::of(lint.json(name, &text));
        answer.code = Some(u8::from(!lint.warnings.is_empty() || lint.failure.is_some()));
        answer.text = Some(lint.text(name, &text));
        return Ok(answer);
    }
    // An answer to what cannot be read is an error, with its lines.
    parsed(name, &given.text)?;
    let called = Called::read(asked).map_err(|lint| match lint.failure {
        Some(broken) => failure::broken(&broken, name, &text),
        None => Status::invalid("the Dockerfile cannot be read"),
    })?;
    Ok(Answer::of(match request {
        "frontend.outline" => called.outline_json(&called.outline()),
        _ => called.targets_json(&called.targets()),
    }))
}

fn asked<'a>(options: &'a Options, file: &'a str, text: &'a str) -> Result<Asked<'a>, Status> {
    let request = options::request(options)?;
    let first = request.platform.as_deref().and_then(|all| all.split(',').next());
    let platform = first.map(Platform::parse).transpose().map_err(Status::invalid)?;
    let named = |(name, _): (&str, &str)| {
        let name = name.split("::").next().unwrap_or_default().to_lowercase();
        (name.clone(), Base::Context(name))
    };
    let contexts: Contexts = below(options, "context:").into_iter().map(named).collect();
    let target = options.get("target").map(String::as_str);
    Ok(Asked { file, text, target, platform, arguments: request.build_args, contexts })
}

/// The variables of the image that a stage is based on. Of one that is not here no variable is called undefined: it is not
/// pulled for that.
fn base_env(called: &Called<'_>, images: &Images, stage: usize) -> Option<Vec<(String, String)>> {
    let Base::Image(name) = &called.graph.nodes.get(stage)?.base else { return None };
    let image = images.resolve(name).ok()?;
    let pairs = image.config.config.env.iter().flatten();
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut env: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // A build sets it where an image does not.
    if env.iter().all(|(name, _)| name != "PATH") {
        env.push(("PATH".into(), String::new()));
    }
    Some(env)
}
