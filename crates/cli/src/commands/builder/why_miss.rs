//! `wharf builder why-miss`: which input of which step has changed since which build.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::{array, int, text};

/// Also `build why-miss`.
pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] [REF [EARLIER]]",
    "Show why steps of a build (the last one) were not in the cache: what of them is not as in an earlier build",
    Arity::AtMost(2),
    |app, matches| {
        Box::pin(async move {
            let mut given = matches.arguments.iter().map(String::as_str);
            show(app, given.next().unwrap_or("latest"), given.next(), matches.some("format")).await
        })
    },
)
.flags(&[Flag::text("format", "Format output: \"json\"")]);

async fn show(app: &App, build: &str, against: Option<&str>, format: Option<&str>) -> Outcome<u8> {
    app.needs_own_engine("builder why-miss").await?;
    let request = app.client().await?.get(&format!("/build/history/{build}/why-miss"));
    let why: Json = request.query_some("against", against).send().await?.json().await?;
    match format {
        None => app.print(&words(&why))?,
        Some("json") => app.say(&format!("{why:#}"))?,
        Some(other) => return Err(format!("{other:?} is no format of why-miss: it has json").into()),
    }
    Ok(0)
}

fn words(why: &Json) -> String {
    let against = why["Against"].as_str().map(|name| format!(", compared with build {name}"));
    let mut all = format!("Build {}{}\n", text(&why["Ref"]), against.unwrap_or_default());
    let steps = array(&why["Steps"]);
    if steps.is_empty() {
        all.push_str("No step was made: all came from the cache\n");
    }
    for step in steps {
        all.push_str(&format!("line {}: {}\n", int(&step["Line"]), text(&step["Step"])));
        for reason in array(&step["Reasons"]) {
            all.push_str(&format!("    {}\n", text(reason)));
        }
    }
    all
}
