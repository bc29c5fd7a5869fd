//! `docker container prune`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::json::{int, texts};
use crate::parse::Matches;
use crate::{confirm, units};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "Remove all stopped containers", Arity::None, |app, matches| Box::pin(run(app, matches)))
        .flags(&[
            Flag::filter("filter", "Provide filter values (e.g. \"until=<timestamp>\")"),
            Flag::switch("force", "Do not prompt for confirmation").short('f'),
        ]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    confirm::prune("WARNING! This will remove all stopped containers.", matches.on("force"))?;
    let (reclaimed, output) = prune(app, &Filters::of(matches.all("filter"))).await?;
    if !output.is_empty() {
        app.say(&output)?;
    }
    app.say(&format!("Total reclaimed space: {}", units::human_size(reclaimed as f64)))?;
    Ok(0)
}

/// Removes stopped containers; gives the bytes and the lines to show.
pub(crate) async fn prune(app: &App, filters: &Filters) -> Outcome<(i64, String)> {
    let filters = app.prune_filters(filters);
    let request = app.client().await?.post("/containers/prune").query_some("filters", filters.parameter());
    let answer: Json = request.send().await?.json().await?;
    let deleted = texts(&answer["ContainersDeleted"]);
    let mut output = String::new();
    if !deleted.is_empty() {
        output = format!("Deleted Containers:\n{}\n", deleted.join("\n"));
    }
    Ok((int(&answer["SpaceReclaimed"]), output))
}
