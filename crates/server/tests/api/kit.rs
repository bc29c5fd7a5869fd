//! A server of the test's own, and a client that sees every byte.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use wharf_build::{Builder, BuilderOptions, Offline};
use wharf_engine::etc::ResolvConf;
use wharf_engine::spec::LogConfig;
use wharf_engine::{Engine, EngineOptions, Parts, RemoveOptions};
use wharf_image::Images;
use wharf_monitor::Spawner;
use wharf_network::{NetworkOptions, Networks};
use wharf_server::Api;
use wharf_snapshot::Layers;
use wharf_store::Store;
use wharf_volume::Volumes;

#[derive(Clone)]
pub(crate) struct Server {
    api: Api,
    pub(crate) engine: Engine,
}

/// An answer that has come whole.
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) head: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Said {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    /// The JSON of an answer with this status.
    #[track_caller]
    pub(crate) fn of(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        serde_json::Deserializer::from_slice(&self.body).into_iter().map(Result::unwrap).collect()
    }
}

impl Server {
    /// A connection that is served.
    pub(crate) fn connect(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(wharf_server::serve_connection(theirs, self.api.clone()));
        ours
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> hyper::Response<Incoming> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(self.connect())).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Said {
        let body: Bytes = body.into();
        let is_archive = ["fromSrc=", "/archive", "/build", "/load"].iter().any(|part| path.contains(part));
        let kind = if is_archive { "application/x-tar" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("Host", "d");
        let request = if body.is_empty() { request } else { request.header("Content-Type", kind) };
        let answer = self.send(request.body(Full::new(body)).unwrap()).await;
        let (parts, body) = answer.into_parts();
        let body = tokio::time::timeout(Duration::from_secs(60), body.collect()).await.unwrap().unwrap().to_bytes();
        Said { status: parts.status.as_u16(), head: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Said {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask("POST", path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Said {
        self.ask("DELETE", path, "").await
    }

    /// Makes a container of this script.
    pub(crate) async fn create(&self, name: &str, script: &str, more: Value) -> String {
        let mut config = serde_json::json!({ "Image": "busybox", "Cmd": ["sh", "-c", script] });
        if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
            config.extend(more);
        }
        let made = self.post(&format!("/containers/create?name={name}"), &config).await;
        made.of(201)["Id"].as_str().unwrap().to_owned()
    }

    /// Makes one and starts it.
    pub(crate) async fn run(&self, name: &str, script: &str) -> String {
        let id = self.create(name, script, Value::Null).await;
        self.post(&format!("/containers/{id}/start"), &Value::Null).await.of(204);
        id
    }

    /// Sends a request's head and body as they are; the answer's head comes back, the connection goes on.
    pub(crate) async fn raw(&self, text: &str) -> (String, UnixStream) {
        let mut connection = self.connect();
        connection.write_all(text.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = tokio::time::timeout(Duration::from_secs(10), connection.read_u8()).await;
            head.push(byte.expect("a head").expect("a whole head"));
        }
        (String::from_utf8(head).unwrap(), connection)
    }

    /// Opens a stream by an upgrade.
    pub(crate) async fn upgrade(&self, path: &str, body: &str) -> (String, UnixStream) {
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }
}

/// All that comes until the end.
pub(crate) async fn rest(connection: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut bytes)).await.expect("an end").unwrap();
    bytes
}

/// One piece of a multiplexed stream.
pub(crate) fn frame(stream: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![stream, 0, 0, 0];
    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Tries until it is so.
pub(crate) async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not so: {what}");
}

/// The archive of a root with a static busybox.
fn busybox(dir: &Path) -> Vec<u8> {
    let root = dir.join("root");
    for name in ["bin", "tmp", "etc"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sleep", "true", "false", "wc", "stty", "ls"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    let output = Command::new("tar").arg("-c").arg("-C").arg(&root).arg(".").output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Makes a server, has `test` use it, and leaves nothing.
pub(crate) fn with_server<F: Future<Output = ()>>(test: impl FnOnce(Server) -> F) {
    // While this process has one thread.
    wharf_sys::namespace::unshare_network().unwrap();
    let dir = tempfile::Builder::new().prefix("wharf-server-test-").tempdir().unwrap();
    let (data_root, exec_root) = (dir.path().join("data"), dir.path().join("run"));
    for dir in [&data_root, &exec_root] {
        std::fs::create_dir(dir).unwrap();
    }
    let store = Store::open(&data_root).unwrap();
    let spawner = Arc::new(Spawner::start(None).unwrap());
    let group = format!("/wharf-server-test-{}", std::process::id());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let networks = Networks::open(store.clone(), NetworkOptions { ip_forward: false, ..NetworkOptions::default() });
    let networks = networks.unwrap();
    runtime.block_on(async {
        let layers = Layers::open(store.clone()).unwrap();
        let images = Images::open(store.clone(), layers).unwrap();
        let parts = Parts {
            store: store.clone(),
            images: images.clone(),
            networks: networks.clone(),
            volumes: Volumes::open(store.clone()).unwrap(),
            spawner: Arc::clone(&spawner),
            registry: wharf_distribution::Client::new(wharf_distribution::ClientOptions::default()).unwrap(),
        };
        let options = EngineOptions {
            data_root: data_root.clone(),
            exec_root: exec_root.clone(),
            cgroup_parent: group.clone(),
            dns: ResolvConf {
                servers: vec!["192.0.2.1".into()],
                search: Vec::new(),
                options: Vec::new(),
                asked: false,
            },
            host_gateways: Vec::new(),
            cdi_dirs: None,
            log: LogConfig { driver: "json-file".into(), options: std::collections::BTreeMap::new() },
            ulimits: Vec::new(),
            init: false,
            id_range: (0x2000_0000, 0x1000_0000),
            told: wharf_engine::Told::default(),
            defaults: wharf_engine::ContainerDefaults::default(),
            shutdown_timeout: 15,
        };
        let engine = Engine::open(options, parts).await.unwrap();
        let options = BuilderOptions {
            store: store.clone(),
            exec_root: exec_root.clone(),
            cgroup_parent: group.clone(),
            fetch: Arc::new(Offline),
            network: None,
        };
        let builder = Builder::new(images, Arc::clone(&spawner), options).unwrap();
        let server = Server { api: Api::new(engine.clone(), builder), engine: engine.clone() };
        let imported =
            server.ask("POST", "/images/create?fromSrc=-&repo=busybox&tag=latest", busybox(dir.path())).await;
        assert_eq!(imported.status, 200, "{:?}", imported.body);
        test(server).await;
        for container in engine.list() {
            let all = RemoveOptions { force: true, volumes: true, ..RemoveOptions::default() };
            engine.remove(&container.id, all).await.unwrap();
        }
        engine.leave_groups();
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    networks.destroy().unwrap();
    drop(spawner);
    // Groups go after the answers have gone out.
    for _ in 0..100 {
        let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &group[1..]]).output().unwrap();
        let left: Vec<String> = String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
        if left.is_empty() {
            return;
        }
        for group in &left {
            // The builder keeps its own between builds.
            let _ = std::fs::remove_dir(Path::new(group).join("build"));
            let _ = std::fs::remove_dir(group);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("groups are left of {group}");
}
