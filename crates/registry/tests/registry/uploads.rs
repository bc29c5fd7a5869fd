//! Uploads: in one piece, in parts, cut off, gone on with.

use std::io::Write as _;

use wharf_reference::Digest;

use crate::support::{Answer, Server, answer, open};

fn begin(server: &Server) -> String {
    let begun = server.ask("POST", "/v2/app/blobs/uploads/", &[], b"");
    assert_eq!((begun.status, begun.header("range")), (202, Some("0-0")));
    let location = begun.header("location").unwrap();
    assert!(location.ends_with(begun.header("docker-upload-uuid").unwrap()));
    location.to_owned()
}

fn patch(server: &Server, location: &str, range: Option<&str>, body: &[u8]) -> Answer {
    let headers: Vec<(&str, &str)> = range.map(|range| ("Content-Range", range)).into_iter().collect();
    server.ask("PATCH", location, &headers, body)
}

#[test]
fn a_blob_comes_in_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let digest = Digest::sha256(b"content");
    let put = server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"), &[], b"content");
    let path = format!("/v2/app/blobs/{digest}");
    assert_eq!((put.status, put.header("location")), (201, Some(path.as_str())));
    assert_eq!(server.get(&path).body, b"content");
    let wrong = server.ask("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"), &[], b"other");
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
    assert!(std::fs::read_dir(dir.path().join("uploads")).unwrap().next().is_none());
}

#[test]
fn parts_must_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let location = begin(&server);
    let first = patch(&server, &location, Some("0-4"), b"01234");
    assert_eq!((first.status, first.header("range")), (202, Some("0-4")));
    for (range, body) in [("0-4", &b"01234"[..]), ("6-7", b"67"), ("4-5", b"45")] {
        let refused = patch(&server, &location, Some(range), body);
        assert_eq!((refused.status, refused.header("range")), (416, Some("0-4")), "{range}");
        assert_eq!(refused.header("location"), Some(location.as_str()));
    }
    assert_eq!(patch(&server, &location, Some("5-9"), b"567").code(), "SIZE_INVALID");
    assert_eq!(patch(&server, &location, Some("x"), b"567").code(), "RANGE_INVALID");
    assert_eq!(patch(&server, &location, None, b"56").status, 202);
    let status = server.get(&location);
    assert_eq!((status.status, status.header("range")), (204, Some("0-6")));

    let digest = Digest::sha256(b"0123456789");
    assert_eq!(server.ask("PUT", &location, &[], b"789").code(), "DIGEST_INVALID");
    let last = format!("{location}?digest={digest}");
    let put = server.ask("PUT", &last, &[("Content-Range", "7-9")], b"789");
    assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(digest.as_str())));
    assert_eq!(server.get(&format!("/v2/app/blobs/{digest}")).body, b"0123456789");
    assert_eq!(server.get(&location).code(), "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn uploads_are_cancelled_and_belong_to_their_repository() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let location = begin(&server);
    let other = location.replace("/app/", "/other/");
    assert_eq!(server.get(&other).code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(server.ask("DELETE", &location, &[], b"").status, 204);
    assert_eq!(server.ask("DELETE", &location, &[], b"").status, 404);
    assert_eq!(patch(&server, &location, None, b"x").code(), "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn an_upload_that_is_cut_off_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let location = begin(&server);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 241) as u8).collect();
    let mut stream = open(server.address, "PATCH", &location, &[], bytes.len());
    stream.write_all(&bytes[..2_000_000]).unwrap();
    drop(stream);
    // What has come is counted when the registry has seen the end of the connection.
    let began = std::time::Instant::now();
    let have = loop {
        let range = server.get(&location).header("range").unwrap().to_owned();
        let have = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
        if have == 2_000_000 {
            break have;
        }
        assert!(began.elapsed().as_secs() < 10, "{range}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let range = format!("{have}-{}", bytes.len() - 1);
    assert_eq!(patch(&server, &location, Some(&range), &bytes[have..]).status, 202);
    let digest = Digest::sha256(&bytes);
    assert_eq!(server.ask("PUT", &format!("{location}?digest={digest}"), &[], b"").status, 201);
    assert!(server.get(&format!("/v2/app/blobs/{digest}")).body == bytes);
}

#[test]
fn a_dead_connection_does_not_hold_an_upload() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let location = begin(&server);
    let mut silent = open(server.address, "PATCH", &location, &[], 100);
    silent.write_all(b"01234").unwrap();
    let began = std::time::Instant::now();
    while server.get(&location).header("range") != Some("0-4") {
        assert!(began.elapsed().as_secs() < 10);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let digest = Digest::sha256(b"0123456789");
    let put = server.ask("PUT", &format!("{location}?digest={digest}"), &[("Content-Range", "5-9")], b"56789");
    assert_eq!(put.status, 201);
    let ended = answer(&mut silent, "PATCH");
    assert_eq!(ended.code(), "BLOB_UPLOAD_INVALID");
    assert!(began.elapsed().as_secs() < 10);
}

#[test]
fn an_upload_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let location = {
        let server = Server::start(dir.path());
        let location = begin(&server);
        assert_eq!(patch(&server, &location, None, b"01234").status, 202);
        location
    };
    let server = Server::start(dir.path());
    assert_eq!(server.get(&location).header("range"), Some("0-4"));
    assert_eq!(patch(&server, &location, Some("5-9"), b"56789").status, 202);
    let digest = Digest::sha256(b"0123456789");
    assert_eq!(server.ask("PUT", &format!("{location}?digest={digest}"), &[], b"").status, 201);
}
