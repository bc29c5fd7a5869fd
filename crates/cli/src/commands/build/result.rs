//! What is done with an image that was built: outputs, pushes, the file about it.

use serde_json::{Value, json};

use super::output::Output;
use crate::app::App;
use crate::failure::Outcome;
use crate::json::text;
use crate::parse::Matches;
use crate::progress::{self, Target};
use crate::{auth, references};

/// An image that was built.
#[derive(Debug)]
pub(super) struct Result<'a> {
    pub(super) id: &'a str,
    /// It was not there before.
    pub(super) new: bool,
    /// Names the build in the engine's history.
    pub(super) reference: &'a str,
    /// Where progress is shown.
    pub(super) target: Target,
}

impl Result<'_> {
    /// Does with it what the flags ask for, in their order.
    pub(super) async fn deliver(&self, app: &App, matches: &Matches, outputs: &[Output]) -> Outcome {
        let mut names: Vec<String> = matches.all("tag").to_vec();
        names.extend(outputs.iter().flat_map(Output::names));
        let client = app.client().await?;
        for output in outputs {
            output.write(client, self.id, &names).await?;
        }
        let mut digest = None;
        let push = outputs.iter().any(|output| matches!(output, Output::Image { push: true, .. }));
        if push {
            if names.is_empty() {
                return Err("tag is needed when pushing to registry".into());
            }
            for name in &names {
                digest = self.push(app, name).await?.or(digest);
            }
        }
        if let Some(path) = matches.some("metadata-file") {
            let mut about = json!({ "containerimage.config.digest": self.id });
            if !self.reference.is_empty() {
                about["buildx.build.ref"] = json!(self.reference);
            }
            if let Some(digest) = digest {
                about["containerimage.digest"] = json!(digest);
            }
            if !names.is_empty() {
                let full = |name: &String| references::parse(name).map(|name| name.tag_or_latest().to_string());
                let full: Vec<String> = names.iter().map(full).collect::<std::result::Result<_, _>>()?;
                about["image.name"] = json!(full.join(","));
            }
            let path = std::path::Path::new(path);
            let written = std::fs::write(path, format!("{about:#}\n"));
            written.map_err(|error| wharf_report::path("open", path, &error))?;
        }
        // Whoever wants files wants no image without a name.
        let only_files = !outputs.is_empty() && !outputs.iter().any(|output| matches!(output, Output::Image { .. }));
        if only_files && names.is_empty() && self.new {
            client.delete(&format!("/images/{}", self.id)).query("noprune", 1).send().await?;
        }
        Ok(())
    }

    /// Pushes a name; the value is the digest of what the registry has.
    async fn push(&self, app: &App, name: &str) -> Outcome<Option<String>> {
        let reference = references::parse(name)?.tag_or_latest();
        let credentials = auth::header_for(app.config(), &reference)?;
        let response = app
            .client()
            .await?
            .post(&format!("/images/{}/push", reference.name()))
            .query_some("tag", reference.tag())
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
