//! Registries that mean no good: what they say ends in an error that says why, and in a store without a trace of it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_image::{ErrorKind, ImageError};
use wharf_reference::{Digest, Reference};

use crate::registry::{CONFIG, INDEX, LAYER, MANIFEST, descriptor, pull};
use crate::{Place, config, listing, tar};

/// A registry that says what it was given, and checks nothing of it.
#[derive(Default)]
struct Liar {
    manifests: BTreeMap<String, (&'static str, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Liar {
    fn manifest(&mut self, tag: &str, media_type: &'static str, bytes: Vec<u8>) {
        self.manifests.insert(Digest::sha256(&bytes).to_string(), (media_type, bytes.clone()));
        self.manifests.insert(tag.into(), (media_type, bytes));
    }

    /// Has an image of one layer, as good as can be, with what `change` makes of its manifest.
    fn image(&mut self, tag: &str, change: impl FnOnce(&mut Value)) {
        let layer = tar(&[("f", b"f")]);
        let own = serde_json::to_vec(&config(&[Digest::sha256(&layer)], "")).unwrap();
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &own), "layers": [descriptor(LAYER, &layer)] });
        change(&mut manifest);
        self.blobs.extend([layer, own].map(|blob| (Digest::sha256(&blob).to_string(), blob)));
        self.manifest(tag, MANIFEST, serde_json::to_vec(&manifest).unwrap());
    }

    /// Serves until the tests' process ends.
    fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, own) = (listener.local_addr().unwrap(), Arc::new(self));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let own = Arc::clone(&own);
                std::thread::spawn(move || own.answer(stream.unwrap()));
            }
        });
        address
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        loop {
            // The first of all connections asks whether this is TLS.
            let request = lines.next()?.ok()?;
            while !lines.next()?.ok()?.is_empty() {}
            let name = request.split(' ').nth(1)?.rsplit('/').next()?.to_owned();
            let blob = || Some(("application/octet-stream", self.blobs.get(&name)?.clone()));
            let (status, (media_type, body)) = match self.manifests.get(&name).cloned().or_else(blob) {
                Some(found) => ("200 OK", found),
                None => ("404 Not Found", ("text/plain", Vec::new())),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
        }
    }
}

/// Pulls a tag, which must fail and leave nothing.
async fn refused(address: SocketAddr, tag: &str) -> ImageError {
    let place = Place::new();
    let name = Reference::parse(&format!("{address}/x:{tag}")).unwrap();
    let error = pull(&place.images, &name, None).await.0.unwrap_err();
    assert!(place.images.list().unwrap().is_empty() && place.images.layers().list().unwrap().is_empty(), "{tag}");
    assert!(place.blobs().is_empty() && listing(&place.path("data/ingest")).is_empty(), "{tag}");
    assert!(listing(&place.path("data/layers")).is_empty(), "{tag}");
    error
}

#[tokio::test]
async fn manifests_that_lie_are_refused() {
    let mut liar = Liar::default();
    liar.image("good", |_| {});
    let digest = |bytes: &[u8]| Digest::sha256(bytes).to_string();
    let many: Vec<Value> = (0..501).map(|n: u32| descriptor(LAYER, &n.to_le_bytes())).collect();
    liar.image("layers", |manifest| manifest["layers"] = many.clone().into());
    liar.image("larger", |manifest| manifest["layers"][0]["size"] = 1_000_000.into());
    liar.image("smaller", |manifest| manifest["layers"][0]["size"] = 3.into());
    liar.image("negative", |manifest| manifest["layers"][0]["size"] = (-1).into());
    liar.image("endless", |manifest| manifest["layers"][0]["size"] = u64::MAX.into());
    liar.image("config", |manifest| manifest["config"]["size"] = (9u64 << 20).into());
    liar.image("digest", |manifest| manifest["layers"][0]["digest"] = "sha256:../../x".into());
    liar.image("algorithm", |manifest| manifest["layers"][0]["digest"] = digest(b"").replace("sha256", "md5").into());
    liar.image("both", |manifest| manifest["manifests"] = json!([]));
    liar.image("itself", |manifest| manifest["mediaType"] = INDEX.into());
    liar.image("typeless", |manifest| manifest["layers"][0]["mediaType"] = "".into());
    liar.image("urls", |manifest| {
        manifest["layers"][0]["urls"] =
            (0..17).map(|n| json!(format!("https://x{n}.invalid"))).collect::<Vec<_>>().into();
    });
    let text = String::from_utf8(liar.manifests["good"].1.clone()).unwrap();
    liar.manifest("twice", MANIFEST, text.replace("\"layers\":", "\"layers\":[],\"layers\":").into_bytes());
    liar.manifest(
        "utf8",
        MANIFEST,
        text.replace("sha256", "sha\u{fe}56").bytes().map(|b| if b == 0xc3 { 0xff } else { b }).collect(),
    );
    let deep = format!("\"schemaVersion\":{}{}", "[".repeat(2000), "]".repeat(2000));
    liar.manifest("deep", MANIFEST, text.replace("\"schemaVersion\":2", &deep).into_bytes());
    liar.manifest(
        "signed",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        b"{\"schemaVersion\":1}".to_vec(),
    );
    liar.manifest("empty", MANIFEST, Vec::new());
    liar.manifest("page", "text/html", b"<html>log in</html>".to_vec());
    let entries: Vec<Value> = (0..1001u32).map(|n| descriptor(MANIFEST, &n.to_le_bytes())).collect();
    liar.manifest("index", INDEX, json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes());
    let address = liar.serve();
    let place = Place::new();
    let good = Reference::parse(&format!("{address}/x:good")).unwrap();
    pull(&place.images, &good, None).await.0.unwrap();
    for (tag, why) in [
        ("layers", "more than 500 layers"),
        ("larger", "has 2048 bytes, not 1000000 as promised"),
        ("smaller", "not 3 as promised"),
        ("negative", "invalid value"),
        ("endless", "a descriptor's size is no size"),
        ("config", "at most 8388608 are read"),
        ("digest", "digest"),
        ("algorithm", "digest"),
        ("both", "both an index and an image"),
        ("itself", "calls itself"),
        ("typeless", "no media type"),
        ("urls", "more than 16 addresses"),
        ("twice", "duplicate field `layers`"),
        ("utf8", "invalid"),
        ("deep", "invalid type"),
        ("signed", "schema 1 is not supported"),
        ("empty", "EOF"),
        ("page", "manifest"),
        ("index", "more than 1000 manifests"),
    ] {
        let error = refused(address, tag).await;
        let text = format!("{error}{}", std::error::Error::source(&error).map_or(String::new(), |e| format!(": {e}")));
        assert!(text.contains(why), "{tag}: {text}");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{tag}: {error:?}");
    }
}

#[tokio::test]
async fn configurations_that_lie_are_refused() {
    let layer = tar(&[("f", b"f")]);
    let right = serde_json::to_vec(&config(&[Digest::sha256(&layer)], "")).unwrap();
    let text = String::from_utf8(right.clone()).unwrap();
    let mut liar = Liar::default();
    for (tag, own) in [
        ("utf8", [b"{\"author\":\"\xff\",".as_slice(), &right[1..]].concat()),
        (
            "twice",
            text.replace("\"rootfs\":", "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]},\"rootfs\":").into_bytes(),
        ),
        ("deep", format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)).into_bytes()),
        ("list", b"[]".to_vec()),
        ("nothing", b"null".to_vec()),
        ("numbers", text.replace("\"architecture\":\"", "\"architecture\":7,\"x\":\"").into_bytes()),
    ] {
        let own_descriptor = descriptor(CONFIG, &own);
        liar.blobs.insert(Digest::sha256(&own).to_string(), own);
        liar.image(tag, |manifest| manifest["config"] = own_descriptor);
    }
    let address = liar.serve();
    for tag in ["utf8", "twice", "deep", "list", "nothing", "numbers"] {
        let error = refused(address, tag).await;
        assert_eq!(error.kind(), ErrorKind::Invalid, "{tag}: {error:?}");
    }
}

#[tokio::test]
async fn indexes_end_somewhere() {
    let mut liar = Liar::default();
    liar.image("0", |_| {});
    let platform = json!({ "os": "linux", "architecture": wharf_distribution::Platform::host().architecture });
    let mut inner = liar.manifests["0"].clone();
    for depth in 1..=5 {
        let mut entry = descriptor(inner.0, &inner.1);
        entry["platform"] = platform.clone();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }).to_string().into_bytes();
        liar.manifest(&depth.to_string(), INDEX, index.clone());
        inner = (INDEX, index);
    }
    // One that says of itself that it is in itself.
    let mut entry = descriptor(INDEX, b"itself");
    entry["platform"] = platform;
    let own = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }).to_string().into_bytes();
    liar.manifests.insert(Digest::sha256(b"itself").to_string(), (INDEX, own.clone()));
    liar.manifest("loop", INDEX, own);
    let address = liar.serve();
    let place = Place::new();
    let name = |tag: &str| Reference::parse(&format!("{address}/x:{tag}")).unwrap();
    pull(&place.images, &name("2"), None).await.0.unwrap();
    let error = refused(address, "5").await;
    assert!(error.to_string().contains("nested too deeply"), "{error}");
    let error = refused(address, "loop").await;
    assert!(error.to_string().contains("digest"), "{error}");
}

/// A layer that is named a hundred times is fetched and unpacked once.
#[tokio::test]
async fn a_layer_that_is_there_often_comes_once() {
    let layer = tar(&[("f", b"f")]);
    let own = serde_json::to_vec(&config(&vec![Digest::sha256(&layer); 100], "")).unwrap();
    let mut liar = Liar::default();
    liar.blobs.insert(Digest::sha256(&own).to_string(), own.clone());
    liar.image("often", |manifest| {
        manifest["config"] = descriptor(CONFIG, &own);
        manifest["layers"] = vec![descriptor(LAYER, &layer); 100].into();
    });
    let name = Reference::parse(&format!("{}/x:often", liar.serve())).unwrap();
    let place = Place::new();
    let (image, lines) = pull(&place.images, &name, None).await;
    assert_eq!(image.unwrap().diff_ids.len(), 100);
    assert_eq!(lines.iter().filter(|line| line.ends_with(": Pull complete")).count(), 1);
}

/// The digests and sizes of a public image's parts are known to all.
#[tokio::test]
async fn a_manifest_that_calls_another_images_parts_layers_deletes_none_of_them() {
    let mut liar = Liar::default();
    liar.image("good", |_| {});
    let manifest = liar.manifests["good"].1.clone();
    let mut entry = descriptor(MANIFEST, &manifest);
    entry["platform"] = json!({ "os": "linux", "architecture": wharf_distribution::Platform::host().architecture });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }).to_string().into_bytes();
    liar.manifest("index", INDEX, index.clone());
    let id = serde_json::from_slice::<Value>(&manifest).unwrap()["config"]["digest"].as_str().unwrap().to_owned();
    let own = serde_json::to_vec(&config(&[Digest::sha256(b"another")], "")).unwrap();
    liar.blobs.insert(Digest::sha256(&own).to_string(), own.clone());
    let parts = [("config", liar.blobs[&id].clone()), ("manifest", manifest), ("list", index)];
    for (tag, part) in &parts {
        liar.image(tag, |manifest| {
            manifest["config"] = descriptor(CONFIG, &own);
            manifest["layers"][0] = descriptor(LAYER, part);
        });
    }
    let (address, place) = (liar.serve(), Place::new());
    let name = |tag: &str| Reference::parse(&format!("{address}/x:{tag}")).unwrap();
    pull(&place.images, &name("index"), None).await.0.unwrap();
    for (tag, part) in &parts {
        assert_eq!(pull(&place.images, &name(tag), None).await.0.unwrap_err().kind(), ErrorKind::Invalid, "{tag}");
        assert!(place.store.blobs().contains(&Digest::sha256(part)), "{tag}");
    }
}
