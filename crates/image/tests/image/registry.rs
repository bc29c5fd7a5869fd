//! Against our own registry, and Debian's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use wharf_distribution::{Client, ClientOptions, Repository};
use wharf_image::{ErrorKind, Form, ImageRecord, Images, Progress, Pushed};
use wharf_reference::{Digest, Reference};

use crate::{Place, config, has, noise, tar};

/// A registry that runs as long as this lives.
pub(crate) struct Shelf {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (end, ended) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let options = wharf_registry::Options {
            listen: "127.0.0.1:0".into(),
            data_root: dir.path().join("data"),
            access_log: false,
            ..Default::default()
        };
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(
                async {
                    let registry = wharf_registry::Registry::bind(options).await.unwrap();
                    tell.send(registry.address()).unwrap();
                    registry.run(async { drop(ended.await) }).await;
                },
            );
        });
        Self { dir, address: told.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }

    pub(crate) fn name(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address)).unwrap()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A way to a registry that counts what comes, and may be narrow.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    pub(crate) count: Arc<AtomicU64>,
    /// What was asked.
    asked: Arc<Mutex<Vec<u8>>>,
    /// Connections that carry something now, and the most that did.
    open: Arc<(AtomicU64, AtomicU64)>,
}

impl Way {
    /// With at most `rate` bytes a second on each connection.
    pub(crate) fn to(upstream: SocketAddr, rate: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        if rate > 0 {
            // What is counted and not read yet is little, however busy the reader is. Inherited by what is accepted.
            rustix::net::sockopt::set_socket_send_buffer_size(&listener, 16 << 10).unwrap();
        }
        let address = listener.local_addr().unwrap();
        let way = Self { address, count: Arc::default(), asked: Arc::default(), open: Arc::default() };
        let (count, asked, open) = (Arc::clone(&way.count), Arc::clone(&way.asked), Arc::clone(&way.open));
        // It ends with the tests' process.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(upstream).unwrap());
                let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let asked = Arc::clone(&asked);
                std::thread::spawn(move || {
                    carry(from_client, to_server, |bytes| asked.lock().unwrap().extend_from_slice(bytes));
                });
                let (count, open) = (Arc::clone(&count), Arc::clone(&open));
                std::thread::spawn(move || {
                    let now = open.0.fetch_add(1, Ordering::SeqCst) + 1;
                    open.1.fetch_max(now, Ordering::SeqCst);
                    carry(server, client, |bytes| {
                        count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        let pause = (bytes.len() as u64 * 1_000_000).checked_div(rate).unwrap_or(0);
                        std::thread::sleep(Duration::from_micros(pause));
                    });
                    open.0.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        way
    }

    pub(crate) fn name(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address)).unwrap()
    }

    /// The most connections that were open at once.
    pub(crate) fn most(&self) -> u64 {
        self.open.1.load(Ordering::SeqCst)
    }

    /// The ranges of a blob that were asked for, in order of their places.
    pub(crate) fn ranges(&self, blob: &Digest, size: u64) -> Vec<Range<u64>> {
        let asked = String::from_utf8_lossy(&self.asked.lock().unwrap()).to_ascii_lowercase();
        let requests = asked.split("\r\n\r\n").filter(|one| one.starts_with("get ") && one.contains(blob.as_str()));
        let mut ranges: Vec<_> = requests
            .map(|request| match request.split_once("range: bytes=") {
                None => 0..size,
                Some((_, range)) => {
                    let (start, last) = range.lines().next().unwrap().split_once('-').unwrap();
                    start.parse().unwrap()..last.parse::<u64>().map_or(size, |last| last + 1)
                }
            })
            .collect();
        ranges.sort_by_key(|range| range.start);
        ranges
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, seen: impl Fn(&[u8])) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        seen(&bytes[..read]);
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

pub(crate) fn client() -> Client {
    Client::new(ClientOptions::default()).unwrap()
}

/// Pulls, with what was told, as `id: status` without the progress of bytes.
pub(crate) async fn pull(
    images: &Images,
    name: &Reference,
    platform: Option<&str>,
) -> (wharf_image::Result<ImageRecord>, Vec<String>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let image = images.pull(name, platform, None, &client(), sender).await;
    (image, told(receiver))
}

pub(crate) async fn push(images: &Images, name: &Reference) -> (wharf_image::Result<Pushed>, Vec<String>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pushed = images.push(name, None, None, &client(), None, sender).await;
    (pushed, told(receiver))
}

fn told(mut receiver: mpsc::UnboundedReceiver<Progress>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok(message) = receiver.try_recv() {
        if message.current.is_none() {
            let colon = if message.id.is_empty() { "" } else { ": " };
            lines.push(format!("{}{colon}{}", message.id, message.status));
        }
    }
    lines
}

fn count(lines: &[String], end: &str) -> usize {
    lines.iter().filter(|line| line.ends_with(end)).count()
}

/// Puts a manifest made by hand in a repository, with its blobs.
pub(crate) async fn put(
    repository: &Repository,
    tag: &str,
    media_type: &str,
    manifest: &Value,
    blobs: &[&[u8]],
) -> Digest {
    for blob in blobs {
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(blob).unwrap();
        let file = tokio::fs::File::from_std(file);
        repository.push_blob(&Digest::sha256(blob), blob.len() as u64, file, |_| {}).await.unwrap();
    }
    let bytes = serde_json::to_vec(manifest).unwrap();
    let tag = if tag.is_empty() { Digest::sha256(&bytes).to_string() } else { tag.to_owned() };
    repository.push_manifest(&tag, media_type, &bytes).await.unwrap()
}

pub(crate) fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::sha256(content), "size": content.len() })
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_there_and_comes_back() {
    let (shelf, here, there) = (Shelf::new(), Place::new(), Place::new());
    let name = shelf.name("team/app:1");
    let (base, top) = (here.layer(&[("base", &noise(1, 1 << 20))]), here.layer(&[("top", &noise(2, 100_000))]));
    let image = here.image(&[base.clone(), top], "app", &[&name.familiar()]);
    let (pushed, lines) = push(&here.images, &name).await;
    let pushed = pushed.unwrap();
    assert_eq!(lines[0], format!("The push refers to repository [{}]", name.name()));
    assert_eq!((count(&lines, ": Preparing"), count(&lines, ": Pushed")), (2, 2));
    assert_eq!(lines.last().unwrap(), &format!("1: digest: {} size: {}", pushed.digest, pushed.size));

    let (pulled, lines) = pull(&there.images, &name, None).await;
    let pulled = pulled.unwrap();
    assert_eq!((&pulled.id, &pulled.diff_ids), (&image.id, &image.diff_ids));
    assert_eq!(pulled.tags, [name.familiar()]);
    assert_eq!(pulled.repo_digests, [format!("{}@{}", name.familiar_name(), pushed.digest)]);
    assert_eq!(lines[0], "1: Pulling from team/app");
    for status in [": Pulling fs layer", ": Verifying Checksum", ": Download complete", ": Pull complete"] {
        assert_eq!(count(&lines, status), 2, "{status}: {lines:#?}");
    }
    assert_eq!(lines[lines.len() - 2], format!("Digest: {}", pushed.digest));
    assert_eq!(lines[lines.len() - 1], format!("Status: Downloaded newer image for {}", name.familiar()));
    for diff_id in &image.diff_ids {
        there.images.layers().verify(diff_id).unwrap();
    }

    // Once more: nothing to do, either way.
    let (_, lines) = pull(&there.images, &name, None).await;
    assert_eq!(lines.last().unwrap(), &format!("Status: Image is up to date for {}", name.familiar()));
    assert_eq!(count(&lines, ": Pull complete"), 0);
    let (again, lines) = push(&there.images, &name).await;
    assert_eq!((again.unwrap().digest, count(&lines, ": Layer already exists")), (pushed.digest.clone(), 2));

    // An image on the same base brings its own layer only; to another repository the base need not be sent.
    let other = shelf.name("team/other:latest");
    let own = there.layer(&[("own", b"own")]);
    there.image(&[base, own], "other", &[&other.familiar()]);
    let (_, lines) = push(&there.images, &other).await;
    assert_eq!((count(&lines, ": Mounted from team/app"), count(&lines, ": Pushed")), (1, 1), "{lines:#?}");
    let (_, lines) = pull(&here.images, &other, None).await;
    assert_eq!((count(&lines, ": Already exists"), count(&lines, ": Pull complete")), (1, 1), "{lines:#?}");

    // By digest, and on to another repository: the manifest is the same byte for byte.
    let third = Place::new();
    let pinned = name.with_digest(pushed.digest.clone());
    let (pulled, lines) = pull(&third.images, &pinned, None).await;
    assert!(pulled.unwrap().tags.is_empty());
    assert_eq!(lines[0], format!("{}: Pulling from team/app", pushed.digest));
    let copy = shelf.name("copy:2");
    third.images.tag(&pinned.familiar(), &copy.familiar()).unwrap();
    assert_eq!(push(&third.images, &copy).await.0.unwrap().digest, pushed.digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_go_as_zstd_when_that_is_asked_for() {
    let (shelf, here, there) = (Shelf::new(), Place::new(), Place::new());
    let name = shelf.name("packed:1");
    let layers: Vec<Digest> = (0..5).map(|seed| here.layer(&[("f", &[seed; 200_000])])).collect();
    let image = here.image(&layers, "", &[&name.familiar()]);
    let gzip = push(&here.images, &name).await.0.unwrap();
    let zstd =
        here.images.push(&name, None, None, &client(), Some(Form::Zstd), mpsc::unbounded_channel().0).await.unwrap();
    assert_ne!(zstd.digest, gzip.digest);
    let manifest = client().repository(&name, None).manifest("1").await.unwrap();
    let manifest: Value = serde_json::from_slice(&manifest.bytes).unwrap();
    let types = manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap());
    assert!(types.eq(std::iter::repeat_n("application/vnd.oci.image.layer.v1.tar+zstd", 5)), "{manifest}");
    assert_eq!(pull(&there.images, &name, None).await.0.unwrap().id, image.id);
    // That was for once; and asked for again, it is the same.
    assert_eq!(push(&here.images, &name).await.0.unwrap().digest, gzip.digest);
    let again =
        there.images.push(&name, None, None, &client(), Some(Form::Zstd), mpsc::unbounded_channel().0).await.unwrap();
    assert_eq!(again.digest, zstd.digest);
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("none:1");
    let error = pull(&place.images, &name, None).await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("manifest unknown") || error.to_string().contains("not found"), "{error}");
    let (error, lines) = push(&place.images, &name).await;
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), format!("An image does not exist locally with the tag: {}", name.familiar_name()));
    assert_eq!((error.kind(), lines.len()), (ErrorKind::NotFound, 1));
}

#[tokio::test]
async fn the_image_of_the_platform_is_chosen() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let repository = client().repository(&name, None);
    let mut entries = Vec::new();
    let mut ids = Vec::new();
    for architecture in ["amd64", "arm64", "riscv64"] {
        let layer = tar(&[("arch", architecture.as_bytes())]);
        let mut own = config(&[Digest::sha256(&layer)], architecture);
        own.architecture = architecture.into();
        let own = serde_json::to_vec(&own).unwrap();
        let manifest =
            json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": [descriptor(LAYER, &layer)] });
        put(&repository, "", MANIFEST, &manifest, &[&own, &layer]).await;
        let mut entry = descriptor(MANIFEST, &serde_json::to_vec(&manifest).unwrap());
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entries.push(entry);
        ids.push(Digest::sha256(&own));
    }
    let inner = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    let index = put(&repository, "1", INDEX, &inner, &[]).await;
    for (platform, id) in [("linux/amd64", &ids[0]), ("linux/arm64/v8", &ids[1]), ("riscv64", &ids[2])] {
        let image = pull(&place.images, &name, Some(platform)).await.0.unwrap();
        assert_eq!(image.id, *id, "{platform}");
        assert_eq!(image.repo_digests, [format!("{}@{index}", name.familiar_name())]);
    }
    // The name leads to the host's, and each is there.
    let host = ["amd64", "arm64", "riscv64"]
        .iter()
        .position(|one| *one == wharf_distribution::Platform::host().architecture)
        .unwrap();
    assert_eq!(place.images.resolve(&name.familiar()).unwrap().id, ids[host]);
    let error = pull(&place.images, &name, Some("linux/s390x")).await.0.unwrap_err();
    assert_eq!(error.to_string(), "no matching manifest for linux/s390x in the manifest list entries");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(pull(&place.images, &name, Some("a/b/c/d")).await.0.unwrap_err().kind(), ErrorKind::Invalid);
    // A single image is taken as it is, unless the user insists.
    let only = name.with_digest(Digest::parse(entries[1]["digest"].as_str().unwrap()).unwrap());
    assert_eq!(pull(&place.images, &only, None).await.0.unwrap().id, ids[1]);
    let error = pull(&place.images, &only, Some("linux/amd64")).await.0.unwrap_err();
    assert!(error.to_string().ends_with("does not match the specified platform (linux/amd64)"), "{error}");
}

#[tokio::test]
async fn layers_of_every_form_are_unpacked() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("forms:1");
    let plain: Vec<Vec<u8>> = (0..3u8).map(|n| tar(&[("f", &[n; 70_000])])).collect();
    let gzip = {
        // Two members, as parallel compressors write them.
        let mut bytes = Vec::new();
        for half in [&plain[1][..40_000], &plain[1][40_000..]] {
            let mut encoder = flate2::write::GzEncoder::new(&mut bytes, flate2::Compression::fast());
            encoder.write_all(half).unwrap();
            encoder.finish().unwrap();
        }
        bytes
    };
    let zstd = zstd::encode_all(plain[2].as_slice(), 3).unwrap();
    let diff_ids: Vec<Digest> = plain.iter().map(|bytes| Digest::sha256(bytes)).collect();
    let own = serde_json::to_vec(&config(&diff_ids, "forms")).unwrap();
    let layers = [
        descriptor(LAYER, &plain[0]),
        descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip),
        descriptor(&format!("{LAYER}+zstd"), &zstd),
    ];
    // Their types may be wrong: what they are shows in their bytes.
    let wrong = [
        descriptor(&format!("{LAYER}+gzip"), &plain[0]),
        descriptor(&format!("{LAYER}+zstd"), &gzip),
        descriptor(LAYER, &zstd),
    ];
    let confused = json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": wrong });
    let manifest = json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": layers });
    let repository = client().repository(&name, None);
    put(&repository, "confused", MANIFEST, &confused, &[&own, &plain[0], &gzip, &zstd]).await;
    let other = Place::new();
    assert_eq!(pull(&other.images, &shelf.name("forms:confused"), None).await.0.unwrap().diff_ids, diff_ids);
    let digest = put(&repository, "1", MANIFEST, &manifest, &[&own, &plain[0], &gzip, &zstd]).await;
    let image = pull(&place.images, &name, None).await.0.unwrap();
    assert_eq!(image.diff_ids, diff_ids);
    place.images.tag(&name.familiar(), &shelf.name("again:1").familiar()).unwrap();
    assert_eq!(push(&place.images, &shelf.name("again:1")).await.0.unwrap().digest, digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_of_the_same_are_one_transfer() {
    let (shelf, here, there) = (Shelf::new(), Place::new(), Place::new());
    let layer = here.layer(&[("big", &noise(3, 3 << 19))]);
    here.image(&[layer], "", &[&shelf.name("big:1").familiar()]);
    push(&here.images, &shelf.name("big:1")).await.0.unwrap();
    let way = Way::to(shelf.address, 8 << 20);
    let name = way.name("big:1");
    let (one, two) = tokio::join!(pull(&there.images, &name, None), pull(&there.images, &name, None));
    assert_eq!(one.0.unwrap().id, two.0.unwrap().id);
    let bytes = way.count.load(Ordering::Relaxed);
    assert!(bytes < 2 << 20, "{bytes} bytes came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_was_broken_off_goes_on() {
    let (shelf, here, there) = (Shelf::new(), Place::new(), Place::new());
    let layer = here.layer(&[("big", &noise(4, 3 << 20))]);
    here.image(std::slice::from_ref(&layer), "", &[&shelf.name("big:1").familiar()]);
    push(&here.images, &shelf.name("big:1")).await.0.unwrap();
    let way = Way::to(shelf.address, 3 << 20);
    let name = way.name("big:1");
    let broken = tokio::time::timeout(Duration::from_millis(600), pull(&there.images, &name, None)).await;
    assert!(broken.is_err());
    let before = way.count.load(Ordering::Relaxed);
    assert!(before > 1 << 18, "{before} bytes came");
    // At once: what is left of the first is waited for.
    pull(&there.images, &name, None).await.0.unwrap();
    there.images.layers().verify(&layer).unwrap();
    let all = way.count.load(Ordering::Relaxed);
    // What is in the pipes when it breaks is lost, and no more.
    assert!(all < (3 << 20) + (3 << 19), "{all} bytes came, {before} of them before");
}

#[tokio::test]
async fn an_archive_with_compressed_layers_goes_on_as_it_came() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let layer = tar(&[("f", &noise(6, 90_000))]);
    let zstd = zstd::encode_all(layer.as_slice(), 3).unwrap();
    let own = serde_json::to_vec(&config(&[Digest::sha256(&layer)], "")).unwrap();
    let layers = [descriptor(&format!("{LAYER}+zstd"), &zstd)];
    let manifest =
        serde_json::to_vec(&json!({ "schemaVersion": 2, "config": descriptor(CONFIG, &own), "layers": layers }))
            .unwrap();
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": shelf.name("loaded:1").familiar() });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }).to_string();
    let path = |content: &[u8]| format!("blobs/sha256/{}", Digest::sha256(content).hex());
    let archive = tar(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", index.as_bytes()),
        (&path(&manifest), &manifest),
        (&path(&own), &own),
        (&path(&zstd), &zstd),
    ]);
    let lines = place.images.load(archive.as_slice(), &[], &|_| {}).unwrap();
    assert_eq!(lines, [format!("Loaded image: {}", shelf.name("loaded:1").familiar())]);
    assert_eq!(push(&place.images, &shelf.name("loaded:1")).await.0.unwrap().digest, Digest::sha256(&manifest));
}

/// Debian's registry, as long as this lives.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_original_registry_keeps_what_we_push() {
    if !has("docker-registry") {
        return;
    }
    let (here, there) = (Place::new(), Place::new());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = here.path("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        here.path("registry").display()
    );
    std::fs::write(&settings, text).unwrap();
    let mut command = Command::new("docker-registry");
    let _peer = Peer(command.arg("serve").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "it does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let name = Reference::parse(&format!("127.0.0.1:{port}/team/app:1")).unwrap();
    let layers = [here.layer(&[("a", &noise(5, 1 << 19))]), here.layer(&[("b", b"b")])];
    let image = here.image(&layers, "", &[&name.familiar()]);
    let pushed = push(&here.images, &name).await.0.unwrap();
    assert_eq!(pull(&there.images, &name, None).await.0.unwrap().id, image.id);
    let other = Reference::parse(&format!("127.0.0.1:{port}/other:1")).unwrap();
    there.images.tag(&name.familiar(), &other.familiar()).unwrap();
    let (again, lines) = push(&there.images, &other).await;
    assert_eq!((again.unwrap().digest, count(&lines, ": Mounted from team/app")), (pushed.digest, 2), "{lines:#?}");
    if has("skopeo") {
        let inspect = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false", "--config", "--raw"])
            .arg(format!("docker://{}", other.familiar()))
            .output()
            .unwrap();
        assert_eq!(Digest::sha256(&inspect.stdout), image.id, "{}", String::from_utf8_lossy(&inspect.stderr));
    }
}
