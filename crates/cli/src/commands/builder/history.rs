//! `wharf builder history`: builds that were, and what they have said.

use serde_json::Value as Json;
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::{array, int, text};
use crate::parse::Matches;
use crate::{stream, units};

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] [ls | inspect [REF] | logs [REF] | rm REF...]",
    "Show builds that were, what they have said, and forget them",
    Arity::AtLeast(0),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[
    Flag::text("format", TABLE_FORMAT),
    Flag::switch("no-trunc", "Don't truncate output"),
    Flag::switch("quiet", "Only show references").short('q'),
]);

const HEADERS: &Headers = &[
    ("Ref", "BUILD ID"),
    ("Name", "NAME"),
    ("Status", "STATUS"),
    ("CreatedAt", "CREATED AT"),
    ("Steps", "STEPS"),
    ("Cached", "CACHED"),
    ("Duration", "DURATION"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    app.needs_own_engine("builder history").await?;
    let (verb, rest) = match matches.arguments.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("ls", &[][..]),
    };
    let client = app.client().await?;
    let reference = match rest {
        [] => "latest",
        [first, ..] => first.as_str(),
    };
    match (verb, rest) {
        ("ls", []) => {
            let all: Vec<Json> = client.get("/build/history").send().await?.json().await?;
            let source = match matches.some("format").unwrap_or("table") {
                "table" if matches.on("quiet") => "{{.Ref}}",
                "table" => {
                    "table {{.Ref}}\t{{.Name}}\t{{.Status}}\t{{.CreatedAt}}\t{{.Steps}}\t{{.Cached}}\t{{.Duration}}"
                }
                other => other,
            };
            let trunc = !matches.on("no-trunc");
            let rows: Vec<Value> = all.iter().map(|build| row(build, trunc)).collect();
            app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null, trunc))?)?;
        }
        ("inspect", [] | [_]) => {
            let build: Json = client.get(&format!("/build/history/{reference}")).send().await?.json().await?;
            app.say(&format!("{build:#}"))?;
        }
        ("logs", [] | [_]) => {
            let mut response = client.get(&format!("/build/history/{reference}/logs")).send().await?;
            while let Some(chunk) = response.chunk().await? {
                stream::write(false, chunk).await?;
            }
        }
        ("rm", [_, ..]) => {
            for reference in rest {
                client.delete(&format!("/build/history/{reference}")).send().await?;
            }
        }
        _ => return Err(format!("{verb:?} with {} arguments is none of ls, inspect, logs and rm", rest.len()).into()),
    }
    Ok(0)
}

fn row(build: &Json, trunc: bool) -> Value {
    let tags: Vec<&str> = array(&build["Tags"]).iter().map(text).collect();
    let name = if tags.is_empty() { text(&build["Dockerfile"]).to_owned() } else { tags.join(", ") };
    let name = if trunc && name.chars().count() > 40 { name.chars().take(39).chain(['…']).collect() } else { name };
    Row::new("*formatter.buildHistoryContext")
        .field("Ref", text(&build["Ref"]))
        .field("Name", name)
        .field("Status", text(&build["Status"]))
        .field("CreatedAt", units::go_time(text(&build["Started"])))
        .field("Steps", int(&build["Steps"]).to_string())
        .field("Cached", int(&build["Cached"]).to_string())
        .field("Duration", format!("{:.1}s", int(&build["DurationMs"]) as f64 / 1000.0))
        .field("Image", text(&build["Image"]))
        .field("Error", text(&build["Error"]))
        .build()
}
