//! `docker system prune`, `docker builder prune`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::{container, image, network, volume};
use crate::dry_run::{self, Prune};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::json::{int, texts};
use crate::natural;
use crate::parse::Matches;

pub(crate) static SYSTEM: Command =
    Command::new("[OPTIONS]", "Remove unused data", Arity::None, |app, matches| Box::pin(system(app, matches))).flags(
        &[
            Flag::switch("all", "Remove all unused images not just dangling ones").short('a'),
            dry_run::FLAG,
            Flag::filter("filter", "Provide filter values (e.g. \"label=<key>=<value>\")"),
            Flag::switch("force", "Do not prompt for confirmation").short('f'),
            Flag::switch("volumes", "Prune anonymous volumes"),
        ],
    );

pub(crate) static BUILDER: Command =
    Command::new("", "Remove build cache", Arity::None, |app, matches| Box::pin(builder(app, matches))).flags(&[
        Flag::switch("all", "Remove all unused build cache, not just dangling ones").short('a'),
        dry_run::FLAG,
        Flag::filter("filter", "Provide filter values (e.g. \"until=24h\")"),
        Flag::switch("force", "Do not prompt for confirmation").short('f'),
        Flag::bytes("keep-storage", "Amount of disk space to keep for cache"),
    ]);

async fn system(app: &App, matches: &Matches) -> Outcome<u8> {
    let (all, volumes) = (matches.on("all"), matches.on("volumes"));
    let filters = Filters::of(matches.all("filter"));
    if volumes && filters.has("until") {
        return Err("ERROR: The \"until\" filter is not supported with \"--volumes\"".into());
    }
    let mode = Prune::of(matches);
    mode.confirm(app, &warning(app, &filters, all, volumes), matches.on("force")).await?;
    let mut total = 0;
    let show = |(reclaimed, output): (i64, String)| -> Outcome<i64> {
        if !output.is_empty() {
            app.say(&output)?;
        }
        Ok(reclaimed)
    };
    total += show(container::prune::prune(app, &filters, mode).await?)?;
    let after = mode.after("containers");
    show((0, network::prune(app, &filters, after).await?))?;
    if volumes {
        total += show(volume::prune(app, &filters, after).await?)?;
    }
    total += show(image::prune::prune(app, all, &filters, after).await?)?;
    total += show(build_cache(app, &filters, all, 0, mode.after("containers,images")).await?)?;
    mode.total(app, total)?;
    Ok(0)
}

fn warning(app: &App, filters: &Filters, all: bool, volumes: bool) -> String {
    let mut text = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
                    container\n"
        .to_owned();
    if volumes {
        text.push_str("  - all anonymous volumes not used by at least one container\n");
    }
    text.push_str(match all {
        true => "  - all images without at least one container associated to them\n  - all build cache\n",
        false => "  - all dangling images\n  - unused build cache\n",
    });
    let filters = app.prune_filters(filters);
    let mut shown: Vec<String> = ["label", "label!", "until"]
        .into_iter()
        .flat_map(|key| filters.get(key).into_iter().map(move |value| format!("{key}={value}")))
        .collect();
    if !shown.is_empty() {
        shown.sort_by(|a, b| natural::compare(a, b));
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        shown.iter().for_each(|filter| text.push_str(&format!("  - {filter}\n")));
    }
    text
}

async fn builder(app: &App, matches: &Matches) -> Outcome<u8> {
    let all = matches.on("all");
    let warning = if all {
        "WARNING! This will remove all build cache."
    } else {
        "WARNING! This will remove all dangling build cache."
    };
    let mode = Prune::of(matches);
    mode.confirm(app, warning, matches.on("force")).await?;
    let filters = Filters::of(matches.all("filter"));
    let (reclaimed, output) = build_cache(app, &filters, all, matches.bytes("keep-storage"), mode).await?;
    if !output.is_empty() {
        app.say(&output)?;
    }
    mode.total(app, reclaimed)?;
    Ok(0)
}

async fn build_cache(app: &App, filters: &Filters, all: bool, keep: i64, mode: Prune) -> Outcome<(i64, String)> {
    let filters = app.prune_filters(filters);
    let request = app
        .client()
        .await?
        .post("/build/prune")
        .query_if(all, "all")
        .query("filters", filters.parameter().unwrap_or_default())
        .query_some("keep-storage", (keep != 0).then_some(keep));
    let answer: Json = mode.ask(request).send().await?.json().await?;
    Ok((int(&answer["SpaceReclaimed"]), mode.list("build cache objects", &texts(&answer["CachesDeleted"]))))
}
