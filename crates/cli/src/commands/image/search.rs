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

const HEADERS: &Headers =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")];

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
    let credentials = auth::find_if_there(app.config(), server).header();
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
    let table = source.starts_with("table");
    let rows: Vec<Value> = results.iter().map(|result| row(result, trunc, table)).collect();
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null, trunc, table))?)?;
    Ok(0)
}

fn row(result: &Json, trunc: bool, table: bool) -> Value {
    let description = text(&result["description"]).replace(['\n', '\r'], " ");
    let official = match (result["is_official"].as_bool() == Some(true), table) {
        (true, true) => "[OK]",
        (false, true) => "",
        (true, false) => "true",
        (false, false) => "false",
    };
    Row::new("*registry.searchContext")
        .field("Name", text(&result["name"]))
        .field("Description", if trunc { units::ellipsis(&description, 45) } else { description })
        .field("StarCount", int(&result["star_count"]).to_string())
        .field("IsOfficial", official)
        .build()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_official_is_marked_in_tables_and_told_elsewhere() {
        let result = json!({ "name": "nginx", "is_official": true, "star_count": 5, "description": "a\nb" });
        let shown = |source: &str| {
            let table = source.starts_with("table");
            let rows = [row(&result, true, table), row(&json!({ "name": "x" }), true, table)];
            Format::parse(source).unwrap().render(HEADERS, &rows, &rows[1]).unwrap()
        };
        assert_eq!(shown("{{.Name}}={{.IsOfficial}}"), "nginx=true\nx=false\n");
        assert_eq!(shown("table {{.Name}} {{.IsOfficial}}"), "NAME OFFICIAL\nnginx [OK]\nx \n");
        let json = "{\"Description\":\"a b\",\"IsOfficial\":\"true\",\"Name\":\"nginx\",\"StarCount\":\"5\"}";
        assert_eq!(shown("json").lines().next(), Some(json));
    }
}
