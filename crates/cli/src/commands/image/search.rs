//! `docker search`.

use serde_json::Value as Json;
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row};
use crate::json::{int, text};
use crate::parse::Matches;
use crate::{auth, units};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS] TERM", "Search Docker Hub for images", Arity::Exactly(1), |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(&[
        Flag::filter("filter", "Filter output based on conditions provided").short('f'),
        Flag::text("format", "Pretty-print search using a Go template"),
        Flag::int("limit", "Max number of search results"),
        Flag::switch("no-trunc", "Don't truncate output"),
    ]);

const HEADERS: &Headers = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let trunc = !matches.on("no-trunc");
    let source = match matches.some("format").unwrap_or("table") {
        "table" => "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
        other => other,
    };
    let term = matches.argument(0);
    // A term may begin with the registry that is asked.
    let server = match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => auth::HUB,
    };
    let credentials = auth::find(app.config(), server)?.header();
    let results: Vec<Json> = app
        .client()
        .await?
        .get("/images/search")
        .query("term", term)
        .query_some("limit", matches.int_given("limit").filter(|limit| *limit > 0))
        .query_some("filters", Filters::of(matches.all("filter")).parameter())
        .header("x-registry-auth", &credentials)
        .send()
        .await?
        .json()
        .await?;
    let rows: Vec<Value> = results.iter().map(|result| row(result, trunc)).collect();
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null, trunc))?)?;
    Ok(0)
}

fn row(result: &Json, trunc: bool) -> Value {
    let description = text(&result["description"]).replace(['\n', '\r'], " ");
    let official = |value: &Json| if value.as_bool() == Some(true) { "[OK]" } else { "" };
    Row::new("*registry.searchContext")
        .field("Name", text(&result["name"]))
        .field("Description", if trunc { units::ellipsis(&description, 45) } else { description })
        .field("StarCount", int(&result["star_count"]).to_string())
        .field("IsOfficial", official(&result["is_official"]))
        .field("IsAutomated", official(&result["is_automated"]))
        .build()
}
