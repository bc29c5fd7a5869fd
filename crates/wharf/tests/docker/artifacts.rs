//! What is in a registry and no image: pushed as `oras` does, listed, copied by others, and refused by us in clear words.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use serde_json::{Value, json};
use wharf_reference::Digest;

use crate::kit::{Daemon, Said};
use crate::ship::Registry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &[u8] = b"{}";

/// A request, and its status, head and body.
fn ask(at: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(at).unwrap();
    let length = body.len();
    let head = format!("Host: {at}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}");
    write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
    stream.write_all(body).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap();
    (status, head, bytes[end + 4..].to_vec())
}

fn put_blob(at: &str, name: &str, bytes: &[u8]) {
    let path = format!("/v2/{name}/blobs/uploads/?digest={}", Digest::sha256(bytes));
    assert_eq!(ask(at, "POST", &path, "application/octet-stream", bytes).0, 201);
}

/// The manifest of an artifact with one file.
fn artifact(kind: &str, content: &[u8], subject: Option<&Digest>) -> Value {
    let described =
        |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": Digest::sha256(bytes), "size": bytes.len() });
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
        "config": described("application/vnd.oci.empty.v1+json", EMPTY), "layers": [described("text/plain", content)],
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!({ "mediaType": MANIFEST, "digest": subject, "size": 7 });
    }
    manifest
}

#[test]
fn artifacts_are_kept_and_listed_and_no_images() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let at = registry.address.as_str();
    put_blob(at, "team/notes", EMPTY);
    put_blob(at, "team/notes", b"a note");
    let plain = artifact("application/x.note", b"a note", None).to_string().into_bytes();
    let (status, _, _) = ask(at, "PUT", "/v2/team/notes/manifests/1", MANIFEST, &plain);
    assert_eq!(status, 201);
    let (_, _, got) = ask(at, "GET", "/v2/team/notes/manifests/1", "", b"");
    assert_eq!(got, plain, "byte for byte");
    // About what is here, and about what is not.
    for (subject, kind) in
        [(Digest::sha256(&plain), "application/x.signature"), (Digest::sha256(b"none"), "application/x.scan")]
    {
        let about = artifact(kind, b"a note", Some(&subject)).to_string().into_bytes();
        let path = format!("/v2/team/notes/manifests/{}", Digest::sha256(&about));
        let (status, head, _) = ask(at, "PUT", &path, MANIFEST, &about);
        assert!(status == 201 && head.contains(&format!("oci-subject: {subject}")), "{head}");
        let list = |filter: &str| {
            let (status, head, body) = ask(at, "GET", &format!("/v2/team/notes/referrers/{subject}{filter}"), "", b"");
            assert_eq!(status, 200, "{head}");
            let found: Value = serde_json::from_slice(&body).unwrap();
            let kinds = found["manifests"].as_array().unwrap().iter().map(|one| one["artifactType"].clone());
            (kinds.collect::<Vec<_>>(), head.contains("oci-filters-applied: artifacttype"))
        };
        assert_eq!(list(""), (vec![json!(kind)], false));
        assert_eq!(list(&format!("?artifactType={kind}")), (vec![json!(kind)], true));
        assert_eq!(list("?artifactType=other"), (vec![], true));
    }
    let name = format!("{at}/team/notes:1");
    let text = format!("{name} is no image but an artifact of type application/x.note: it cannot be run");
    for words in [format!("pull {name}"), format!("run --rm {name}")] {
        let refused = d.docker(&words);
        assert!(refused.code != 0 && refused.err.contains(&text), "{words}: {}", refused.err);
    }
    assert_eq!(d.docker(&format!("images -q {at}/team/notes")).ok(), "", "nothing of it is here");
    d.wharf("system fsck").ok();

    let skopeo = |words: &str| Command::new("skopeo").args(words.split_whitespace()).output();
    if skopeo("--version").is_err() {
        return println!("skipped: there is no skopeo on this machine");
    }
    // Another client takes it elsewhere, and into a layout, of which we say the same.
    let layout = d.path().join("layout");
    let copy = "--insecure-policy copy -q --preserve-digests --src-tls-verify=false";
    Said::from(skopeo(&format!("{copy} --dest-tls-verify=false docker://{name} docker://{at}/copy:1")).unwrap()).ok();
    assert_eq!(ask(at, "GET", "/v2/copy/manifests/1", "", b"").2, plain);
    Said::from(skopeo(&format!("{copy} docker://{name} oci:{}:1", layout.display())).unwrap()).ok();
    let tar = d.path().join("layout.tar");
    assert!(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&layout).arg(".").status().unwrap().success());
    let refused = d.wharf(&format!("load -i {}", tar.display()));
    let text = "what is in the archive is no image but an artifact of type application/x.note";
    assert!(refused.code == 1 && refused.err.contains(text), "{}", refused.err);
}
