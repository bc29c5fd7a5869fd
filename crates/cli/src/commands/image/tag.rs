//! `docker tag`.

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::parse::Matches;
use crate::references;

pub(crate) static COMMAND: Command = Command::new(
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    Arity::Exactly(2),
    |app, matches| Box::pin(run(app, matches)),
)
.stops_at_argument();

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (source, target) = (matches.argument(0), matches.argument(1));
    let named = |text: &str| {
        references::parse(text).map_err(|failure| {
            format!("Error parsing reference: {text:?} is not a valid repository/tag: {}", failure.text)
        })
    };
    if !references::is_id(source) {
        named(source)?;
    }
    let reference = named(target)?;
    if reference.digest().is_some() {
        return Err("refusing to create a tag with a digest reference".into());
    }
    let reference = reference.tag_or_latest();
    app.client()
        .await?
        .post(&format!("/images/{source}/tag"))
        .query("repo", reference.name())
        .query_some("tag", reference.tag())
        .send()
        .await?;
    Ok(0)
}
