//! Builds, by the classic protocol.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wharf_build::{Answers, BuildError, BuildEvent, BuildRequest, CacheRecord, Limits, NamedContext, Ulimit};
use wharf_distribution::Platform;
use wharf_engine::spec::{HostConfig, Resources};
use wharf_reference::Digest;

use super::build_parts::{self, Asking, Head};
use super::progress::progress_line;
use super::{Call, Result, blocking, dry_run, prune_stream, pruned_event};
use crate::auth;
use crate::filters::Filters;
use crate::http::{ApiError, blocking_reader_and_gone, error_line, line, ok, stream};
use crate::moment::moment;
use crate::patient::patiently;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct UlimitJson {
    pub(super) name: String,
    pub(super) soft: i64,
    pub(super) hard: i64,
}

pub(super) async fn build(call: Call) -> Result {
    let query = call.query.clone();
    // Who sends all with the request needs no session, and nothing of BuildKit's protocol.
    let is_told = |key: &str| query.get(key).is_some_and(|value| !value.is_empty());
    let comes_apart = matches!(query.get("remote"), Some("upload-request" | "client-session"));
    if query.get("version") == Some("2") && (comes_apart || is_told("session") || is_told("buildid")) {
        return super::buildkit::build(call).await;
    }
    if let Some(version) = query.get("version").filter(|version| !matches!(*version, "" | "1" | "2")) {
        return Err(ApiError::bad(format!("invalid version {version:?}")));
    }
    let remote = query.get("remote").filter(|remote| *remote != "client-session").map(str::to_owned);
    // Images whose steps may be taken over, and no others. Ours are found by what they were made from, whoever made
    // them; so what can be told apart is whether any of these images is here.
    let cache_from: Option<Vec<String>> = query.json("cachefrom")?;
    let images = call.api.engine.images();
    let has_no_source = query.get("parent") != Some("0")
        && cache_from.is_some_and(|names| !names.is_empty() && names.iter().all(|name| images.resolve(name).is_err()));
    // By a status, and before anything is read.
    let platforms = query.get("platform").unwrap_or_default().split(',').map(str::trim);
    for platform in platforms.filter(|platform| !matches!(*platform, "" | "local")) {
        Platform::parse(platform).map_err(|error| ApiError::bad(error.to_string()))?;
    }
    if query.get("securityopt").is_some_and(|options| !options.is_empty()) {
        return Err(ApiError::bad("security options are not supported on linux"));
    }
    if let Some(isolation) = query.get("isolation").filter(|text| !matches!(*text, "" | "default")) {
        return Err(ApiError::bad(format!("unsupported isolation: {isolation:?}")));
    }
    // `rm` and `forcerm`: containers of steps are removed in any case.
    // A value of `null` asks for the daemon's own variable, which is nobody's business.
    let build_args: BTreeMap<String, Option<String>> = query.json_called("buildargs", "error reading build args")?;
    let ulimits: Vec<UlimitJson> = query.json_called("ulimits", "error reading ulimit settings")?;
    let positive =
        |key: &str| -> std::result::Result<Option<i64>, ApiError> { Ok(query.number::<i64>(key)?.filter(|n| *n != 0)) };
    let unsigned = |key: &str| -> std::result::Result<Option<u64>, ApiError> {
        Ok(positive(key)?.and_then(|n| u64::try_from(n).ok()))
    };
    let text = |key: &str| query.get(key).map(str::to_owned);
    let limits = Limits {
        memory: positive("memory")?,
        memory_swap: positive("memswap")?,
        cpu_shares: unsigned("cpushares")?,
        cpu_period: unsigned("cpuperiod")?,
        cpu_quota: positive("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        ulimits: ulimits.into_iter().map(|u| Ulimit { name: u.name, soft: u.soft, hard: u.hard }).collect(),
    };
    check_limits(&limits)?;
    let kept = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(Option::as_deref);
    let keep_git_dir = matches!(kept, Some("1" | "true"));
    let credentials = auth::of_build(call.request.headers());
    let with_parts = call.request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == build_parts::MEDIA_TYPE);
    let (body, gone) = blocking_reader_and_gone(call.request.into_body());
    let body: Box<dyn std::io::Read + Send> = Box::new(body);
    let (head, mut parts, body) = if with_parts {
        let (head, parts) = patiently(move || build_parts::read(body)).await?;
        (head, Some(parts), None)
    } else {
        (Head::default(), None, Some(body))
    };
    let context = match (&remote, &mut parts, body) {
        (Some(remote), ..) => {
            let dockerfile = query.get("dockerfile").unwrap_or("Dockerfile");
            super::remote::context(&call.api.engine, &call.api.builder, remote, dockerfile, keep_git_dir).await?
        }
        (None, Some(parts), _) => parts.next(),
        (None, None, Some(body)) => body,
        (None, None, None) => Box::new(std::io::empty()),
    };
    // Held as long as the build goes on.
    let (agents, agents_guard) = call.api.agents.of(&head.token, head.agents);
    let mut contexts = Vec::new();
    for named in head.contexts {
        let mut input = || parts.as_mut().map_or_else(|| Box::new(std::io::empty()) as _, build_parts::Parts::next);
        let context = match (named.image, named.remote, named.layout) {
            (Some(image), ..) => NamedContext::Image(image),
            (None, Some(remote), _) => NamedContext::Archive(
                super::remote::context(&call.api.engine, &call.api.builder, &remote, "Dockerfile", keep_git_dir)
                    .await?,
            ),
            (None, None, Some(layout)) => NamedContext::Layout(layout, input()),
            (None, None, None) if named.listed => NamedContext::Listing(input()),
            (None, None, None) => NamedContext::Archive(input()),
        };
        contexts.push((named.name, context));
    }
    let decoded = |(id, text): (String, String)| match STANDARD.decode(text) {
        Ok(content) => Ok((id, content)),
        Err(_) => Err(ApiError::bad(format!("the secret {id} is not in base64"))),
    };
    let secrets = head.secrets.into_iter().map(decoded).collect::<std::result::Result<_, ApiError>>()?;
    let (events, mut told) = mpsc::channel::<BuildEvent>(64);
    let asking = parts.map(|parts| Asking::new(parts, events.clone()));
    let request = BuildRequest {
        context,
        listed: head.listed,
        answers: asking.map(|asking| Arc::new(asking) as Arc<dyn Answers>),
        dockerfile: text("dockerfile").unwrap_or_else(|| "Dockerfile".into()),
        // Of our own: what people call the file that a client has put into the context.
        shown: text("dockerfilename"),
        tags: query.all("t").into_iter().filter(|tag| !tag.is_empty()).collect(),
        keeps_mounts: query.flag("keepmounts"),
        passing: text("passing").map(|random| wharf_image::passing_name(&random)),
        build_args: build_args.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
        labels: query.json_called("labels", "error reading labels")?,
        target: text("target"),
        no_cache: query.flag("nocache") || has_no_source,
        pull: query.flag("pull"),
        // The output is needed after all when it fails.
        quiet: false,
        network: text("networkmode").unwrap_or_else(|| "default".into()),
        platform: text("platform"),
        shm_size: unsigned("shmsize")?,
        limits,
        extra_hosts: extra_hosts(&call.api.engine, &query.all("extrahosts"))?,
        cgroup_parent: text("cgroupparent"),
        contexts,
        agents,
        no_cache_filter: query.json("nocachefilter")?,
        secrets,
        entitlements: query.json("allow")?,
        squash: query.flag("squash"),
        // Docker's clients know nothing of it, and have always had it so.
        classic: !with_parts && query.get("parent") != Some("0"),
        annotations: query.json("annotations")?,
        attestations: query.json("attestations")?,
        remote,
        checked_out: query.flag("checkedout"),
        committed: query.get("committed").and_then(|text| text.parse().ok()),
        credentials,
        ..BuildRequest::default()
    };
    let quiet = query.flag("q");
    let (builder, engine, tags) = (call.api.builder.clone(), call.api.engine.clone(), request.tags.clone());
    let mut building = tokio::spawn(async move {
        let _agents = agents_guard;
        let built = builder.build(request, events).await;
        if let Ok(id) = &built {
            tags.iter().for_each(|tag| engine.tell_tagged(id, tag));
        }
        built
    });
    // What is wrong before the first word is a status; Docker's client shows both the same.
    let first = tokio::select! {
        biased;
        first = told.recv() => first,
        done = &mut building => return finished(done, quiet),
    };
    let Some(first) = first else { return finished(building.await, quiet) };
    let mut kept = Tail::default();
    let (sender, chunks) = mpsc::channel::<Bytes>(64);
    let gone = async move {
        if gone.await.is_err() {
            // All has come.
            std::future::pending::<()>().await;
        }
    };
    tokio::spawn(async move {
        tokio::pin!(gone);
        let mut next = Some(first);
        while let Some(event) = next {
            let told_now = match event {
                BuildEvent::Made { .. } | BuildEvent::Wanted { .. } => true,
                _ => !quiet,
            };
            if !told_now {
                kept.add(event);
            } else if sender.send(event_line(&event)).await.is_err() {
                // The client has gone; closing the channel ends the build.
                return;
            }
            next = tokio::select! {
                event = told.recv() => event,
                // Nobody may notice at the next word: a command can be silent for ever.
                () = sender.closed() => return,
                () = &mut gone => return,
            };
        }
        let last = match building.await {
            Ok(Ok(id)) if quiet => Some(line(&json!({ "stream": format!("{id}\n") }))),
            Ok(Ok(_)) => None,
            Ok(Err(error)) => {
                for text in kept.texts {
                    if sender.send(line(&json!({ "stream": text }))).await.is_err() {
                        return;
                    }
                }
                Some(failure_line(&error))
            }
            Err(error) => Some(error_line(&error.to_string())),
        };
        if let Some(last) = last {
            let _ = sender.send(last).await;
        }
    });
    Ok(stream("application/json", chunks))
}

/// Refuses limits that a container would be refused, in the same words.
fn check_limits(limits: &Limits) -> std::result::Result<(), ApiError> {
    let whole = |number: Option<u64>| number.map_or(0, |number| i64::try_from(number).unwrap_or(i64::MAX));
    let resources = Resources {
        memory: limits.memory.unwrap_or(0),
        memory_swap: limits.memory_swap.unwrap_or(0),
        cpu_shares: whole(limits.cpu_shares),
        cpu_period: whole(limits.cpu_period),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpuset_cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.cpuset_mems.clone().unwrap_or_default(),
        ..Resources::default()
    };
    Ok(wharf_engine::resources::check(&HostConfig { resources, ..HostConfig::default() })?)
}

fn finished(
    done: std::result::Result<wharf_build::Result<wharf_reference::Digest>, tokio::task::JoinError>,
    quiet: bool,
) -> Result {
    let (sender, chunks) = mpsc::channel(1);
    match done {
        Ok(Ok(id)) if quiet => drop(sender.try_send(line(&json!({ "stream": format!("{id}\n") })))),
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            let status = match error.kind {
                wharf_build::ErrorKind::Invalid => StatusCode::BAD_REQUEST,
                wharf_build::ErrorKind::NotFound => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return Err(ApiError::new(status, error.to_string()));
        }
        Err(error) => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
    Ok(stream("application/json", chunks))
}

/// What a build that only answers with its result has said last.
#[derive(Default)]
struct Tail {
    texts: VecDeque<String>,
    bytes: usize,
}

/// So much of it is told when it fails.
const MOST_KEPT: usize = 4 << 20;

impl Tail {
    fn add(&mut self, event: BuildEvent) {
        let BuildEvent::Stream(text) = event else { return };
        self.bytes += text.len();
        self.texts.push_back(text);
        while self.bytes > MOST_KEPT && self.texts.len() > 1 {
            self.bytes -= self.texts.pop_front().map_or(0, |text| text.len());
        }
    }
}

/// What the client prints last; a command's exit code becomes its own.
fn failure_line(error: &BuildError) -> Bytes {
    let Some(code) = error.exit_code else { return error_line(&error.to_string()) };
    // Docker's words and no more: which step it was has been told.
    let message = wharf_report::words(error.message.clone());
    line(&json!({ "errorDetail": { "code": code, "message": message }, "error": message }))
}

fn event_line(event: &BuildEvent) -> Bytes {
    match event {
        BuildEvent::Stream(text) => line(&json!({ "stream": text })),
        BuildEvent::Made { id, new, reference, platform, digest, .. } => {
            let mut made = json!({ "ID": id, "New": new, "Ref": reference });
            if let Some(platform) = platform {
                made["Platform"] = json!(platform);
            }
            if let Some(digest) = digest {
                made["Digest"] = json!(digest);
            }
            line(&json!({ "aux": made }))
        }
        BuildEvent::Progress(progress) => progress_line(progress),
        BuildEvent::Wanted { listing, entries } => {
            let entries: Vec<[u32; 2]> = entries.iter().map(|range| [range.start, range.end - range.start]).collect();
            line(&json!({ "aux": { "Wanted": { "Listing": listing, "Entries": entries } } }))
        }
        // Told to those who ask for it alone.
        BuildEvent::Step(_) => Bytes::new(),
    }
}

pub(super) async fn prune(call: Call) -> Result {
    // What is cached has no labels: clients send those of `system prune` along, and moby passes over them.
    let known = ["until", "id", "unused-for", "parent", "type", "inuse", "shared", "private", "label", "label!"];
    let filters = Filters::of(&call.query, &known)?;
    let before = match filters.get("unused-for").and_then(|ages| ages.last()) {
        Some(age) => Some(moment(age)?),
        None => filters.until()?,
    };
    let all = call.query.flag("all");
    // One is what is kept, the other what may be used: here the same.
    let mut keep: Option<u64> = None;
    for key in ["reserved-space", "keep-storage", "max-used-space"] {
        keep = keep.or(call.query.number(key)?).filter(|bytes| *bytes > 0);
    }
    if call.query.number::<u64>("min-free-space")?.is_some_and(|bytes| bytes > 0) && keep.is_none() {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "min-free-space is not supported: say what to keep"));
    }
    let dry = match dry_run::is_asked(&call) {
        true => Some(dry_run::layers_beside_cache(&call, &filters).await?),
        false => None,
    };
    let (is_dry, builder, images) = (dry.is_some(), call.api.builder.clone(), call.api.engine.images().clone());
    let flags = (filters.flag("inuse")?, filters.flag("shared")?, filters.flag("private")?);
    let pruned = move || {
        let fail = |e: BuildError| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
        let kept = match keep {
            Some(bytes) => {
                let mut records = builder.records().map_err(fail)?;
                if all {
                    records.extend(builder.mounts(None).map_err(fail)?);
                }
                newest(records, bytes)
            }
            None => BTreeSet::new(),
        };
        let (in_use, shared, private) = flags;
        let shared = shared.or(private.map(|private| !private));
        let images = if shared.is_some() { images.summaries().unwrap_or_default() } else { Vec::new() };
        let of_images: BTreeSet<Digest> = images.into_iter().flat_map(|image| image.diff_ids).collect();
        let is_shared = |record: &CacheRecord| record.layer.as_ref().is_some_and(|layer| of_images.contains(layer));
        let which = |id: &str, record: &CacheRecord| {
            !kept.contains(id)
                && filters.any("id", |wanted| id.starts_with(wanted))
                && filters.any("type", |wanted| CacheRecord::kind(id) == wanted)
                // Steps have no parents, and what is in use does not go.
                && filters.get("parent").is_none()
                && in_use != Some(true)
                && shared.is_none_or(|shared| shared == is_shared(record))
                && before.is_none_or(|before| record.last_used < before.as_second())
        };
        match dry {
            Some(layers) => builder.plan_prune(&which, all, &layers).map_err(fail),
            None => builder.prune(&which, all).map_err(fail),
        }
    };
    if is_dry {
        let pruned = blocking(pruned).await?;
        return Ok(ok(&json!({ "DryRun": true, "CachesDeleted": pruned.ids, "SpaceReclaimed": pruned.freed })));
    }
    let engine = call.api.engine.clone();
    prune_stream::answer(&call, |told| async move {
        let pruned = blocking(pruned).await?;
        pruned_event(&engine, "builder", pruned.freed);
        // They all go at once.
        pruned.ids.iter().for_each(|id| told.deleted(id));
        let ids: Value = if pruned.ids.is_empty() { Value::Null } else { json!(pruned.ids) };
        Ok(json!({ "CachesDeleted": ids, "SpaceReclaimed": pruned.freed }))
    })
    .await
}

/// `NAME:ADDRESS` of `--add-host`, in which `host-gateway` is an address of this host.
fn extra_hosts(engine: &wharf_engine::Engine, given: &[String]) -> std::result::Result<Vec<String>, ApiError> {
    let lines = given.iter().flat_map(|text| text.split(',')).filter(|line| !line.is_empty());
    let one = |line: &str| match line.split_once([':', '=']) {
        Some((name, "host-gateway")) => match engine.host_gateway() {
            Some(address) => Ok(format!("{name}:{address}")),
            None => Err(ApiError::bad("unable to derive the IP value for host-gateway")),
        },
        _ => Ok(line.to_owned()),
    };
    lines.map(one).collect()
}

/// The steps that were used last and take no more than `bytes` together.
fn newest(mut records: Vec<(String, CacheRecord)>, bytes: u64) -> BTreeSet<String> {
    records.sort_by_key(|(_, record)| std::cmp::Reverse(record.last_used));
    let mut left = bytes;
    let fits = |(id, record): (String, CacheRecord)| {
        left = left.checked_sub(record.size)?;
        Some(id)
    };
    records.into_iter().map_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_is_kept() {
        let record = |id: &str, size, last_used| {
            let record = CacheRecord {
                layer: None,
                size,
                description: String::new(),
                created: 0,
                nanoseconds: 0,
                date: None,
                last_used,
                uses: 0,
                secrets: Vec::new(),
                again: None,
            };
            (id.to_owned(), record)
        };
        let all = vec![record("old", 1, 1), record("new", 50, 3), record("middle", 50, 2)];
        let kept = |bytes| newest(all.clone(), bytes).into_iter().collect::<Vec<_>>();
        assert_eq!(kept(100), ["middle", "new"]);
        assert_eq!(kept(60), ["new"]);
        assert_eq!((kept(10).len(), kept(u64::MAX).len()), (0, 3));
    }
}
