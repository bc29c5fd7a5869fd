//! `docker commit`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::text;
use crate::parse::Matches;
use crate::references;

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    Arity::Between(1, 2),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(FLAGS);

const FLAGS: &[Flag] = &[
    Flag::text("author", "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")").short('a'),
    Flag::list("change", "Apply Dockerfile instruction to the created image").short('c'),
    Flag::text("message", "Commit message").short('m'),
    Flag::switch("no-pause", "Disable pausing container during commit").hidden(),
    Flag::switch("pause", "Pause container during commit").short('p').default("true"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let pause = matches.on("pause") && !matches.on("no-pause");
    let mut request = app.client().await?.post("/commit").query("container", matches.argument(0));
    let (mut repository, mut tag) = (String::new(), String::new());
    if let Some(name) = Some(matches.argument(1)).filter(|name| !name.is_empty()) {
        let reference = references::parse(name)?;
        if reference.digest().is_some() {
            return Err("refusing to create a tag with a digest reference".into());
        }
        let reference = reference.tag_or_latest();
        repository = reference.name();
        reference.tag().unwrap_or_default().clone_into(&mut tag);
    }
    request = request.query("repo", repository).query("tag", tag);
    request = request.query("comment", matches.text("message")).query("author", matches.text("author"));
    for change in matches.all("change") {
        request = request.query("changes", change);
    }
    if !pause {
        request = request.query("pause", "0");
    }
    let answer: Json = request.send().await?.json().await?;
    app.say(text(&answer["Id"]))?;
    Ok(0)
}
