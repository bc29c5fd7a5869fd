//! `docker plugin`: our engine has no plugins, and scripts ask all the same.

use serde_json::Value as Json;
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::each::each;
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::text;
use crate::parse::Matches;

pub(crate) static LIST: Command =
    Command::new("[OPTIONS]", "List plugins", Arity::None, |app, matches| Box::pin(run(app, matches))).flags(&[
        Flag::filter("filter", "Provide filter values (e.g. \"enabled=true\")").short('f'),
        Flag::text("format", TABLE_FORMAT),
        Flag::switch("no-trunc", "Don't truncate output"),
        Flag::switch("quiet", "Only display plugin IDs").short('q'),
    ]);

pub(crate) static REMOVE: Command =
    Command::new("[OPTIONS] PLUGIN [PLUGIN...]", "Remove one or more plugins", Arity::AtLeast(1), |app, matches| {
        Box::pin(async move {
            let force = matches.on("force");
            each(app, &matches.arguments, |client, name| async move {
                client.delete(&format!("/plugins/{name}")).query_if(force, "force").send().await?;
                Ok(Some(name))
            })
            .await
        })
    })
    .flags(&[Flag::switch("force", "Force the removal of an active plugin").short('f')]);

pub(crate) static ENABLE: Command =
    Command::new("[OPTIONS] PLUGIN", "Enable a plugin", Arity::Exactly(1), |app, matches| {
        Box::pin(async move {
            let name = matches.argument(0);
            let request = app.client().await?.post(&format!("/plugins/{name}/enable"));
            request.query("timeout", matches.text("timeout")).send().await?;
            app.say(name)?;
            Ok(0)
        })
    })
    .flags(&[Flag::int("timeout", "HTTP client timeout (in seconds)").default("30")]);

pub(crate) static DISABLE: Command =
    Command::new("[OPTIONS] PLUGIN", "Disable a plugin", Arity::Exactly(1), |app, matches| {
        Box::pin(async move {
            let name = matches.argument(0);
            let request = app.client().await?.post(&format!("/plugins/{name}/disable"));
            request.query_if(matches.on("force"), "force").send().await?;
            app.say(name)?;
            Ok(0)
        })
    })
    .flags(&[Flag::switch("force", "Force the disable of an active plugin").short('f')]);

pub(crate) static SET: Command = Command::new(
    "PLUGIN KEY=VALUE [KEY=VALUE...]",
    "Change settings for a plugin",
    Arity::AtLeast(2),
    |app, matches| {
        Box::pin(async move {
            let (name, settings) = (matches.argument(0), &matches.arguments[1..]);
            app.client().await?.post(&format!("/plugins/{name}/set")).json(&settings)?.send().await?;
            Ok(0)
        })
    },
);

const HEADERS: &Headers = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("Enabled", "ENABLED"),
    ("PluginReference", "PLUGIN REFERENCE"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let source = match matches.some("format").unwrap_or("table") {
        "table" if matches.on("quiet") => "{{.ID}}",
        "table" => "table {{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}",
        other => other,
    };
    let plugins: Vec<Json> = app
        .client()
        .await?
        .get("/plugins")
        .query_some("filters", Filters::of(matches.all("filter")).parameter())
        .send()
        .await?
        .json()
        .await?;
    let rows: Vec<Value> = plugins.iter().map(row).collect();
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null))?)?;
    Ok(0)
}

fn row(plugin: &Json) -> Value {
    Row::new("*plugin.pluginContext")
        .field("ID", text(&plugin["Id"]))
        .field("Name", text(&plugin["Name"]))
        .field("Description", text(&plugin["Config"]["Description"]))
        .field("Enabled", plugin["Enabled"].as_bool().unwrap_or(false))
        .field("PluginReference", text(&plugin["PluginReference"]))
        .build()
}
