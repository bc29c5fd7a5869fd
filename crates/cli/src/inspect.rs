//! `inspect` of things: raw JSON, or a template over what Go would see.

use bytes::Bytes;
use serde_json::Value as Json;
use wharf_client::Request;
use wharf_template::{MissingKey, Template, Type, Value};

use crate::app::App;
use crate::failure::{Failure, Outcome};
use crate::json;

/// One thing that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The engine's answer, byte for byte.
    pub(crate) raw: Bytes,
    /// What it is in Go.
    pub(crate) kind: Type,
}

/// The exit code for a template that cannot be read.
const BAD_FORMAT: u8 = 64;

/// Collects what is inspected.
#[derive(Debug)]
pub(crate) struct Inspector {
    output: Output,
    /// What is shown at the end.
    shown: String,
    failures: Vec<String>,
}

#[derive(Debug)]
enum Output {
    Indented(Vec<Bytes>),
    Json(Vec<Bytes>),
    Template(Box<Template>, String),
}

impl Inspector {
    /// For a `--format`.
    pub(crate) fn new(format: &str) -> Outcome<Self> {
        let output = match format {
            "" => Output::Indented(Vec::new()),
            "json" => Output::Json(Vec::new()),
            text => {
                let template = Template::parse(text)
                    .map_err(|error| Failure { code: BAD_FORMAT, text: format!("template parsing error: {error}") })?;
                Output::Template(Box::new(template), text.to_owned())
            }
        };
        Ok(Self { output, shown: String::new(), failures: Vec::new() })
    }

    /// Takes what was found, or why it was not.
    pub(crate) fn add(&mut self, found: Outcome<Found>) {
        let shown = found.and_then(|found| self.take(found));
        if let Err(failure) = shown {
            self.failures.push(failure.text);
        }
    }

    fn take(&mut self, found: Found) -> Outcome {
        match &mut self.output {
            Output::Indented(list) | Output::Json(list) => list.push(found.raw),
            Output::Template(template, text) => {
                let json: Json = serde_json::from_slice(&found.raw)?;
                let mut shown = String::new();
                if template.execute_into(&found.kind.view(&json), &mut shown).is_err() {
                    // Fields of the answer that Go's type does not have can still be asked for by their JSON names.
                    shown.clear();
                    let strict = Template::parse(text).map(|template| template.missing_key(MissingKey::Error));
                    let executed = strict.and_then(|template| template.execute_into(&Value::raw(&json), &mut shown));
                    executed.map_err(|error| format!("template parsing error: {error}"))?;
                }
                self.shown.push_str(&shown);
                self.shown.push('\n');
            }
        }
        Ok(())
    }

    /// Shows everything and gives the exit code.
    pub(crate) fn finish(self, app: &App) -> Outcome<u8> {
        let text = match &self.output {
            Output::Indented(list) if list.is_empty() => "[]\n".to_owned(),
            Output::Indented(list) => {
                let joined = join(list);
                json::indent(&joined) + "\n"
            }
            Output::Json(list) => json::compact(&join(list)) + "\n",
            Output::Template(..) if self.shown.is_empty() => "\n".to_owned(),
            Output::Template(..) => self.shown.clone(),
        };
        app.print(&text)?;
        if self.failures.is_empty() { Ok(0) } else { Err(Failure::new(self.failures.join("\n"))) }
    }
}

fn join(list: &[Bytes]) -> String {
    let texts: Vec<_> = list.iter().map(|raw| String::from_utf8_lossy(raw.trim_ascii()).into_owned()).collect();
    format!("[{}]", texts.join(","))
}

/// Sends the request of one inspection.
pub(crate) async fn fetch(request: Request<'_>, kind: Type) -> Outcome<Found> {
    let raw = request.send().await?.bytes().await?;
    Ok(Found { raw, kind })
}
