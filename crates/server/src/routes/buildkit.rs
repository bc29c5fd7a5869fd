//! BuildKit's protocol: connections that are handed over to it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use wharf_buildkit::{ApiBuild, ApiEvent, UPLOAD};

use super::build::UlimitJson;
use super::{Call, Result};
use crate::http::{Answer, ApiError, blocking_reader, empty, error_line, line, stream};

/// What clients ask for by `Upgrade`: HTTP/2 without TLS.
const PROTOCOL: &str = "h2c";

/// `POST /grpc`: the client calls.
pub(super) fn calls(call: Call) -> Result {
    let buildkit = call.api.buildkit.clone();
    let caller = wharf_engine::caller::current();
    hand_over(call, move |_, io| async move { buildkit.serve_calls(caller, io).await })
}

/// `POST /session`: the client is called.
pub(super) fn session(call: Call) -> Result {
    let buildkit = call.api.buildkit.clone();
    hand_over(call, |headers, io| async move { buildkit.serve_session(&headers, io).await })
}

/// Answers that the connection is another's from now on, and gives it to `serve`.
fn hand_over<F>(call: Call, serve: impl FnOnce(hyper::HeaderMap, TokioIo<Upgraded>) -> F + Send + 'static) -> Result
where
    F: Future<Output = ()> + Send + 'static,
{
    let asks = call.request.headers().get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !asks.eq_ignore_ascii_case(PROTOCOL) {
        return Err(ApiError::bad(match asks {
            "" => format!("no upgrade proto in request: this address takes `Upgrade: {PROTOCOL}`"),
            other => format!("protocol {other} not supported: this address takes `Upgrade: {PROTOCOL}`"),
        }));
    }
    let headers = call.request.headers().clone();
    tokio::spawn(async move {
        match hyper::upgrade::on(call.request).await {
            Ok(upgraded) => serve(headers, TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!("the client did not go on: {error}"),
        }
    });
    let mut answer: Answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OutputJson {
    r#type: String,
    #[serde(default)]
    attrs: Option<HashMap<String, String>>,
}

/// `POST /build?version=2`: a build with a session of its own.
pub(super) async fn build(call: Call) -> Result {
    let query = call.query.clone();
    let id = query.get("buildid").unwrap_or_default().to_owned();
    if let Some(id) = id.strip_prefix(UPLOAD) {
        return upload(call, id).await;
    }
    let text = |key: &str| query.get(key).filter(|value| !value.is_empty());
    if text("session").is_none() {
        return Err(ApiError::bad(
            "a build whose context comes by another request needs a session: begin one by POST /session",
        ));
    }
    let mut options = HashMap::new();
    let mut set = |name: &str, value: &str| drop(options.insert(name.to_owned(), value.to_owned()));
    for (key, option) in
        [("dockerfile", "filename"), ("target", "target"), ("platform", "platform"), ("cgroupparent", "cgroup-parent")]
    {
        text(key).into_iter().for_each(|value| set(option, value));
    }
    if query.flag("nocache") {
        set("no-cache", "");
    }
    set("image-resolve-mode", if query.flag("pull") { "pull" } else { "default" });
    let remote = query.get("remote").unwrap_or_default();
    // The archive comes in a request of its own, or in this one.
    let uploaded = matches!(remote, "upload-request" | "");
    let with_archive = remote.is_empty();
    if !uploaded && remote != "client-session" {
        set("context", remote);
    }
    // A value of `null` asks for the daemon's own variable, which is nobody's business.
    let arguments: BTreeMap<String, Option<String>> = query.json("buildargs")?;
    for (name, value) in &arguments {
        value.iter().for_each(|value| set(&format!("build-arg:{name}"), value));
    }
    let labels: BTreeMap<String, String> = query.json("labels")?;
    labels.iter().for_each(|(name, value)| set(&format!("label:{name}"), value));
    let mut entitlements = Vec::new();
    match query.get("networkmode").unwrap_or_default() {
        "" | "default" => {}
        mode @ ("host" | "none") => {
            set("force-network-mode", mode);
            entitlements.extend((mode == "host").then(|| "network.host".to_owned()));
        }
        other => return Err(ApiError::bad(format!("network mode {other:?} not supported by buildkit"))),
    }
    let hosts: Vec<String> = query
        .all("extrahosts")
        .iter()
        .flat_map(|all| all.split(','))
        .filter_map(|pair| pair.split_once(':').map(|(host, address)| format!("{host}={address}")))
        .collect();
    set("add-hosts", &hosts.join(","));
    text("shmsize").into_iter().for_each(|size| set("shm-size", size));
    let ulimits: Vec<UlimitJson> = query.json("ulimits")?;
    let ulimits: Vec<String> = ulimits.iter().map(|one| format!("{}={}:{}", one.name, one.soft, one.hard)).collect();
    set("ulimit", &ulimits.join(","));
    let cache_from: Option<Vec<String>> = query.json("cachefrom")?;
    set("cache-from", &cache_from.unwrap_or_default().join(","));
    let outputs: Option<Vec<OutputJson>> = query.json("outputs")?;
    let outputs = outputs.unwrap_or_default().into_iter();
    let session = query.get("session").unwrap_or_default().to_owned();
    let build = ApiBuild {
        id: match id.is_empty() {
            // A session may have several, and nobody else may guess it.
            true => wharf_engine::names::random_id()?,
            false => id,
        },
        session,
        options,
        entitlements,
        tags: query.all("t").into_iter().filter(|tag| !tag.is_empty()).collect(),
        outputs: outputs.map(|output| (output.r#type, output.attrs.unwrap_or_default())).collect(),
        uploaded,
    };
    if with_archive {
        let archive = Box::new(blocking_reader(call.request.into_body()));
        call.api.buildkit.upload(&build.id, archive).map_err(ApiError::bad)?;
    }
    let mut told = call.api.buildkit.build_for_api(build).map_err(ApiError::bad)?;
    let quiet = query.flag("q");
    let (sender, chunks) = mpsc::channel::<Bytes>(16);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = told.recv() => event,
                () = sender.closed() => return,
            };
            let told = match event {
                None => return,
                Some(ApiEvent::Status(bytes)) => {
                    line(&json!({ "id": "moby.buildkit.trace", "aux": STANDARD.encode(bytes) }))
                }
                Some(ApiEvent::Image(id)) => {
                    let told = line(&json!({ "id": "moby.image.id", "aux": { "ID": id } }));
                    match quiet {
                        true => [told, line(&json!({ "stream": format!("{id}\n") }))].concat().into(),
                        false => told,
                    }
                }
                Some(ApiEvent::Failed(message)) => error_line(&message),
            };
            if sender.send(told).await.is_err() {
                return;
            }
        }
    });
    Ok(stream("application/json", chunks))
}

/// The archive of a context, which another request builds. The answer comes when it has been read, or nobody wants it.
async fn upload(call: Call, id: &str) -> Result {
    let (read, done) = oneshot::channel();
    let buildkit = call.api.buildkit.clone();
    let archive = Upload { archive: Box::new(blocking_reader(call.request.into_body())), _read: read };
    let taken = buildkit.upload(id, Box::new(archive)).map_err(ApiError::bad)?;
    if taken.await.is_err() {
        return Err(ApiError::bad(format!("no build {id} has asked for this archive: it was not read")));
    }
    // An error is its end, too.
    let _ = done.await;
    Ok(crate::http::ok(&json!({})))
}

struct Upload {
    archive: Box<dyn Read + Send>,
    _read: oneshot::Sender<()>,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.archive.read(buffer)
    }
}
