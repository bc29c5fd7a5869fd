//! Which request is answered by what.

mod agents;
mod attestations;
mod build;
mod build_history;
mod build_parts;
mod buildkit;
mod capture;
mod compare;
mod container_list;
mod containers;
mod disk;
mod dry_run;
mod events;
mod exec;
mod files;
mod fsck;
mod image_list;
mod images;
mod metrics;
mod networks;
mod pin;
mod progress;
mod prune_stream;
mod reach;
mod remote;
mod search;
mod streams;
mod system;
mod volume_copies;
mod volumes;

pub(crate) use agents::Agents;
pub(crate) use metrics::Kept;
pub(crate) use remote::remote_contexts;

use hyper::body::Incoming;
use hyper::header::{HeaderValue, SERVER};
use hyper::{Method, Request, StatusCode};

use crate::http::{Answer, ApiError};
use crate::query::{Query, decode_path};
use crate::render::system::dotted;
use crate::{API_VERSION, Api, MIN_API_VERSION};

/// A request, taken apart.
pub(crate) struct Call {
    pub(crate) api: Api,
    pub(crate) version: (u32, u32),
    pub(crate) query: Query,
    pub(crate) request: Request<Incoming>,
}

type Result = std::result::Result<Answer, ApiError>;

/// What an engine outside of a swarm says to all that is about swarms.
const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
                          connect this node to swarm and try again.";

/// Answers any request.
pub(crate) async fn answer(api: Api, request: Request<Incoming>) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let head = method == Method::HEAD;
    tracing::debug!("calling {method} {path}");
    let mut answer = match route(api, request).await {
        Ok(answer) => answer,
        Err(error) => {
            if error.status.is_server_error() && error.status != StatusCode::SERVICE_UNAVAILABLE {
                tracing::error!("{method} {path}: {}", error.message);
            } else {
                tracing::debug!("{method} {path}: {} {}", error.status.as_u16(), error.message);
            }
            error.answer()
        }
    };
    if head {
        *answer.body_mut() = crate::http::empty(StatusCode::OK).into_body();
    }
    let headers = answer.headers_mut();
    headers.insert("Api-Version", api_version());
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(SERVER, HeaderValue::from_static(concat!("Wharf/", env!("CARGO_PKG_VERSION"), " (linux)")));
    answer
}

async fn route(api: Api, request: Request<Incoming>) -> Result {
    if let Some(names) = &api.names {
        names.check(request.uri(), request.headers())?;
    }
    let path = request.uri().path().to_owned();
    if let Some(clean) = cleaned(&path) {
        return Ok(crate::http::moved(&clean, request.uri().query()));
    }
    if request.method() == Method::OPTIONS {
        return Ok(crate::http::empty(StatusCode::OK));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let (version, rest) = match version(&path) {
        // As Docker: clients of then knew no errors as JSON.
        Err(error) if error.message.contains(" is too old. ") => {
            return Ok(crate::http::text(error.status, error.message + "\n"));
        }
        found => found?,
    };
    let call = Call { api, version, query, request };
    // A path that ends so is another one, and nothing is there.
    if rest.trim_start_matches('/') == "containers/" && call.request.method() == Method::DELETE {
        return Err(ApiError::bad("invalid name or ID supplied: \"\""));
    }
    // This one is a route of its own in moby.
    if rest.len() > 1 && rest.ends_with('/') && rest != "/networks/" {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "page not found"));
    }
    let segments: Vec<String> = rest.split('/').filter(|s| !s.is_empty()).map(decode_path).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let method = call.request.method().clone();
    // A link's name has its container's in it.
    let linked = match segments.as_slice() {
        ["containers", parent, alias, verb] if !matches!(*alias, "attach" | "checkpoints") => {
            Some((format!("{parent}/{alias}"), *verb))
        }
        _ => None,
    };
    let segments = match &linked {
        Some((name, verb)) => vec!["containers", name, verb],
        None => segments,
    };
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["metrics"]) => metrics::metrics(&call).await,
        (_, _) if call.api.only_metrics => Err(ApiError::new(StatusCode::NOT_FOUND, "page not found")),
        ("GET" | "HEAD", ["_ping"]) => Ok(system::ping(call.api.classic_builder)),
        ("GET", ["version"]) => Ok(system::version()),
        ("GET", ["info"]) => system::info(call).await,
        ("POST", ["auth"]) => system::auth(call).await,
        ("GET", ["events"]) => events::events(&call),
        ("GET", ["system", "df"]) => disk::usage(call).await,
        ("POST", ["system", "fsck"]) => fsck::fsck(call).await,

        ("GET", ["containers", "json"]) => container_list::list(call).await,
        ("POST", ["containers", "create"]) => containers::create(call).await,
        ("POST", ["containers", "prune"]) => containers::prune(call).await,
        ("GET", ["containers", id, "json"]) => containers::inspect(call, id).await,
        ("POST", ["containers", id, "start"]) => containers::start(call, id).await,
        ("POST", ["containers", id, "stop"]) => containers::stop(call, id).await,
        ("POST", ["containers", id, "restart"]) => containers::restart(call, id).await,
        ("POST", ["containers", id, "kill"]) => containers::kill(call, id).await,
        ("POST", ["containers", id, "pause"]) => containers::pause(call, id).await,
        ("POST", ["containers", id, "unpause"]) => containers::unpause(call, id).await,
        ("POST", ["containers", id, "rename"]) => containers::rename(call, id).await,
        ("POST", ["containers", id, "update"]) => containers::update(call, id).await,
        ("POST", ["containers", id, "resize"]) => containers::resize(call, id).await,
        ("POST", ["containers", id, "wait"]) => streams::wait(call, id),
        ("POST", ["containers", id, "attach"]) => streams::attach(call, id).await,
        ("GET", ["containers", id, "logs"]) => streams::logs(call, id).await,
        ("GET", ["containers", id, "stats"]) => streams::stats(call, id).await,
        ("GET", ["containers", id, "why"]) => containers::why(call, id).await,
        ("GET", ["containers", id, "top"]) => containers::top(call, id).await,
        ("GET", ["containers", id, "changes"]) => files::changes(call, id).await,
        ("GET", ["containers", id, "export"]) => files::export(call, id),
        ("HEAD", ["containers", id, "archive"]) => files::stat(call, id).await,
        ("GET", ["containers", id, "archive"]) => files::get(call, id).await,
        ("PUT", ["containers", id, "archive"]) => files::put(call, id).await,
        ("DELETE", ["containers", id]) => containers::remove(call, id).await,
        // A link's name has its container's in it.
        ("DELETE", ["containers", parent, alias]) => containers::remove(call, &format!("{parent}/{alias}")).await,
        ("GET", ["containers", id, "attach", "ws"]) => streams::attach_websocket(call, id).await,
        ("GET", ["containers", _, "checkpoints"])
        | ("POST", ["containers", _, "checkpoints", ..])
        | ("DELETE", ["containers", _, "checkpoints", _]) => Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "checkpoints are not supported: CRIU is not part of this engine",
        )),
        ("POST", ["containers", id, "exec"]) => exec::create(call, id).await,
        ("POST", ["exec", id, "start"]) => exec::start(call, id).await,
        ("POST", ["exec", id, "resize"]) => exec::resize(call, id).await,
        ("GET", ["exec", id, "json"]) => exec::inspect(&call, id),

        ("GET", ["images", "json"]) => image_list::list(call).await,
        ("POST", ["images", "create"]) => images::create(call).await,
        ("POST", ["images", "load"]) => images::load(call).await,
        ("POST", ["images", "prune"]) => images::prune(call).await,
        ("GET", ["images", "get"]) => images::save(call, Vec::new()).await,
        ("GET", ["images", "search"]) => search::search(call).await,
        ("GET", ["images", name @ .., "json"]) => images::inspect(call, &name.join("/")).await,
        ("GET", ["images", name @ .., "compare"]) => compare::images(call, &name.join("/")).await,
        ("GET", ["images", name @ .., "attestations"]) => attestations::list(call, &name.join("/")).await,
        ("GET", ["images", name @ .., "history"]) => images::history(call, &name.join("/")).await,
        ("GET", ["images", name @ .., "rootfs"]) => files::image(call, &name.join("/")).await,
        ("GET", ["images", name @ .., "get"]) => images::save(call, vec![name.join("/")]).await,
        ("POST", ["images", name @ .., "tag"]) => images::tag(call, &name.join("/")).await,
        ("POST", ["images", name @ .., "push"]) => images::push(call, &name.join("/")).await,
        ("POST", ["images", name @ .., "pin"]) => pin::pin(call, &name.join("/"), true).await,
        ("POST", ["images", name @ .., "unpin"]) => pin::pin(call, &name.join("/"), false).await,
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => images::remove(call, &name.join("/")).await,
        ("GET", ["distribution", name @ .., "json"]) => images::distribution(call, &name.join("/")).await,
        ("POST", ["commit"]) => images::commit(call).await,
        ("POST", ["build"]) => build::build(call).await,
        ("POST", ["build", "prune"]) => build::prune(call).await,
        ("GET", ["build", "history"]) => build_history::list(call).await,
        ("GET", ["build", "history", reference]) => build_history::inspect(call, reference).await,
        ("GET", ["build", "history", reference, "logs"]) => build_history::logs(call, reference).await,
        ("GET", ["build", "history", reference, "cache"]) => build_history::cache(call, reference).await,
        ("GET", ["build", "history", reference, "why-miss"]) => build_history::why_miss(call, reference).await,
        ("POST", ["build", "cache"]) => build_history::take_cache(call).await,
        ("DELETE", ["build", "history", reference]) => build_history::remove(call, reference).await,
        ("POST", ["build", "agent"]) => agents::park(call),
        ("POST", ["build", "cancel"]) if call.query.get("id").is_none() => Err(ApiError::bad("build ID not provided")),
        ("POST", ["build", "cancel"]) => Ok(crate::http::no_content()),

        ("GET", ["networks"]) => networks::list(&call),
        ("POST", ["networks", "create"]) => networks::create(call).await,
        ("POST", ["networks", "prune"]) => networks::prune(call).await,
        // Before a network of that name, which its ID leads to.
        ("GET", ["networks", "reach"]) if call.query.get("of").is_some() => reach::reach(call).await,
        ("GET", ["networks", name, "capture"]) => capture::capture(call, name).await,
        // A name may have slashes.
        ("GET", ["networks", id @ ..]) if is_name(id) => networks::inspect(&call, &id.join("/")),
        ("DELETE", ["networks", id @ ..]) if is_name(id) => networks::remove(call, &id.join("/")).await,
        ("POST", ["networks", id @ .., "connect"]) if is_name(id) => networks::connect(call, &id.join("/")).await,
        ("POST", ["networks", id @ .., "disconnect"]) if is_name(id) => networks::disconnect(call, &id.join("/")).await,

        ("GET", ["volumes"]) => volumes::list(call).await,
        ("POST", ["volumes", "create"]) => volumes::create(call).await,
        ("POST", ["volumes", "prune"]) => volumes::prune(call).await,
        ("GET", ["volumes", name]) => volumes::inspect(call, name).await,
        ("DELETE", ["volumes", name]) => match name.split_once('@') {
            Some((volume, snapshot)) => volume_copies::remove_snapshot(call, volume, snapshot).await,
            None => volumes::remove(call, name).await,
        },
        ("POST", ["volumes", name, "clone"]) => volume_copies::clone(call, name).await,
        ("POST", ["volumes", name, "snapshots"]) => volume_copies::snapshot(call, name).await,
        ("GET", ["volumes", name, "snapshots"]) => volume_copies::snapshots(call, name).await,
        ("POST", ["volumes", name, "restore"]) => volume_copies::restore(call, name).await,
        ("POST", ["volumes", name, "rename"]) => volume_copies::rename(call, name).await,
        ("GET", ["volumes", name, "export"]) => volume_copies::export(call, name).await,
        ("POST", ["volumes", name, "import"]) => volume_copies::import(call, name).await,

        ("GET", ["plugins"]) => Ok(crate::http::ok(&serde_json::json!([]))),
        ("GET", ["plugins", name @ .., "json"]) => {
            Err(ApiError::new(StatusCode::NOT_FOUND, format!("plugin \"{}\" not found", name.join("/"))))
        }
        // There are none, so whatever is to be done to one is done to one that is not there.
        ("DELETE", ["plugins", name @ ..])
        | ("POST", ["plugins", name @ .., "enable" | "disable" | "set" | "push" | "upgrade"])
            if !name.is_empty() =>
        {
            Err(ApiError::new(StatusCode::NOT_FOUND, format!("plugin \"{}\" not found", name.join("/"))))
        }
        (_, ["plugins", ..]) => Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "plugins are not supported")),
        ("POST", ["swarm", "init" | "join"]) => {
            Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "swarm mode is not supported by this engine"))
        }
        ("POST", ["swarm", "leave"]) => {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm"))
        }
        ("PUT", ["volumes", _]) => Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "volume update only valid for cluster volumes, but swarm is unavailable",
        )),
        (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_MANAGER))
        }
        ("POST", ["grpc"]) => buildkit::calls(call),
        ("POST", ["session"]) => buildkit::session(call),
        _ => Err(ApiError::new(StatusCode::NOT_FOUND, "page not found")),
    }
}

/// Whether parts of a path are a network's name.
fn is_name(parts: &[&str]) -> bool {
    parts.iter().any(|part| !part.is_empty())
}

/// Where a path with doubled slashes or dots in it really is; Docker's router sends clients there.
fn cleaned(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", parts.join("/"));
    (clean != path).then_some(clean)
}

/// The version that a path asks for (the newest without one), and the rest of the path.
fn version(path: &str) -> std::result::Result<((u32, u32), &str), ApiError> {
    let Some(rest) = path.strip_prefix("/v") else { return Ok((API_VERSION, path)) };
    let (text, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let numbers = text.split_once('.').and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)));
    // `/volumes` and `/version` begin with the letter, too.
    let Some(asked) = numbers else { return Ok((API_VERSION, path)) };
    if asked > API_VERSION {
        return Err(ApiError::bad(format!(
            "client version {text} is too new. Maximum supported API version is {}",
            dotted(API_VERSION)
        )));
    }
    if asked < MIN_API_VERSION {
        return Err(ApiError::bad(format!(
            "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a \
             newer version",
            dotted(MIN_API_VERSION)
        )));
    }
    Ok((asked, rest))
}

/// The newest version, as each answer names it.
fn api_version() -> HeaderValue {
    HeaderValue::from_str(&dotted(API_VERSION)).unwrap_or(HeaderValue::from_static(""))
}

/// Tells that a prune has ended, as Docker does whatever it found.
fn pruned_event(engine: &wharf_engine::Engine, kind: &str, freed: u64) {
    engine.tell_of(kind, "prune", "", &[("reclaimed", &freed.to_string())]);
}

/// Runs what waits for the disk beside the connections.
async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, ApiError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done,
        Err(error) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("a task failed: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_sent_where_they_are() {
        assert_eq!(cleaned("//version").as_deref(), Some("/version"));
        assert_eq!(cleaned("/v1.41//images/./a/../json").as_deref(), Some("/v1.41/images/json"));
        assert_eq!(cleaned("/images/a/json"), None);
        assert_eq!(cleaned("/images/"), None);
        assert_eq!(cleaned("/"), None);
    }

    #[test]
    fn versions_are_part_of_the_path_or_not() {
        assert_eq!(version("/v1.43/containers/json").unwrap(), ((1, 43), "containers/json"));
        assert_eq!(version("/volumes").unwrap(), (API_VERSION, "/volumes"));
        assert_eq!(version("/version").unwrap().1, "/version");
        assert!(version("/v1.99/info").unwrap_err().message.contains("too new"));
        assert!(version("/v1.10/info").unwrap_err().message.contains("too old"));
    }
}
