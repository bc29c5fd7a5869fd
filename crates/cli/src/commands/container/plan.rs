//! What `run`, `create` and `rm` say with `--dry-run`.

use serde_json::Value as Json;

use super::create::{self, Missing};
use crate::app::App;
use crate::dry_run;
use crate::failure::Outcome;
use crate::json::{array, text, texts};
use crate::options::request::Request;
use crate::parse::Matches;
use crate::units;
use crate::visible::visible;

/// Says what making a container, and with `starts` starting it, comes to.
pub(super) async fn creation(app: &App, matches: &Matches, request: &Request, starts: bool) -> Outcome {
    dry_run::check_engine(app).await?;
    create::warn(app, request);
    create::check_id_file(matches.some("cidfile"))?;
    let image = text(&request.config["Image"]);
    let name = create::named(image)?.map(|reference| reference.familiar());
    let policy = matches.text("pull");
    let mut lines = Vec::new();
    if let (Some(name), "always") = (&name, policy) {
        lines.push(format!("Would pull image {name}"));
    }
    match create::send(app, matches, request, true).await {
        Ok(plan) => {
            lines.extend(creation_lines(&plan));
            for warning in texts(&plan["Warnings"]) {
                app.complain(&format!("WARNING: {warning}"));
            }
        }
        Err(Missing { image: true, .. }) if name.is_some() && matches!(policy, "missing" | "always") => {
            let name = name.unwrap_or_default();
            if policy == "missing" {
                lines.push(format!("Would pull image {name}"));
            }
            lines.push(format!("Would create a container from {name}; what else is known when the image is here"));
        }
        Err(failure) => return Err(failure.failure),
    }
    if let Some(path) = matches.some("cidfile") {
        lines.push(format!("Would write the container ID to {path}"));
    }
    if starts {
        lines.push("Would start it".to_owned());
        if matches.on("rm") {
            lines.push("Would remove it with its anonymous volumes when it ends".to_owned());
        }
    }
    app.say(&visible(&lines.join("\n")))
}

fn creation_lines(plan: &Json) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(texts(&plan["NewDirectories"]).iter().map(|path| format!("Would create directory {path}")));
    lines.extend(texts(&plan["NewVolumes"]).iter().map(|name| format!("Would create volume {name}")));
    let name = match text(&plan["Name"]) {
        "" => "with a name of the engine's choice".to_owned(),
        name => name.to_owned(),
    };
    let id = text(&plan["ImageID"]);
    lines.push(format!("Would create container {name} from {} ({id})", text(&plan["Image"])));
    lines.push(format!("  command: {}", texts(&plan["Command"]).join(" ")));
    for network in texts(&plan["Networks"]) {
        lines.push(format!("  network: {network}"));
    }
    for port in texts(&plan["Ports"]) {
        lines.push(format!("  port: {port}"));
    }
    for mount in array(&plan["Mounts"]) {
        let source = match (text(&mount["Type"]), text(&mount["Name"]), text(&mount["Source"])) {
            ("volume", "", _) => "a new anonymous volume".to_owned(),
            (kind @ ("volume" | "image"), name, _) => format!("{kind} {name}"),
            ("tmpfs", ..) => "tmpfs".to_owned(),
            (kind, _, source) => format!("{kind} {source}"),
        };
        let only = if mount["RW"] == false { " (read-only)" } else { "" };
        lines.push(format!("  mount: {source} at {}{only}", text(&mount["Destination"])));
    }
    lines
}

/// Says what the removal of a container comes to, by the engine's answer.
pub(super) fn removal(plan: &Json) -> String {
    if let Some(link) = plan["Link"].as_str() {
        return format!("Would remove link {link}");
    }
    let mut lines = Vec::new();
    let name = text(&plan["Name"]);
    if plan["Running"] == true {
        lines.push(format!("Would kill container {name}"));
    }
    let bytes = units::human_size(plan["SpaceReclaimed"].as_f64().unwrap_or_default());
    lines.push(format!("Would remove container {name} ({bytes})"));
    lines.extend(texts(&plan["Volumes"]).iter().map(|name| format!("Would remove anonymous volume {name}")));
    visible(&lines.join("\n")).into_owned()
}
