//! The API as the specification has it.

use serde_json::{Value, json};
use wharf_reference::Digest;

use crate::support::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Server, image};

#[test]
fn the_version_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for path in ["/v2/", "/v2"] {
        let found = server.get(path);
        assert_eq!((found.status, found.json()), (200, json!({})));
        assert_eq!(found.header("docker-distribution-api-version"), Some("registry/2.0"));
    }
    // Who waits for a registry to be up asks here.
    let alive = server.get("/");
    assert_eq!((alive.status, alive.header("cache-control")), (200, Some("no-cache")));
    assert_eq!(server.get("/v3/").status, 404);
    assert_eq!(server.ask("DELETE", "/v2/", &[], b"").status, 405);
}

#[test]
fn blobs_are_given_whole_and_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    // More than is read at once.
    let bytes: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
    let digest = server.put_blob("a/b", &bytes);
    let path = format!("/v2/a/b/blobs/{digest}");

    let whole = server.get(&path);
    assert_eq!((whole.status, whole.body == bytes), (200, true));
    assert_eq!(whole.header("docker-content-digest"), Some(digest.as_str()));
    let head = server.ask("HEAD", &path, &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1500000"), 0));

    let part = |range: &str| server.ask("GET", &path, &[("Range", range)], b"");
    let middle = part("bytes=1000-699999");
    assert_eq!((middle.status, middle.header("content-range")), (206, Some("bytes 1000-699999/1500000")));
    assert!(middle.body == bytes[1000..700_000]);
    assert!(part("bytes=-7").body == bytes[1_499_993..]);
    let beyond = part("bytes=1500000-");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */1500000")));

    let etag = whole.header("etag").unwrap();
    assert_eq!(server.ask("GET", &path, &[("If-None-Match", etag)], b"").status, 304);
    let stale = server.ask("GET", &path, &[("Range", "bytes=0-0"), ("If-Range", "\"other\"")], b"");
    assert_eq!((stale.status, stale.body.len()), (200, bytes.len()));
}

#[test]
fn a_repository_gives_only_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let digest = server.put_blob("secret", b"secret");
    let elsewhere = format!("/v2/open/blobs/{digest}");
    assert_eq!((server.get(&elsewhere).status, server.get(&elsewhere).code().as_str()), (404, "BLOB_UNKNOWN"));
    // Nor by a manifest that names it, nor by a mount from where it is not.
    let layer = json!({"mediaType": "x/y", "digest": digest.as_str(), "size": 6});
    let manifest = json!({"schemaVersion": 2, "config": layer, "layers": []}).to_string();
    let put = server.ask("PUT", "/v2/open/manifests/x", &[("Content-Type", OCI_MANIFEST)], manifest.as_bytes());
    assert_eq!((put.status, put.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    for query in [format!("mount={digest}&from=other"), format!("mount={}", Digest::sha256(b"nobody's"))] {
        let begun = server.ask("POST", &format!("/v2/open/blobs/uploads/?{query}"), &[], b"");
        assert_eq!(begun.status, 202);
        assert!(begun.header("docker-upload-uuid").is_some());
    }
    assert_eq!(server.get(&elsewhere).status, 404);
    let mounted = server.ask("POST", &format!("/v2/open/blobs/uploads/?mount={digest}&from=secret"), &[], b"");
    assert_eq!((mounted.status, mounted.header("location")), (201, Some(elsewhere.as_str())));
    assert_eq!(server.get(&elsewhere).body, b"secret");
    let third = format!("/v2/third/blobs/{digest}");
    let mounted = server.ask("POST", &format!("/v2/third/blobs/uploads/?mount={digest}"), &[], b"");
    assert_eq!((mounted.status, mounted.header("location")), (201, Some(third.as_str())));
    assert_eq!(server.get(&third).body, b"secret");
    // Each has its own.
    assert_eq!(server.ask("DELETE", &elsewhere, &[], b"").status, 202);
    assert_eq!(server.ask("DELETE", &elsewhere, &[], b"").status, 404);
    assert_eq!(server.get(&format!("/v2/secret/blobs/{digest}")).status, 200);
}

#[test]
fn manifests_are_kept_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let digest = server.put_image("app", "v1", "one");
    let (manifest, _) = image("one");
    for reference in ["v1", digest.as_str()] {
        let found = server.get(&format!("/v2/app/manifests/{reference}"));
        assert_eq!((found.status, found.body.as_slice()), (200, manifest.as_bytes()));
        assert_eq!(found.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(found.header("docker-content-digest"), Some(digest.as_str()));
        let head = server.ask("HEAD", &format!("/v2/app/manifests/{reference}"), &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, found.header("content-length")));
    }
    let etag = format!("\"{digest}\"");
    assert_eq!(server.ask("GET", "/v2/app/manifests/v1", &[("If-None-Match", &etag)], b"").status, 304);

    let by_digest = |digest: &str, body: &str, media_type: &str| {
        server.ask("PUT", &format!("/v2/app/manifests/{digest}"), &[("Content-Type", media_type)], body.as_bytes())
    };
    let put = by_digest(digest.as_str(), &manifest, OCI_MANIFEST);
    assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(digest.as_str())));
    let other = Digest::sha256(b"other");
    assert_eq!(by_digest(other.as_str(), &manifest, OCI_MANIFEST).code(), "DIGEST_INVALID");
    assert_eq!(by_digest("v2", &manifest, DOCKER_MANIFEST).code(), "MANIFEST_INVALID");
    assert_eq!(by_digest("v2", &manifest, "application/json").code(), "MANIFEST_INVALID");
    assert_eq!(by_digest("v2", "{", OCI_MANIFEST).code(), "MANIFEST_INVALID");
    let large = by_digest("v2", &" ".repeat(4 * 1024 * 1024 + 1), OCI_MANIFEST);
    assert_eq!((large.status, large.code().as_str()), (413, "SIZE_INVALID"));
    assert_eq!(server.get("/v2/app/manifests/v2").code(), "MANIFEST_UNKNOWN");
    // What no tag can be is not there either; it cannot be put there.
    for method in ["GET", "HEAD", "DELETE"] {
        assert_eq!(server.ask(method, "/v2/app/manifests/.INVALID_MANIFEST_NAME", &[], b"").status, 404, "{method}");
    }
    assert_eq!(by_digest(".INVALID_MANIFEST_NAME", &manifest, OCI_MANIFEST).code(), "TAG_INVALID");
}

#[test]
fn tags_and_manifests_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let one = server.put_image("app", "v1", "one");
    server.put_image("app", "latest", "one");
    let two = server.put_image("app", "v2", "two");
    let delete = |reference: &str| server.ask("DELETE", &format!("/v2/app/manifests/{reference}"), &[], b"").status;
    let tags = || server.get("/v2/app/tags/list").json()["tags"].clone();
    assert_eq!(tags(), json!(["latest", "v1", "v2"]));
    assert_eq!((delete("v2"), delete("v2")), (202, 404));
    assert_eq!(server.get(&format!("/v2/app/manifests/{two}")).status, 200);
    assert_eq!((delete(one.as_str()), delete(one.as_str())), (202, 404));
    assert_eq!(tags(), json!([]));
    assert_eq!(server.get("/v2/app/manifests/latest").status, 404);
    assert_eq!(server.get("/v2/other/tags/list").code(), "NAME_UNKNOWN");
}

/// Follows `Link` until there is none.
fn pages(server: &Server, first: &str, list: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let found = server.get(&path);
        assert_eq!(found.status, 200, "{path}");
        let page: Vec<String> = serde_json::from_value(found.json()[list].clone()).unwrap();
        pages.push(page);
        next = found.header("link").map(|link| {
            let (target, relation) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
            assert_eq!(relation, "; rel=\"next\"");
            target.to_owned()
        });
    }
    pages
}

#[test]
fn lists_are_given_page_by_page() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for name in ["a", "a/b", "b"] {
        server.put_image(name, "x", "one");
    }
    for tag in ["1", "10", "2", "A"] {
        server.put_image("a", tag, "one");
    }
    assert_eq!(pages(&server, "/v2/_catalog", "repositories"), [["a", "a/b", "b"]]);
    let by_two = pages(&server, "/v2/_catalog?n=2", "repositories");
    assert_eq!(by_two, [vec!["a", "a/b"], vec!["b"]]);
    assert_eq!(pages(&server, "/v2/a/tags/list", "tags"), [["1", "10", "2", "A", "x"]]);
    assert_eq!(pages(&server, "/v2/a/tags/list?n=2", "tags"), [vec!["1", "10"], vec!["2", "A"], vec!["x"]]);
    assert_eq!(pages(&server, "/v2/a/tags/list?n=2&last=2", "tags"), [["A", "x"]]);
    assert_eq!(pages(&server, "/v2/a/tags/list?n=0", "tags"), [[""; 0]]);
    // RFC 9110, section 9.1: what can be had by GET can be asked for by HEAD.
    for path in [
        "/v2/_catalog?n=2".to_owned(),
        "/v2/a/tags/list?n=2".into(),
        format!("/v2/a/referrers/{}", Digest::sha256(b"")),
    ] {
        let (got, head) = (server.get(&path), server.ask("HEAD", &path, &[], b""));
        assert_eq!((head.status, head.header("link")), (200, got.header("link")), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
    }
    for bad in ["-1", "x", "1e3", "99999999999999999999999"] {
        let refused = server.get(&format!("/v2/_catalog?n={bad}"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "PAGINATION_NUMBER_INVALID"), "{bad}");
    }
}

#[test]
fn what_is_about_a_manifest_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let subject = server.put_image("app", "v1", "one");
    let empty = server.put_blob("app", b"{}");
    let about = |kind: &str, note: &str| {
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty.as_str(), "size": 2});
        let of = json!({"mediaType": OCI_MANIFEST, "digest": subject.as_str(), "size": 1});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind, "config": config, "layers": [config],
            "subject": of, "annotations": {"note": note},
        });
        let manifest = manifest.to_string();
        let digest = Digest::sha256(manifest.as_bytes());
        let types = [("Content-Type", OCI_MANIFEST)];
        let put = server.ask("PUT", &format!("/v2/app/manifests/{digest}"), &types, manifest.as_bytes());
        assert_eq!((put.status, put.header("oci-subject")), (201, Some(subject.as_str())));
        digest
    };
    let (sbom, signature) = (about("x/sbom", "s"), about("x/signature", "t"));

    let path = format!("/v2/app/referrers/{subject}");
    let found = server.get(&path);
    assert_eq!((found.status, found.header("content-type")), (200, Some(OCI_INDEX)));
    let index = found.json();
    assert_eq!((index["schemaVersion"].as_u64(), index["mediaType"].as_str()), (Some(2), Some(OCI_INDEX)));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(found.header("oci-filters-applied"), None);

    let filtered = server.get(&format!("{path}?artifactType=x%2Fsbom"));
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    let entries: Vec<Value> = filtered.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["digest"], sbom.as_str());
    assert_eq!(
        (entries[0]["artifactType"].as_str(), entries[0]["annotations"]["note"].as_str()),
        (Some("x/sbom"), Some("s"))
    );

    server.ask("DELETE", &format!("/v2/app/manifests/{signature}"), &[], b"");
    assert_eq!(server.get(&path).json()["manifests"].as_array().unwrap().len(), 1);
    // Of what nobody has, nothing is about it.
    let nothing = server.get(&format!("/v2/none/referrers/{}", Digest::sha256(b"none")));
    assert_eq!((nothing.status, nothing.json()["manifests"].clone()), (200, json!([])));
    assert_eq!(server.get("/v2/app/referrers/sha256:0").code(), "DIGEST_INVALID");
}

#[test]
fn indexes_need_their_manifests() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let child = server.put_image("app", "v1", "one");
    let size = server.get("/v2/app/manifests/v1").body.len();
    let index = |digest: &Digest, size: usize| {
        let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest.as_str(), "size": size});
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).to_string();
        server.ask("PUT", "/v2/app/manifests/all", &[("Content-Type", OCI_INDEX)], index.as_bytes())
    };
    assert_eq!(index(&Digest::sha256(b"none"), size).code(), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(index(&child, size + 1).code(), "MANIFEST_INVALID");
    assert_eq!(index(&child, size).status, 201);
}

#[test]
fn sizes_must_be_those_of_the_contents() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let digest = server.put_blob("app", b"six by");
    let put = |config: usize, layer: i64| {
        let of = |size: i64| json!({"mediaType": "x/y", "digest": digest.as_str(), "size": size});
        let manifest = json!({"schemaVersion": 2, "config": of(config as i64), "layers": [of(layer)]}).to_string();
        server.ask("PUT", "/v2/app/manifests/x", &[("Content-Type", OCI_MANIFEST)], manifest.as_bytes())
    };
    for (config, layer) in [(6, 5), (7, 6), (6, -6), (6, i64::MAX)] {
        let refused = put(config, layer);
        assert_eq!((refused.status, refused.code().as_str()), (400, "MANIFEST_INVALID"), "{config} {layer}");
    }
    assert_eq!(server.get("/v2/app/manifests/x").status, 404);
    assert_eq!(put(6, 6).status, 201);
}

#[test]
fn without_a_password_nobody_comes_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("htpasswd");
    // `secret`, as `htpasswd -B` has it.
    std::fs::write(&path, format!("ann:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let root = dir.path().join("root");
    let options = wharf_registry::Options { data_root: root, htpasswd: Some(path), ..Default::default() };
    let server = Server::with(options);
    let refused = server.get("/v2/");
    assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHORIZED"));
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"Wharf registry\""));
    let with = |value: &str| server.ask("GET", "/v2/", &[("Authorization", value)], b"").status;
    // ann:secret, ann:other.
    assert_eq!((with("Basic YW5uOnNlY3JldA=="), with("Basic YW5uOm90aGVy"), with("Bearer x")), (200, 401, 401));
}

#[test]
fn a_read_only_registry_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path()).put_image("app", "v1", "one");
    let server = Server::with(wharf_registry::Options {
        data_root: dir.path().to_owned(),
        read_only: true,
        ..Default::default()
    });
    assert_eq!(server.get("/v2/app/manifests/v1").status, 200);
    for (method, path) in [("POST", "/v2/app/blobs/uploads/"), ("DELETE", "/v2/app/manifests/v1")] {
        assert_eq!(server.ask(method, path, &[], b"").code(), "DENIED");
    }
}
