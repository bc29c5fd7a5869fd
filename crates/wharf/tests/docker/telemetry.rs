//! Traces of the API's requests, by OTLP to a collector that is a small server of the test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::Daemon;

/// Answers with `statuses`, one after the other, and then with 200; tells of heads and messages.
fn collector(statuses: &'static [u16]) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, messages) = mpsc::channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter().copied();
        for stream in listener.incoming() {
            let Ok((stream, head, body)) = stream.and_then(received) else { continue };
            let status = statuses.next().unwrap_or(200);
            let _ = write!(&stream, "HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
            if sender.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, messages)
}

fn received(stream: TcpStream) -> std::io::Result<(TcpStream, String, Vec<u8>)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((stream, head, body))
}

fn ask(d: &Daemon, path: &str, headers: &str) -> String {
    let mut stream = UnixStream::connect(d.socket()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The first span with this path, of messages that come.
fn span(messages: &Receiver<(String, Value)>, path: &str) -> (String, Value, Value) {
    loop {
        let (head, message) = messages.recv_timeout(Duration::from_secs(20)).expect(path);
        let of_resource = &message["resourceSpans"][0];
        for span in of_resource["scopeSpans"][0]["spans"].as_array().unwrap() {
            if attribute(&span["attributes"], "url.path") == &json!({"stringValue": path}) {
                return (head, of_resource["resource"]["attributes"].clone(), span.clone());
            }
        }
    }
}

fn attribute<'a>(attributes: &'a Value, key: &str) -> &'a Value {
    let found = attributes.as_array().unwrap().iter().find(|one| one["key"] == key);
    found.map_or(&Value::Null, |one| &one["value"])
}

const PARENT: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";

#[test]
fn requests_are_spans_of_their_client_s_trace() {
    // The second message is refused for now, and comes again.
    let (address, messages) = collector(&[200, 503]);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ];
    let Some(mut d) = Daemon::start_in(&variables) else { return };
    // Not sampled by the client, it is not told of.
    ask(&d, "/unsampled", &format!("{PARENT}00\r\n"));
    let said = ask(&d, "/v1.44/containers/nobody/json?size=1", &format!("User-Agent: me\r\n{PARENT}01\r\n"));
    assert!(said.starts_with("HTTP/1.1 404"), "{said}");
    let (head, resource, shown) = span(&messages, "/v1.44/containers/nobody/json");
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: application/json\r\n") && head.contains("\r\nx-key: a b\r\n"), "{head}");
    assert_eq!(attribute(&resource, "service.name"), &json!({"stringValue": "wharf"}));
    assert_eq!(attribute(&resource, "deployment.environment"), &json!({"stringValue": "test"}));
    assert_eq!(shown["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(shown["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(shown["name"], "GET /containers/{id}/json");
    assert_eq!(attribute(&shown["attributes"], "http.response.status_code"), &json!({"intValue": "404"}));
    assert_eq!(attribute(&shown["attributes"], "user_agent.original"), &json!({"stringValue": "me"}));
    let nanoseconds = |key: &str| shown[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanoseconds("startTimeUnixNano") <= nanoseconds("endTimeUnixNano"));
    let shown = (0..2).map(|_| {
        ask(&d, "/_ping", "");
        span(&messages, "/_ping").2
    });
    let shown: Vec<_> = shown.collect();
    assert!(shown.iter().all(|span| span.get("parentSpanId").is_none()));
    // What waits when it is told to stop is sent.
    ask(&d, "/info", "");
    d.stop();
    span(&messages, "/info");
    assert!(messages.try_iter().all(|(_, message)| !message.to_string().contains("unsampled")));
    assert!(!d.log().contains("WARN"), "{}", d.log());
}

#[test]
fn a_collector_that_does_not_answer_holds_nobody_up() {
    // It takes connections, and no more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "100"),
    ];
    let Some(mut d) = Daemon::start_in(&variables) else { return };
    let mut stream = UnixStream::connect(d.socket()).unwrap();
    for _ in 0..300 {
        write!(stream, "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\nOK") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
    }
    let lost = format!("spans were not taken by {address}/v1/traces, and are lost: it does not answer in time");
    d.eventually("that is said", || d.log().contains(&lost));
    d.stop();
    assert_eq!(d.log().matches("and are lost").count(), 1, "{}", d.log());
    // What cannot be had is said, and no reason not to start.
    drop(d);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let d = Daemon::start_in(&variables).unwrap();
    let words = "traces are not exported: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc': only http/json is known here";
    assert!(d.log().contains(words), "{}", d.log());
}
