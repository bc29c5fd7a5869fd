//! The client against an engine that says exactly what a test wants.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use wharf_client::{Address, Body, Client, ClientError};

/// One request: its head, and its body when the head says how long it is.
async fn read_request(stream: &mut UnixStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk).await? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
    };
    let mut body = bytes.split_off(head_end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.parse().ok());
    while length.is_some_and(|length: usize| body.len() < length) {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).await?;
        body.extend_from_slice(&chunk[..count]);
    }
    Ok(Some((head, body)))
}

/// An engine that gives the answers in their order; each connection goes on until it is closed. Gives the requests' first
/// lines and bodies at its end.
fn engine(answers: Vec<&'static str>) -> (tempfile::TempDir, Client, tokio::task::JoinHandle<Vec<String>>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("engine.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        let mut answers = answers.into_iter();
        let mut connection = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            connection += 1;
            while let Ok(Some((head, body))) = read_request(&mut stream).await {
                let first = head.lines().next().unwrap_or_default();
                seen.push(format!("{connection} {first} {}", String::from_utf8_lossy(&body)).trim_end().to_owned());
                let Some(answer) = answers.next() else { return seen };
                stream.write_all(answer.as_bytes()).await.expect("answers");
                if answer.contains("101") {
                    // From here on an echo, until the other side's end of input; then a farewell.
                    let mut input = Vec::new();
                    stream.read_to_end(&mut input).await.expect("reads");
                    stream.write_all(&input).await.expect("writes");
                    stream.write_all(b"bye").await.expect("writes");
                    break;
                }
                if answers.len() == 0 {
                    return seen;
                }
                if answer.contains("connection: close") {
                    break;
                }
            }
            if answers.len() == 0 {
                return seen;
            }
        }
        seen
    });
    let client = Client::new(Address::Unix(path), None).expect("a client");
    (dir, client, task)
}

const PING: &str = "HTTP/1.1 200 OK\r\napi-version: 1.47\r\nbuilder-version: 1\r\nostype: linux\r\n\
    docker-experimental: false\r\ncontent-length: 2\r\n\r\n";

#[tokio::test]
async fn the_version_is_negotiated_and_connections_are_used_again() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
    let (_dir, client, engine) = engine(vec![PING, ok, ok]);
    assert_eq!(client.version(), wharf_client::MAX_API_VERSION);
    assert_eq!(client.negotiate().await.unwrap().api_version, "1.47");
    assert!(client.at_least("1.44") && !client.at_least("1.48"));
    let answer: serde_json::Value =
        client.get("/x y").query("b", "2 3").query("a", 1).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["a"], 1);
    let request = client.post("/z").json(&serde_json::json!({"k": "v"})).unwrap();
    request.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(
        engine.await.unwrap(),
        ["1 HEAD /_ping HTTP/1.1", "1 GET /v1.47/x%20y?a=1&b=2+3 HTTP/1.1", "1 POST /v1.47/z HTTP/1.1 {\"k\":\"v\"}"]
    );
}

#[tokio::test]
async fn errors_are_the_engines_words() {
    let (_dir, client, _engine) = engine(vec![
        "HTTP/1.1 404 Not Found\r\ncontent-length: 34\r\n\r\n{\"message\":\"No such container: x\"}",
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\nbad!\n",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    ]);
    let failed = client.get("/a").send().await.unwrap_err();
    assert!(failed.is_not_found());
    assert_eq!(failed.to_string(), "Error response from daemon: No such container: x");
    let failed = client.get("/b").send().await.unwrap_err();
    assert_eq!(failed.to_string(), "Error response from daemon: bad!");
    let failed = client.get("/c").send().await.unwrap_err().to_string();
    assert!(failed.starts_with("request returned Not Found for API route and version http://"), "{failed}");
    assert_eq!(client.post("/d").send().await.unwrap().status, 304);
}

#[tokio::test]
async fn nobody_there() {
    let client = Client::new(Address::Unix("/nonexistent/x.sock".into()), None).unwrap();
    let failed = client.negotiate().await.unwrap_err();
    assert!(failed.is_unreachable());
    assert_eq!(
        failed.to_string(),
        "Cannot connect to the Docker daemon at unix:///nonexistent/x.sock. Is the docker daemon running?"
    );
}

#[tokio::test]
async fn a_hijacked_connection_can_be_closed_in_one_direction() {
    let upgraded = "HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\
        content-type: application/vnd.docker.multiplexed-stream\r\n\r\nearly,";
    let (_dir, client, engine) = engine(vec![upgraded]);
    let mut stream = client.post("/attach").hijack().await.unwrap();
    assert_eq!(stream.multiplexed(), Some(true));
    stream.write_all(b"hello,").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut output = String::new();
    stream.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "early,hello,bye");
    assert!(engine.await.unwrap()[0].starts_with("1 POST /v1.51/attach HTTP/1.1"));
}

#[tokio::test]
async fn a_refused_hijack_is_an_error() {
    let (_dir, client, _engine) =
        engine(vec!["HTTP/1.1 409 Conflict\r\ncontent-length: 21\r\n\r\n{\"message\":\"not now\"}"]);
    let failed = client.post("/attach").hijack().await.unwrap_err();
    assert_eq!(failed.to_string(), "Error response from daemon: not now");
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n{\"a\":1\r\n7\r\n}{\"a\":2\r\n2\r\n}\n\r\n0\r\n\r\n";
    let (_dir, client, engine) = engine(vec![chunked]);
    let (sender, body) = Body::channel();
    let writer = tokio::spawn(async move {
        for word in ["one", "two"] {
            sender.send(Bytes::from(word)).await.unwrap();
        }
    });
    let response = client.post("/build").body("application/x-tar", body).send().await.unwrap();
    writer.await.unwrap();
    let mut seen = Vec::new();
    response
        .for_each_json(|value| {
            seen.push(value["a"].as_i64());
            Ok::<(), ClientError>(())
        })
        .await
        .unwrap();
    assert_eq!(seen, [Some(1), Some(2)]);
    let requests = engine.await.unwrap();
    assert!(requests[0].contains("one") || requests[0].starts_with("1 POST /v1.51/build"), "{requests:?}");
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_is_replaced() {
    let closing = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (_dir, client, engine) = engine(vec![closing, ok]);
    client.get("/a").send().await.unwrap().bytes().await.unwrap();
    client.get("/b").send().await.unwrap().bytes().await.unwrap();
    assert_eq!(engine.await.unwrap(), ["1 GET /v1.51/a HTTP/1.1", "2 GET /v1.51/b HTTP/1.1"]);
}
