//! Containers: what answers at once.

use hyper::StatusCode;
use serde_json::{Value, json};
use wharf_engine::record::{Container, Status};
use wharf_engine::{CreateRequest, RemoveOptions, Update};

use super::{Call, Result};
use crate::filters::Filters;
use crate::http::{ApiError, empty, json_answer, no_content, ok, read_json};
use crate::render::container::{Around, inspect as render_inspect, summary};

const FILTERS: &[&str] = &[
    "id",
    "name",
    "label",
    "label!",
    "exited",
    "status",
    "ancestor",
    "before",
    "since",
    "volume",
    "network",
    "publish",
    "expose",
    "isolation",
    "health",
    "is-task",
];

pub(super) async fn list(call: Call) -> Result {
    let filters = Filters::of(&call.query, FILTERS)?;
    let engine = &call.api.engine;
    let limit: Option<i64> = call.query.number("limit")?;
    let limit = limit.filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
    // A filter on the state is a wish to see it.
    let all =
        call.query.flag("all") || limit.is_some() || filters.get("status").is_some() || filters.get("exited").is_some();
    for status in filters.get("status").into_iter().flatten() {
        if !["created", "running", "paused", "restarting", "removing", "exited", "dead"].contains(&status.as_str()) {
            return Err(ApiError::bad(format!("invalid filter 'status={status}'")));
        }
    }
    let named = |key: &str| filters.get(key).and_then(|v| v.first()).map(|name| engine.inspect(name)).transpose();
    let (before, since) = (named("before")?, named("since")?);
    let mut ancestors = Vec::new();
    for name in filters.get("ancestor").into_iter().flatten() {
        ancestors.extend(engine.images().resolve(name).ok().map(|image| image.id));
    }
    let now = jiff::Timestamp::now();
    let mut answer = Vec::new();
    for container in engine.list() {
        let c = &*container;
        let shown = (all || c.state.status.is_active())
            && before.as_ref().is_none_or(|b| c.created < b.created)
            && since.as_ref().is_none_or(|s| c.created > s.created)
            && (filters.get("ancestor").is_none()
                || ancestors.contains(&c.image)
                || filters.any("ancestor", |a| c.config.image == a))
            && fits(c, &filters);
        if !shown {
            continue;
        }
        if limit.is_some_and(|limit| answer.len() >= limit) {
            break;
        }
        let size = if call.query.flag("size") {
            let written = engine.size_rw(&c.id).await.unwrap_or(0);
            Some((written, written + engine.images().get(&c.image).map_or(0, |image| image.size)))
        } else {
            None
        };
        answer.push(summary(c, now, size));
    }
    Ok(ok(&answer))
}

fn fits(c: &Container, filters: &Filters) -> bool {
    let health = c.state.health.as_ref().map_or("none", |health| health.status.as_str());
    let port = |ports: &str, wanted: &str| {
        let (number, kind) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        let (have, own) = ports.split_once('/').unwrap_or((ports, "tcp"));
        let (first, last) = number.split_once('-').unwrap_or((number, number));
        let inside = match (have.parse::<u16>(), first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(have), Ok(first), Ok(last)) => (first..=last).contains(&have),
            _ => false,
        };
        inside && kind == own
    };
    filters.any("id", |id| c.id.starts_with(id))
        && filters.any("name", |name| matches_name(&c.name, name))
        && filters.any("status", |status| c.state.status.as_str() == status)
        && filters.any("exited", |code| c.state.status == Status::Exited && c.state.exit_code.to_string() == code)
        && filters.any("health", |wanted| health == wanted)
        && filters.any("volume", |v| c.mounts.iter().any(|m| m.name == v || m.source == v || m.destination == v))
        && filters.any("network", |n| c.networks.iter().any(|(name, e)| name == n || e.network_id.starts_with(n)))
        && filters.any("publish", |p| c.ports.iter().any(|(key, b)| b.is_some() && port(key, p)))
        && filters.any("expose", |p| c.config.exposed_ports.iter().flatten().any(|(key, _)| port(key, p)))
        && filters.any("is-task", |text| text == "false")
        && filters.labels(c.config.labels.as_ref())
}

/// Docker takes the name as a regular expression; anchors and plain words are what people write.
fn matches_name(name: &str, pattern: &str) -> bool {
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    let (start, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest.strip_prefix('/').unwrap_or(rest)),
        None => (false, pattern),
    };
    let (end, rest) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    match (start, end) {
        (true, true) => name == rest,
        (true, false) => name.starts_with(rest),
        (false, true) => name.ends_with(rest),
        (false, false) => name.contains(rest),
    }
}

pub(super) async fn create(call: Call) -> Result {
    let (name, platform) = (call.query.text("name"), call.query.text("platform"));
    let request: CreateRequest = read_json(call.request.into_body()).await?;
    let optional = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let created = call.api.engine.create(optional(&name).as_deref(), optional(&platform).as_deref(), request).await?;
    Ok(json_answer(StatusCode::CREATED, &created))
}

pub(super) async fn inspect(call: Call, id: &str) -> Result {
    let engine = &call.api.engine;
    let container = engine.inspect(id)?;
    let size = if call.query.flag("size") {
        let written = engine.size_rw(&container.id).await?;
        Some((written, written + engine.images().get(&container.image).map_or(0, |image| image.size)))
    } else {
        None
    };
    let around = Around {
        version: call.version,
        exec_ids: engine.exec_ids(&container.id),
        data_root: &engine.options().data_root,
        size,
    };
    Ok(ok(&render_inspect(&container, &around)))
}

pub(super) async fn start(call: Call, id: &str) -> Result {
    call.api.engine.start(id).await?;
    Ok(no_content())
}

pub(super) async fn stop(call: Call, id: &str) -> Result {
    call.api.engine.stop(id, call.query.get("signal"), call.query.number("t")?).await?;
    Ok(no_content())
}

pub(super) async fn restart(call: Call, id: &str) -> Result {
    call.api.engine.restart(id, call.query.get("signal"), call.query.number("t")?).await?;
    Ok(no_content())
}

pub(super) async fn kill(call: Call, id: &str) -> Result {
    call.api.engine.kill(id, call.query.get("signal")).await?;
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

pub(super) async fn update(call: Call, id: &str) -> Result {
    let update: Update = read_json(call.request.into_body()).await?;
    let warnings = call.api.engine.update(id, update).await?;
    let warnings = if warnings.is_empty() { Value::Null } else { json!(warnings) };
    Ok(ok(&json!({ "Warnings": warnings })))
}

pub(super) async fn resize(call: Call, id: &str) -> Result {
    let (rows, columns) = size(&call)?;
    call.api.engine.resize(id, rows, columns).await?;
    Ok(empty(StatusCode::OK))
}

/// `h` and `w`, as whole numbers.
pub(super) fn size(call: &Call) -> std::result::Result<(u16, u16), ApiError> {
    let side = |key: &str| -> std::result::Result<u16, ApiError> {
        call.query.number(key)?.ok_or_else(|| ApiError::bad(format!("invalid resize {key}: a number is needed")))
    };
    Ok((side("h")?, side("w")?))
}

pub(super) async fn top(call: Call, id: &str) -> Result {
    Ok(ok(&call.api.engine.top(id, &call.query.text("ps_args")).await?))
}

pub(super) async fn remove(call: Call, id: &str) -> Result {
    let query = &call.query;
    let options = RemoveOptions { force: query.flag("force"), volumes: query.flag("v"), link: query.flag("link") };
    call.api.engine.remove(id, options).await?;
    Ok(no_content())
}

pub(super) async fn prune(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["until", "label", "label!"])?;
    let until = filters.until()?;
    let old = |c: &Container| {
        let created: Option<jiff::Timestamp> = c.created.parse().ok();
        until.is_none_or(|until| created.is_some_and(|created| created < until))
    };
    let pruned = call.api.engine.prune_containers(|c| old(c) && filters.labels(c.config.labels.as_ref())).await?;
    Ok(ok(&pruned))
}

#[cfg(test)]
mod tests {
    use super::matches_name;

    #[test]
    fn names_are_matched_as_people_write_them() {
        assert!(matches_name("web_1", "web") && matches_name("web", "^/web$") && matches_name("web", "/web"));
        assert!(!matches_name("web_1", "^web$") && !matches_name("x", "y"));
    }
}
