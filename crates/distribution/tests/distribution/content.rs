//! Content that is not what it should be.

use serde_json::json;
use wharf_distribution::{Descriptor, DistributionError, Kind, MAX_MANIFEST, media_type};
use wharf_reference::Digest;

use crate::fake::{Fake, error, say};

fn image() -> String {
    let config = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(b"{}"), 2);
    json!({"schemaVersion": 2, "config": config, "layers": []}).to_string()
}

#[tokio::test]
async fn manifests_are_verified() {
    let digest = Digest::sha256(image().as_bytes());
    let other = Digest::sha256(b"other");
    let promised = other.to_string();
    let registry = Fake::start(move |asked| match asked.path.rsplit('/').next().unwrap() {
        "typed" => say(200, &[("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")], image()),
        "untyped" => say(200, &[("content-type", "application/json")], image()),
        "lying" => say(200, &[("docker-content-digest", &promised)], image()),
        "large" => say(200, &[], vec![b' '; MAX_MANIFEST as usize + 1]),
        "nonsense" => say(200, &[], "<html>"),
        "old" => say(200, &[("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws")], "{}"),
        _ => say(200, &[("content-type", media_type::OCI_MANIFEST)], image()),
    })
    .await;
    let app = registry.app(None);
    for good in ["typed", "untyped", digest.as_str()] {
        let found = app.manifest(good).await.unwrap();
        assert_eq!((found.media_type.as_str(), &found.digest), (media_type::OCI_MANIFEST, &digest));
    }
    assert_eq!(app.manifest(other.as_str()).await.unwrap_err().kind(), Kind::WrongDigest);
    assert_eq!(app.manifest("lying").await.unwrap_err().kind(), Kind::WrongDigest);
    assert_eq!(app.manifest("large").await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(app.manifest("nonsense").await.unwrap_err().kind(), Kind::Invalid);
    assert!(matches!(app.manifest("old").await.unwrap().parse(), Err(DistributionError::Schema1)));
    let accepted = registry.asked()[0].header("accept").unwrap().to_owned();
    assert!(media_type::MANIFESTS.iter().all(|form| accepted.contains(form)), "{accepted}");
    // What could leave its place in the path is not asked for at all.
    let asked = registry.asked().len();
    assert!(app.manifest("../../v2/other/manifests/x").await.is_err());
    assert_eq!(registry.asked().len(), asked);
}

#[tokio::test]
async fn blobs_are_as_long_as_they_are_said_to_be() {
    let registry = Fake::start(|asked| match asked.path.contains(Digest::sha256(b"404").hex()) {
        true => error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        false => say(200, &[], "content"),
    })
    .await;
    let app = registry.app(None);
    let of = |bytes: &[u8], size| Descriptor::new("x/y", Digest::sha256(bytes), size);
    assert_eq!(app.blob_bytes(&of(b"content", 7), 7).await.unwrap(), "content");
    for size in [6, 8] {
        let wrong = app.blob_bytes(&of(b"content", size), 100).await.unwrap_err();
        assert!(matches!(wrong, DistributionError::WrongSize { found: 7, .. }), "{wrong:?}");
    }
    assert_eq!(app.blob_bytes(&of(b"other", 7), 7).await.unwrap_err().kind(), Kind::WrongDigest);
    let missing = app.blob(&of(b"404", 3), 0).await.unwrap_err();
    assert_eq!(
        (missing.kind(), missing.message().as_str()),
        (Kind::NotFound, "blob unknown: blob unknown to registry")
    );
    // Of a blob that is here whole nothing is asked.
    assert_eq!(app.blob(&of(b"404", 3), 3).await.unwrap().chunk().await.unwrap(), None);
}

#[tokio::test]
async fn tags_are_read_page_by_page() {
    let registry = Fake::start(|asked| match asked.query.as_str() {
        "n=1000" => say(200, &[("link", "</v2/app/tags/list?n=1000&last=b>; rel=\"next\"")], r#"{"tags":["a","b"]}"#),
        "n=1000&last=b" => say(200, &[("link", "<http://elsewhere.invalid/x>; rel=\"next\"")], r#"{"tags":["c"]}"#),
        _ => say(500, &[], ""),
    })
    .await;
    assert_eq!(registry.app(None).tags().await.unwrap(), ["a", "b", "c"]);
    let endless = Fake::start(|_| say(200, &[("link", "</v2/app/tags/list>; rel=next")], r#"{"tags":null}"#)).await;
    assert!(endless.app(None).tags().await.unwrap().is_empty());
    let missing = Fake::start(|_| error(404, "NAME_UNKNOWN", "repository name not known to registry")).await;
    let text =
        format!("repository {}/app not found: name unknown: repository name not known to registry", missing.address);
    assert_eq!(missing.app(None).tags().await.unwrap_err().message(), text);
}

#[tokio::test]
async fn a_range_is_what_was_asked_for_and_no_more() {
    let registry = Fake::start(|asked| {
        let is = |name: &str| asked.path.contains(Digest::sha256(name.as_bytes()).hex());
        let part = |range: &str, body: &'static str| say(206, &[("content-range", range)], body);
        match asked.header("range") {
            None => say(200, &[], "content"),
            Some("bytes=2-4") if is("ranged") => part("bytes 2-4/7", "nte"),
            Some("bytes=2-4") if is("open") => part("bytes 2-6/7", "ntent"),
            Some("bytes=2-4") if is("elsewhere") => part("bytes 0-2/7", "con"),
            Some("bytes=2-4") if is("larger") => part("bytes 2-4/70", "nte"),
            Some(_) => say(200, &[], "content"),
        }
    })
    .await;
    let app = registry.app(None);
    let of = |name: &str| Descriptor::new("x/y", Digest::sha256(name.as_bytes()), 7);
    let mut stream = app.blob_range(&of("ranged"), 2..5).await.unwrap();
    assert!(stream.is_ranged());
    assert_eq!((stream.chunk().await.unwrap().unwrap(), stream.chunk().await.unwrap()), ("nte".into(), None));
    // A registry without ranges: what was not asked for is left out, or taken after all.
    let mut stream = app.blob_range(&of("whole"), 2..5).await.unwrap();
    assert!(!stream.is_ranged());
    assert_eq!((stream.chunk().await.unwrap().unwrap(), stream.chunk().await.unwrap()), ("nte".into(), None));
    let mut stream = app.blob_range(&of("whole"), 2..5).await.unwrap();
    stream.to_the_end();
    assert_eq!((stream.chunk().await.unwrap().unwrap(), stream.position()), ("ntent".into(), 7));
    let mut stream = app.blob_range(&of("open"), 2..5).await.unwrap();
    assert!(matches!(stream.chunk().await.unwrap_err(), DistributionError::WrongSize { .. }));
    assert!(matches!(app.blob_range(&of("larger"), 2..5).await, Err(DistributionError::WrongSize { found: 70, .. })));
    let text = app.blob_range(&of("elsewhere"), 2..5).await.unwrap_err().message();
    assert!(text.contains("a part from 0, not 2"), "{text}");
}
