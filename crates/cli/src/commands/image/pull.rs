//! `docker pull`.

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::parse::Matches;
use crate::progress::{self, Target};
use crate::{auth, references};

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    Arity::Exactly(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[
    Flag::switch("all-tags", "Download all tagged images in the repository").short('a'),
    Flag::switch("disable-content-trust", "Skip image verification").default("true"),
    Flag::text("platform", "Set platform if server is multi-platform capable"),
    Flag::switch("quiet", "Suppress verbose output").short('q'),
]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (all, quiet) = (matches.on("all-tags"), matches.on("quiet"));
    let mut reference = references::parse(matches.argument(0))?;
    let name_only = reference.tag().is_none() && reference.digest().is_none();
    if all && !name_only {
        return Err("tag can't be used with --all-tags/-a".into());
    }
    if !all && name_only {
        reference = reference.tag_or_latest();
        if !quiet {
            app.say(&format!("Using default tag: {}", reference.tag().unwrap_or_default()))?;
        }
    }
    let tag = match reference.digest() {
        Some(digest) => Some(digest.to_string()),
        None => reference.tag().map(str::to_owned),
    };
    let credentials = auth::header_for(app.config(), &reference);
    let response = app
        .client()
        .await?
        .post("/images/create")
        .query("fromImage", reference.name())
        .query_some("tag", tag)
        .query_some("platform", matches.some("platform").map(str::to_lowercase))
        .header("x-registry-auth", &credentials)
        .send()
        .await?;
    progress::show(response, if quiet { Target::Nowhere } else { Target::Stdout }, |_| {}).await?;
    app.say(&reference.to_string())?;
    Ok(0)
}
