//! `docker volume`.

use serde_json::{Map, Value as Json, json};
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::container::ls::labels;
use crate::dry_run::{self, Prune};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::{array, int, text, texts};
use crate::options::{checks, env};
use crate::parse::Matches;
use crate::{natural, units};

pub(crate) static LIST: Command =
    Command::new("[OPTIONS]", "List volumes", Arity::None, |app, matches| Box::pin(list(app, matches))).flags(&[
        Flag::filter("filter", "Provide filter values (e.g. \"dangling=true\")").short('f'),
        Flag::text("format", TABLE_FORMAT),
        Flag::switch("quiet", "Only display volume names").short('q'),
    ]);

pub(crate) static CREATE: Command =
    Command::new("[OPTIONS] [VOLUME]", "Create a volume", Arity::AtMost(1), |app, matches| {
        Box::pin(create(app, matches))
    })
    .flags(&[
        Flag::text("driver", "Specify volume driver name").short('d').default("local"),
        Flag::list("label", "Set metadata for a volume").check(checks::label),
        Flag::text("name", "Specify volume name").hidden(),
        Flag::map("opt", "Set driver specific options").short('o'),
    ]);

pub(crate) static REMOVE: Command =
    Command::new("[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes", Arity::AtLeast(1), |app, matches| {
        Box::pin(remove(app, matches))
    })
    .long("Remove one or more volumes. You cannot remove a volume that is in use by a container.")
    .flags(&[Flag::switch("force", "Force the removal of one or more volumes").short('f')]);

pub(crate) static PRUNE: Command =
    Command::new("[OPTIONS]", "Remove unused local volumes", Arity::None, |app, matches| {
        Box::pin(prune_command(app, matches))
    })
    .flags(&[
        Flag::switch("all", "Remove all unused volumes, not just anonymous ones").short('a'),
        dry_run::FLAG,
        Flag::filter("filter", "Provide filter values (e.g. \"label=<label>\")"),
        Flag::switch("force", "Do not prompt for confirmation").short('f'),
    ]);

pub(crate) const HEADERS: &Headers = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Availability", "AVAILABILITY"),
    ("Status", "STATUS"),
];

async fn list(app: &App, matches: &Matches) -> Outcome<u8> {
    let quiet = matches.on("quiet");
    let chosen = matches.some("format").or_else(|| app.config().text("volumesFormat").filter(|_| !quiet));
    let source = match chosen.unwrap_or("table") {
        "table" if quiet => "{{.Name}}",
        "table" => "table {{.Driver}}\t{{.Name}}",
        "raw" if quiet => "name: {{.Name}}",
        "raw" => "name: {{.Name}}\ndriver: {{.Driver}}\n",
        other => other,
    };
    let filters = Filters::of(matches.all("filter"));
    let request = app.client().await?.get("/volumes").query_some("filters", filters.parameter());
    let answer: Json = request.send().await?.json().await?;
    let mut volumes: Vec<&Json> = array(&answer["Volumes"]).iter().collect();
    volumes.sort_by(|a, b| natural::compare(text(&a["Name"]), text(&b["Name"])));
    let rows: Vec<Value> = volumes.into_iter().map(row).collect();
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null))?)?;
    Ok(0)
}

pub(crate) fn row(volume: &Json) -> Value {
    let usage = &volume["UsageData"];
    let (links, size) = if usage.is_null() {
        ("N/A".to_owned(), "N/A".to_owned())
    } else {
        (int(&usage["RefCount"]).to_string(), units::human_size(int(&usage["Size"]) as f64))
    };
    Row::new("*formatter.volumeContext")
        .field("Name", text(&volume["Name"]))
        .field("Driver", text(&volume["Driver"]))
        .field("Scope", text(&volume["Scope"]))
        .field("Mountpoint", text(&volume["Mountpoint"]))
        .field("Labels", labels(&volume["Labels"]))
        .labels(&volume["Labels"])
        .field("Links", links)
        .field("Size", size)
        .field("Group", "N/A")
        .field("Availability", "N/A")
        .field("Status", "N/A")
        .build()
}

async fn create(app: &App, matches: &Matches) -> Outcome<u8> {
    if matches.changed("name") && !matches.arguments.is_empty() {
        return Err(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg".into()
        );
    }
    let name = if matches.arguments.is_empty() { matches.text("name") } else { matches.argument(0) };
    let mut body = Map::new();
    body.insert("Driver".to_owned(), json!(matches.text("driver")));
    for (flag, key) in [("opt", "DriverOpts"), ("label", "Labels")] {
        if matches.changed(flag) {
            body.insert(key.to_owned(), Json::Object(env::map(matches.all(flag))));
        }
    }
    if !name.is_empty() {
        body.insert("Name".to_owned(), json!(name));
    }
    let request = app.client().await?.post("/volumes/create").json(&body)?;
    let answer: Json = request.send().await?.json().await?;
    app.say(text(&answer["Name"]))?;
    Ok(0)
}

async fn remove(app: &App, matches: &Matches) -> Outcome<u8> {
    let client = app.client().await?;
    let mut failures = Vec::new();
    for name in &matches.arguments {
        match client.delete(&format!("/volumes/{name}")).query_if(matches.on("force"), "force").send().await {
            Ok(_) => app.say(name)?,
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n"))) }
}

async fn prune_command(app: &App, matches: &Matches) -> Outcome<u8> {
    let all = matches.on("all");
    let mut filters = Filters::of(matches.all("filter"));
    if all && filters.has("all") {
        return Err("conflicting options: cannot specify both --all and --filter all=1".into());
    }
    let everything = all || filters.get("all").iter().any(|value| matches!(*value, "1" | "true"));
    let client_knows = app.client().await?.at_least("1.42");
    let warning = if everything || !client_knows {
        "WARNING! This will remove all local volumes not used by at least one container."
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container."
    };
    if all && client_knows {
        filters.add("all", "true");
    }
    let mode = Prune::of(matches);
    mode.confirm(app, warning, matches.on("force")).await?;
    let (reclaimed, output) = prune(app, &filters, mode).await?;
    if !output.is_empty() {
        app.say(&output)?;
    }
    mode.total(app, reclaimed)?;
    Ok(0)
}

/// Removes volumes that nothing uses; gives the bytes and the lines to show.
pub(crate) async fn prune(app: &App, filters: &Filters, mode: Prune) -> Outcome<(i64, String)> {
    let filters = app.prune_filters(filters);
    let request = app.client().await?.post("/volumes/prune").query_some("filters", filters.parameter());
    let answer: Json = mode.ask(request).send().await?.json().await?;
    Ok((int(&answer["SpaceReclaimed"]), mode.list("Volumes", &texts(&answer["VolumesDeleted"]))))
}
