//! Servers to ask and a client that hides nothing.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_reference::Digest;
use wharf_registry::{Options, Registry};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A registry in this process, on a port and a root of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(root: &Path) -> Self {
        Self::with(Options { data_root: root.to_owned(), ..Options::default() })
    }

    pub(crate) fn with(options: Options) -> Self {
        let (end, ended) = tokio::sync::oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let options = Options { listen: "127.0.0.1:0".into(), access_log: false, ..options };
                let registry = Registry::bind(options).await.unwrap();
                bound.send(registry.address()).unwrap();
                registry
                    .run(async {
                        let _ = ended.await;
                    })
                    .await;
            });
        });
        Self { address: address.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        ask(self.address, method, path, headers, body)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// Puts a blob at once.
    pub(crate) fn put_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        put_blob(self.address, name, bytes)
    }

    /// Puts a manifest with the blobs of an image.
    pub(crate) fn put_image(&self, name: &str, tag: &str, content: &str) -> Digest {
        put_image(self.address, name, tag, content)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of an error body.
    pub(crate) fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request on a connection of its own.
pub(crate) fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = open(address, method, path, headers, body.len());
    // It may have been refused before it was read.
    let _ = stream.write_all(body);
    answer(&mut stream, method)
}

/// Sends the head of a request that promises `length` bytes.
pub(crate) fn open(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: usize,
) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

pub(crate) fn answer(stream: &mut TcpStream, method: &str) -> Answer {
    let mut all = Vec::new();
    // A server that has refused a body closes on it.
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {all:?}"));
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").map(|(k, v)| (k.to_owned(), v.to_owned())).unwrap()).collect();
    let mut answer = Answer { status, headers, body: all[end + 4..].to_vec() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunked(&answer.body);
    } else if let (Some(length), false) = (answer.header("content-length"), method == "HEAD" || status == 304) {
        assert_eq!(length.parse::<usize>().unwrap(), answer.body.len(), "{answer:?}");
    }
    answer
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    body
}

pub(crate) fn put_blob(address: SocketAddr, name: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let path = format!("/v2/{name}/blobs/uploads/");
    let begun = ask(address, "POST", &path, &[], b"");
    assert_eq!(begun.status, 202, "{begun:?}");
    let location = path_of(begun.header("location").unwrap());
    let mark = if location.contains('?') { '&' } else { '?' };
    let octets = [("Content-Type", "application/octet-stream")];
    let put = ask(address, "PUT", &format!("{location}{mark}digest={digest}"), &octets, bytes);
    assert_eq!(put.status, 201, "{put:?}");
    digest
}

/// The path of a location, which may have a host before it.
pub(crate) fn path_of(location: &str) -> String {
    match location.split_once("://") {
        Some((_, rest)) => rest[rest.find('/').unwrap()..].to_owned(),
        None => location.to_owned(),
    }
}

/// A manifest of a config and a layer whose bytes are made of `content`.
pub(crate) fn image(content: &str) -> (String, [Vec<u8>; 2]) {
    let blobs = [format!("{{\"config\":\"{content}\"}}").into_bytes(), format!("layer {content}").into_bytes()];
    let of = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::sha256(bytes).as_str(), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": of("application/vnd.oci.image.config.v1+json", &blobs[0]),
        "layers": [of("application/vnd.oci.image.layer.v1.tar", &blobs[1])],
    });
    (manifest.to_string(), blobs)
}

pub(crate) fn put_image(address: SocketAddr, name: &str, tag: &str, content: &str) -> Digest {
    let (manifest, blobs) = image(content);
    for blob in &blobs {
        put_blob(address, name, blob);
    }
    let types = [("Content-Type", OCI_MANIFEST)];
    let put = ask(address, "PUT", &format!("/v2/{name}/manifests/{tag}"), &types, manifest.as_bytes());
    assert_eq!(put.status, 201, "{put:?}");
    Digest::sha256(manifest.as_bytes())
}

/// A program of the machine; `None`, with a word about it, when it is not installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: `{name}` is not installed");
    }
    found
}

/// A process that ends with its owner.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The distribution project's registry, if it is installed.
pub(crate) fn docker_registry(dir: &Path) -> Option<(Process, SocketAddr)> {
    let program = program("docker-registry")?;
    let port = free_port();
    let config = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {}\n\
         http:\n  addr: 127.0.0.1:{port}\n",
        dir.display()
    );
    let path = dir.join("config.yml");
    std::fs::write(&path, config).unwrap();
    let child = Command::new(program)
        .arg("serve")
        .arg(&path)
        .env("OTEL_TRACES_EXPORTER", "none")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    Some((process, address))
}

/// Waits until somebody listens.
pub(crate) fn wait_for(address: SocketAddr) {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody listens on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
