//! `docker history`.

use serde_json::Value as Json;
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::inspect::platform_json;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::{int, text};
use crate::parse::Matches;
use crate::{platform, units};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS] IMAGE", "Show the history of an image", Arity::Exactly(1), |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(&[
        Flag::text("format", TABLE_FORMAT),
        Flag::switch("human", "Print sizes and dates in human readable format").short('H').default("true"),
        Flag::switch("no-trunc", "Don't truncate output"),
        Flag::text(
            "platform",
            "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        Flag::switch("quiet", "Only show image IDs").short('q'),
    ]);

const HEADERS: &Headers = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (trunc, human) = (!matches.on("no-trunc"), matches.on("human"));
    let source = match matches.some("format").unwrap_or("table") {
        "table" if matches.on("quiet") => "{{.ID}}",
        "table" if human => "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        "table" => "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        other => other,
    };
    let mut request = app.client().await?.get(&format!("/images/{}/history", matches.argument(0)));
    if let Some(text) = matches.some("platform") {
        let platform = platform::parse(text).map_err(|reason| format!("invalid platform: {reason}"))?;
        request = request.query("platform", platform_json(&platform));
    }
    let layers: Vec<Json> = request.send().await?.json().await?;
    let rows: Vec<Value> = layers.iter().map(|layer| row(layer, trunc, human)).collect();
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null, trunc, human))?)?;
    Ok(0)
}

fn row(layer: &Json, trunc: bool, human: bool) -> Value {
    let id = text(&layer["Id"]);
    let created = int(&layer["Created"]);
    let moment = jiff::Timestamp::from_second(created).map(units::local_rfc3339).unwrap_or_default();
    let by = text(&layer["CreatedBy"]).replace('\t', " ");
    let size = int(&layer["Size"]);
    let since = match created {
        _ if !human => moment.clone(),
        created if created <= 0 => "N/A".to_owned(),
        created => units::ago(created),
    };
    Row::new("*image.historyContext")
        .field("ID", if trunc { units::short_id(id) } else { id })
        .field("CreatedAt", moment)
        .field("CreatedSince", since)
        .field("CreatedBy", if trunc { units::ellipsis(&by, 45) } else { by })
        .field("Size", if human { units::human_size_with(size as f64, 3) } else { size.to_string() })
        .field("Comment", text(&layer["Comment"]))
        .build()
}
