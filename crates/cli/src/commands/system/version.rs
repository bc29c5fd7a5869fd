//! `docker version`.

use serde_json::{Value as Json, json};
use wharf_client::{Client, MAX_API_VERSION};
use wharf_template::Template;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::format::FORMAT;
use crate::json::{array, text};
use crate::parse::Matches;
use crate::{contexts, table, types};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "Show the Docker version information", Arity::None, |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(&[Flag::text("format", FORMAT).short('f')]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let template = match matches.text("format") {
        "" => None,
        "json" => Some("{{json .}}"),
        text => Some(text),
    };
    let wrong = |error| Failure { code: 64, text: format!("template parsing error: {error}") };
    let template = template.map(|text| Template::parse_named("version", text)).transpose().map_err(wrong)?;
    let server = match app.client().await {
        Ok(client) => fetch(client).await,
        Err(failure) => Err(failure),
    };
    let mut version = json!({"Client": client_json(app)});
    let mut failure = None;
    match server {
        Ok(server) => version["Server"] = server,
        Err(error) => failure = Some(error),
    }
    let rendered = match &template {
        None => table::align_with(&plain(&version), 20, 1),
        Some(template) => {
            let mut output = String::new();
            if let Err(error) = template.execute_into(&types::version().view(&version), &mut output) {
                // What the engine said first is the better reason.
                failure.get_or_insert_with(|| Failure::new(error.to_string()));
            }
            table::align_with(&output, 20, 1)
        }
    };
    app.say(&rendered)?;
    failure.map_or(Ok(0), Err)
}

async fn fetch(client: &Client) -> Outcome<Json> {
    let mut server: Json = client.get("/version").send().await?.json().await?;
    let field = |key: &str| text(&server[key]).to_owned();
    let engine = |component: &Json| text(&component["Name"]) == "Engine";
    if array(&server["Components"]).iter().any(engine) {
        if let Some(components) = server["Components"].as_array_mut() {
            for component in components.iter_mut().filter(|component| text(&component["Name"]) == "Engine") {
                if let Some(time) = component["Details"]["BuildTime"].as_str().map(date) {
                    component["Details"]["BuildTime"] = json!(time);
                }
            }
        }
        return Ok(server);
    }
    let component = json!({"Name": "Engine", "Version": field("Version"), "Details": {
        "ApiVersion": field("ApiVersion"),
        "MinAPIVersion": field("MinAPIVersion"),
        "GitCommit": field("GitCommit"),
        "GoVersion": field("GoVersion"),
        "Os": field("Os"),
        "Arch": field("Arch"),
        "BuildTime": date(&field("BuildTime")),
        "Experimental": server["Experimental"].as_bool().unwrap_or(false).to_string(),
    }});
    if !server["Components"].is_array() {
        server["Components"] = json!([]);
    }
    if let Some(components) = server["Components"].as_array_mut() {
        components.push(component);
    }
    Ok(server)
}

/// `Mon Jan _2 15:04:05 2006`.
fn date(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(moment) => moment.strftime("%a %b %e %H:%M:%S %Y").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// What there is to say of this program.
pub(crate) fn client_json(app: &App) -> Json {
    let version = if app.program == "docker" { crate::dispatch::DOCKER_VERSION } else { env!("CARGO_PKG_VERSION") };
    json!({
        "Version": version,
        "ApiVersion": app.api_version(),
        "DefaultAPIVersion": MAX_API_VERSION,
        "GitCommit": format!("wharf-{}", env!("CARGO_PKG_VERSION")),
        "Os": "linux",
        "Arch": go_architecture(),
        "Context": contexts::current(&app.globals, app.config()),
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn plain(version: &Json) -> String {
    let client = &version["Client"];
    let field = |key: &str| text(&client[key]);
    let downgraded = match (field("ApiVersion"), field("DefaultAPIVersion")) {
        (used, newest) if used != newest => format!(" (downgraded from {newest})"),
        _ => String::new(),
    };
    let mut lines = vec![
        "Client:".to_owned(),
        format!(" Version:\t{}", field("Version")),
        format!(" API version:\t{}{downgraded}", field("ApiVersion")),
        format!(" Git commit:\t{}", field("GitCommit")),
        format!(" OS/Arch:\t{}/{}", field("Os"), field("Arch")),
        format!(" Context:\t{}", field("Context")),
    ];
    let server = &version["Server"];
    if server.is_null() {
        return lines.join("\n");
    }
    let platform = text(&server["Platform"]["Name"]);
    lines.push(String::new());
    lines.push(if platform.is_empty() { "Server:".to_owned() } else { format!("Server: {platform}") });
    for component in array(&server["Components"]) {
        let details = &component["Details"];
        let detail = |key: &str| text(&details[key]);
        lines.push(format!(" {}:", text(&component["Name"])));
        lines.push(format!("  Version:\t{}", text(&component["Version"])));
        if text(&component["Name"]) == "Engine" {
            lines.push(format!(
                "  API version:\t{} (minimum version {})",
                detail("ApiVersion"),
                detail("MinAPIVersion")
            ));
            for (title, key) in [("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime")] {
                lines.push(format!("  {title}:\t{}", detail(key)));
            }
            lines.push(format!("  OS/Arch:\t{}/{}", detail("Os"), detail("Arch")));
            lines.push(format!("  Experimental:\t{}", detail("Experimental")));
        } else {
            let mut pairs: Vec<String> = details
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("  {key}:\t{}", text(value)))
                .collect();
            pairs.sort();
            lines.extend(pairs);
        }
    }
    lines.join("\n")
}
