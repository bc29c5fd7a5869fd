//! Images.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_engine::spec::Config;
use wharf_engine::{CommitOptions, Engine, EngineError};
use wharf_image::{ContainerConfig, ImageRecord, Progress};
use wharf_reference::Reference;

use super::{Call, Result, blocking};
use crate::auth;
use crate::changes::apply;
use crate::filters::Filters;
use crate::http::{
    Answer, ApiError, blocking_reader, empty, error_line, json_answer, line, ok, read_json, stream, tar,
};
use crate::render::image as render;

const FILTERS: &[&str] = &["dangling", "label", "label!", "before", "since", "reference", "until"];

pub(super) async fn list(call: Call) -> Result {
    let filters = Filters::of(&call.query, FILTERS)?;
    let (dangling, until) = (filters.flag("dangling")?, filters.until()?);
    let engine = call.api.engine.clone();
    let images = blocking(move || Ok(engine.images().list()?)).await?;
    let named = |key: &str| {
        filters.get(key).and_then(|v| v.first()).map(|name| call.api.engine.images().resolve(name)).transpose()
    };
    let (before, since) = (named("before")?, named("since")?);
    let mut answer = Vec::new();
    for mut image in images {
        let is_dangling = image.tags.is_empty();
        let created: Option<jiff::Timestamp> = image.created.parse().ok();
        let shown = dangling.is_none_or(|wanted| wanted == is_dangling)
            && until.is_none_or(|until| created.is_some_and(|created| created < until))
            && before.as_ref().is_none_or(|b| image.created < b.created)
            && since.as_ref().is_none_or(|s| image.created > s.created)
            && filters.labels(image.config.config.labels.as_ref());
        if !shown {
            continue;
        }
        // Names that a pattern does not fit are left out; an image that has none of them, too.
        if let Some(patterns) = filters.get("reference") {
            image.tags.retain(|tag| patterns.iter().any(|pattern| fits(tag, pattern)));
            image.repo_digests.retain(|name| patterns.iter().any(|pattern| fits(name, pattern)));
            if image.tags.is_empty() && image.repo_digests.is_empty() {
                continue;
            }
        }
        let users = if call.version >= (1, 51) {
            i64::try_from(call.api.engine.users(&image.id).len()).unwrap_or(0)
        } else {
            -1
        };
        answer.push(render::summary(&image, users, call.version));
    }
    Ok(ok(&answer))
}

/// A pattern with `*` and `?` against a name, with or without its tag.
fn fits(name: &str, pattern: &str) -> bool {
    let bare = match Reference::parse(name) {
        Ok(reference) => reference.familiar_name(),
        Err(_) => name.to_owned(),
    };
    let full = match Reference::parse(pattern) {
        Ok(reference) => reference.familiar(),
        Err(_) => pattern.to_owned(),
    };
    [pattern, &full].iter().any(|pattern| glob(name, pattern) || glob(&bare, pattern))
}

fn glob(text: &str, pattern: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            // Not over a slash, as Go's path.Match.
            let end = text.find('/').unwrap_or(text.len());
            (0..=end).filter(|at| text.is_char_boundary(*at)).any(|at| glob(&text[at..], rest))
        }
        Some(wanted) => {
            let mut chars = text.chars();
            let fits = chars.next().is_some_and(|have| have == wanted || (wanted == '?' && have != '/'));
            fits && glob(chars.as_str(), &pattern[wanted.len_utf8()..])
        }
    }
}

pub(super) async fn inspect(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let image = blocking(move || Ok(engine.images().resolve(&name)?)).await?;
    Ok(ok(&render::inspect(&image, call.version)))
}

pub(super) async fn history(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let items = blocking(move || Ok(engine.images().history(&name)?)).await?;
    Ok(ok(&render::history(&items)))
}

pub(super) async fn tag(call: Call, name: &str) -> Result {
    let (repository, tag) = (call.query.text("repo"), call.query.text("tag"));
    let target = if tag.is_empty() { repository } else { format!("{repository}:{tag}") };
    call.api.engine.tag(name, &target).await?;
    Ok(empty(StatusCode::CREATED))
}

pub(super) async fn remove(call: Call, name: &str) -> Result {
    let (force, prune) = (call.query.flag("force"), !call.query.flag("noprune"));
    let removed = call.api.engine.remove_image(name, force, prune).await?;
    Ok(ok(&render::removed(&removed)))
}

pub(super) async fn prune(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["dangling", "until", "label", "label!"])?;
    let (dangling, until) = (filters.flag("dangling")?.unwrap_or(true), filters.until()?);
    let choose = move |image: &ImageRecord| {
        let created: Option<jiff::Timestamp> = image.created.parse().ok();
        until.is_none_or(|until| created.is_some_and(|created| created < until))
            && filters.labels(image.config.config.labels.as_ref())
    };
    let pruned = call.api.engine.prune_images(dangling, choose).await?;
    let removed = if pruned.removed.is_empty() { Value::Null } else { render::removed(&pruned.removed) };
    Ok(ok(&json!({ "ImagesDeleted": removed, "SpaceReclaimed": pruned.space_reclaimed })))
}

/// `POST /images/create`: a pull, or an import.
pub(super) async fn create(call: Call) -> Result {
    match call.query.get("fromImage").map(str::to_owned) {
        Some(image) => pull(call, &image).await,
        None => import(call).await,
    }
}

async fn pull(call: Call, image: &str) -> Result {
    let text = match call.query.get("tag") {
        None => image.to_owned(),
        Some(tag) if tag.contains(':') => format!("{image}@{tag}"),
        Some(tag) => format!("{image}:{tag}"),
    };
    let reference = Engine::parse_reference(&text)?;
    let (credentials, platform) = (auth::of(call.request.headers())?, call.query.get("platform").map(str::to_owned));
    let engine = call.api.engine;
    Ok(progress(move |sender| async move {
        engine.pull(&reference, platform.as_deref(), credentials, sender).await.map(|_| None)
    })
    .await)
}

/// Docker says what went wrong before the first message with a status, and in the stream afterwards.
async fn progress<F>(work: impl FnOnce(wharf_image::ProgressSender) -> F) -> Answer
where
    F: Future<Output = wharf_engine::Result<Option<Value>>> + Send + 'static,
{
    let (sender, mut messages) = mpsc::unbounded_channel::<Progress>();
    let mut working = tokio::spawn(work(sender));
    let first = tokio::select! {
        biased;
        first = messages.recv() => first,
        done = &mut working => {
            return match done {
                Ok(Ok(_)) => stream("application/json", mpsc::channel(1).1),
                Ok(Err(error)) => ApiError::from(error).answer(),
                Err(error) => ApiError::from(EngineError::system(error.to_string())).answer(),
            };
        }
    };
    if first.is_none() {
        // It has ended without a word: then its result is all there is.
        return match working.await {
            Ok(Ok(_)) => stream("application/json", mpsc::channel(1).1),
            Ok(Err(error)) => ApiError::from(error).answer(),
            Err(error) => ApiError::from(EngineError::system(error.to_string())).answer(),
        };
    }
    let (lines, chunks) = mpsc::channel::<Bytes>(64);
    tokio::spawn(async move {
        let mut next = first;
        while let Some(message) = next {
            if lines.send(progress_line(&message)).await.is_err() {
                // The client has gone; what was begun for it ends.
                working.abort();
                return;
            }
            next = messages.recv().await;
        }
        let last = match working.await {
            Ok(Ok(aux)) => aux.map(|aux| line(&json!({ "progressDetail": {}, "aux": aux }))),
            Ok(Err(error)) => Some(error_line(&error.message)),
            Err(error) => Some(error_line(&error.to_string())),
        };
        if let Some(last) = last {
            let _ = lines.send(last).await;
        }
    });
    stream("application/json", chunks)
}

pub(super) fn progress_line(message: &Progress) -> Bytes {
    let mut value = json!({ "status": message.status });
    if let (Some(current), Some(total)) = (message.current, message.total) {
        value["progressDetail"] = json!({ "current": current, "total": total });
        value["progress"] = bar(current, total).into();
    } else if !message.id.is_empty() {
        value["progressDetail"] = json!({});
    }
    if !message.id.is_empty() {
        value["id"] = message.id.as_str().into();
    }
    line(&value)
}

/// The drawn bar that clients before API 1.48 show as it is.
fn bar(current: u64, total: u64) -> String {
    let percent = usize::try_from((current.min(total) * 50).checked_div(total).unwrap_or(50)).unwrap_or(50);
    let (done, left) = ("=".repeat(percent), " ".repeat(50 - percent));
    format!("[{done}>{left}] {}/{}", bytes(current), bytes(total))
}

/// Docker's decimal units with four digits.
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 1000.0 || unit == "TB" {
            let digits = if value >= 100.0 {
                1
            } else if value >= 10.0 {
                2
            } else {
                3
            };
            let text = format!("{value:.digits$}");
            let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            return format!("{text}{unit}");
        }
        value /= 1000.0;
    }
    String::new()
}

async fn import(call: Call) -> Result {
    let source = call.query.text("fromSrc");
    if source != "-" {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "importing from a URL is not supported: download it and give it to the import on standard input",
        ));
    }
    let (repository, tag) = (call.query.text("repo"), call.query.text("tag"));
    let name = match (repository.is_empty(), tag.is_empty()) {
        (true, _) => None,
        (false, true) => Some(repository),
        (false, false) => Some(format!("{repository}:{tag}")),
    };
    let mut config = Config::default();
    apply(&mut config, &call.query.all("changes"))?;
    let config: ContainerConfig = serde_json::to_value(&config)
        .and_then(serde_json::from_value)
        .map_err(|e| ApiError::bad(format!("the changes cannot be an image's: {e}")))?;
    let (message, platform) = (call.query.text("message"), call.query.get("platform").map(str::to_owned));
    let engine = call.api.engine.clone();
    let body = blocking_reader(call.request.into_body());
    let image =
        blocking(move || Ok(engine.images().import(body, config, &message, platform.as_deref(), name.as_deref())?))
            .await?;
    call.api.engine.tell_of("image", "import", image.id.as_str(), &[("name", image.id.as_str())]);
    let (sender, chunks) = mpsc::channel(1);
    let _ = sender.send(line(&json!({ "status": image.id }))).await;
    Ok(stream("application/json", chunks))
}

pub(super) async fn push(call: Call, name: &str) -> Result {
    let text = match call.query.get("tag") {
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    };
    let reference = Engine::parse_reference(&text)?;
    let credentials = auth::of(call.request.headers())?;
    let engine = call.api.engine;
    let all = call.query.get("tag").is_none() && !name.contains(':');
    Ok(progress(move |sender| async move {
        if !all {
            let pushed = engine.push(&reference, credentials, sender).await?;
            return Ok(Some(json!({ "Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size })));
        }
        // Without a tag: all of the repository.
        let images = engine.images().list()?;
        let tags = images.iter().flat_map(|image| &image.tags).filter_map(|tag| Reference::parse(tag).ok());
        let tags: Vec<Reference> = tags.filter(|tag| tag.name() == reference.name()).collect();
        if tags.is_empty() {
            return Err(EngineError::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        for tag in tags {
            engine.push(&tag, credentials.clone(), sender.clone()).await?;
        }
        Ok(None)
    })
    .await)
}

pub(super) async fn save(call: Call, mut names: Vec<String>) -> Result {
    names.extend(call.query.all("names").iter().flat_map(|text| text.split(',')).map(str::to_owned));
    names.retain(|name| !name.is_empty());
    if names.is_empty() {
        return Err(ApiError::bad("no images were named"));
    }
    let engine = call.api.engine.clone();
    let wanted = names.clone();
    // What is not there is said before the archive begins.
    blocking(move || {
        for name in &wanted {
            engine.images().resolve(name)?;
        }
        Ok(())
    })
    .await?;
    let engine = call.api.engine;
    Ok(tar(move |output| Ok(engine.images().save(&names, output)?)))
}

pub(super) async fn load(call: Call) -> Result {
    let quiet = call.query.flag("quiet");
    let body = blocking_reader(call.request.into_body());
    let engine = call.api.engine;
    let (sender, chunks) = mpsc::channel::<Bytes>(64);
    let (first, begun) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let tell = |message: Progress| {
            if !quiet {
                let _ = sender.blocking_send(progress_line(&message));
            }
        };
        match engine.images().load(body, &tell) {
            Ok(lines) => {
                let _ = first.send(Ok(()));
                for text in lines {
                    let _ = sender.blocking_send(line(&json!({ "stream": format!("{text}\n") })));
                }
            }
            Err(error) => {
                let error = EngineError::from(error);
                if let Err(Err(error)) = first.send(Err(error)) {
                    let _ = sender.blocking_send(error_line(&error.message));
                }
            }
        }
    });
    // An archive that is none is refused with a status; progress waits in the channel meanwhile.
    match tokio::time::timeout(std::time::Duration::from_millis(500), begun).await {
        Ok(Ok(Err(error))) => Err(error.into()),
        _ => Ok(stream("application/json", chunks)),
    }
}

pub(super) async fn distribution(call: Call, name: &str) -> Result {
    let reference = Engine::parse_reference(name)?.tag_or_latest();
    let credentials = auth::of(call.request.headers())?;
    let wanted = reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), ToString::to_string);
    let repository = call.api.engine.registry().repository(&reference, credentials);
    let manifest = repository.manifest(&wanted).await.map_err(EngineError::from)?;
    let platforms: Vec<Value> = match manifest.parse().map_err(EngineError::from)? {
        wharf_distribution::Manifest::Index(index) => {
            index.manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(|platform| json!(platform)).collect()
        }
        wharf_distribution::Manifest::Image(_) => Vec::new(),
    };
    Ok(ok(&json!({
        "Descriptor": { "mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len() },
        "Platforms": platforms,
    })))
}

pub(super) async fn commit(call: Call) -> Result {
    let query = call.query.clone();
    let json_body = call
        .request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.to_str().is_ok_and(|t| t.starts_with("application/json")));
    let mut config: Option<Config> = if json_body { Some(read_json(call.request.into_body()).await?) } else { None };
    let changes = query.all("changes");
    if !changes.is_empty() {
        let lines: Vec<String> = changes.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
        apply(config.get_or_insert_default(), &lines)?;
    }
    let (repository, tag) = (query.text("repo"), query.text("tag"));
    let reference = match (repository.is_empty(), tag.is_empty()) {
        (true, _) => None,
        (false, true) => Some(repository),
        (false, false) => Some(format!("{repository}:{tag}")),
    };
    let options = CommitOptions {
        reference,
        comment: query.text("comment"),
        author: query.text("author"),
        pause: query.flag_or("pause", true),
        config,
        message: String::new(),
    };
    let image = call.api.engine.commit(&query.text("container"), options).await?;
    Ok(json_answer(StatusCode::CREATED, &json!({ "Id": image.id })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        assert!(
            fits("debian:bookworm", "debian") && fits("debian:bookworm", "deb*") && fits("debian:bookworm", "*:book*")
        );
        assert!(fits("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/*"));
        assert!(!fits("debian:bookworm", "ubuntu") && !fits("a/b:1", "*"));
    }

    #[test]
    fn bars_are_docker_s() {
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(1_536_000), "1.536MB");
        assert_eq!(bytes(28_230_000), "28.23MB");
        assert_eq!(bar(50, 100), format!("[{}>{}] 50B/100B", "=".repeat(25), " ".repeat(25)));
    }
}
