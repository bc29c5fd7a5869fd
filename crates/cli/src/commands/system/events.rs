//! `docker events`.

use serde_json::Value as Json;
use wharf_template::Template;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::FORMAT;
use crate::json::{int, text};
use crate::parse::Matches;
use crate::{timestamps, types, units};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "Get real time events from the server", Arity::None, |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(&[
        Flag::filter("filter", "Filter output based on conditions provided").short('f'),
        Flag::text("format", FORMAT),
        Flag::text("since", "Show all events created since timestamp"),
        Flag::text("until", "Stream events until this timestamp"),
    ]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let kind = types::event();
    let template = match matches.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let template = match template {
        Some(text) => {
            let wrong = |error| Failure { code: 64, text: format!("Error parsing format: {error}") };
            let template = Template::parse(text).map_err(wrong)?;
            // A field that no event has is found before the first event comes.
            template.execute(&kind.zero()).map_err(wrong)?;
            Some(template)
        }
        None => None,
    };
    let moment = |flag: &str| matches.some(flag).map(timestamps::parse).transpose();
    let (since, until) = (moment("since")?, moment("until")?);
    let response = app
        .client()
        .await?
        .get("/events")
        .query_some("filters", Filters::of(matches.all("filter")).parameter())
        .query_some("since", since)
        .query_some("until", until)
        .send()
        .await?;
    response
        .for_each_json(|event| {
            let line = match &template {
                None => plain(&event),
                Some(template) => template.execute(&kind.view(&event)).map_err(|error| error.to_string())?,
            };
            app.say(&line)
        })
        .await?;
    Ok(0)
}

/// `TIME TYPE ACTION ID (key=value, …)`.
fn plain(event: &Json) -> String {
    let nanos = int(&event["timeNano"]);
    let moment = match nanos {
        0 => jiff::Timestamp::from_second(int(&event["time"])).ok().filter(|moment| moment.as_second() != 0),
        nanos => jiff::Timestamp::from_nanosecond(i128::from(nanos)).ok(),
    };
    let mut line = moment.map(|moment| units::local_rfc3339_nanos(moment) + " ").unwrap_or_default();
    let actor = &event["Actor"];
    line.push_str(&format!("{} {} {}", text(&event["Type"]), text(&event["Action"]), text(&actor["ID"])));
    let mut attributes: Vec<String> = actor["Attributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if !attributes.is_empty() {
        attributes.sort();
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}
