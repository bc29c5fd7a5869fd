//! What is not about containers.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::kit::{Server, rest};

pub(crate) async fn answers(server: &Server) {
    for method in ["GET", "HEAD"] {
        let ping = server.ask(method, "/_ping", "").await;
        assert_eq!((ping.status, &ping.body[..]), (200, if method == "GET" { &b"OK"[..] } else { b"" }));
        for (name, value) in [
            ("api-version", "1.56"),
            ("builder-version", "2"),
            ("docker-experimental", "false"),
            ("ostype", "linux"),
            ("swarm", "inactive"),
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("content-type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(ping.head.get(name).map(|v| v.to_str().unwrap()), Some(value), "{name}");
        }
    }
    let (head, _) = server.raw("GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nApi-Version: 1.56\r\n"), "{head}");

    // A client that has ended its input still waits for the answer.
    for path in ["/_ping", "/info", "/system/df"] {
        let mut connection = server.connect();
        connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        assert!(rest(&mut connection).await.starts_with(b"HTTP/1.1 200 OK\r\n"), "{path}");
    }

    let new = server.get("/v1.99/info").await;
    assert_eq!(new.of(400)["message"], "client version 1.99 is too new. Maximum supported API version is 1.56");
    let old = server.get("/v1.23/info").await;
    assert_eq!(old.status, 400);
    assert!(old.body.starts_with(b"client version 1.23 is too old. Minimum"));
    for path in ["/nonsense", "/v1.51/nonsense/x", "/containers/x/nonsense", "/"] {
        assert_eq!(server.get(path).await.of(404), json!({ "message": "page not found" }), "{path}");
    }
    for path in ["/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/nodes/x"] {
        let said = server.get(path).await;
        assert!(said.status == 503 && said.message().starts_with("This node is not a swarm manager."), "{path}");
    }
    assert_eq!(server.get("/plugins").await.of(200), json!([]));
    for path in ["/grpc", "/session"] {
        assert!(
            server.post(path, &json!(null)).await.of(400)["message"].to_string().contains("Upgrade: h2c"),
            "{path}"
        );
    }
    let info = server.get("/v1.51/info").await.of(200);
    assert_eq!((&info["OSType"], &info["Swarm"]["LocalNodeState"]), (&json!("linux"), &json!("inactive")));
    assert_eq!(server.get("/version").await.of(200)["MinAPIVersion"], "1.24");

    // Paths, methods and bodies as Go's server takes them.
    let moved = server.get("//version?x=1").await;
    assert_eq!((moved.status, moved.head["location"].to_str().unwrap()), (301, "/version?x=1"));
    assert_eq!(server.ask("OPTIONS", "/containers/json", "").await.status, 200);
    let typed = |kind: &str| {
        let body = r#"{"name":"lower","LABELS":{"Name":"x"}} and more"#;
        let head = format!("POST /volumes/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{kind}");
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut connection = server.raw(&typed("Content-Type: text/plain\r\n")).await.1;
    let said = String::from_utf8(rest(&mut connection).await).unwrap();
    assert!(said.contains("unsupported Content-Type header (text/plain): must be 'application/json'"), "{said}");
    let mut connection = server.raw(&typed("Content-Type: application/json\r\n")).await.1;
    let said = String::from_utf8(rest(&mut connection).await).unwrap();
    assert!(said.contains("unexpected content after JSON"), "{said}");
    // Names of fields in any letters, as Go reads them.
    let body = r#"{"name":"lower","LABELS":{"Name":"x"}}"#;
    let head = "POST /volumes/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut connection = server.raw(&request).await.1;
    let said = String::from_utf8(rest(&mut connection).await).unwrap();
    assert!(said.contains(r#""Name":"lower""#) && said.contains(r#""Labels":{"Name":"x"}"#), "{said}");
    server.delete("/volumes/lower").await.of(204);
    assert_eq!(server.get("/networks/bridge?scope=swarm").await.of(404)["message"], "network bridge not found");
    assert_eq!(
        server.get("/events?since=10&until=5").await.of(400)["message"],
        "`since` time (10) cannot be after `until` time (5)"
    );

    // What is no JSON, or too much of it.
    assert_eq!(server.ask("POST", "/containers/create", "{x").await.status, 400);
    let much = server.ask("POST", "/containers/create", vec![b' '; 5 << 20]).await;
    assert!(much.status == 400 && much.message().contains("too large"));
    assert!(server.ask("POST", "/volumes/create", "[".repeat(100_000)).await.message().contains("recursion"));

    let volume = json!({ "Name": "vol", "Labels": { "k": "v" } });
    assert_eq!(server.post("/volumes/create", &volume).await.of(201)["Driver"], "local");
    let filtered = server.get("/volumes?filters=%7B%22label%22%3A%7B%22k%3Dv%22%3Atrue%7D%7D").await.of(200);
    assert_eq!(filtered["Volumes"][0]["Name"], "vol");
    assert_eq!(server.get("/volumes/none").await.of(404)["message"], "get none: no such volume");
    let pruned = server.post("/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", &json!(null)).await.of(200);
    assert_eq!(pruned["VolumesDeleted"], json!(["vol"]));
    assert_eq!(server.post("/networks/prune", &json!(null)).await.of(200), json!({ "NetworksDeleted": null }));
    let usage = server.get("/v1.56/system/df?type=image").await.of(200);
    assert!(usage["ImageUsage"]["TotalSize"].as_u64() > Some(0) && usage["ImageUsage"].get("Items").is_none());
    assert!(usage.get("LayersSize").is_none() && usage.get("ContainerUsage").is_none());
    let usage = server.get("/v1.52/system/df?verbose=1").await.of(200);
    assert!(usage["ImageUsage"]["Items"].is_array() && usage.get("Images").is_none());
    let usage = server.get("/v1.51/system/df?type=image").await.of(200);
    assert!(usage["LayersSize"].as_u64() > Some(0) && usage["Containers"].is_null());
    assert_eq!(server.get("/system/df?type=x").await.status, 400);
}
