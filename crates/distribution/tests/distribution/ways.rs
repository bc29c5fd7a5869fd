//! Ways to content: redirects, mirrors, other places.

use wharf_distribution::{ClientOptions, Credentials, Descriptor, Kind, media_type};
use wharf_reference::Digest;

use crate::fake::{Fake, repository, say};

fn content() -> Descriptor {
    Descriptor::new("x/y", Digest::sha256(b"content"), 7)
}

#[tokio::test]
async fn registries_do_not_send_their_clients_everywhere() {
    for forbidden in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:password@127.0.0.1/",
    ] {
        let registry = Fake::start(move |_| say(307, &[("location", forbidden)], "")).await;
        let refused = registry.app(None).blob_bytes(&content(), 7).await.unwrap_err();
        assert!(matches!(refused.kind(), Kind::Unreachable | Kind::Failed), "{forbidden}: {refused:?}");
        let expected = if refused.kind() == Kind::Failed { "a redirect" } else { "no registry may send its clients" };
        assert!(refused.message().contains(expected), "{}", refused.message());
    }
}

#[tokio::test]
async fn redirects_have_an_end() {
    let registry = Fake::start(|_| say(307, &[("location", "/v2/again")], "")).await;
    let refused = registry.app(None).blob_bytes(&content(), 7).await.unwrap_err();
    assert!(refused.message().ends_with("stopped after 10 redirects"), "{}", refused.message());
    assert_eq!(registry.asked().len(), 11);
}

#[tokio::test]
async fn from_https_nobody_is_sent_to_http() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Fake::start(|_| say(200, &[], "content")).await;
    let to = plain.url("/");
    let Some(registry) = Fake::secure(dir.path(), move |_| say(307, &[("location", &to)], "")).await else { return };
    let refused = registry.app(None).blob_bytes(&content(), 7).await.unwrap_err();
    assert!(refused.message().contains("from https to plain http"), "{}", refused.message());
    assert!(plain.asked().is_empty());
}

#[tokio::test]
async fn layers_that_are_elsewhere_are_fetched_there_without_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let Some(elsewhere) = Fake::secure(dir.path(), |_| say(200, &[], "content")).await else { return };
    let plain = Fake::start(|_| say(200, &[], "content")).await;
    let registry = Fake::start(|asked| match asked.authorization() {
        "" => say(401, &[("www-authenticate", "Basic realm=x")], ""),
        _ => say(404, &[], ""),
    })
    .await;
    let mut layer = content();
    layer.urls = vec![plain.url("/a"), format!("https://{}/b", elsewhere.address)];
    let app = registry.app(Some(Credentials::new("ann", "secret")));
    // Not for any layer.
    assert_eq!(app.blob_bytes(&layer, 7).await.unwrap_err().kind(), Kind::NotFound);
    layer.media_type = media_type::DOCKER_FOREIGN_LAYER_GZIP.into();
    assert_eq!(app.blob_bytes(&layer, 7).await.unwrap(), "content");
    assert!(plain.asked().is_empty());
    assert_eq!((elsewhere.asked().len(), elsewhere.asked()[0].authorization()), (1, ""));
}

#[tokio::test]
async fn mirrors_are_asked_first_and_get_no_credentials() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let empty = Fake::start(|_| say(404, &[], "")).await;
    let full = Fake::start(|asked| match asked.path.as_str() {
        "/v2/library/debian/manifests/12" => {
            say(200, &[("content-type", media_type::OCI_MANIFEST)], r#"{"schemaVersion":2}"#)
        }
        path if path.starts_with("/v2/library/debian/blobs/") => say(200, &[], "content"),
        "/v2/library/debian/tags/list" => say(200, &[], r#"{"tags":["12"]}"#),
        _ => say(404, &[], ""),
    })
    .await;
    let mirrors = vec![format!("http://{gone}"), empty.url("/"), full.url("")];
    let options = ClientOptions { mirrors, ..ClientOptions::default() };
    let debian = repository(options, "debian", Some(Credentials::new("ann", "secret")));
    assert_eq!(debian.manifest("12").await.unwrap().bytes, r#"{"schemaVersion":2}"#);
    assert_eq!(debian.blob_bytes(&content(), 7).await.unwrap(), "content");
    assert_eq!(debian.tags().await.unwrap(), ["12"]);
    let all: Vec<_> = empty.asked().into_iter().chain(full.asked()).collect();
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|asked| asked.authorization().is_empty()));
}

#[tokio::test]
async fn files_of_the_web_come_as_they_are_and_with_their_date() {
    let server = Fake::start(|asked| match asked.path.as_str() {
        "/moved" if asked.query == "a=b" => say(302, &[("location", "/file")], ""),
        "/file" => say(200, &[("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")], "text"),
        _ => say(404, &[], "nothing here"),
    })
    .await;
    let client = wharf_distribution::Client::new(ClientOptions::default()).unwrap();
    let mut document = client.document(&server.url("/moved?a=b#fragment")).await.unwrap();
    assert_eq!(document.modified(), Some(1_445_412_480));
    assert_eq!(document.chunk().await.unwrap().unwrap(), "text");
    assert!(document.chunk().await.unwrap().is_none());

    let missing = client.document(&server.url("/none?secret=x")).await.unwrap_err().message();
    assert_eq!(missing, format!("failed to GET {} with status 404 Not Found", server.url("/none")));
    for wrong in ["file:///etc/passwd", "no address"] {
        assert_eq!(client.document(wrong).await.unwrap_err().kind(), Kind::Invalid, "{wrong}");
    }
}

#[tokio::test]
async fn who_is_in_an_address_is_shown_to_that_server_alone() {
    let elsewhere =
        Fake::start(|asked| say(200, &[("content-encoding", "GZIP")], asked.authorization().to_owned())).await;
    let to = elsewhere.url("/file");
    let server = Fake::start(move |asked| match (asked.path.as_str(), asked.authorization()) {
        // As those do that hide what they have.
        (_, "") => say(404, &[], ""),
        ("/away", _) => say(302, &[("location", to.as_str())], ""),
        (_, shown) => say(200, &[("content-encoding", "x-gzip")], shown.to_owned()),
    })
    .await;
    let client = wharf_distribution::Client::new(ClientOptions::default()).unwrap();
    let with_user = |path: &str| server.url(path).replace("http://", "http://ann:p%40ss@");
    let mut document = client.document(&with_user("/file")).await.unwrap();
    assert_eq!(document.chunk().await.unwrap().unwrap(), "Basic YW5uOnBAc3M=");
    assert!(!document.is_gzip_encoded());
    let mut away = client.document(&with_user("/away")).await.unwrap();
    assert!(away.is_gzip_encoded() && away.chunk().await.unwrap().is_none());
    let missing = client.document(&with_user("/file").replace("/file", "/x y")).await.unwrap_err();
    assert!(!missing.message().contains("p%40ss"), "{}", missing.message());
}

/// What a registry on this machine may name is this machine, and nothing beside it that no name leads to.
#[tokio::test]
async fn neither_tokens_nor_uploads_lead_everywhere() {
    for forbidden in
        ["http://169.254.169.254/token", "http://[::ffff:169.254.169.254]/token", "http://100.100.100.200/t"]
    {
        let realm = format!("Bearer realm=\"{forbidden}\",service=\"x\"");
        let registry = Fake::start(move |_| say(401, &[("www-authenticate", &realm)], "")).await;
        let refused = registry.app(None).tags().await.unwrap_err();
        assert!(refused.message().contains("no registry may send its clients"), "{}", refused.message());
        let registry = Fake::start(move |asked| match asked.method.as_str() {
            "POST" => say(202, &[("location", forbidden)], ""),
            _ => say(404, &[], ""),
        })
        .await;
        let file = tempfile::tempfile().unwrap();
        let app = registry.app(Some(Credentials::new("ann", "secret")));
        let pushed = app.push_blob(&Digest::sha256(b""), 0, tokio::fs::File::from_std(file), |_| {}).await;
        let refused = pushed.unwrap_err().message();
        assert!(refused.contains("no registry may send its clients"), "{refused}");
    }
}

/// An upload goes on where the registry says, and nobody but the registry sees who uploads.
#[tokio::test]
async fn an_upload_elsewhere_gets_no_credentials() {
    let store = Fake::start(|_| say(201, &[], "")).await;
    let to = store.url("/upload?signed=1");
    let registry = Fake::start(move |asked| match (asked.authorization(), asked.method.as_str()) {
        ("", _) => say(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
        (_, "POST") => say(202, &[("location", &to)], ""),
        _ => say(404, &[], ""),
    })
    .await;
    let file = tempfile::tempfile().unwrap();
    let app = registry.app(Some(Credentials::new("ann", "secret")));
    app.push_blob(&Digest::sha256(b""), 0, tokio::fs::File::from_std(file), |_| {}).await.unwrap();
    let asked = store.asked();
    assert_eq!((asked.len(), asked[0].method.as_str(), asked[0].authorization()), (1, "PUT", ""));
    assert!(asked[0].query.starts_with("signed=1&digest=sha256"), "{}", asked[0].query);
}
