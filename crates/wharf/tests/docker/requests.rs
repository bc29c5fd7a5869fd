//! Requests that no command line sends so: bodies by the letter, and those of older versions.

use serde_json::{Value, json};

use crate::kit::{Daemon, Said};

/// Who replaces the entrypoint does not mean its arguments, and who says nothing means the container's.
#[test]
fn a_commit_s_body_is_joined_with_the_container() {
    let Some(d) = Daemon::start() else { return };
    d.docker("create --name made -e E=1 -e KEPT=1 busybox sleep 100").ok();
    let commit = |body: Value| {
        let (status, said) = d.post("/commit?container=made", &body.to_string(), true).unwrap();
        assert_eq!(status, 201, "{said}");
        let id = serde_json::from_str::<Value>(&said).unwrap()["Id"].as_str().unwrap().to_owned();
        let config = d.get(&format!("/images/{id}/json"))["Config"].clone();
        (config["Entrypoint"].clone(), config["Cmd"].clone(), config["Env"].clone())
    };
    let (entrypoint, cmd, _) = commit(json!({ "Entrypoint": ["e"] }));
    assert_eq!((entrypoint, cmd), (json!(["e"]), json!(null)));
    for nothing in [json!({ "Cmd": [] }), json!({ "Entrypoint": [] }), json!({})] {
        let (entrypoint, cmd, _) = commit(nothing);
        assert_eq!((entrypoint, cmd), (json!(null), json!(["sleep", "100"])));
    }
    let (_, cmd, env) = commit(json!({ "Cmd": ["x"], "Env": ["E=2", "F=3"] }));
    assert_eq!((cmd, &env[0], &env[1]), (json!(["x"]), &json!("E=2"), &json!("F=3")));
    assert!(env.as_array().unwrap().contains(&json!("KEPT=1")) && !env.as_array().unwrap().contains(&json!("E=1")));
}

#[test]
fn shapes_are_whole_and_older_clients_get_theirs() {
    let Some(d) = Daemon::start() else { return };
    let request = json!({ "Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]] });
    let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "DeviceRequests": [request] } });
    d.post("/containers/create?name=asks", &body.to_string(), true).unwrap();
    let shown = &d.get("/containers/asks/json")["HostConfig"]["DeviceRequests"][0];
    let mut whole = request.clone();
    (whole["DeviceIDs"], whole["Options"]) = (Value::Null, Value::Null);
    assert_eq!(shown, &whole);
    d.docker("network create own").ok();
    d.docker("run -d --name on --network own busybox sleep 1000").ok();
    let id = d.docker("inspect -f {{.Id}} on").ok();
    let own = |version: &str| {
        let all = d.get(&format!("{version}/networks"));
        all.as_array().unwrap().iter().find(|network| network["Name"] == "own").unwrap()["Containers"].clone()
    };
    assert_eq!(own("/v1.27")[&id]["Name"], "on");
    assert_eq!(own("/v1.28"), json!({}));
    let one = d.get("/containers/on/stats?stream=&one-shot=1");
    assert!(one["cpu_stats"].is_object(), "what is empty is false: {one}");
}

/// A signal that is meant to end a container ends it for good; one that is not leaves it what it is.
#[test]
fn an_interrupted_container_stays_ended() {
    let Some(d) = Daemon::start() else { return };
    let script = "trap 'exit 3' INT QUIT HUP; echo ready; while :; do sleep 0.05; done";
    for (signal, ends) in [("INT", true), ("QUIT", true), ("HUP", false)] {
        let name = format!("on{signal}");
        let words = ["run", "-d", "--restart", "always", "--name", &name, "busybox", "sh", "-c", script];
        Said::from(d.client().args(words).output().unwrap()).ok();
        d.eventually("it listens", || d.docker(&format!("logs {name}")).ok().contains("ready"));
        d.docker(&format!("kill -s {signal} {name}")).ok();
        d.eventually("it has gone, or begun again", || {
            let all = d.get(&format!("/containers/{name}/json"));
            if ends { all["State"]["Status"] == "exited" } else { all["RestartCount"] == 1 }
        });
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(d.docker("ps -q --filter name=onINT --filter name=onQUIT").ok(), "");
}

/// All mounts are looked at before a volume is made for one of them.
#[test]
fn a_refused_container_leaves_no_named_volume() {
    let Some(d) = Daemon::start() else { return };
    let mounts = json!([
        { "Type": "volume", "Source": "left", "Target": "/q" },
        { "Type": "bind", "Source": "/nonexistent-here", "Target": "/w" },
    ]);
    let request = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "Mounts": mounts } });
    let (status, said) = d.post("/containers/create", &request.to_string(), true).unwrap();
    assert!(status == 400 && said.contains("bind source path does not exist: /nonexistent-here"), "{said}");
    assert_eq!(d.docker("volume ls -q").ok(), "");
    let old = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "Mounts": [
        { "Type": "volume", "Source": "whole", "Target": "/q", "VolumeOptions": { "Subpath": "part" } },
    ] } });
    let (status, said) = d.post("/v1.44/containers/create", &old.to_string(), true).unwrap();
    assert!(status == 400 && said.contains("VolumeOptions.Subpath needs API v1.45 or newer"), "{said}");
    let devices = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "DeviceRequests": ["a"] } });
    assert_eq!(d.post("/containers/create", &devices.to_string(), true).unwrap().0, 400);
    let cluster = json!({ "Name": "far", "ClusterVolumeSpec": {} }).to_string();
    let (status, said) = d.post("/volumes/create", &cluster, true).unwrap();
    assert!(status == 503 && said.contains("not a swarm manager"), "{said}");
    let (status, said) = d.post("/images/create?fromImage=scratch&tag=latest", "", true).unwrap();
    assert!(status == 403 && said.contains("'scratch' is a reserved name"), "{said}");
}
