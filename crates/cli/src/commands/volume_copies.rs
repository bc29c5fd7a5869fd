//! `wharf volume clone`, `snapshot`, `restore`, `rename`, `export` and `import`. Docker has no such commands.

use std::io::IsTerminal;
use std::path::Path;

use serde_json::{Map, Value as Json, json};
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::{array, int, text, texts};
use crate::options::{checks, env};
use crate::parse::Matches;
use crate::{download, units, upload};

pub(crate) static CLONE: Command = Command::new(
    "[OPTIONS] VOLUME[@SNAPSHOT] [NAME]",
    "Create a volume with the content of another one",
    Arity::Between(1, 2),
    |app, matches| Box::pin(clone(app, matches)),
)
.long(
    "Create a volume with the content of another one, or of a snapshot. Containers that run with it are frozen for that \
     moment. Where the file system can, both share their blocks until one of them is written to. The new volume has the \
     other's size limit, if that has one; 'size=none' gives it none.",
)
.flags(&[
    Flag::list("label", "Set metadata for the volume, beside what the other one has").check(checks::label),
    Flag::map("opt", "Set an option of the volume: 'size'").short('o'),
]);

pub(crate) static SNAPSHOT: Command = Command::new(
    "VOLUME [SNAPSHOT]",
    "Keep what a volume has now",
    Arity::Between(1, 2),
    |app, matches| Box::pin(snapshot(app, matches)),
)
.long(
    "Keep what a volume has now, by the given name or by the time, and print VOLUME@SNAPSHOT. Containers that run with it \
     are frozen for that moment. 'volume rm VOLUME@SNAPSHOT' removes a snapshot.",
);

pub(crate) static SNAPSHOTS: Command =
    Command::new("[OPTIONS] VOLUME [VOLUME...]", "List the snapshots of volumes", Arity::AtLeast(1), |app, matches| {
        Box::pin(snapshots(app, matches))
    })
    .flags(&[Flag::text("format", TABLE_FORMAT), Flag::switch("quiet", "Only display VOLUME@SNAPSHOT").short('q')]);

pub(crate) static RESTORE: Command = Command::new(
    "VOLUME@SNAPSHOT",
    "Give a volume the content of its snapshot",
    Arity::Exactly(1),
    |app, matches| Box::pin(restore(app, matches)),
)
.long(
    "Give a volume the content of its snapshot. What it has is gone then; the snapshot stays. Refused while containers run \
     with it.",
);

pub(crate) static RENAME: Command =
    Command::new("VOLUME NEW_NAME", "Rename a volume that no container has", Arity::Exactly(2), |app, matches| {
        Box::pin(rename(app, matches))
    });

pub(crate) static EXPORT: Command = Command::new(
    "[OPTIONS] VOLUME[@SNAPSHOT]",
    "Export a volume's content as a tar archive",
    Arity::Exactly(1),
    |app, matches| Box::pin(export(app, matches)),
)
.flags(&[Flag::text("output", "Write to a file, instead of STDOUT").short('o')]);

pub(crate) static IMPORT: Command = Command::new(
    "VOLUME [FILE|-]",
    "Create a volume of a tar archive, or fill an empty one",
    Arity::Between(1, 2),
    |app, matches| Box::pin(import(app, matches)),
);

const HEADERS: &Headers = &[("Name", "SNAPSHOT"), ("Volume", "VOLUME"), ("CreatedAt", "CREATED"), ("Size", "SIZE")];

fn warn(app: &App, answer: &Json) {
    for warning in texts(&answer["Warnings"]) {
        app.complain(&format!("WARNING: {warning}"));
    }
}

async fn clone(app: &App, matches: &Matches) -> Outcome<u8> {
    let mut body = Map::new();
    if matches.arguments.len() > 1 {
        body.insert("Name".to_owned(), json!(matches.argument(1)));
    }
    if matches.changed("label") {
        body.insert("Labels".to_owned(), Json::Object(env::map(matches.all("label"))));
    }
    if matches.changed("opt") {
        body.insert("DriverOpts".to_owned(), Json::Object(env::map(matches.all("opt"))));
    }
    let path = format!("/volumes/{}/clone", matches.argument(0));
    let answer: Json = app.client().await?.post(&path).json(&body)?.send().await?.json().await?;
    warn(app, &answer);
    app.say(text(&answer["Name"]))?;
    Ok(0)
}

async fn snapshot(app: &App, matches: &Matches) -> Outcome<u8> {
    let volume = matches.argument(0);
    let name = if matches.arguments.len() > 1 { matches.argument(1) } else { "" };
    let request = app.client().await?.post(&format!("/volumes/{volume}/snapshots")).json(&json!({ "Name": name }))?;
    let answer: Json = request.send().await?.json().await?;
    warn(app, &answer);
    app.say(&format!("{volume}@{}", text(&answer["Name"])))?;
    Ok(0)
}

async fn snapshots(app: &App, matches: &Matches) -> Outcome<u8> {
    let source = match matches.some("format").unwrap_or("table") {
        "table" if matches.on("quiet") => "{{.Volume}}@{{.Name}}",
        "table" => "table {{.Volume}}\t{{.Name}}\t{{.CreatedAt}}\t{{.Size}}",
        other => other,
    };
    let client = app.client().await?;
    let mut rows = Vec::new();
    for volume in &matches.arguments {
        let answer: Json = client.get(&format!("/volumes/{volume}/snapshots")).send().await?.json().await?;
        rows.extend(array(&answer).iter().map(row));
    }
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null))?)?;
    Ok(0)
}

fn row(snapshot: &Json) -> Value {
    Row::new("*formatter.snapshotContext")
        .field("Name", text(&snapshot["Name"]))
        .field("Volume", text(&snapshot["Volume"]))
        .field("CreatedAt", text(&snapshot["CreatedAt"]))
        .field("Size", units::human_size(int(&snapshot["Size"]) as f64))
        .build()
}

async fn restore(app: &App, matches: &Matches) -> Outcome<u8> {
    let argument = matches.argument(0);
    let Some((volume, snapshot)) = argument.split_once('@') else {
        return Err(
            format!("\"{argument}\" names no snapshot: give VOLUME@SNAPSHOT, which 'volume snapshots' lists").into()
        );
    };
    let request = app.client().await?.post(&format!("/volumes/{volume}/restore"));
    let answer: Json = request.json(&json!({ "Snapshot": snapshot }))?.send().await?.json().await?;
    warn(app, &answer);
    app.say(volume)?;
    Ok(0)
}

async fn rename(app: &App, matches: &Matches) -> Outcome<u8> {
    let path = format!("/volumes/{}/rename", matches.argument(0));
    app.client().await?.post(&path).query("name", matches.argument(1)).send().await?;
    Ok(0)
}

async fn export(app: &App, matches: &Matches) -> Outcome<u8> {
    let output = matches.some("output");
    download::refuse_terminal(output)?;
    download::check(output).map_err(|failure| format!("failed to export volume: {}", failure.text))?;
    let path = format!("/volumes/{}/export", matches.argument(0));
    let response = app.client().await?.get(&path).send().await?;
    download::save(response, output).await?;
    Ok(0)
}

async fn import(app: &App, matches: &Matches) -> Outcome<u8> {
    let source = if matches.arguments.len() > 1 { matches.argument(1) } else { "-" };
    let body = match source {
        "-" if std::io::stdin().is_terminal() => {
            return Err("the archive comes from standard input, which is a terminal: give a file".into());
        }
        "-" => upload::stdin(Vec::new()),
        path => {
            let file = tokio::fs::File::open(path).await;
            upload::reader(file.map_err(|error| wharf_report::path("open", Path::new(path), &error))?)
        }
    };
    let path = format!("/volumes/{}/import", matches.argument(0));
    let request = app.client().await?.post(&path).body("application/x-tar", body);
    let answer: Json = request.send().await?.json().await?;
    app.say(text(&answer["Name"]))?;
    Ok(0)
}
