//! `docker save`, `docker load`, `docker import`.

use std::io::IsTerminal as _;
use std::path::Path;

use wharf_client::Body;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::container::create::platform as chosen_platform;
use crate::commands::inspect::platform_json;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::parse::Matches;
use crate::progress::{self, Target};
use crate::{download, platform, references, upload};

pub(crate) static SAVE: Command = Command::new(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    Arity::AtLeast(1),
    |app, matches| Box::pin(save(app, matches)),
)
.flags(&[
    Flag::text("output", "Write to a file, instead of STDOUT").short('o'),
    Flag::strings(
        "platform",
        "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
]);

pub(crate) static LOAD: Command =
    Command::new("[OPTIONS]", "Load an image from a tar archive or STDIN", Arity::None, |app, matches| {
        Box::pin(load(app, matches))
    })
    .flags(&[
        Flag::text("input", "Read from tar archive file, instead of STDIN").short('i'),
        Flag::strings(
            "platform",
            "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
        ),
        Flag::switch("quiet", "Suppress the load output").short('q'),
    ]);

pub(crate) static IMPORT: Command = Command::new(
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    Arity::AtLeast(1),
    |app, matches| Box::pin(import(app, matches)),
)
.flags(&[
    Flag::list("change", "Apply Dockerfile instruction to the created image").short('c'),
    Flag::text("message", "Set commit message for imported image").short('m'),
    Flag::text("platform", "Set platform if server is multi-platform capable"),
]);

async fn save(app: &App, matches: &Matches) -> Outcome<u8> {
    let output = matches.some("output");
    download::refuse_terminal(output)?;
    download::check(output).map_err(|failure| format!("failed to save image: {}", failure.text))?;
    let mut request = app.client().await?.get("/images/get");
    for name in &matches.arguments {
        request = request.query("names", name);
    }
    for platform in given_platforms(matches)? {
        request = request.query("platform", platform);
    }
    download::save(request.send().await?, output).await?;
    Ok(0)
}

fn given_platforms(matches: &Matches) -> Outcome<Vec<String>> {
    let one = |text: &String| match platform::parse(text) {
        Ok(platform) => Ok(platform_json(&platform)),
        Err(reason) => Err(format!("invalid platform: {reason}").into()),
    };
    matches.all("platform").iter().map(one).collect()
}

async fn load(app: &App, matches: &Matches) -> Outcome<u8> {
    let body = match matches.some("input") {
        Some(path) => open(path).await?,
        None if std::io::stdin().is_terminal() => {
            return Err("requested load from stdin, but stdin is empty".into());
        }
        None => upload::stdin(Vec::new()),
    };
    let quiet = matches.on("quiet") || !app.shows_terminal();
    let mut request = app.client().await?.post("/images/load").query("quiet", u8::from(quiet));
    for platform in given_platforms(matches)? {
        request = request.query("platform", platform);
    }
    let response = request.body("application/x-tar", body).send().await?;
    progress::show(response, Target::Stdout, |_| {}).await?;
    Ok(0)
}

async fn open(path: &str) -> Outcome<Body> {
    let file =
        tokio::fs::File::open(path).await.map_err(|error| wharf_report::path("open", Path::new(path), &error))?;
    Ok(upload::reader(file))
}

async fn import(app: &App, matches: &Matches) -> Outcome<u8> {
    let (source, name) = (matches.argument(0), matches.argument(1));
    let remote = ["http://", "https://", "ftp://"].iter().any(|scheme| source.starts_with(scheme));
    let body = match source {
        _ if remote => None,
        "-" => Some(upload::stdin(Vec::new())),
        path => Some(open(path).await?),
    };
    let mut request = app
        .client()
        .await?
        .post("/images/create")
        .query("fromSrc", if remote { source } else { "-" })
        .query_some("message", matches.some("message"));
    if !name.is_empty() {
        references::parse(name)?;
        request = request.query("repo", name);
    }
    for change in matches.all("change") {
        request = request.query("changes", change);
    }
    request = request.query_some("platform", chosen_platform(matches)?.map(|platform| platform.to_lowercase()));
    if let Some(body) = body {
        request = request.body("text/plain", body);
    }
    progress::show(request.send().await?, Target::Stdout, |_| {}).await?;
    Ok(0)
}
