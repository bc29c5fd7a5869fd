//! Requests as spans of a trace, as OpenTelemetry's conventions for HTTP servers name them. Who exports them is the
//! daemon's business; here none is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hyper::Request;
use hyper::header::{HeaderMap, USER_AGENT};
use tokio::sync::mpsc;

/// One request that has been answered.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: [u8; 16],
    pub id: [u8; 8],
    /// The span of the client that the request belongs to.
    pub parent: Option<[u8; 8]>,
    /// What the client's tracing passes on (`tracestate`).
    pub state: String,
    pub method: String,
    /// The path with what names an object left out, `/containers/{id}/json`; `None` where there is no such route.
    pub route: Option<String>,
    pub path: String,
    pub user_agent: String,
    /// `None`: the client had gone before there was an answer.
    pub status: Option<u16>,
    pub start: SystemTime,
    /// When the last byte of the answer was given to the connection. What follows a switch of protocols is not in it.
    pub end: SystemTime,
}

/// Which requests are told of (`OTEL_TRACES_SAMPLER`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// What a client has decided counts.
    pub parent_based: bool,
    /// The part of the others, from 0 to 1.
    pub ratio: f64,
}

/// Takes note of requests.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sampler: Sampler,
    spans: mpsc::Sender<Span>,
    dropped: AtomicU64,
}

impl Tracer {
    /// With the channel that spans go into; one that has no room for a span loses it.
    pub fn new(sampler: Sampler, spans: mpsc::Sender<Span>) -> Self {
        Self(Arc::new(Inner { sampler, spans, dropped: AtomicU64::new(0) }))
    }

    /// How many spans were lost since this was last asked.
    pub fn take_dropped(&self) -> u64 {
        self.0.dropped.swap(0, Ordering::Relaxed)
    }

    /// A request that begins now, if it is told of.
    pub(crate) fn begin<B>(&self, request: &Request<B>) -> Option<Open> {
        let headers = request.headers();
        let context = context(headers);
        let mut random = [0; 24];
        let read = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        if read != Ok(random.len()) {
            return None;
        }
        let (trace, id) = random.split_at(16);
        let trace = context.as_ref().map_or_else(|| trace.try_into().unwrap_or_default(), |context| context.trace);
        if !self.0.sampler.takes(&trace, context.as_ref().map(|context| context.sampled)) {
            return None;
        }
        let text = |value: Option<&hyper::header::HeaderValue>| {
            let text = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
            text.chars().take(MAX_TEXT).collect::<String>()
        };
        let now = SystemTime::now();
        let path = request.uri().path();
        Some(Open {
            span: Some(Span {
                trace,
                id: id.try_into().unwrap_or_default(),
                parent: context.as_ref().map(|context| context.parent),
                // It is of use with the trace that it belongs to.
                state: text(headers.get("tracestate").filter(|_| context.is_some())),
                method: request.method().to_string(),
                route: route(path),
                path: path.chars().take(MAX_TEXT).collect(),
                user_agent: text(headers.get(USER_AGENT)),
                status: None,
                start: now,
                end: now,
            }),
            tracer: self.clone(),
        })
    }
}

/// Longer texts are cut: clients choose them.
const MAX_TEXT: usize = 512;

/// A request under way: its span ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Open {
    span: Option<Span>,
    tracer: Tracer,
}

impl Open {
    pub(crate) fn answered(&mut self, status: u16) {
        if let Some(span) = &mut self.span {
            span.status = Some(status);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        span.end = SystemTime::now().max(span.start);
        if self.tracer.0.spans.try_send(span).is_err() {
            self.tracer.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Sampler {
    fn takes(self, trace: &[u8; 16], decided: Option<bool>) -> bool {
        match decided {
            Some(sampled) if self.parent_based => sampled,
            // As all libraries decide it, so that they decide the same (OpenTelemetry, `TraceIdRatioBased`): by the
            // last 8 bytes without the first bit.
            _ => {
                let [.., a, b, c, d, e, f, g, h] = *trace;
                let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
                #[expect(clippy::cast_precision_loss, reason = "a part of traces need not be exact")]
                let part = number as f64 / (1_u64 << 63) as f64;
                part < self.ratio
            }
        }
    }
}

/// What a client says of its own span (W3C Trace Context, `traceparent`).
struct Context {
    trace: [u8; 16],
    parent: [u8; 8],
    sampled: bool,
}

fn context(headers: &HeaderMap) -> Option<Context> {
    let mut all = headers.get_all("traceparent").iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let mut parts = value.to_str().ok()?.trim().split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let flags = parts.next()?;
    let [version] = bytes::<1>(version)?;
    // Later versions may have more to say; this one has not.
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let (trace, parent, [flags]) = (bytes(trace)?, bytes(parent)?, bytes::<1>(flags)?);
    (trace != [0; 16] && parent != [0; 8]).then_some(Context { trace, parent, sampled: flags & 1 == 1 })
}

/// Bytes of as many pairs of digits and small letters.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if hex.len() != 2 * N || !hex.bytes().all(digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// A request's path without what names an object, and without the version.
fn route(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let is_version = |part: &str| {
        part.strip_prefix('v').is_some_and(|rest| rest.contains('.') && rest.chars().all(|c| "0123456789.".contains(c)))
    };
    if parts.first().is_some_and(|part| is_version(part)) {
        parts.remove(0);
    }
    let whole = |parts: &[&str]| Some(format!("/{}", parts.join("/")));
    match parts.as_slice() {
        ["_ping" | "version" | "info" | "auth" | "events" | "commit" | "metrics"]
        | ["system", "df" | "fsck"]
        | ["containers" | "images", "json" | "create" | "prune"]
        | ["images", "load" | "get" | "search"]
        | ["networks" | "volumes"]
        | ["networks" | "volumes", "create" | "prune"]
        | ["build"]
        | ["build", "prune" | "history" | "cache" | "agent" | "cancel"] => whole(&parts),
        ["build", "history", _] => Some("/build/history/{id}".into()),
        ["build", "history", _, verb @ ("logs" | "cache")] => Some(format!("/build/history/{{id}}/{verb}")),
        ["containers", _, "attach", "ws"] => Some("/containers/{id}/attach/ws".into()),
        ["containers" | "exec" | "networks", _] => Some(format!("/{}/{{id}}", parts[0])),
        // A link's name is its container's and its own.
        ["containers", _, _, verb] | ["containers" | "exec" | "networks", _, verb] if is_verb(verb) => {
            Some(format!("/{}/{{id}}/{verb}", parts[0]))
        }
        ["volumes", _] => Some("/volumes/{name}".into()),
        ["volumes", _, verb] if is_verb(verb) => Some(format!("/volumes/{{name}}/{verb}")),
        ["images" | "distribution", .., verb] if parts.len() > 2 && is_verb(verb) => {
            Some(format!("/{}/{{name}}/{verb}", parts[0]))
        }
        ["images", _, ..] => Some("/images/{name}".into()),
        [group @ ("plugins" | "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs"), ..] => {
            Some(format!("/{group}"))
        }
        _ => None,
    }
}

/// Whether it can be the last part of a route: names that nobody thought of are no routes.
fn is_verb(word: &str) -> bool {
    const VERBS: &str = "json start stop restart kill pause unpause rename update resize wait attach logs stats why top \
                         changes export archive exec connect disconnect attestations history rootfs get tag push pin \
                         unpin clone snapshots restore import";
    VERBS.split_whitespace().any(|verb| verb == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    const ALL: Sampler = Sampler { parent_based: true, ratio: 1.0 };
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn objects_are_not_part_of_a_route() {
        for (path, wanted) in [
            ("/v1.44/containers/json", Some("/containers/json")),
            ("/containers/abc/json", Some("/containers/{id}/json")),
            ("/containers/abc/alias/json", Some("/containers/{id}/json")),
            ("/containers/abc/attach/ws", Some("/containers/{id}/attach/ws")),
            ("/containers/abc", Some("/containers/{id}")),
            ("/containers/abc/nonsense", None),
            ("/v1.44/images/some.registry/name:tag/json", Some("/images/{name}/json")),
            ("/images/some.registry/name:tag", Some("/images/{name}")),
            ("/volumes", Some("/volumes")),
            ("/volumes/v1.2/snapshots", Some("/volumes/{name}/snapshots")),
            ("/build/history/3/logs", Some("/build/history/{id}/logs")),
            ("/swarm/init", Some("/swarm")),
            ("/nonsense", None),
            ("/", None),
        ] {
            assert_eq!(route(path).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn a_client_s_trace_is_gone_on_with() {
        let (sender, mut spans) = mpsc::channel(8);
        let tracer = Tracer::new(ALL, sender);
        let mut open =
            tracer.begin(&request("/v1.44/info", &[("traceparent", PARENT), ("tracestate", "a=1")])).unwrap();
        open.answered(200);
        drop(open);
        let span = spans.try_recv().unwrap();
        assert_eq!(span.trace[..2], [0x0a, 0xf7]);
        assert_eq!(span.parent, Some([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]));
        assert_eq!((span.status, span.state.as_str()), (Some(200), "a=1"));
        assert_eq!((span.route.as_deref(), span.path.as_str()), (Some("/info"), "/v1.44/info"));
        // What is none begins a trace.
        for bad in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "",
        ] {
            drop(tracer.begin(&request("/info", &[("traceparent", bad), ("tracestate", "a=1")])).unwrap());
            let span = spans.try_recv().unwrap();
            assert!(span.parent.is_none() && span.state.is_empty() && span.trace != [0; 16], "{bad}");
            assert_eq!(span.status, None);
        }
    }

    #[test]
    fn who_decides_is_the_client_or_the_ratio() {
        let unsampled = PARENT.replace("-01", "-00");
        let begins = |parent_based, ratio, parent: &str| {
            let tracer = Tracer::new(Sampler { parent_based, ratio }, mpsc::channel(8).0);
            tracer.begin(&request("/info", &[("traceparent", parent)])).is_some()
        };
        assert!(begins(true, 0.0, PARENT) && !begins(true, 1.0, &unsampled));
        assert!(!begins(false, 0.0, PARENT) && begins(false, 1.0, &unsampled));
        assert!(!begins(true, 0.0, "") && begins(true, 1.0, ""));
        // 0x8448eb211c80319c of 2^64.
        assert!(begins(false, 0.52, PARENT) && !begins(false, 0.51, PARENT));
    }

    #[test]
    fn a_full_queue_is_not_waited_for() {
        let (sender, mut spans) = mpsc::channel(1);
        let tracer = Tracer::new(ALL, sender);
        (0..3).for_each(|_| drop(tracer.begin(&request("/info", &[]))));
        assert!(spans.try_recv().is_ok() && spans.try_recv().is_err());
        assert_eq!((tracer.take_dropped(), tracer.take_dropped()), (2, 0));
    }
}
