//! `docker rmi`.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::inspect::platform_json;
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::text;
use crate::parse::Matches;
use crate::platform;

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", Arity::AtLeast(1), |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(&[
        Flag::switch("force", "Force removal of the image").short('f'),
        Flag::switch("no-prune", "Do not delete untagged parents"),
        Flag::strings(
            "platform",
            "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
    ]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let force = matches.on("force");
    let client = app.client().await?;
    let (mut failures, mut fatal) = (Vec::new(), false);
    for name in &matches.arguments {
        let mut request = client
            .delete(&format!("/images/{name}"))
            .query_if(force, "force")
            .query_if(matches.on("no-prune"), "noprune");
        for text in matches.all("platform") {
            request = request.query("platforms", platform_json(&platform::parse(text)?));
        }
        match request.send().await {
            Ok(response) => {
                let removed: Vec<Json> = response.json().await?;
                for item in &removed {
                    let line = match text(&item["Deleted"]) {
                        "" => format!("Untagged: {}", text(&item["Untagged"])),
                        id => format!("Deleted: {id}"),
                    };
                    app.say(&line)?;
                }
            }
            Err(error) => {
                fatal |= !error.is_not_found();
                failures.push(error.to_string());
            }
        }
    }
    if failures.is_empty() {
        return Ok(0);
    }
    let text = failures.join("\n");
    if !force || fatal {
        return Err(Failure::new(text));
    }
    app.complain(&text);
    Ok(0)
}
