//! Connections that become streams.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{Server, eventually, frame, rest};

const MULTIPLEXED: &str = "Content-Type: application/vnd.docker.multiplexed-stream\r\n";
const RAW: &str = "Content-Type: application/vnd.docker.raw-stream\r\n";

pub(crate) async fn attach(server: &Server) {
    let more = json!({ "OpenStdin": true, "StdinOnce": true });
    let id = server.create("attached", "wc -c; echo err >&2", more).await;
    let path = format!("/v1.51/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
    let (head, mut connection) = server.upgrade(&path, "").await;
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n") && head.contains(MULTIPLEXED), "{head}");
    assert!(head.contains("Connection: Upgrade\r\n") && head.contains("Upgrade: tcp\r\n"), "{head}");
    server.post(&format!("/containers/{id}/start"), &Value::Null).await.of(204);
    connection.write_all(&vec![b'x'; 300_000]).await.unwrap();
    // The end of the input, and not of the connection.
    connection.shutdown().await.unwrap();
    let out = rest(&mut connection).await;
    assert_eq!(out, [frame(1, "300000\n"), frame(2, "err\n")].concat(), "{:?}", String::from_utf8_lossy(&out));

    // What is in the log, for those who come later; older clients know one type of stream.
    let path = format!("/v1.41/containers/{id}/attach?logs=1&stdout=1");
    let (head, mut connection) = server.upgrade(&path, "").await;
    assert!(head.contains(RAW), "{head}");
    assert_eq!(rest(&mut connection).await, frame(1, "300000\n"));
    // Without an upgrade it is a body.
    let body = server.post(&format!("/v1.51/containers/{id}/attach?logs=1&stderr=1"), &Value::Null).await;
    assert_eq!((body.status, &body.body[..]), (200, &frame(2, "err\n")[..]));
    server.post("/containers/attached/wait", &Value::Null).await.of(200);
    server.delete("/containers/attached").await.of(204);

    let id =
        server.create("terminal", "stty size; read a; echo got $a", json!({ "OpenStdin": true, "Tty": true })).await;
    let (head, mut connection) =
        server.upgrade(&format!("/v1.51/containers/{id}/attach?stream=1&stdin=1&stdout=1"), "").await;
    assert!(head.contains(RAW), "{head}");
    server.post(&format!("/containers/{id}/start"), &Value::Null).await.of(204);
    server.post(&format!("/containers/{id}/resize?h=20&w=70"), &Value::Null).await;
    connection.write_all(b"me\n").await.unwrap();
    let out = String::from_utf8(rest(&mut connection).await).unwrap();
    assert!(out.ends_with("got me\r\n"), "{out:?}");
    server.post("/containers/terminal/wait", &Value::Null).await.of(200);
    server.delete("/containers/terminal").await.of(204);
}

async fn exec_create(server: &Server, config: Value) -> String {
    let made = server.post("/containers/execs/exec", &config).await;
    made.of(201)["Id"].as_str().unwrap().to_owned()
}

pub(crate) async fn exec(server: &Server) {
    server.run("execs", "sleep 100").await;
    let streams = json!({ "AttachStdin": true, "AttachStdout": true, "AttachStderr": true });
    let config = |cmd: Value| {
        let mut config = streams.clone();
        config["Cmd"] = cmd;
        config
    };
    let start = |id: &str| format!("/v1.51/exec/{id}/start");
    // Each time the code is known when the stream ends.
    for _ in 0..20 {
        let id = exec_create(server, config(json!(["sh", "-c", "cat; echo e >&2; exit 6"]))).await;
        let (head, mut connection) = server.upgrade(&start(&id), r#"{"Detach":false,"Tty":false}"#).await;
        assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n") && head.contains(MULTIPLEXED), "{head}");
        connection.write_all(b"in").await.unwrap();
        connection.shutdown().await.unwrap();
        assert_eq!(rest(&mut connection).await, [frame(1, "in"), frame(2, "e\n")].concat());
        let exec = server.get(&format!("/exec/{id}/json")).await.of(200);
        assert_eq!((&exec["ExitCode"], &exec["Running"]), (&json!(6), &json!(false)));
        assert_eq!(server.post(&start(&id), &json!({})).await.status, 409);
    }
    // What cannot be started says so in the stream.
    let id = exec_create(server, config(json!(["nosuch"]))).await;
    let (_, mut connection) = server.upgrade(&start(&id), "{}").await;
    let out = rest(&mut connection).await;
    assert!(out[0] == 1 && String::from_utf8_lossy(&out).contains("executable file not found in $PATH\r\n"));
    assert_eq!(server.get(&format!("/exec/{id}/json")).await.of(200)["ExitCode"], 127);

    for (wrong, message) in [
        (
            json!({ "Cmd": ["true"], "User": "nosuch" }),
            "unable to find user nosuch: no matching entries in passwd file",
        ),
        (json!({ "Cmd": "true" }), "cannot unmarshal string into Go struct field ExecOptions.Cmd of type []string"),
        (
            json!({ "Cmd": ["true"], "Tty": 1 }),
            "cannot unmarshal number into Go struct field ExecOptions.Tty of type bool",
        ),
    ] {
        let refused = server.post("/containers/execs/exec", &wrong).await;
        assert!(refused.status == 400 && refused.message().contains(message), "{}", refused.message());
    }
    // A client that reads late gets the head alone first.
    let id = exec_create(server, config(json!(["echo", "late"]))).await;
    let mut late = server.connect();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{{}}",
        start(&id)
    );
    late.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(40)).await;
    let mut first = vec![0; 8 << 10];
    let count = late.read(&mut first).await.unwrap();
    assert!(first[..count].ends_with(b"\r\n\r\n"), "{:?}", String::from_utf8_lossy(&first[..count]));
    assert_eq!(rest(&mut late).await, frame(1, "late\n"));

    let bad = server.post("/containers/execs/exec", &json!({ "Cmd": ["x"], "DetachKeys": "ctrl-9" })).await;
    assert_eq!(bad.of(400)["message"], "Invalid escape keys (ctrl-9) provided");
    assert_eq!(server.post("/containers/execs/resize?h=1&w=1", &Value::Null).await.status, 200);
    for (size, why) in [
        ("w=1", "invalid resize height \"\": invalid syntax"),
        ("h=1&w=x", "invalid resize width \"x\": invalid syntax"),
        ("h=-1&w=1", "invalid resize height \"-1\": value out of range"),
        ("h=1&w=4294967296", "invalid resize width \"4294967296\": value out of range"),
    ] {
        let refused = server.post(&format!("/containers/execs/resize?{size}"), &Value::Null).await;
        assert_eq!(refused.of(400)["message"], why);
    }
    let id = exec_create(server, json!({ "Cmd": ["true"] })).await;
    assert_eq!(server.post(&start(&id), &json!({ "Detach": true })).await.status, 200);
    eventually("the exec has ended", async || server.get(&format!("/exec/{id}/json")).await.of(200)["ExitCode"] == 0)
        .await;
    assert_eq!(server.post("/containers/execs/exec", &json!({})).await.of(400)["message"], "No exec command specified");
    assert_eq!(server.get("/exec/none/json").await.of(404)["message"], "No such exec instance: none");
    server.delete("/containers/execs?force=1").await.of(204);
}

pub(crate) async fn websocket(server: &Server) {
    // Before API 1.42 all streams were attached to, whatever was asked for.
    for (version, streams) in [("1.51", "stdin=1&stdout=1"), ("1.41", "stdout=0")] {
        websocket_of(server, version, streams).await;
    }
}

async fn websocket_of(server: &Server, version: &str, streams: &str) {
    let id = server.create("socket", "cat", json!({ "OpenStdin": true, "StdinOnce": true })).await;
    let path = format!("/v{version}/containers/{id}/attach/ws?stream=1&{streams}");
    let plain = server.get(&path).await;
    assert_eq!(plain.status, 400);
    let (head, mut connection) = server
        .raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    server.post(&format!("/containers/{id}/start"), &Value::Null).await.of(204);
    // `hello`, masked with zeros.
    connection.write_all(b"\x81\x85\0\0\0\0hello").await.unwrap();
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\x82\x05hello");
    connection.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    assert_eq!(rest(&mut connection).await, b"\x88\x02\x03\xe8");
    server.delete("/containers/socket?force=1").await.of(204);
}

pub(crate) async fn logs(server: &Server) {
    let id = server.run("logs", "echo one; echo two >&2").await;
    server.post(&format!("/containers/{id}/wait"), &Value::Null).await.of(200);
    let said = server.get(&format!("/v1.51/containers/{id}/logs?stdout=1&stderr=1")).await;
    assert_eq!(said.head["content-type"], "application/vnd.docker.multiplexed-stream");
    assert_eq!(said.body[..], [frame(1, "one\n"), frame(2, "two\n")].concat());
    let last = server.get(&format!("/containers/{id}/logs?stdout=1&stderr=1&tail=1&timestamps=1&follow=1")).await;
    let text = String::from_utf8_lossy(&last.body).into_owned();
    assert!(text.ends_with("Z two\n") && text.contains('T'), "{text}");
    let none = server.get(&format!("/containers/{id}/logs")).await;
    assert_eq!(none.of(400)["message"], "Bad parameters: you must choose at least one stream");
    assert_eq!(server.get(&format!("/containers/{id}/logs?stdout=1&since=soon")).await.status, 400);
    server.delete("/containers/logs?force=1").await.of(204);
}

/// What was begun for them ends, however silent it is.
pub(crate) async fn clients_that_have_gone(server: &Server) {
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let id = server.run("silent", "sleep 100").await;
    // A network namespace is made ahead for the next container, after this one has begun.
    let mut before = files();
    let mut steady = 0;
    while steady < 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        steady = if files() == before { steady + 1 } else { 0 };
        before = files();
    }
    let mut open = Vec::new();
    for path in [
        "/events".to_owned(),
        format!("/containers/{id}/logs?stdout=1&follow=1"),
        format!("/containers/{id}/stats?stream=1"),
    ] {
        open.push(server.raw(&format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n")).await.1);
    }
    open.push(server.raw(&format!("POST /containers/{id}/wait HTTP/1.1\r\nHost: d\r\n\r\n")).await.1);
    open.push(server.upgrade(&format!("/containers/{id}/attach?stream=1&stdout=1"), "").await.1);
    open.push(
        server.raw(&format!("POST /containers/{id}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")).await.1,
    );
    assert!(files() > before + 6 && server.engine.events().listeners() == 1);
    drop(open);
    eventually("nobody listens to events", async || server.engine.events().listeners() == 0).await;
    eventually("their files are closed", async || files() <= before).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.delete("/containers/silent?force=1").await.of(204);
}
