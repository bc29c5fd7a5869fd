//! `docker inspect`, and `inspect` of one kind of thing.

use std::io::Write as _;

use serde_json::Value as Json;
use wharf_template::Type;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::format::FORMAT;
use crate::inspect::{Found, Inspector, fetch};
use crate::json::{array, text};
use crate::parse::Matches;
use crate::{as_run, platform, types};

/// Ours.
const AS: Flag = Flag::text("as", "Show a container as the command that makes another one like it: 'run'");

const FORMAT_FLAG: Flag = Flag::text("format", FORMAT).short('f');

pub(crate) static ANY: Command = Command::new(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on Docker objects",
    Arity::AtLeast(1),
    |app, matches| Box::pin(any(app, matches)),
)
.flags(&[
    AS,
    FORMAT_FLAG,
    Flag::switch("size", "Display total file sizes if the type is container").short('s'),
    Flag::text("type", "Only inspect objects of the given type"),
]);

pub(crate) static CONTAINER: Command = Command::new(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    Arity::AtLeast(1),
    |app, matches| Box::pin(each(app, matches, "container")),
)
.flags(&[AS, FORMAT_FLAG, Flag::switch("size", "Display total file sizes").short('s')]);

pub(crate) static IMAGE: Command = Command::new(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    Arity::AtLeast(1),
    |app, matches| Box::pin(each(app, matches, "image")),
)
.flags(&[
    FORMAT_FLAG,
    Flag::text(
        "platform",
        "Inspect a specific platform of the multi-platform image.\nIf the image or the server is not multi-platform \
         capable, the command will error out if the platform does not match.\n'os[/arch[/variant]]': Explicit platform \
         (eg. linux/amd64)",
    ),
]);

pub(crate) static NETWORK: Command = Command::new(
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    Arity::AtLeast(1),
    |app, matches| Box::pin(each(app, matches, "network")),
)
.flags(&[FORMAT_FLAG, Flag::switch("verbose", "Verbose output for diagnostics").short('v')]);

pub(crate) static VOLUME: Command = Command::new(
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    Arity::AtLeast(1),
    |app, matches| Box::pin(each(app, matches, "volume")),
)
.flags(&[FORMAT_FLAG]);

/// The kinds, in the order in which a name is looked up.
const KINDS: [&str; 4] = ["container", "image", "network", "volume"];
/// Kinds of Docker's that an engine without swarm and plugins has none of: it is asked for them by name alone.
const OTHER_KINDS: [&str; 6] = ["service", "task", "node", "plugin", "secret", "config"];

pub(crate) static PLUGIN: Command = Command::new(
    "[OPTIONS] PLUGIN [PLUGIN...]",
    "Display detailed information on one or more plugins",
    Arity::AtLeast(1),
    |app, matches| Box::pin(each(app, matches, "plugin")),
)
.flags(&[FORMAT_FLAG]);

async fn each(app: &App, matches: &Matches, kind: &str) -> Outcome<u8> {
    if kind == "container" && matches.changed("as") {
        return as_command(app, matches).await;
    }
    let mut inspector = Inspector::new(matches.text("format"))?;
    for name in &matches.arguments {
        let found = one(app, matches, kind, name).await;
        inspector.add(found);
    }
    inspector.finish(app)
}

async fn any(app: &App, matches: &Matches) -> Outcome<u8> {
    let wanted = matches.text("type");
    if matches.changed("type") && !KINDS.contains(&wanted) && !OTHER_KINDS.contains(&wanted) {
        return Err(if wanted.is_empty() {
            "type is empty: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \"plugin\", \
             \"secret\", \"service\", \"task\", \"volume\""
                .into()
        } else {
            format!(
                "unknown type: {wanted:?}: must be one of \"config\", \"container\", \"image\", \"network\", \"node\", \
                 \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
            )
            .into()
        });
    }
    if matches.changed("as") {
        return as_command(app, matches).await;
    }
    let mut inspector = Inspector::new(matches.text("format"))?;
    for name in &matches.arguments {
        let found = search(app, matches, wanted, name).await;
        inspector.add(found);
    }
    inspector.finish(app)
}

async fn as_command(app: &App, matches: &Matches) -> Outcome<u8> {
    let what = matches.text("as");
    if what != "run" {
        return Err(format!("unknown command '{what}': --as takes run").into());
    }
    if matches.changed("format") || !matches!(matches.some("type").unwrap_or("container"), "container") {
        return Err("conflicting options: --as shows containers, and by itself".into());
    }
    let client = app.client().await?;
    for name in &matches.arguments {
        let container: Json = client.get(&format!("/containers/{name}/json")).send().await?.json().await?;
        let id = text(&container["Image"]);
        // An image that has gone has left its settings in the container: then all of them are written out.
        let image = match client.get(&format!("/images/{id}/json")).send().await {
            Ok(response) => response.json().await?,
            Err(error) if error.is_not_found() => Json::Null,
            Err(error) => return Err(error.into()),
        };
        app.say(&as_run::command_line(&app.program, &container, &image))?;
        if !array(&container["HostConfig"]["Secrets"]).is_empty() {
            app.complain("NOTE: where secrets came from is kept nowhere: add src=FILE or env=NAME to each --secret");
        }
    }
    Ok(0)
}

async fn search(app: &App, matches: &Matches, wanted: &str, name: &str) -> Outcome<Found> {
    if OTHER_KINDS.contains(&wanted) {
        return one(app, matches, wanted, name).await;
    }
    for kind in KINDS.iter().filter(|kind| wanted.is_empty() || **kind == wanted) {
        match one(app, matches, kind, name).await {
            Ok(found) => {
                if matches.on("size") && *kind != "container" {
                    let _ = writeln!(std::io::stderr(), "WARNING: --size ignored for {kind}");
                }
                return Ok(found);
            }
            Err(failure) if wanted.is_empty() && skips(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(format!("Error: No such object: {name}").into())
}

/// The name may still be something else.
fn skips(failure: &Failure) -> bool {
    let text = failure.text.to_lowercase();
    ["no such", "not found", "not supported", "invalid reference format"].iter().any(|words| text.contains(words))
}

async fn one(app: &App, matches: &Matches, kind: &str, name: &str) -> Outcome<Found> {
    let client = app.client().await?;
    if name.is_empty() {
        return Err(format!("invalid {kind} name or ID: value is empty").into());
    }
    match kind {
        "container" => {
            let request = client.get(&format!("/containers/{name}/json")).query_if(matches.on("size"), "size");
            fetch(request, types::container()).await
        }
        "image" => {
            let mut request = client.get(&format!("/images/{name}/json"));
            if let Some(text) = matches.some("platform") {
                let platform = platform::parse(text).map_err(|reason| format!("invalid platform: {reason}"))?;
                request = request.query("platform", platform_json(&platform));
            }
            fetch(request, types::image()).await
        }
        "network" => {
            let request = client.get(&format!("/networks/{name}"));
            let request = if matches.on("verbose") { request.query("verbose", "true") } else { request };
            fetch(request, types::network()).await
        }
        "volume" => fetch(client.get(&format!("/volumes/{name}")), types::volume()).await,
        "plugin" => fetch(client.get(&format!("/plugins/{name}/json")), Type::Any).await,
        other if OTHER_KINDS.contains(&other) => fetch(client.get(&format!("/{other}s/{name}")), Type::Any).await,
        _ => Err(format!("Error: No such object: {name}").into()),
    }
}

/// A platform as the newer parameters take it: JSON.
pub(crate) fn platform_json(platform: &str) -> String {
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut json = serde_json::json!({"architecture": architecture, "os": os});
    if let Some(variant) = parts.next() {
        json["variant"] = variant.into();
    }
    json.to_string()
}
