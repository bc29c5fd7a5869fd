//! `docker export`.

use crate::app::App;
use crate::command::{Arity, Command};
use crate::download;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::parse::Matches;

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    Arity::Exactly(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[Flag::text("output", "Write to a file, instead of STDOUT").short('o')]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let output = matches.some("output");
    download::refuse_terminal(output)?;
    download::check(output).map_err(|failure| format!("failed to export container: {}", failure.text))?;
    let path = format!("/containers/{}/export", matches.argument(0));
    let response = app.client().await?.get(&path).send().await?;
    download::save(response, output).await?;
    Ok(0)
}
