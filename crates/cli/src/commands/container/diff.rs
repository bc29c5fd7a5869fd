//! `docker diff`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::json::{int, text};
use crate::parse::Matches;

pub(crate) static COMMAND: Command = Command::new(
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    Arity::Exactly(1),
    |app, matches| Box::pin(run(app, matches)),
);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let name = matches.argument(0);
    let client = app.client().await?;
    // Without changes the answer is `null`.
    let answer: Option<Vec<Json>> = client.get(&format!("/containers/{name}/changes")).send().await?.json().await?;
    let kind = |change: &Json| match int(&change["Kind"]) {
        0 => "C",
        1 => "A",
        2 => "D",
        _ => "",
    };
    let lines: Vec<String> = answer
        .unwrap_or_default()
        .iter()
        .map(|change| format!("{} {}\n", kind(change), text(&change["Path"])))
        .collect();
    app.print(&lines.concat())?;
    Ok(0)
}
