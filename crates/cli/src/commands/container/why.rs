//! `wharf why`: why a container is as it is. Docker has no such command.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::{array, int, text, texts};
use crate::parse::Matches;
use crate::units;
use crate::visible::visible;

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER",
    "Say why a container ended, does not start or is not healthy",
    Arity::Exactly(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[Flag::text("format", "Format the output: 'json', or plain text without it")]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let format = matches.some("format").unwrap_or("text");
    if !matches!(format, "text" | "json") {
        return Err(format!("unknown format '{format}': give json, or leave it out").into());
    }
    let request = app.client().await?.get(&format!("/containers/{}/why", matches.argument(0)));
    let answer: Json = request.send().await?.json().await?;
    if format == "json" {
        app.say(&answer.to_string())?;
    } else {
        app.print(&plain(&answer))?;
    }
    Ok(0)
}

fn plain(why: &Json) -> String {
    let mut output = format!("{} ({}): {}\n", text(&why["Name"]), text(&why["Status"]), visible(text(&why["Summary"])));
    for reason in texts(&why["Reasons"]) {
        output.push_str(&format!("  {}\n", visible(reason)));
    }
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            output.push_str(&format!("\n{title}:\n"));
            lines.iter().for_each(|line| output.push_str(&format!("  {}\n", visible(line))));
        }
    };
    let probe = |probe: &Json| {
        let said = text(&probe["Output"]).trim().replace('\n', " ");
        format!("{}  exit code {}  {said}", text(&probe["End"]), int(&probe["ExitCode"])).trim_end().to_owned()
    };
    part("Last probes of its health", array(&why["Probes"]).iter().map(probe).collect());
    part("Last events", array(&why["Events"]).iter().map(event).collect());
    part("End of its log", texts(&why["Log"]).iter().map(|line| (*line).to_string()).collect());
    output
}

fn event(event: &Json) -> String {
    let time = jiff::Timestamp::from_nanosecond(int(&event["timeNano"]).into()).map(units::local_rfc3339_nanos);
    let attribute = |key: &str| text(&event["Actor"]["Attributes"][key]);
    let more: Vec<String> = ["exitCode", "signal", "execID", "oldName"]
        .iter()
        .filter(|key| !attribute(key).is_empty())
        .map(|key| format!("{key}={}", attribute(key)))
        .collect();
    format!("{}  {}  {}", time.unwrap_or_default(), text(&event["Action"]), more.join(" ")).trim_end().to_owned()
}
