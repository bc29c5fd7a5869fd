//! `docker container prune`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::dry_run::{self, Prune};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::json::{int, texts};
use crate::parse::Matches;

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "Remove all stopped containers", Arity::None, |app, matches| Box::pin(run(app, matches)))
        .flags(&[
            dry_run::FLAG,
            Flag::filter("filter", "Provide filter values (e.g. \"until=<timestamp>\")"),
            Flag::switch("force", "Do not prompt for confirmation").short('f'),
        ]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let mode = Prune::of(matches);
    mode.confirm(app, "WARNING! This will remove all stopped containers.", matches.on("force")).await?;
    let (reclaimed, output) = prune(app, &Filters::of(matches.all("filter")), mode).await?;
    if !output.is_empty() {
        app.say(&output)?;
    }
    mode.total(app, reclaimed)?;
    Ok(0)
}

/// Removes stopped containers; gives the bytes and the lines to show.
pub(crate) async fn prune(app: &App, filters: &Filters, mode: Prune) -> Outcome<(i64, String)> {
    let filters = app.prune_filters(filters);
    let request = app.client().await?.post("/containers/prune").query_some("filters", filters.parameter());
    let answer: Json = mode.ask(request).send().await?.json().await?;
    Ok((int(&answer["SpaceReclaimed"]), mode.list("Containers", &texts(&answer["ContainersDeleted"]))))
}
