//! Images.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_distribution::Manifest;
use wharf_engine::spec::Config;
use wharf_engine::{CommitOptions, Engine, EngineError};
use wharf_image::{ContainerConfig, Form, ImageConfig, ImageRecord, ImageSummary, Packing, Progress, Removed};
use wharf_reference::Reference;

use super::progress::{progress, progress_line};
use super::{Call, Result, blocking, dry_run, prune_stream, pruned_event};
use crate::auth;
use crate::changes::apply;
use crate::filters::Filters;
use crate::http::{
    ApiError, blocking_reader, document_reader, empty, error_line, json_answer, line, ok, read_value, stream,
    stream_of_news, tar, typed,
};
use crate::moment::moment;
use crate::named::named;
use crate::patient::{self, patiently};
use crate::platform;
use crate::render::image as render;
use crate::render::manifests;

/// More than this is no configuration of an image.
const MAX_CONFIG: u64 = 8 << 20;

pub(super) async fn inspect(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let (asked, listed) = (platform::one(&call.query, "platform")?, call.query.flag("manifests"));
    if asked.is_some() && listed {
        return Err(ApiError::bad("conflicting options: manifests and platform options cannot both be set"));
    }
    let version = call.version;
    blocking(move || {
        let image = engine.images().resolve_for(&name, asked.as_deref())?;
        let mut all = render::inspect(&image, version);
        if version >= (1, 48) {
            let index = engine.images().index(&name)?.filter(|_| asked.is_none());
            if let Some(descriptor) = manifests::descriptor(engine.images(), &image.id, index.as_ref())? {
                all["Descriptor"] = descriptor;
            }
            if listed {
                all["Manifests"] = manifests::list(&engine, &image.id, index.as_ref())?;
            }
        }
        Ok(ok(&all))
    })
    .await
}

pub(super) async fn history(call: Call, name: &str) -> Result {
    let (engine, name) = (call.api.engine, name.to_owned());
    let asked = platform::one(&call.query, "platform")?;
    let items = blocking(move || Ok(engine.images().history(&name, asked.as_deref())?)).await?;
    Ok(ok(&render::history(&items)))
}

pub(super) async fn tag(call: Call, name: &str) -> Result {
    let (repository, tag) = (call.query.text("repo"), call.query.text("tag"));
    let target = named(&repository, &tag)?.ok_or_else(|| ApiError::bad("invalid reference format"))?;
    call.api.engine.tag(name, &target.familiar()).await?;
    Ok(empty(StatusCode::CREATED))
}

pub(super) async fn remove(call: Call, name: &str) -> Result {
    let (force, prune) = (call.query.flag("force"), !call.query.flag("noprune"));
    if name.trim().is_empty() {
        return Err(ApiError::bad("image name cannot be blank"));
    }
    let platforms = platform::all(&call.query, "platforms")?;
    let removed = call.api.engine.remove_image(name, platforms, force, prune).await?;
    Ok(ok(&render::removed(&removed)))
}

pub(super) async fn prune(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["dangling", "until", "label", "label!", "unused-for"])?;
    let dangling = filters.flag("dangling")?.unwrap_or(true);
    let choose = prunable(&filters)?;
    let engine = call.api.engine.clone();
    if dry_run::is_asked(&call) {
        let gone = dry_run::gone(&call, &filters)?;
        let plan = blocking(move || Ok(engine.plan_image_prune(dangling, &choose, &gone)?)).await?;
        let removed = render::removed(&plan.removed);
        return Ok(ok(&json!({ "DryRun": true, "ImagesDeleted": removed, "SpaceReclaimed": plan.freed })));
    }
    prune_stream::answer(&call, |told| async move {
        let told = move |one: &Removed| match one {
            Removed::Untagged(name) => told.tell(name, "untagged"),
            Removed::Deleted(id) => told.deleted(id),
        };
        let pruned = engine.prune_images(dangling, choose, told).await?;
        pruned_event(&engine, "image", pruned.space_reclaimed);
        let removed = if pruned.removed.is_empty() { Value::Null } else { render::removed(&pruned.removed) };
        Ok(json!({ "ImagesDeleted": removed, "SpaceReclaimed": pruned.space_reclaimed }))
    })
    .await
}

/// The images that the filters of a prune are about.
pub(super) fn prunable(
    filters: &Filters,
) -> std::result::Result<impl Fn(&ImageSummary) -> bool + Send + 'static, ApiError> {
    let (until, filters) = (filters.until()?, filters.clone());
    let unused = filters.get("unused-for").and_then(|ages| ages.last()).map(|age| moment(age)).transpose()?;
    Ok(move |image: &ImageSummary| {
        let created: Option<jiff::Timestamp> = image.created.parse().ok();
        until.is_none_or(|until| created.is_some_and(|created| created < until))
            && unused.is_none_or(|since| image.used < since.as_second())
            && filters.labels(image.labels.as_ref())
    })
}

/// `POST /images/create`: a pull, or an import.
pub(super) async fn create(call: Call) -> Result {
    match call.query.get("fromImage").map(str::to_owned) {
        Some(image) => pull(call, &image).await,
        None => import(call).await,
    }
}

async fn pull(call: Call, image: &str) -> Result {
    let (text, whole) = match call.query.get("tag") {
        None => {
            let reference = Engine::parse_reference(image)?;
            (image.to_owned(), reference.tag().is_none() && reference.digest().is_none())
        }
        Some(tag) if tag.contains(':') => (format!("{image}@{tag}"), false),
        Some(tag) => (format!("{image}:{tag}"), false),
    };
    let reference = Engine::parse_reference(&text)?;
    if reference.familiar_name() == "scratch" {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "'scratch' is a reserved name"));
    }
    let (credentials, platform) = (auth::of(call.request.headers()), call.query.get("platform").map(str::to_owned));
    let engine = call.api.engine;
    Ok(progress(move |sender| async move {
        if !whole {
            return engine.pull(&reference, platform.as_deref(), credentials, sender).await.map(|_| None);
        }
        // Without a tag: all of the repository.
        for tag in engine.registry().repository(&reference, credentials.clone()).tags().await? {
            let one = reference.with_tag(&tag).map_err(|e| EngineError::system(e.to_string()))?;
            engine.pull(&one, platform.as_deref(), credentials.clone(), sender.clone()).await?;
        }
        Ok(None)
    })
    .await)
}

async fn import(call: Call) -> Result {
    let source = call.query.text("fromSrc");
    let (repository, tag) = (call.query.text("repo"), call.query.text("tag"));
    let name = named(&repository, &tag)?.map(|name| name.familiar());
    let mut config = Config::default();
    apply(&mut config, &call.query.all("changes"))?;
    let config: ContainerConfig = serde_json::to_value(&config)
        .and_then(serde_json::from_value)
        .map_err(|e| ApiError::bad(format!("the changes cannot be an image's: {e}")))?;
    let (message, platform) = (call.query.text("message"), call.query.get("platform").map(str::to_owned));
    let engine = call.api.engine.clone();
    let import = move |body: Box<dyn std::io::Read + Send>| {
        let image = engine.images().import(body, config, &message, platform.as_deref(), name.as_deref())?;
        if let Some(name) = &name {
            engine.tell_tagged(&image.id, name);
        }
        engine.tell_of("image", "import", image.id.as_str(), &[("name", image.id.as_str())]);
        Ok(image)
    };
    if source != "-" {
        return import_from(call, source, import).await;
    }
    let body = blocking_reader(call.request.into_body());
    let image = patiently(move || import(Box::new(body))).await?;
    let (sender, chunks) = mpsc::channel(1);
    let _ = sender.send(line(&json!({ "status": image.id }))).await;
    Ok(stream("application/json", chunks))
}

/// An import of what a server has. What goes wrong once that answers is said in the stream.
async fn import_from(
    call: Call,
    source: String,
    import: impl FnOnce(Box<dyn std::io::Read + Send>) -> std::result::Result<ImageRecord, ApiError> + Send + 'static,
) -> Result {
    // As Docker does where no scheme is given.
    let url = if source.contains("://") { source } else { format!("http://{source}") };
    let client = call.api.engine.registry().clone();
    let document = client.document(&url).await.map_err(EngineError::from)?;
    let (sender, chunks) = mpsc::channel(4);
    tokio::spawn(async move {
        let _ = sender.send(line(&json!({ "status": format!("Downloading from {url}") }))).await;
        let done = async {
            let body = document_reader(document);
            patiently(move || import(Box::new(body))).await
        };
        let last = match done.await {
            Ok(image) => line(&json!({ "status": image.id })),
            Err(ApiError { message, .. }) => error_line(&message),
        };
        let _ = sender.send(last).await;
    });
    Ok(stream("application/json", chunks))
}

pub(super) async fn push(call: Call, name: &str) -> Result {
    let text = match call.query.get("tag") {
        Some(tag) => format!("{name}:{tag}"),
        None => name.to_owned(),
    };
    let reference = Engine::parse_reference(&text)?;
    let credentials = auth::of(call.request.headers());
    // Of our own: Docker has it for builds alone.
    let form = match call.query.get("compression") {
        None | Some("") => None,
        Some("gzip") => Some(Form::Gzip),
        Some("zstd") => Some(Form::Zstd),
        Some(other) => return Err(ApiError::bad(format!("unknown compression '{other}': give gzip or zstd"))),
    };
    let asked = platform::one(&call.query, "platform")?;
    let engine = call.api.engine;
    let all = reference.tag().is_none() && reference.digest().is_none();
    Ok(progress(move |sender| async move {
        if !all {
            let pushed = engine.push(&reference, asked.as_deref(), credentials, form, sender).await?;
            return Ok(Some(json!({ "Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size })));
        }
        // Without a tag: all of the repository.
        let images = engine.images().list()?;
        let tags = images.iter().flat_map(|image| &image.tags).filter_map(|tag| Reference::parse(tag).ok());
        let mut tags: Vec<Reference> = tags.filter(|tag| tag.name() == reference.name()).collect();
        // Several platforms have one name.
        tags.sort_by_key(Reference::to_string);
        tags.dedup();
        if tags.is_empty() {
            // What goes wrong from there on is said in the stream.
            let _ = sender.send(Progress::new("", format!("The push refers to repository [{}]", reference.name())));
            return Err(EngineError::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        for tag in tags {
            engine.push(&tag, asked.as_deref(), credentials.clone(), form, sender.clone()).await?;
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
    let platforms = platform::all(&call.query, "platform")?;
    // Of our own: an archive as a build's output, compressed and under other names.
    let packing = match call.query.get("compression") {
        None | Some("" | "uncompressed") => Packing::Plain,
        Some("any") => Packing::Compressed(None),
        Some("gzip") => Packing::Compressed(Some(Form::Gzip)),
        Some("zstd") => Packing::Compressed(Some(Form::Zstd)),
        Some(other) => {
            return Err(ApiError::bad(format!("unknown compression '{other}': give any, gzip, zstd or uncompressed")));
        }
    };
    let there = call.query.all("as");
    let there = there.iter().map(|name| Engine::parse_reference(name).map(Reference::tag_or_latest));
    let there = there.collect::<std::result::Result<Vec<_>, _>>()?;
    let own = packing != Packing::Plain || !there.is_empty();
    if own && !platforms.is_empty() {
        return Err(ApiError::bad("conflicting options: platform, and compression or as"));
    }
    let engine = call.api.engine.clone();
    let wanted = (names.clone(), platforms.clone());
    // What is not there is said before the archive begins.
    blocking(move || Ok(engine.images().check_save(&wanted.0, &wanted.1)?)).await?;
    let engine = call.api.engine;
    Ok(tar(move |output| {
        match own {
            true => engine.images().save_named(&names, &there, packing, output)?,
            false => engine.images().save(&names, &platforms, output)?,
        }
        for image in names.iter().filter_map(|name| engine.images().resolve(name).ok()) {
            engine.tell_saved(&image.id);
        }
        Ok(())
    }))
}

pub(super) async fn load(call: Call) -> Result {
    let quiet = call.query.flag("quiet");
    let platforms = platform::all(&call.query, "platform")?;
    let body = blocking_reader(call.request.into_body());
    let engine = call.api.engine;
    let (sender, chunks) = mpsc::channel::<Bytes>(64);
    patient::spawn(move || {
        let tell = |message: Progress| {
            if !quiet {
                let _ = sender.blocking_send(progress_line(&message));
            }
        };
        match engine.images().load(body, &platforms, &tell) {
            Ok(lines) => {
                for text in lines {
                    tell_loaded(&engine, &text);
                    let _ = sender.blocking_send(line(&json!({ "stream": format!("{text}\n") })));
                }
            }
            // As in Docker whatever is wrong is said in the stream: clients look for it there.
            Err(error) => {
                let _ = sender.blocking_send(error_line(&EngineError::from(error).message));
            }
        }
    });
    Ok(stream_of_news("application/json", chunks).await)
}

/// Tells of an image by the line that says that it was loaded.
fn tell_loaded(engine: &Engine, text: &str) {
    let Some((_, name)) = text.split_once(": ") else { return };
    if let Ok(image) = engine.images().resolve(name) {
        engine.tell_of("image", "load", image.id.as_str(), &[("name", image.id.as_str())]);
    }
}

/// What a registry has under a name.
pub(super) async fn distribution(call: Call, name: &str) -> Result {
    let reference = Engine::parse_reference(name)?;
    let reference = if reference.digest().is_some() { reference } else { reference.tag_or_latest() };
    let credentials = auth::of(call.request.headers());
    let wanted = reference.digest().map_or_else(|| reference.tag().unwrap_or_default().to_owned(), ToString::to_string);
    let repository = call.api.engine.registry().repository(&reference, credentials);
    let fetched = repository.manifest(&wanted).await.map_err(EngineError::from)?;
    let platforms: Vec<Value> = match fetched.parse().map_err(EngineError::from)? {
        Manifest::Index(index) => {
            index.manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(|platform| json!(platform)).collect()
        }
        Manifest::Image(image) => {
            let bytes = repository.blob_bytes(&image.config, MAX_CONFIG).await.map_err(EngineError::from)?;
            // What is no configuration of an image has no platform.
            let config: ImageConfig = serde_json::from_slice(&bytes).unwrap_or_default();
            let mut platform = json!({ "architecture": config.architecture, "os": config.os });
            if let Some(variant) = config.variant {
                platform["variant"] = variant.into();
            }
            if config.os.is_empty() { Vec::new() } else { vec![platform] }
        }
    };
    Ok(ok(&json!({
        "Descriptor": { "mediaType": fetched.media_type, "digest": fetched.digest, "size": fetched.bytes.len() },
        "Platforms": platforms,
    })))
}

pub(super) async fn commit(mut call: Call) -> Result {
    let query = call.query.clone();
    let is_json = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.starts_with("application/json"));
    // Many send none, and call it something; what is there has to be JSON.
    let has_body =
        !call.request.body().is_end_stream() || call.request.headers().get(CONTENT_TYPE).is_some_and(is_json);
    let body = if has_body { read_value(&mut call.request).await? } else { Value::Null };
    let mut config: Option<Config> = if body.is_null() { None } else { Some(typed(body, "container.CreateRequest")?) };
    let changes = query.all("changes");
    if !changes.is_empty() {
        // An empty one counts: it is refused.
        let lines = changes.iter().flat_map(|text| text.split('\n'));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        // Without a configuration of its own the changes are the container's, whose variables they know.
        let own = match config.take() {
            Some(config) => config,
            None => call.api.engine.inspect(&query.text("container"))?.config.clone(),
        };
        apply(config.insert(own), &lines)?;
    }
    let (repository, tag) = (query.text("repo"), query.text("tag"));
    let reference = named(&repository, &tag)?.map(|name| name.familiar());
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
