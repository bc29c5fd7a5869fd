//! `docker image prune`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::dry_run::{self, Prune};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::json::{array, int, text};
use crate::parse::Matches;

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "Remove unused images", Arity::None, |app, matches| Box::pin(run(app, matches))).flags(
        &[
            Flag::switch("all", "Remove all unused images, not just dangling ones").short('a'),
            dry_run::FLAG,
            Flag::filter("filter", "Provide filter values (e.g. \"until=<timestamp>\")"),
            Flag::switch("force", "Do not prompt for confirmation").short('f'),
        ],
    );

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let all = matches.on("all");
    let warning = if all {
        "WARNING! This will remove all images without at least one container associated to them."
    } else {
        "WARNING! This will remove all dangling images."
    };
    let mode = Prune::of(matches);
    mode.confirm(app, warning, matches.on("force")).await?;
    let (reclaimed, output) = prune(app, all, &Filters::of(matches.all("filter")), mode).await?;
    if !output.is_empty() {
        app.say(&output)?;
    }
    mode.total(app, reclaimed)?;
    Ok(0)
}

/// Removes images that nothing uses; gives the bytes and the lines to show.
pub(crate) async fn prune(app: &App, all: bool, filters: &Filters, mode: Prune) -> Outcome<(i64, String)> {
    let mut filters = app.prune_filters(filters);
    filters.add("dangling", if all { "false" } else { "true" });
    let request = app.client().await?.post("/images/prune").query_some("filters", filters.parameter());
    let answer: Json = mode.ask(request).send().await?.json().await?;
    let lines: Vec<String> = array(&answer["ImagesDeleted"])
        .iter()
        .map(|item| match text(&item["Untagged"]) {
            "" => format!("deleted: {}", text(&item["Deleted"])),
            name => format!("untagged: {name}"),
        })
        .collect();
    Ok((int(&answer["SpaceReclaimed"]), mode.list("Images", &lines)))
}
