//! Content by each digest algorithm, on each way in: what the distribution project's conformance suite asks for.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use wharf_reference::{Algorithm, Digest};

use crate::crash::collect;
use crate::support::{OCI_INDEX, OCI_MANIFEST, Server, answer};

const UPLOADS: &str = "/v2/app/blobs/uploads/";

fn begin(server: &Server, query: &str) -> String {
    let begun = server.ask("POST", &format!("{UPLOADS}{query}"), &[], b"");
    assert_eq!(begun.status, 202, "{begun:?}");
    begun.header("location").unwrap().to_owned()
}

/// A body whose length is told by its end alone, as a program sends it that compresses on the way.
fn stream(server: &Server, location: &str, bytes: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let host = server.address;
    write!(
        stream,
        "PATCH {location} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    for chunk in bytes.chunks(700) {
        write!(stream, "{:x}\r\n", chunk.len()).unwrap();
        stream.write_all(chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    answer(&mut stream, "PATCH").status
}

/// Sends a blob on one of the ways; what the last request of it was answered.
fn push(server: &Server, way: &str, digest: &Digest, bytes: &[u8]) -> u16 {
    let last = |location: &str, rest: &[u8]| {
        let done = server.ask("PUT", &format!("{location}?digest={digest}"), &[], rest);
        if done.status == 201 {
            assert_eq!(done.header("docker-content-digest"), Some(digest.as_str()));
            assert_eq!(server.get(done.header("location").unwrap()).body, bytes, "{way}");
        }
        done.status
    };
    let parts = || bytes.chunks(bytes.len().div_ceil(3).max(1)).enumerate();
    let range = |at: usize, part: &[u8]| {
        let start = at * bytes.len().div_ceil(3).max(1);
        format!("{start}-{}", start + part.len() - 1)
    };
    match way {
        "post" => server.ask("POST", &format!("{UPLOADS}?digest={digest}"), &[], bytes).status,
        "put" => last(&begin(server, ""), bytes),
        "announced" => last(&begin(server, &format!("?digest-algorithm={}", digest.algorithm())), bytes),
        "stream" => {
            let location = begin(server, "");
            assert_eq!(stream(server, &location, bytes), 202);
            last(&location, b"")
        }
        "parts" => {
            let location = begin(server, "");
            for (at, part) in parts() {
                let headers = [("Content-Range", &*range(at, part))];
                assert_eq!(server.ask("PATCH", &location, &headers, part).status, 202);
            }
            last(&location, b"")
        }
        "out of order" => {
            let mut location = begin(server, "");
            for (at, part) in parts() {
                let beyond = [("Content-Range", &*format!("{}-{}", bytes.len(), bytes.len() + part.len() - 1))];
                assert_eq!(server.ask("PATCH", &location, &beyond, part).status, 416);
                let asked = server.get(&location);
                assert_eq!(asked.status, 204);
                location = asked.header("location").unwrap().to_owned();
                let headers = [("Content-Range", &*range(at, part))];
                assert_eq!(server.ask("PATCH", &location, &headers, part).status, 202);
            }
            last(&location, b"")
        }
        other => panic!("{other}"),
    }
}

const WAYS: [&str; 6] = ["post", "put", "announced", "stream", "parts", "out of order"];

#[test]
fn blobs_come_in_by_each_algorithm_on_each_way() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for algorithm in Algorithm::ALL {
        for way in WAYS {
            let bytes: Vec<u8> = format!("{algorithm} {way} ").into_bytes().repeat(200);
            let digest = Digest::of(algorithm, &bytes);
            let path = format!("/v2/app/blobs/{digest}");
            assert_eq!(server.get(&path).status, 404, "{way}");
            assert_eq!(push(&server, way, &digest, &[&bytes[..], b"oh no"].concat()), 400, "{way}");
            assert_eq!(push(&server, way, &digest, &bytes), 201, "{way}");
            let head = server.ask("HEAD", &path, &[], b"");
            assert_eq!(head.header("content-length"), Some(&*bytes.len().to_string()));
            assert_eq!(server.ask("GET", &path, &[("Range", "bytes=-9")], b"").body, bytes[bytes.len() - 9..]);
            assert_eq!(server.ask("DELETE", &path, &[], b"").status, 202);
            assert_eq!(server.get(&path).status, 404);
        }
        for known in [&b""[..], b"{}", b"collected"] {
            let digest = Digest::of(algorithm, known);
            for way in ["post", "put", "stream"] {
                assert_eq!(push(&server, way, &digest, known), 201, "{way}");
            }
            assert_eq!(server.get(&format!("/v2/app/blobs/{digest}")).body, known);
            let mounted = server.ask("POST", &format!("/v2/other/blobs/uploads/?mount={digest}&from=app"), &[], b"");
            assert_eq!(mounted.status, 201);
        }
    }
    let unknown = server.ask("POST", &format!("{UPLOADS}?digest-algorithm=md5"), &[], b"");
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "DIGEST_INVALID"));
    // What nobody has is collected, by whatever name.
    let left = |algorithm| std::fs::read_dir(dir.path().join("blobs").join(algorithm)).unwrap().count();
    assert!(left("sha512") > 2 && left("sha256") > 2);
    drop(server);
    collect(dir.path(), &["--older-than", "0"]);
    assert_eq!((left("sha512"), left("sha256")), (0, 0));
}

/// The bytes, and a descriptor of them.
fn described(algorithm: Algorithm, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(algorithm, bytes);
    json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len()})
}

#[test]
fn manifests_come_in_by_each_algorithm_with_tags() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for algorithm in Algorithm::ALL {
        let config = described(algorithm, "application/vnd.oci.empty.v1+json", b"{}");
        let digest = Digest::parse(config["digest"].as_str().unwrap()).unwrap();
        assert_eq!(push(&server, "put", &digest, b"{}"), 201);
        let put = |bytes: &str, media_type: &str, tags: &str| {
            let digest = Digest::of(algorithm, bytes.as_bytes());
            let path = format!("/v2/app/manifests/{digest}");
            let done = server.ask("PUT", &format!("{path}{tags}"), &[("Content-Type", media_type)], bytes.as_bytes());
            assert_eq!((done.status, done.header("location")), (201, Some(&*path)), "{done:?}");
            assert_eq!(done.header("docker-content-digest"), Some(digest.as_str()));
            assert_eq!(server.get(&path).body, bytes.as_bytes());
            (digest, done)
        };
        let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": null,
            "org.example.unknown": {"of": "nobody"}, "annotations": {"algorithm": algorithm.as_str()}});
        let (digest, done) =
            put(&image.to_string(), OCI_MANIFEST, &format!("?tag=one-{algorithm}&tag=two-{algorithm}"));
        assert_eq!(done.header("oci-tag"), Some(&*format!("one-{algorithm}, two-{algorithm}")));
        for tag in ["one", "two"] {
            let found = server.get(&format!("/v2/app/manifests/{tag}-{algorithm}"));
            assert_eq!(found.header("docker-content-digest"), Some(digest.as_str()));
        }
        let entry = described(algorithm, OCI_MANIFEST, image.to_string().as_bytes());
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.clone()]});
        put(&index.to_string(), OCI_INDEX, "");
        // Empty, as Go's encoder writes a list that was never made.
        put(&json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": null}).to_string(), OCI_INDEX, "");
        let about = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "a/b", "config": config,
            "layers": [config], "subject": entry});
        let (about, done) = put(&about.to_string(), OCI_MANIFEST, "");
        assert_eq!(done.header("oci-subject"), Some(digest.as_str()));
        let listed = server.get(&format!("/v2/app/referrers/{digest}?artifactType=a/b")).json();
        assert_eq!(listed["manifests"][0]["digest"], about.as_str());
    }
    let bad = server.ask("PUT", "/v2/app/manifests/sha256:baddigeststring", &[("Content-Type", OCI_INDEX)], b"{}");
    assert_eq!((bad.status, bad.code().as_str()), (400, "DIGEST_INVALID"));
    let bad = Digest::of(Algorithm::Sha512, b"other");
    let bad = server.ask("PUT", &format!("/v2/app/manifests/{bad}?tag=-x"), &[("Content-Type", OCI_INDEX)], b"{}");
    assert_eq!((bad.status, bad.code().as_str()), (400, "TAG_INVALID"));
}
