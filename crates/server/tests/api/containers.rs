//! A container's life, as clients see it.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::kit::{Server, rest};

fn query(filters: &Value) -> String {
    filters.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect()
}

pub(crate) async fn life(server: &Server) {
    let more = json!({
        "Labels": { "purpose": "test" }, "Env": null, "ExposedPorts": { "80/tcp": {} },
        "HostConfig": { "PortBindings": { "81/tcp": null }, "Memory": null },
    });
    let null = json!({ "Image": "busybox", "NetworkingConfig": { "EndpointsConfig": { "bridge": null } } });
    let refused = server.post("/containers/create", &null).await;
    assert_eq!(refused.of(400)["message"], "invalid config for network bridge: EndpointsConfig is nil");
    let id = server.create("life", "exit 3", more).await;
    let all = server.get("/containers/json").await.of(200);
    assert_eq!(all, json!([]), "one that does not run is not shown");
    for filters in [json!({ "name": ["^/life$"] }), json!({ "label": { "purpose=test": true } }), json!({ "id": [id] })]
    {
        let found = server.get(&format!("/containers/json?all=1&filters={}", query(&filters))).await.of(200);
        assert_eq!(found[0]["Id"], id.as_str(), "{filters}");
    }
    let bad = server.get(&format!("/containers/json?filters={}", query(&json!({ "status": ["well"] })))).await;
    let words = "invalid filter 'status=well': invalid value for state (well): must be one of created, running";
    assert!(bad.of(400)["message"].as_str().unwrap().starts_with(words));
    let again = server.post("/containers/create?name=life", &json!({ "Image": "busybox", "Cmd": "true" })).await;
    assert!(again.status == 409 && again.message().starts_with("Conflict. The container name \"/life\""));
    let missing = server.post("/containers/create", &json!({ "Image": "none:1" })).await;
    assert_eq!(missing.of(404)["message"], "No such image: none:1");

    let start = format!("/containers/{id}/start");
    server.post(&start, &Value::Null).await.of(204);
    let exit = server.post(&format!("/v1.51/containers/{}/wait", &id[..12]), &Value::Null).await.of(200);
    assert_eq!(exit, json!({ "StatusCode": 3 }));
    assert_eq!(server.post("/containers/life/stop", &Value::Null).await.status, 304);
    let inspected = server.get("/containers/life/json?size=1").await.of(200);
    assert_eq!((&inspected["State"]["Status"], &inspected["State"]["ExitCode"]), (&json!("exited"), &json!(3)));
    assert!(inspected["SizeRootFs"].as_u64() > Some(100_000) && inspected["Image"].as_str().is_some());
    let line = &server.get("/containers/json?all=1").await.of(200)[0];
    assert_eq!((&line["Command"], &line["State"]), (&json!("sh -c 'exit 3'"), &json!("exited")));
    assert!(line["Status"].as_str().unwrap().starts_with("Exited (3) "), "{line}");

    let id = server.run("runs", "sleep 100").await;
    assert_eq!(server.post("/containers/runs/start", &Value::Null).await.status, 304);
    assert_eq!(server.delete("/containers/runs").await.status, 409);
    assert_eq!(server.post("/containers/runs/rename?name=life", &Value::Null).await.status, 409);
    assert_eq!(server.post("/containers/runs/stop?t=x", &Value::Null).await.status, 400);
    let top = server.get("/containers/runs/top").await.of(200);
    assert!(top["Titles"].as_array().unwrap().contains(&json!("PID")));
    let stats = server.get("/containers/runs/stats?stream=0&one-shot=1").await.of(200);
    assert_eq!(stats["name"], "/runs");
    server.post("/containers/runs/kill", &Value::Null).await.of(204);
    let exit = server.post(&format!("/containers/{id}/wait"), &Value::Null).await.of(200);
    assert_eq!(exit, json!({ "StatusCode": 137 }));
    server.delete("/containers/runs?v=1").await.of(204);
    for (method, path) in [("GET", "json"), ("POST", "start"), ("POST", "wait"), ("GET", "logs?stdout=1")] {
        let said = server.ask(method, &format!("/containers/runs/{path}"), "").await;
        assert_eq!(said.of(404)["message"], "No such container: runs", "{path}");
    }
    // As Docker says it where streams are asked for.
    let said = server.post("/containers/runs/attach", &Value::Null).await;
    assert_eq!((said.status, &said.body[..]), (404, &b"No such container: runs\r\n"[..]));
    let pruned = server.post("/containers/prune", &Value::Null).await.of(200);
    assert_eq!(pruned["ContainersDeleted"].as_array().unwrap().len(), 1);
    let nothing = server.post("/containers/prune", &Value::Null).await.of(200);
    assert_eq!(nothing, json!({ "ContainersDeleted": null, "SpaceReclaimed": 0 }));
}

/// Clients open the wait, and start the container when they see its head.
pub(crate) async fn wait_answers_at_once(server: &Server) {
    let id = server.create("waits", "exit 5", Value::Null).await;
    let (head, mut connection) =
        server.raw(&format!("POST /v1.51/containers/{id}/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Type: application/json\r\n"), "{head}");
    let mut byte = [0];
    let silent = tokio::time::timeout(Duration::from_millis(100), connection.read(&mut byte)).await;
    assert!(silent.is_err(), "nothing has ended yet");
    server.post(&format!("/containers/{id}/start"), &Value::Null).await.of(204);
    let mut body = String::new();
    while !body.contains("\"StatusCode\":5") {
        let mut chunk = [0; 256];
        let count = tokio::time::timeout(Duration::from_secs(10), connection.read(&mut chunk)).await.unwrap().unwrap();
        assert!(count > 0, "{body}");
        body.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    assert_eq!(server.post("/containers/waits/wait?condition=soon", &Value::Null).await.status, 400);
    server.delete("/containers/waits").await.of(204);
}

pub(crate) async fn files(server: &Server) {
    let id = server.run("files", "echo own > /tmp/own; sleep 100").await;
    let head = server.ask("HEAD", "/containers/files/archive?path=/etc/passwd", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let stat = base64::engine::general_purpose::STANDARD.decode(&head.head["x-docker-container-path-stat"]).unwrap();
    let stat: Value = serde_json::from_slice(&stat).unwrap();
    assert_eq!((&stat["name"], &stat["size"]), (&json!("passwd"), &json!(30)));
    let archive = server.get("/containers/files/archive?path=/etc/passwd").await;
    assert_eq!(archive.head["content-type"], "application/x-tar");
    assert!(archive.head.contains_key("x-docker-container-path-stat"));
    let put = server.ask("PUT", "/containers/files/archive?path=/tmp", archive.body).await;
    assert_eq!(put.status, 200, "{:?}", put.body);
    let missing = server.get("/containers/files/archive?path=/none").await;
    assert_eq!(missing.of(404)["message"], "Could not find the file /none in container files");
    assert_eq!(server.ask("PUT", "/containers/files/archive?path=/none", "").await.status, 404);
    let changes = server.get(&format!("/containers/{id}/changes")).await.of(200);
    assert!(changes.as_array().unwrap().contains(&json!({ "Path": "/tmp/passwd", "Kind": 1 })), "{changes}");
    let (head, mut connection) = server.raw("GET /containers/files/export HTTP/1.0\r\nHost: d\r\n\r\n").await;
    assert!(head.contains("application/x-tar"));
    assert!(rest(&mut connection).await.len() > 100_000);
    server.delete("/containers/files?force=1").await.of(204);
}
