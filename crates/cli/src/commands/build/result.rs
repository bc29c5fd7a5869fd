//! What is done with an image that was built: outputs, pushes, the file about it.

use serde_json::{Value, json};
use wharf_client::Client;

use super::attest;
use super::output::Output;
use crate::app::App;
use crate::failure::Outcome;
use crate::json::text;
use crate::parse::Matches;
use crate::progress::{self, Target};
use crate::{auth, references};

/// An image that was built.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) id: String,
    /// It was not there before.
    pub(super) new: bool,
    /// Names the build in the engine's history.
    pub(super) reference: String,
    /// Where several were built, which it is.
    pub(super) platform: Option<String>,
    /// Of the index that the names lead to.
    pub(super) digest: Option<String>,
}

impl Made {
    /// As the engine tells of it.
    pub(super) fn of(aux: &Value) -> Self {
        let some = |key: &str| aux[key].as_str().map(str::to_owned);
        Self {
            id: text(&aux["ID"]).to_owned(),
            new: aux["New"] == true,
            reference: text(&aux["Ref"]).to_owned(),
            platform: some("Platform"),
            digest: some("Digest"),
        }
    }
}

/// What was built: for each platform an image, that for this host last.
#[derive(Debug)]
pub(super) struct Result<'a> {
    pub(super) made: &'a [Made],
    /// Where progress is shown.
    pub(super) target: Target,
    /// What its index is called as long as outputs are made of it.
    pub(super) passing: Option<&'a str>,
}

/// What the engine puts in front of such names.
const PASSING: &str = "localhost/wharf-build-result-";

/// Digits of a name for the result's index, where something is stated about a result that has no name of its own: without one
/// an index is not kept.
pub(super) fn passing(matches: &Matches, outputs: &[Output]) -> Outcome<Option<String>> {
    let named = !matches.all("tag").is_empty() || outputs.iter().any(|output| !output.names().is_empty());
    if named || outputs.is_empty() || attest::of(matches)?.is_empty() {
        return Ok(None);
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

impl Result<'_> {
    /// Does with it what the flags ask for, in their order.
    pub(super) async fn deliver(&self, app: &App, matches: &Matches, outputs: &[Output]) -> Outcome {
        let mut names: Vec<String> = matches.all("tag").to_vec();
        names.extend(outputs.iter().flat_map(Output::names));
        let client = app.client().await?;
        let written = self.write(client, outputs, &names).await;
        if let Some(name) = self.passing_name() {
            let forgotten = client.delete(&format!("/images/{name}")).send().await;
            written.and(forgotten.map(drop).map_err(Into::into))?;
        } else {
            written?;
        }
        let last = self.made.last();
        let mut digest = last.and_then(|made| made.digest.clone());
        let push = outputs.iter().any(|output| matches!(output, Output::Image { push: true, .. }));
        if push {
            if names.is_empty() {
                return Err("tag is needed when pushing to registry".into());
            }
            let form = outputs.iter().find_map(|output| match output {
                Output::Image { push: true, compression, .. } => compression.as_deref(),
                _ => None,
            });
            for name in &names {
                digest = self.push(app, name, form).await?.or(digest);
            }
        }
        if let Some(path) = matches.some("metadata-file") {
            let mut about = json!({ "containerimage.config.digest": last.map(|made| &made.id) });
            if let Some(made) = last.filter(|made| !made.reference.is_empty()) {
                about["buildx.build.ref"] = json!(made.reference);
            }
            // Without a manifest the image is named by its configuration, as with Docker.
            if let Some(digest) = digest.or_else(|| last.map(|made| made.id.clone())) {
                about["containerimage.digest"] = json!(digest);
            }
            if !names.is_empty() {
                let full = |name: &String| references::parse(name).map(|name| name.to_string());
                let full: Vec<String> = names.iter().map(full).collect::<std::result::Result<_, _>>()?;
                about["image.name"] = json!(full.join(","));
            }
            let path = std::path::Path::new(path);
            let written = std::fs::write(path, format!("{about:#}\n"));
            written.map_err(|error| wharf_report::path("open", path, &error))?;
        }
        // Whoever wants files wants no image without a name.
        let only_files = !outputs.is_empty() && !outputs.iter().any(|output| matches!(output, Output::Image { .. }));
        for made in self.made.iter().filter(|made| only_files && names.is_empty() && made.new) {
            client.delete(&format!("/images/{}", made.id)).query("noprune", 1).send().await?;
        }
        Ok(())
    }

    async fn write(&self, client: &Client, outputs: &[Output], names: &[String]) -> Outcome {
        let passing = self.passing_name();
        let known = passing.as_ref().map_or(names, std::slice::from_ref);
        for output in outputs {
            output.write(client, self.made, known).await?;
        }
        Ok(())
    }

    /// The name that its index has for now, if it has an index.
    fn passing_name(&self) -> Option<String> {
        let digits = self.passing.filter(|_| self.made.iter().any(|made| made.digest.is_some()))?;
        Some(format!("{PASSING}{digits}"))
    }

    /// Pushes a name; the value is the digest of what the registry has.
    async fn push(&self, app: &App, name: &str, compression: Option<&str>) -> Outcome<Option<String>> {
        let reference = references::parse(name)?.tag_or_latest();
        let credentials = auth::header_for(app.config(), &reference);
        let response = app
            .client()
            .await?
            .post(&format!("/images/{}/push", reference.name()))
            .query_some("tag", reference.tag())
            .query_some("compression", compression)
            .header("x-registry-auth", &credentials)
            .send()
            .await?;
        let mut digest = None;
        let note = |aux: &Value| {
            digest = Some(text(&aux["Digest"]).to_owned()).filter(|digest| !digest.is_empty());
        };
        progress::show(response, self.target, note).await?;
        Ok(digest)
    }
}
