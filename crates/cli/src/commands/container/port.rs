//! `docker port`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::json::{array, text};
use crate::parse::Matches;
use crate::ports;

pub(crate) static COMMAND: Command = Command::new(
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    Arity::Between(1, 2),
    |app, matches| Box::pin(run(app, matches)),
);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (name, wanted) = (matches.argument(0), matches.argument(1));
    let client = app.client().await?;
    let container: Json = client.get(&format!("/containers/{name}/json")).send().await?.json().await?;
    let table = container["NetworkSettings"]["Ports"].as_object();
    let published = |binding: &Json| ports::join(text(&binding["HostIp"]), text(&binding["HostPort"]));
    let mut lines: Vec<(u32, String)> = Vec::new();
    if !wanted.is_empty() {
        let (port, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        let number: u16 = port.parse().map_err(|_| {
            format!("Error: invalid port ({port}): strconv.ParseUint: parsing {port:?}: invalid syntax")
        })?;
        let bindings = table.and_then(|table| table.get(&format!("{number}/{protocol}")));
        let bindings = bindings.filter(|bindings| !bindings.is_null());
        let Some(bindings) = bindings else {
            return Err(format!("Error: No public port '{wanted}' published for {name}").into());
        };
        lines.extend(array(bindings).iter().map(|binding| (0, published(binding))));
    } else {
        for (inside, bindings) in table.into_iter().flatten() {
            let number = inside.split('/').next().and_then(|port| port.parse().ok()).unwrap_or(0);
            lines.extend(array(bindings).iter().map(|binding| (number, format!("{inside} -> {}", published(binding)))));
        }
    }
    lines.sort();
    for (_, line) in lines {
        app.say(&line)?;
    }
    Ok(0)
}
