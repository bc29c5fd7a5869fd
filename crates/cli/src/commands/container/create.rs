//! `docker create`, and the part of `docker run` that creates.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use wharf_reference::Reference;

use super::plan;
use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::{text, texts};
use crate::options::request::{self, Request};
use crate::parse::Matches;
use crate::progress::{self, Target};
use crate::{auth, dry_run, platform, proxies, references, terminal};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", Arity::AtLeast(1), |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(FLAGS)
    .shared_flags(request::FLAGS)
    .stops_at_argument();

const FLAGS: &[Flag] = &[
    dry_run::FLAG,
    Flag::text("pull", "Pull image before creating (\"always\", \"|missing\", \"never\")").default("missing"),
];

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let request = prepare(app, matches, "create")?;
    if matches.on("dry-run") {
        plan::creation(app, matches, &request, false).await?;
        return Ok(0);
    }
    let id = create(app, matches, &request).await?;
    app.say(&id)?;
    Ok(0)
}

/// Reads the flags of `run` or `create`.
pub(super) fn prepare(app: &App, matches: &Matches, command: &str) -> Outcome<Request> {
    let usage = |failure: Failure| Failure { code: 125, ..reported(app, command, &failure, true) };
    refuse_windows(matches)?;
    check_pull(matches.text("pull")).map_err(usage)?;
    let address = &app.endpoint().map_err(usage)?.address;
    let variables = proxies::variables(app.config(), &address.to_string(), matches.all("env"));
    request::build(matches, &variables, address).map_err(usage)
}

/// An error as `run` and `create` say it.
pub(super) fn reported(app: &App, command: &str, failure: &Failure, help: bool) -> Failure {
    let program = &app.program;
    let mut text = format!("{program}: {}", failure.text);
    if help {
        text.push_str(&format!("\n\nRun '{program} {command} --help' for more information"));
    }
    Failure { code: failure.code, text }
}

/// Limits that only engines on Windows have.
fn refuse_windows(matches: &Matches) -> Outcome {
    match ["cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"].into_iter().find(|flag| matches.changed(flag)) {
        Some(flag) => Err(format!(
            "\"--{flag}\" is only supported on a Docker daemon running on windows, but the Docker daemon is running on linux"
        )
        .into()),
        None => Ok(()),
    }
}

fn check_pull(value: &str) -> Outcome {
    match value {
        "always" | "missing" | "never" | "" => Ok(()),
        other => {
            Err(format!(r#"invalid pull option: '{other}': must be one of "always", "missing" or "never""#).into())
        }
    }
}

/// Creates the container, fetching its image when it is not there, and gives the container's ID.
pub(super) async fn create(app: &App, matches: &Matches, request: &Request) -> Outcome<String> {
    warn(app, request);
    let mut id_file = IdFile::create(matches.some("cidfile"))?;
    let image = text(&request.config["Image"]).to_owned();
    let reference = named(&image)?;
    let pull_policy = matches.text("pull");
    if pull_policy == "always" {
        pull(app, matches, &image).await?;
    }
    let created = match send(app, matches, request, false).await {
        Err(failure) if failure.image && reference.is_some() && pull_policy == "missing" => {
            if !matches.on("quiet") {
                let name = reference.as_ref().map(Reference::familiar).unwrap_or_default();
                app.complain(&format!("Unable to find image '{name}' locally"));
            }
            pull(app, matches, &image).await?;
            send(app, matches, request, false).await
        }
        other => other,
    };
    let created = created.map_err(|missing| missing.failure)?;
    for warning in texts(&created["Warnings"]) {
        app.complain(&format!("WARNING: {warning}"));
    }
    let id = text(&created["Id"]).to_owned();
    id_file.write(&id)?;
    Ok(id)
}

/// The image's name with a tag, unless it is an ID.
pub(super) fn named(image: &str) -> Outcome<Option<Reference>> {
    if references::is_id(image) {
        return Ok(None);
    }
    Ok(Some(references::parse(image)?.tag_or_latest()))
}

/// Why there is no container.
#[derive(Debug)]
pub(super) struct Missing {
    /// Its image is not here.
    pub(super) image: bool,
    pub(super) failure: Failure,
}

/// The engine's answer; to a `dry` request what it would make.
pub(super) async fn send(app: &App, matches: &Matches, request: &Request, dry: bool) -> Result<Json, Missing> {
    let other = |failure: Failure| Missing { image: false, failure };
    if !request.secrets.is_empty() {
        // Another would take no note of them, and has no business with them.
        app.needs_own_engine("--secret").await.map_err(other)?;
    }
    for flag in ["bandwidth", "health-http", "health-on-failure", "health-tcp"] {
        if matches.changed(flag) {
            app.needs_own_engine(&format!("--{flag}")).await.map_err(other)?;
        }
    }
    let client = app.client().await.map_err(other)?;
    let (rows, columns) = terminal::size();
    let (mut config, mut host) = (request.config.clone(), request.host.clone());
    host.insert("ConsoleSize".to_owned(), json!([rows, columns]));
    // Before 1.44 the address is the container's, not the endpoint's.
    if !client.at_least("1.44") && matches.changed("mac-address") {
        config.insert("MacAddress".to_owned(), json!(matches.text("mac-address")));
    }
    if !request.secrets.is_empty() {
        config.insert("SecretData".to_owned(), Json::Object(request.secrets.clone()));
    }
    config.insert("HostConfig".to_owned(), Json::Object(host));
    config.insert("NetworkingConfig".to_owned(), json!({"EndpointsConfig": request.endpoints}));
    let sent = client
        .post("/containers/create")
        .query_some("name", matches.some("name"))
        .query_some("platform", platform(matches).map_err(other)?)
        .query_if(dry, "dry-run")
        .json(&config)
        .map_err(|error| other(error.into()))?
        .send()
        .await;
    match sent {
        Ok(response) => response.json().await.map_err(|error| other(error.into())),
        Err(error) => Err(Missing { image: error.is_not_found(), failure: error.into() }),
    }
}

/// The platform that was asked for, here or in the environment.
pub(crate) fn platform(matches: &Matches) -> Outcome<Option<String>> {
    let given = matches.some("platform").map(str::to_owned);
    let chosen =
        given.or_else(|| std::env::var("DOCKER_DEFAULT_PLATFORM").ok().filter(|platform| !platform.is_empty()));
    let Some(chosen) = chosen else { return Ok(None) };
    let parsed = platform::parse(&chosen).map_err(|reason| format!("error parsing specified platform: {reason}"))?;
    Ok(Some(parsed))
}

/// Fetches the image, its progress on standard error: standard output is the container's.
async fn pull(app: &App, matches: &Matches, image: &str) -> Outcome {
    let reference = references::parse(image)?.tag_or_latest();
    let credentials = auth::header_for(app.config(), &reference);
    let tag = reference.digest().map(ToString::to_string).or_else(|| reference.tag().map(str::to_owned));
    let response = app
        .client()
        .await?
        .post("/images/create")
        .query("fromImage", reference.name())
        .query_some("tag", tag)
        .query_some("platform", platform(matches)?)
        .header("x-registry-auth", &credentials)
        .send()
        .await?;
    let target = if matches.on("quiet") { Target::Nowhere } else { Target::Stderr };
    progress::show(response, target, |_| {}).await
}

pub(super) fn warn(app: &App, request: &Request) {
    let host = &request.host;
    let local = |address: &&str| address.starts_with("127.") || *address == "::1";
    if let Some(address) = texts(&host["Dns"]).into_iter().find(local) {
        app.complain(&format!("WARNING: Localhost DNS ({address}) may fail in containers."));
    }
}

/// Refuses a file for an ID that is there already.
pub(super) fn check_id_file(path: Option<&str>) -> Outcome {
    match path.map(Path::new).filter(|path| path.exists()) {
        None => Ok(()),
        Some(path) => Err(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        )
        .into()),
    }
}

/// `--cidfile`: there only when it has an ID in it.
#[derive(Debug)]
struct IdFile {
    open: Option<(PathBuf, File)>,
}

impl IdFile {
    fn create(path: Option<&str>) -> Outcome<Self> {
        check_id_file(path)?;
        let Some(path) = path.map(Path::new) else { return Ok(Self { open: None }) };
        let file = File::create(path).map_err(|error| {
            format!("failed to create the container ID file: {}", wharf_report::path("open", path, &error))
        })?;
        Ok(Self { open: Some((path.to_owned(), file)) })
    }

    fn write(&mut self, id: &str) -> Outcome {
        let Some((path, mut file)) = self.open.take() else { return Ok(()) };
        file.write_all(id.as_bytes()).map_err(|error| {
            format!("failed to write the container ID to the file: {}", wharf_report::path("write", &path, &error))
        })?;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if let Some((path, _)) = self.open.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}
