//! Beside the distribution project's registry, and with `skopeo`, a client that is not ours.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use wharf_reference::Digest;

use crate::support::{
    Answer, OCI_MANIFEST, Server, ask, docker_registry, image, path_of, program, put_blob, put_image,
};

/// What clients decide by.
fn sight(answer: &Answer) -> String {
    let mut sight = format!("{} {}", answer.status, answer.code());
    for name in ["docker-content-digest", "content-range", "range", "content-type", "accept-ranges"] {
        let value = answer.header(name).unwrap_or("-").split(';').next().unwrap_or_default().to_owned();
        // Of error bodies and of empty ones the type says nothing.
        if name != "content-type" || (answer.status < 300 && !answer.body.is_empty()) {
            sight.push_str(&format!(" {name}={value}"));
        }
    }
    sight
}

/// Asks one registry everything; what it said, by question.
fn interview(address: SocketAddr) -> Vec<(String, String)> {
    let mut said = Vec::new();
    let mut note = |question: &str, answer: &Answer| said.push((question.to_owned(), sight(answer)));
    let blob = put_blob(address, "a/b", b"0123456789");
    let manifest_digest = put_image(address, "a/b", "v1", "one");
    let (manifest, _) = image("one");
    let none = Digest::sha256(b"none");
    let types = [("Content-Type", OCI_MANIFEST)];

    let simple = [
        ("GET", "/v2/".to_owned()),
        ("GET", format!("/v2/a/b/blobs/{blob}")),
        ("HEAD", format!("/v2/a/b/blobs/{blob}")),
        ("GET", format!("/v2/other/blobs/{blob}")),
        ("GET", format!("/v2/a/b/blobs/{none}")),
        ("HEAD", format!("/v2/a/b/blobs/{none}")),
        ("GET", "/v2/a/b/manifests/v1".into()),
        ("HEAD", "/v2/a/b/manifests/v1".into()),
        ("GET", format!("/v2/a/b/manifests/{manifest_digest}")),
        ("GET", "/v2/a/b/manifests/none".into()),
        ("HEAD", "/v2/a/b/manifests/none".into()),
        ("GET", format!("/v2/a/b/manifests/{none}")),
        ("GET", "/v2/none/manifests/v1".into()),
        ("GET", "/v2/a/b/tags/list".into()),
        ("GET", "/v2/none/tags/list".into()),
        ("GET", "/v2/_catalog".into()),
        ("POST", format!("/v2/other/blobs/uploads/?mount={blob}&from=a/b")),
        ("GET", format!("/v2/other/blobs/{blob}")),
        ("POST", format!("/v2/other/blobs/uploads/?mount={none}&from=a/b")),
        ("DELETE", format!("/v2/a/b/blobs/{none}")),
        ("DELETE", format!("/v2/a/b/manifests/{none}")),
    ];
    for (method, path) in simple {
        let found = ask(address, method, &path, &[("Accept", OCI_MANIFEST)], b"");
        note(&format!("{method} {path}"), &found);
    }
    // Of what is beyond the end theirs promises a body that does not come.
    for range in ["bytes=2-4", "bytes=8-", "bytes=-3"] {
        note(range, &ask(address, "GET", &format!("/v2/a/b/blobs/{blob}"), &[("Range", range)], b""));
    }
    let put = |reference: &str, body: &str| {
        ask(address, "PUT", &format!("/v2/a/b/manifests/{reference}"), &types, body.as_bytes())
    };
    note("put", &put("v2", &manifest));
    note("put under another digest", &put(none.as_str(), &manifest));
    note("put nonsense", &put("v2", "{"));
    let missing = json!({"mediaType": "x/y", "digest": none.as_str(), "size": 4});
    let missing = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": missing, "layers": [missing]});
    note("put with a missing blob", &put("v2", &missing.to_string()));

    let begin = || path_of(ask(address, "POST", "/v2/a/b/blobs/uploads/", &[], b"").header("location").unwrap());
    let with_digest = |location: &str, digest: &str| {
        let mark = if location.contains('?') { '&' } else { '?' };
        format!("{location}{mark}digest={digest}")
    };
    let octets = [("Content-Type", "application/octet-stream")];
    let location = begin();
    note("status of nothing", &ask(address, "GET", &location, &[], b""));
    let patched = ask(address, "PATCH", &location, &octets, b"01234");
    note("patch", &patched);
    let location = path_of(patched.header("location").unwrap());
    note("status of five", &ask(address, "GET", &location, &[], b""));
    note("put the wrong digest", &ask(address, "PUT", &with_digest(&location, none.as_str()), &octets, b"x"));
    let location = begin();
    note("put without a digest", &ask(address, "PUT", &location, &octets, b"x"));
    note("put with a bad digest", &ask(address, "PUT", &with_digest(&location, "sha256:x"), &octets, b"x"));
    let location = begin();
    note("cancel", &ask(address, "DELETE", &location, &[], b""));
    note("status of a cancelled one", &ask(address, "GET", &location, &[], b""));
    note("delete", &ask(address, "DELETE", &format!("/v2/a/b/manifests/{manifest_digest}"), &[], b""));
    note("get the deleted", &ask(address, "GET", &format!("/v2/a/b/manifests/{manifest_digest}"), &[], b""));
    note("get its tag", &ask(address, "GET", "/v2/a/b/manifests/v1", &[], b""));
    note("delete a blob", &ask(address, "DELETE", &format!("/v2/a/b/blobs/{blob}"), &[], b""));
    note("get the deleted blob", &ask(address, "GET", &format!("/v2/a/b/blobs/{blob}"), &[], b""));
    said
}

/// Where both are within the specification and differ all the same (an error body for a wrong method, `unknown` for
/// an upload whose number is none) nothing is asked.
#[test]
fn it_answers_as_the_distribution_projects_registry() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_process, theirs)) = docker_registry(dir.path()) else { return };
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(root.path());
    let differ: Vec<String> = interview(server.address)
        .into_iter()
        .zip(interview(theirs))
        .filter(|(ours, theirs)| ours != theirs)
        .map(|((question, ours), (_, theirs))| format!("{question}\n  ours   {ours}\n  theirs {theirs}"))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// Runs `skopeo`, without asking for signatures and trust.
fn skopeo(dir: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program("skopeo")?)
        .args(["--insecure-policy", "--tmpdir"])
        .arg(dir)
        .args(args)
        .env("REGISTRY_AUTH_FILE", dir.join("auth.json"))
        .output()
        .unwrap();
    assert!(output.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// An OCI layout with one image of one layer of `size` bytes that do not compress.
fn layout(dir: &Path, size: usize) -> String {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({"digest": digest.as_str(), "size": bytes.len()})
    };
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(size)
    .collect();
    let mut layer = put(&noise);
    layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    let rootfs = json!({"type": "layers", "diff_ids": [layer["digest"]]});
    let mut config = put(json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).to_string().as_bytes());
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = put(manifest.to_string().as_bytes());
    manifest["mediaType"] = OCI_MANIFEST.into();
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "x"});
    std::fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    manifest["digest"].as_str().unwrap().to_owned()
}

#[test]
fn skopeo_copies_to_and_from_it() {
    if program("skopeo").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("root"));
    let source = dir.path().join("source");
    let digest = layout(&source, 3_000_000);
    let from = format!("oci:{}:x", source.display());
    let one = format!("docker://{}/team/app:v1", server.address);
    let two = format!("docker://{}/other/app:v2", server.address);
    skopeo(dir.path(), &["copy", "--preserve-digests", "--dest-tls-verify=false", &from, &one]);
    // From one repository to another, by mounts.
    skopeo(
        dir.path(),
        &["copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", &one, &two],
    );
    let back = dir.path().join("back");
    skopeo(
        dir.path(),
        &["copy", "--preserve-digests", "--src-tls-verify=false", &two, &format!("oci:{}:x", back.display())],
    );
    for entry in std::fs::read_dir(source.join("blobs/sha256")).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |layout: &Path| std::fs::read(layout.join("blobs/sha256").join(&name)).unwrap();
        assert!(read(&source) == read(&back), "{name:?}");
    }
    let inspected = skopeo(dir.path(), &["inspect", "--tls-verify=false", &one]).unwrap();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!((inspected["Digest"].as_str(), inspected["RepoTags"].clone()), (Some(digest.as_str()), json!(["v1"])));
    // Docker's form, which skopeo makes on the way.
    let docker = format!("docker://{}/docker/app:v1", server.address);
    skopeo(dir.path(), &["copy", "--format", "v2s2", "--dest-tls-verify=false", &from, &docker]);
    skopeo(dir.path(), &["delete", "--tls-verify=false", &docker]);
    assert_eq!(server.get("/v2/docker/app/manifests/v1").status, 404);
}
