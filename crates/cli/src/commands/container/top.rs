//! `docker top`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::json::{array, texts};
use crate::parse::Matches;
use crate::table;

pub(crate) static COMMAND: Command = Command::new(
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    Arity::AtLeast(1),
    |app, matches| Box::pin(run(app, matches)),
)
.stops_at_argument();

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (name, options) = (matches.argument(0), matches.arguments.get(1..).unwrap_or_default().join(" "));
    let request = app.client().await?.get(&format!("/containers/{name}/top"));
    let options = Some(options).filter(|options| !options.is_empty());
    let answer: Json = request.query_some("ps_args", options).send().await?.json().await?;
    let mut lines = vec![texts(&answer["Titles"]).join("\t")];
    lines.extend(array(&answer["Processes"]).iter().map(|process| texts(process).join("\t")));
    app.print(&table::align_with(&(lines.join("\n") + "\n"), 20, 3))?;
    Ok(0)
}
