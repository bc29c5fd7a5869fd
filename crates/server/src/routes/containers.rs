//! Containers: what answers at once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::body::Body;
use serde_json::{Value, json};
use wharf_engine::record::Container;
use wharf_engine::{CreateRequest, ErrorKind, RemoveOptions, SecretContents, Update};

use super::container_list::sizes;
use super::{Call, Result, dry_run, prune_stream, pruned_event};
use crate::filters::Filters;
use crate::http::{ApiError, empty, json_answer, no_content, ok, read_json, read_value, typed, within};
use crate::render::container::{Around, inspect as render_inspect};
use crate::shims;

pub(super) async fn create(mut call: Call) -> Result {
    let name = call.query.text("name");
    let platform = if call.version < (1, 41) { String::new() } else { call.query.text("platform") };
    let mut value = read_value(&mut call.request).await?;
    // What is said of the host and the networks alone is nothing of the container.
    let is_config = |key: &String| !matches!(key.as_str(), "HostConfig" | "NetworkingConfig");
    if value.is_null() || value.as_object().is_some_and(|all| !all.keys().any(is_config)) {
        return Err(ApiError::bad("config cannot be empty in order to create a container"));
    }
    let warnings = shims::create(&mut value, call.version)?;
    let mut request = CreateRequest { secrets: secret_data(&mut value)?, ..CreateRequest::default() };
    // Each part by itself: read at once, nobody would know of a field where it is.
    if let Some(all) = value.as_object_mut() {
        if let Some(host) = all.remove("HostConfig") {
            request.host_config = within(host, ".HostConfig")?;
        }
        if let Some(networking) = all.remove("NetworkingConfig") {
            request.networking_config = within(networking, ".NetworkingConfig")?;
        }
        request.config = within(value, "")?;
    } else {
        request.config = typed(value, "container.CreateRequest")?;
    }
    let limits = &mut request.host_config.resources;
    // What clients send where the user has said nothing is none.
    limits.pids_limit = limits.pids_limit.filter(|limit| *limit != 0);
    limits.memory_swappiness = limits.memory_swappiness.filter(|swappiness| *swappiness != -1);
    let optional = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    if dry_run::is_asked(&call) {
        return dry_run::create(&call.api.engine, optional(&name).as_deref(), optional(&platform).as_deref(), request)
            .await;
    }
    let mut created =
        call.api.engine.create(optional(&name).as_deref(), optional(&platform).as_deref(), request).await?;
    created.warnings.splice(0..0, warnings);
    Ok(json_answer(StatusCode::CREATED, &created))
}

/// `SecretData`, which is Wharf's: the contents of `HostConfig.Secrets` by their IDs, in base64. Taken out of the request
/// before anything else reads that: no message has anything of it.
fn secret_data(request: &mut Value) -> std::result::Result<SecretContents, ApiError> {
    let data = request.as_object_mut().and_then(|request| request.remove("SecretData"));
    let bad = |id: &str| ApiError::bad(format!("invalid SecretData of '{id}': it must be base64"));
    let decode = |(id, value): (String, Value)| {
        let content = value.as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| bad(&id))?;
        Ok((id, content))
    };
    match data {
        None | Some(Value::Null) => Ok(SecretContents::default()),
        Some(Value::Object(all)) => {
            all.into_iter().map(decode).collect::<std::result::Result<_, _>>().map(SecretContents::new)
        }
        Some(_) => Err(ApiError::bad("invalid SecretData: it must be an object")),
    }
}

pub(super) async fn inspect(call: Call, id: &str) -> Result {
    let engine = &call.api.engine;
    let container = engine.inspect(id)?;
    let size = if call.query.flag("size") { sizes(engine, &container).await } else { None };
    let around = Around {
        version: call.version,
        exec_ids: if container.state.status.is_active() { engine.exec_ids(&container.id) } else { Vec::new() },
        links: engine.link_texts(&container),
        data_root: &engine.options().data_root,
        etc_dir: &engine.etc_dir(&container),
        size,
    };
    Ok(ok(&render_inspect(&container, &around)))
}

/// A body that is shorter is `{}` or nothing.
const NO_BODY: u64 = 7;

pub(super) async fn start(call: Call, id: &str) -> Result {
    // A host configuration came here in the API's first days.
    if call.request.body().size_hint().exact().is_none_or(|size| size > NO_BODY) {
        return Err(ApiError::bad(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    call.api.engine.start(id).await?;
    Ok(no_content())
}

/// What a stop begins with, for clients that can say so.
fn signal(call: &Call) -> Option<&str> {
    call.query.get("signal").filter(|_| call.version >= (1, 42))
}

pub(super) async fn stop(call: Call, id: &str) -> Result {
    let stopped = call.api.engine.stop(id, signal(&call), call.query.number("t")?).await;
    stopped.map_err(|error| match error.kind {
        ErrorKind::NotFound | ErrorKind::NotModified => error.into(),
        _ => {
            let error = ApiError::from(error);
            ApiError::new(error.status, format!("cannot stop container: {id}: {}", error.message))
        }
    })?;
    Ok(no_content())
}

pub(super) async fn restart(call: Call, id: &str) -> Result {
    call.api.engine.restart(id, signal(&call), call.query.number("t")?).await?;
    Ok(no_content())
}

pub(super) async fn kill(call: Call, id: &str) -> Result {
    call.api.engine.kill(id, call.query.get("signal")).await.map_err(|error| {
        let error = ApiError::from(error);
        ApiError::new(error.status, format!("cannot kill container: {id}: {}", error.message))
    })?;
    Ok(no_content())
}

pub(super) async fn pause(call: Call, id: &str) -> Result {
    call.api.engine.pause(id).await?;
    Ok(no_content())
}

pub(super) async fn unpause(call: Call, id: &str) -> Result {
    call.api.engine.unpause(id).await?;
    Ok(no_content())
}

pub(super) async fn rename(call: Call, id: &str) -> Result {
    let new = call.query.text("name");
    if new.is_empty() {
        return Err(ApiError::bad("Neither old nor new names may be empty"));
    }
    call.api.engine.rename(id, &new).await?;
    Ok(no_content())
}

pub(super) async fn update(mut call: Call, id: &str) -> Result {
    let mut update: Update = read_json(&mut call.request, "container.UpdateConfig").await?;
    if call.version < (1, 40) {
        update.resources.pids_limit = None;
    }
    if call.version < (1, 55) {
        // Until then nobody took note of them.
        update.resources.forget_device_rules();
    }
    let warnings = call.api.engine.update(id, update).await?;
    let warnings = if warnings.is_empty() { Value::Null } else { json!(warnings) };
    Ok(ok(&json!({ "Warnings": warnings })))
}

pub(super) async fn resize(call: Call, id: &str) -> Result {
    let (rows, columns) = size(&call)?;
    call.api.engine.resize(id, rows, columns).await?;
    Ok(empty(StatusCode::OK))
}

/// `h` and `w`, as whole numbers of 32 bits, of which a terminal has 16.
pub(super) fn size(call: &Call) -> std::result::Result<(u16, u16), ApiError> {
    let side = |key: &str, name: &str| -> std::result::Result<u16, ApiError> {
        let text = call.query.text(key);
        let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let why = match text.parse::<u32>() {
            Ok(number) => return Ok(u16::try_from(number).unwrap_or(u16::MAX)),
            Err(_) if is_number => "value out of range",
            Err(_) => "invalid syntax",
        };
        Err(ApiError::bad(format!("invalid resize {name} {text:?}: {why}")))
    };
    Ok((side("h", "height")?, side("w", "width")?))
}

/// Of ours: why it is as it is.
pub(super) async fn why(call: Call, id: &str) -> Result {
    let (engine, id) = (call.api.engine, id.to_owned());
    Ok(ok(&super::blocking(move || Ok(engine.why(&id)?)).await?))
}

pub(super) async fn top(call: Call, id: &str) -> Result {
    Ok(ok(&call.api.engine.top(id, &call.query.text("ps_args")).await?))
}

pub(super) async fn remove(call: Call, id: &str) -> Result {
    let query = &call.query;
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v"), link: query.flag("link") };
    if dry_run::is_asked(&call) {
        return dry_run::remove(&call.api.engine, id, options).await;
    }
    call.api.engine.remove(id, options).await?;
    Ok(no_content())
}

pub(super) async fn prune(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["until", "label", "label!"])?;
    let choose = prunable(&filters)?;
    if dry_run::is_asked(&call) {
        let engine = call.api.engine.clone();
        let found = super::blocking(move || Ok(engine.prunable_containers(choose))).await?;
        let ids: Vec<&str> = found.iter().map(|(record, _)| record.id.as_str()).collect();
        let bytes: u64 = found.iter().map(|(_, bytes)| bytes).sum();
        return Ok(ok(&json!({ "DryRun": true, "ContainersDeleted": ids, "SpaceReclaimed": bytes })));
    }
    let engine = call.api.engine.clone();
    prune_stream::answer(&call, |told| async move {
        let pruned = engine.prune_containers(choose, move |id| told.deleted(id)).await?;
        pruned_event(&engine, "container", pruned.space_reclaimed);
        Ok(json!(pruned))
    })
    .await
}

/// The containers that the filters of a prune are about, if they do not run.
pub(super) fn prunable(
    filters: &Filters,
) -> std::result::Result<impl Fn(&Container) -> bool + Send + 'static, ApiError> {
    let (until, filters) = (filters.until()?, filters.clone());
    Ok(move |container: &Container| {
        let created: Option<jiff::Timestamp> = container.created.parse().ok();
        until.is_none_or(|until| created.is_some_and(|created| created < until))
            && filters.labels(container.config.labels.as_ref())
    })
}
