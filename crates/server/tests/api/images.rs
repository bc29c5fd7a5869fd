//! Images and builds.

use serde_json::{Value, json};

use crate::kit::Server;

pub(crate) async fn images(server: &Server) {
    let list = server.get("/v1.51/images/json").await.of(200);
    assert_eq!((&list[0]["RepoTags"], &list[0]["Containers"]), (&json!(["busybox:latest"]), &json!(0)));
    assert_eq!(server.get("/v1.43/images/json").await.of(200)[0]["VirtualSize"], list[0]["Size"]);
    let id = list[0]["Id"].as_str().unwrap().to_owned();
    // Names have slashes, also coded ones.
    assert_eq!(server.post("/images/busybox/tag?repo=some.where/a/b&tag=1", &Value::Null).await.status, 201);
    for name in ["some.where/a/b:1", "some.where%2Fa%2Fb:1", &id] {
        assert_eq!(server.get(&format!("/images/{name}/json")).await.of(200)["Id"], id.as_str(), "{name}");
    }
    let history = server.get("/images/some.where/a/b:1/history").await.of(200);
    assert_eq!(history[0]["Id"], id.as_str());
    let found = server.get("/images/json?filters=%7B%22reference%22%3A%5B%22some.where/*/b%22%5D%7D").await.of(200);
    assert_eq!(found[0]["RepoTags"], json!(["some.where/a/b:1"]));

    let saved = server.get("/images/some.where/a/b:1/get").await;
    assert_eq!(saved.head["content-type"], "application/x-tar");
    let removed = server.delete("/images/some.where/a/b:1").await.of(200);
    assert_eq!(removed, json!([{ "Untagged": "some.where/a/b:1" }]));
    let loaded = server.ask("POST", "/images/load", saved.body).await;
    let last = loaded.lines().pop().unwrap();
    assert_eq!(last["stream"], "Loaded image: some.where/a/b:1\n");
    server.delete("/images/some.where/a/b:1?noprune=1").await.of(200);
    // Clients look for the failure in the stream.
    let junk = server.ask("POST", "/images/load", vec![7; 2000]).await;
    assert_eq!(junk.status, 200);
    assert!(junk.lines()[0]["errorDetail"]["message"].is_string(), "{:?}", junk.body);
    assert_eq!(
        server.get("/images/get?names=busybox&names=none").await.of(404)["message"],
        "No such image: none:latest"
    );
    assert_eq!(server.get("/images/none:1/json").await.of(404)["message"], "No such image: none:1");
    assert_eq!(server.delete("/images/none:1").await.status, 404);

    // A registry that is not there: said by a status, as nothing has been said yet.
    let pulled = server.post("/images/create?fromImage=127.0.0.1:1/x&tag=1", &Value::Null).await;
    assert!(pulled.status >= 400 && !pulled.message().is_empty());
    // And after the first message in the stream.
    assert_eq!(server.post("/images/busybox/tag?repo=127.0.0.1:1/x", &Value::Null).await.status, 201);
    let pushed = server.post("/images/127.0.0.1:1/x/push", &Value::Null).await;
    assert_eq!(pushed.status, 200);
    let lines = pushed.lines();
    assert!(lines[0]["status"].as_str().unwrap().starts_with("The push refers to repository [127.0.0.1:1/x]"));
    let last = lines.last().unwrap();
    assert!(last["errorDetail"]["message"].is_string() && last["error"] == last["errorDetail"]["message"], "{last}");
    server.delete("/images/127.0.0.1:1/x:latest").await.of(200);

    let made = server.create("base", "echo x", Value::Null).await;
    let path = format!("/commit?container={made}&repo=made&tag=1&author=me&changes=ENV+A%3D1&changes=USER+web");
    let committed = server.post(&path, &Value::Null).await.of(201);
    let image = server.get("/images/made:1/json").await.of(200);
    assert_eq!(
        (&image["Id"], &image["Author"], &image["Config"]["User"]),
        (&committed["Id"], &json!("me"), &json!("web"))
    );
    assert_eq!(server.post("/commit?container=base&changes=RUN+x", &Value::Null).await.status, 400);
    server.delete("/images/made:1").await.of(200);
    server.delete("/containers/base").await.of(204);
    // The manifest of the push that failed goes with the first, and then there is nothing.
    let pruned = server.post("/images/prune", &Value::Null).await.of(200);
    assert!(pruned["ImagesDeleted"].is_null() && pruned["SpaceReclaimed"].as_u64().unwrap() > 0, "{pruned}");
    let pruned = server.post("/images/prune", &Value::Null).await.of(200);
    assert_eq!(pruned, json!({ "ImagesDeleted": null, "SpaceReclaimed": 0 }));
}

/// A context that is a Dockerfile only.
fn context(text: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), text).unwrap();
    let output = std::process::Command::new("tar").arg("-c").arg("-C").arg(dir.path()).arg("Dockerfile").output();
    output.unwrap().stdout
}

pub(crate) async fn builds(server: &Server) {
    let built =
        server.ask("POST", "/build?t=built:1&labels=%7B%22k%22%3A%22v%22%7D", context("FROM busybox\nCMD ls\n")).await;
    assert_eq!(built.status, 200, "{:?}", built.body);
    let lines = built.lines();
    assert!(lines[0]["stream"].as_str().unwrap().starts_with("Step 1/"), "{lines:?}");
    assert!(lines.iter().any(|line| line["aux"]["ID"].as_str().is_some_and(|id| id.starts_with("sha256:"))));
    assert!(lines.iter().any(|line| line["stream"] == "Successfully tagged built:1\n"), "{lines:?}");
    let image = server.get("/images/built:1/json").await.of(200);
    assert_eq!(image["Config"]["Labels"], json!({ "k": "v" }));
    let quiet = server.ask("POST", "/build?q=1", context("FROM busybox\n")).await.lines();
    assert!(
        quiet.len() <= 2 && quiet.iter().any(|line| line["stream"].as_str().is_some_and(|t| t.contains("sha256:")))
    );

    let nowhere = server.ask("POST", "/build?platform=foobar", context("FROM busybox\n")).await;
    let message = nowhere.of(400)["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("unknown operating system or architecture"), "{message}");
    let failed = server.ask("POST", "/build", context("FROM busybox\nRUN exit 42\n")).await;
    let last = failed.lines().pop().unwrap();
    let message = "The command '/bin/sh -c exit 42' returned a non-zero code: 42";
    assert_eq!(last, json!({ "errorDetail": { "code": 42, "message": message }, "error": message }));
    // What never ran has no code.
    let absent = server.ask("POST", "/build", context("FROM busybox\nRUN [\"/none\"]\n")).await;
    let last = absent.lines().pop().unwrap();
    assert!(last["errorDetail"]["code"].is_null() && last["error"].as_str().unwrap().contains("/none"), "{last}");
    let taken = "/build?q=1&rm=1&forcerm=1&cachefrom=%5B%22a%22%5D&cgroupparent=";
    assert_eq!(server.ask("POST", taken, context("FROM busybox\n")).await.status, 200);
    for (query, words) in [
        ("annotations=%5B%22x%22%5D", "key=value"),
        ("cachefrom=x", "cachefrom"),
        ("cgroupparent=/a/../..", "cgroup-parent"),
    ] {
        let refused = server.ask("POST", &format!("/build?{query}"), context("FROM busybox\n")).await;
        assert!(refused.status == 400 && refused.message().contains(words), "{query}: {:?}", refused.body);
    }
    let broken = server.ask("POST", "/build", context("NONSENSE\n")).await;
    assert!(broken.status == 400 || broken.lines().pop().unwrap()["error"].is_string(), "{:?}", broken.body);
    let new = server.post("/build?version=2&remote=upload-request", &Value::Null).await;
    assert!(new.status == 400 && new.message().contains("POST /session"));
    server.delete("/images/built:1").await.of(200);
    let pruned = server.post("/build/prune?all=1", &Value::Null).await.of(200);
    assert!(pruned.get("CachesDeleted").is_some());
    server.post("/images/prune", &Value::Null).await.of(200);
}
