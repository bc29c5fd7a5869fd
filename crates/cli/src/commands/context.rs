//! `docker context`.

use std::path::Path;

use serde_json::{Value as Json, json};
use wharf_client::Address;
use wharf_template::Type;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::config::Config;
use crate::contexts::{self, Context, DEFAULT};
use crate::endpoint;
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::format::{FORMAT, Format, Headers, Row, TABLE_FORMAT};
use crate::inspect::{Found, Inspector};
use crate::parse::{Matches, commas};

pub(crate) static LIST: Command =
    Command::new("[OPTIONS]", "List contexts", Arity::None, |app, matches| Box::pin(list(app, matches)))
        .flags(&[Flag::text("format", TABLE_FORMAT), Flag::switch("quiet", "Only show context names").short('q')]);

pub(crate) static SHOW: Command =
    Command::new("", "Print the name of the current context", Arity::None, |app, matches| Box::pin(show(app, matches)));

pub(crate) static USE: Command =
    Command::new("CONTEXT", "Set the current docker context", Arity::Exactly(1), |app, matches| {
        Box::pin(select(app, matches))
    });

pub(crate) static INSPECT: Command = Command::new(
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    Arity::AtLeast(0),
    |app, matches| Box::pin(inspect(app, matches)),
)
.flags(&[Flag::text("format", FORMAT).short('f')]);

pub(crate) static CREATE: Command =
    Command::new("[OPTIONS] CONTEXT", "Create a context", Arity::Exactly(1), |app, matches| {
        Box::pin(create(app, matches))
    })
    .long(LONG_CREATE)
    .flags(&[
        Flag::text("description", "Description of the context"),
        DOCKER,
        Flag::text("from", "create context from a named context"),
    ]);

pub(crate) static UPDATE: Command =
    Command::new("[OPTIONS] CONTEXT", "Update a context", Arity::Exactly(1), |app, matches| {
        Box::pin(update(app, matches))
    })
    .long(LONG_UPDATE)
    .flags(&[Flag::text("description", "Description of the context"), DOCKER]);

pub(crate) static REMOVE: Command =
    Command::new("CONTEXT [CONTEXT...]", "Remove one or more contexts", Arity::AtLeast(1), |app, matches| {
        Box::pin(remove(app, matches))
    })
    .flags(&[Flag::switch("force", "Force the removal of a context in use").short('f')]);

const DOCKER: Flag = Flag::many("docker", "stringToString", check_pairs, "set the docker endpoint").default("[]");

const LONG_CREATE: &str = "Create a context

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ docker context create my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,\
cert=~/cert-file,key=~/key-file\"";

const LONG_UPDATE: &str = "Update a context

Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ docker context update my-context --description \"some description\" --docker \"host=tcp://myserver:2376,ca=~/ca-file,\
cert=~/cert-file,key=~/key-file\"";

/// More characters of an error are not shown in a list.
const MAX_ERROR: usize = 45;

fn check_pairs(text: &str) -> Result<(), String> {
    match commas(text).into_iter().find(|pair| !pair.contains('=')) {
        Some(pair) => Err(format!("{pair} must be formatted as key=value")),
        None => Ok(()),
    }
}

const HEADERS: &Headers =
    &[("Name", "NAME"), ("Description", "DESCRIPTION"), ("DockerEndpoint", "DOCKER ENDPOINT"), ("Error", "ERROR")];

/// The one without a name of its own: where `-H` leads, else the environment.
fn default_context(hosts: &[String]) -> Context {
    let host = hosts.first().cloned().or_else(endpoint::environment_host);
    let host = host.unwrap_or_else(|| Address::Unix(endpoint::default_socket()).to_string());
    Context {
        name: DEFAULT.to_owned(),
        description: "Current DOCKER_HOST based configuration".to_owned(),
        host,
        ..Context::default()
    }
}

async fn list(app: &App, matches: &Matches) -> Outcome<u8> {
    let current = contexts::current(&app.globals, app.config());
    let source = match matches.some("format").unwrap_or("table") {
        "table" if matches.on("quiet") => "{{.Name}}",
        "table" => "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
        other => other,
    };
    let mut all = contexts::list(app.config());
    all.push(default_context(&app.globals.hosts));
    if !all.iter().any(|context| context.name == current) {
        let error = contexts::load(app.config(), &current).err().map(|failure| failure.text).unwrap_or_default();
        let meta = json!({"error": error});
        all.push(Context { name: current.clone(), meta, ..Context::default() });
    }
    all.sort_by(|a, b| crate::natural::compare(&a.name, &b.name));
    let rows: Vec<_> = all.iter().map(|context| row(context, &current)).collect();
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &rows[0])?)?;
    let overridden = std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty());
    if overridden {
        app.complain(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the \
             global --context flag, or unset DOCKER_HOST environment variable.",
        );
    }
    Ok(0)
}

fn row(context: &Context, current: &str) -> wharf_template::Value {
    let error = context.meta["error"].as_str().unwrap_or_default();
    let error = if error.chars().count() > MAX_ERROR {
        error.chars().take(MAX_ERROR - 1).chain(['…']).collect()
    } else {
        error.to_owned()
    };
    Row::new("*formatter.clientContextContext")
        .field("Current", context.name == current)
        .field("Description", context.description.as_str())
        .field("DockerEndpoint", context.host.as_str())
        .field("Error", error)
        .field("Name", context.name.as_str())
        .build()
}

async fn show(app: &App, _: &Matches) -> Outcome<u8> {
    app.say(&contexts::current(&app.globals, app.config()))?;
    Ok(0)
}

async fn select(app: &App, matches: &Matches) -> Outcome<u8> {
    let name = matches.argument(0);
    let mut config = app.config().clone();
    if name == DEFAULT {
        config.content.remove("currentContext");
    } else {
        check_name(name)?;
        contexts::load(&config, name)?;
        config.content.insert("currentContext".to_owned(), json!(name));
    }
    config.save()?;
    app.say(name)?;
    app.complain(&format!("Current context is now {name:?}"));
    let overridden = std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty());
    if name != DEFAULT && overridden {
        app.complain(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the \
             global --context flag, or unset DOCKER_HOST environment variable."
        ));
    }
    Ok(0)
}

async fn inspect(app: &App, matches: &Matches) -> Outcome<u8> {
    let current = contexts::current(&app.globals, app.config());
    let names = if matches.arguments.is_empty() { std::slice::from_ref(&current) } else { &matches.arguments };
    let mut inspector = Inspector::new(matches.text("format"))?;
    for name in names {
        let found = describe(app, name)
            .map(|json| Found { raw: crate::json::compact(&json.to_string()).into(), kind: Type::Any });
        inspector.add(found);
    }
    inspector.finish(app)
}

fn describe(app: &App, name: &str) -> Outcome<Json> {
    let config = app.config();
    let context = if name == DEFAULT { default_context(&app.globals.hosts) } else { contexts::load(config, name)? };
    let (meta, tls) = contexts::dirs(config, name);
    let (mut meta_path, mut tls_path) = (meta.display().to_string(), tls.display().to_string());
    let mut material = json!({});
    if name == DEFAULT {
        meta_path = "<IN MEMORY>".to_owned();
        tls_path = "<IN MEMORY>".to_owned();
    } else {
        let mut files: Vec<String> = std::fs::read_dir(tls.join("docker"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        if !files.is_empty() {
            files.sort();
            material["docker"] = json!(files);
        }
    }
    let metadata = if context.description.is_empty() || name == DEFAULT {
        json!({})
    } else {
        json!({"Description": context.description})
    };
    Ok(json!({
        "Name": name,
        "Metadata": metadata,
        "Endpoints": {"docker": {"Host": context.host, "SkipTLSVerify": context.skip_verify}},
        "TLSMaterial": material,
        "Storage": {"MetadataPath": meta_path, "TLSPath": tls_path},
    }))
}

pub(crate) fn check_name(name: &str) -> Outcome {
    if name.is_empty() {
        return Err("context name cannot be empty".into());
    }
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    if name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(inner) {
        return Ok(());
    }
    Err(format!(
        "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    )
    .into())
}

/// What `--docker` says.
#[derive(Default)]
struct Given {
    host: Option<String>,
    from: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    skip_verify: bool,
}

fn given(matches: &Matches) -> Outcome<Given> {
    let mut given = Given::default();
    for pair in matches.all("docker").iter().flat_map(|text| commas(text)) {
        let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
        let value = value.to_owned();
        match key {
            "host" => given.host = Some(value),
            "from" => given.from = Some(value),
            "ca" => given.ca = Some(value),
            "cert" => given.cert = Some(value),
            "key" => given.key = Some(value),
            "skip-tls-verify" => {
                given.skip_verify =
                    crate::values::parse_bool(&value).map_err(|reason| format!("failed to parse bool: {reason}"))?;
            }
            other => {
                return Err(format!("unable to create docker endpoint config: {other}: unrecognized config key").into());
            }
        }
    }
    Ok(given)
}

fn write(config: &Config, name: &str, meta: &Json, given: &Given) -> Outcome {
    let (meta_dir, tls_dir) = contexts::dirs(config, name);
    let wrong = |path: &Path, error: &std::io::Error| Failure::new(wharf_report::path("open", path, error));
    std::fs::create_dir_all(&meta_dir).map_err(|error| wrong(&meta_dir, &error))?;
    let file = meta_dir.join("meta.json");
    std::fs::write(&file, meta.to_string()).map_err(|error| wrong(&file, &error))?;
    let material = [("ca.pem", &given.ca), ("cert.pem", &given.cert), ("key.pem", &given.key)];
    for (target, source) in material.into_iter().filter_map(|(target, source)| Some((target, source.as_ref()?))) {
        let dir = tls_dir.join("docker");
        std::fs::create_dir_all(&dir).map_err(|error| wrong(&dir, &error))?;
        let source = Path::new(source);
        std::fs::copy(source, dir.join(target)).map_err(|error| wrong(source, &error))?;
    }
    Ok(())
}

async fn create(app: &App, matches: &Matches) -> Outcome<u8> {
    let (name, config) = (matches.argument(0), app.config());
    check_name(name)?;
    if name == DEFAULT {
        return Err("\"default\" is a reserved context name".into());
    }
    if contexts::load(config, name).is_ok() {
        return Err(format!("context {name:?} already exists").into());
    }
    if matches.changed("from") && matches.changed("docker") {
        return Err("cannot use --docker flag when --from is set".into());
    }
    let mut given = given(matches)?;
    let by_docker = given.from.is_some();
    let from = matches.some("from").map(str::to_owned).or_else(|| given.from.take());
    // Without a word about the engine it is the one in use.
    let from = from.or_else(|| matches.all("docker").is_empty().then(|| contexts::current(&app.globals, config)));
    let mut description = matches.text("description").to_owned();
    let mut host = given.host.clone().unwrap_or_default();
    if let Some(from) = from {
        let source = match from.as_str() {
            DEFAULT => default_context(&app.globals.hosts),
            from => contexts::load(config, from).map_err(|failure| match by_docker {
                true => format!("unable to create docker endpoint config: {}", failure.text).into(),
                false => failure,
            })?,
        };
        if host.is_empty() {
            host = source.host;
        }
        if description.is_empty() && from != DEFAULT {
            description = source.description;
        }
        given.skip_verify |= source.skip_verify;
    }
    check_host(&host)?;
    check_files(&given)?;
    write(config, name, &contexts::meta(name, &description, &host, given.skip_verify), &given)?;
    app.say(name)?;
    app.complain(&format!("Successfully created context {name:?}"));
    Ok(0)
}

/// A file that cannot be read is found before anything is written.
fn check_files(given: &Given) -> Outcome {
    for path in [&given.ca, &given.cert, &given.key].into_iter().flatten() {
        std::fs::File::open(path).map_err(|error| {
            format!("unable to create docker endpoint config: {}", wharf_report::path("open", Path::new(path), &error))
        })?;
    }
    Ok(())
}

fn check_host(host: &str) -> Outcome {
    if host.is_empty() {
        return Ok(());
    }
    if !host.contains("://") {
        return Err(format!("unable to apply docker endpoint options: unable to parse docker host `{host}`").into());
    }
    Address::parse(host, false).map(|_| ()).map_err(|error| {
        format!("unable to create docker endpoint config: invalid docker endpoint options: {error}").into()
    })
}

async fn update(app: &App, matches: &Matches) -> Outcome<u8> {
    let (name, config) = (matches.argument(0), app.config());
    check_name(name)?;
    if name == DEFAULT {
        return Err("\"default\" is a reserved context name".into());
    }
    let known = contexts::load(config, name)?;
    let given = given(matches)?;
    let description =
        if matches.changed("description") { matches.text("description").to_owned() } else { known.description };
    let host = given.host.clone().unwrap_or(known.host);
    check_host(&host)?;
    check_files(&given)?;
    let skip_verify = given.skip_verify || (known.skip_verify && !matches.changed("docker"));
    write(config, name, &contexts::meta(name, &description, &host, skip_verify), &given)?;
    app.say(name)?;
    app.complain(&format!("Successfully updated context {name:?}"));
    Ok(0)
}

async fn remove(app: &App, matches: &Matches) -> Outcome<u8> {
    let config = app.config();
    let current = contexts::current(&app.globals, config);
    let mut failures = Vec::new();
    for name in &matches.arguments {
        match remove_one(config, name, &current, matches.on("force")) {
            Ok(()) => app.say(name)?,
            Err(failure) => failures.push(failure.text),
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n"))) }
}

fn remove_one(config: &Config, name: &str, current: &str, force: bool) -> Outcome {
    if name == DEFAULT {
        return Err("context \"default\" cannot be removed".into());
    }
    let (meta, tls) = contexts::dirs(config, name);
    if !meta.exists() {
        return if force { Ok(()) } else { Err(format!("context {name:?} does not exist").into()) };
    }
    if name == current && !force {
        return Err(format!("context {name:?} is in use, set -f flag to force remove").into());
    }
    if config.text("currentContext") == Some(name) {
        let mut config = config.clone();
        config.content.remove("currentContext");
        config.save()?;
    }
    for dir in [meta, tls] {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(wharf_report::path("unlink", &dir, &error).into());
            }
            _ => {}
        }
    }
    Ok(())
}
