//! Spans as OTLP's JSON (opentelemetry-proto, `ExportTraceServiceRequest`): IDs in hexadecimal, numbers of 64 bits as text.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use wharf_server::trace::Span;

/// `SPAN_KIND_SERVER`, `STATUS_CODE_ERROR`.
const SERVER: u8 = 2;
const ERROR: u8 = 2;

/// One message.
pub(crate) fn message(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let process = u64::from(std::process::id());
    let of_resource: Vec<_> = resource
        .iter()
        .map(|(key, value)| attribute(key, text(value)))
        .chain([attribute("service.version", text(version)), attribute("process.pid", number(process))])
        .collect();
    let message = json!({"resourceSpans": [{
        "resource": {"attributes": of_resource},
        "scopeSpans": [{
            "scope": {"name": "wharf", "version": version},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]});
    message.to_string().into_bytes()
}

/// The conventions for HTTP servers (semantic conventions 1.23 and later).
fn span(span: &Span) -> Value {
    let mut attributes = vec![
        attribute("http.request.method", text(&span.method)),
        attribute("url.path", text(&span.path)),
        attribute("url.scheme", text("http")),
    ];
    if let Some(route) = &span.route {
        attributes.push(attribute("http.route", text(route)));
    }
    if !span.user_agent.is_empty() {
        attributes.push(attribute("user_agent.original", text(&span.user_agent)));
    }
    // Of a client's mistake the server's span is no error.
    let failed = match span.status {
        Some(status) => {
            attributes.push(attribute("http.response.status_code", number(status.into())));
            (status >= 500).then(|| status.to_string())
        }
        None => Some("client gone".to_owned()),
    };
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    put("traceId", hex(&span.trace).into());
    put("spanId", hex(&span.id).into());
    if let Some(parent) = &span.parent {
        put("parentSpanId", hex(parent).into());
    }
    if !span.state.is_empty() {
        put("traceState", span.state.as_str().into());
    }
    let name = span.route.as_ref().map_or_else(|| span.method.clone(), |route| format!("{} {route}", span.method));
    put("name", name.into());
    put("kind", SERVER.into());
    put("startTimeUnixNano", nanoseconds(span.start).into());
    put("endTimeUnixNano", nanoseconds(span.end).into());
    if let Some(kind) = failed {
        attributes.push(attribute("error.type", text(&kind)));
        put("status", json!({"code": ERROR}));
    }
    put("attributes", attributes.into());
    Value::Object(fields)
}

fn attribute(key: &str, value: Value) -> Value {
    json!({"key": key, "value": value})
}

fn text(value: &str) -> Value {
    json!({"stringValue": value})
}

fn number(value: u64) -> Value {
    json!({"intValue": value.to_string()})
}

fn nanoseconds(at: SystemTime) -> String {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_span_has_the_conventions_names() {
        let start = UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_001);
        let mut one = Span {
            trace: [0xab; 16],
            id: [1; 8],
            parent: Some([2; 8]),
            state: "a=1".into(),
            method: "GET".into(),
            route: Some("/containers/{id}/json".into()),
            path: "/v1.44/containers/x/json".into(),
            user_agent: String::new(),
            status: Some(404),
            start,
            end: start + Duration::from_millis(2),
        };
        let message: Value =
            serde_json::from_slice(&message(&[("service.name".into(), "w".into())], &[one.clone()])).unwrap();
        let resource = &message["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0],
            json!({"key": "service.name", "value": {"stringValue": "w"}})
        );
        let shown = &resource["scopeSpans"][0]["spans"][0];
        assert_eq!(shown["traceId"], "abababababababababababababababab");
        assert_eq!((&shown["parentSpanId"], &shown["traceState"]), (&json!("0202020202020202"), &json!("a=1")));
        assert_eq!((&shown["name"], &shown["kind"]), (&json!("GET /containers/{id}/json"), &json!(2)));
        assert_eq!(shown["startTimeUnixNano"], "1700000000000000001");
        assert_eq!(shown["endTimeUnixNano"], "1700000000002000001");
        assert!(shown.get("status").is_none());
        let has = |shown: &Value, wanted: Value| shown["attributes"].as_array().unwrap().contains(&wanted);
        assert!(has(shown, json!({"key": "http.response.status_code", "value": {"intValue": "404"}})));
        assert!(has(shown, json!({"key": "http.route", "value": {"stringValue": "/containers/{id}/json"}})));
        (one.status, one.route, one.parent) = (Some(500), None, None);
        let shown = span(&one);
        assert_eq!((&shown["name"], &shown["status"]["code"]), (&json!("GET"), &json!(2)));
        assert!(shown.get("parentSpanId").is_none() && has(&shown, attribute("error.type", text("500"))));
    }
}
