//! Hosts by `hosts.toml`, and proxies by settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use wharf_distribution::{ClientOptions, Credentials, Descriptor, Kind, ProxyOptions, media_type};
use wharf_reference::Digest;

use crate::fake::{Asked, Fake, Said, error, repository, say};

const TAGS: &str = r#"{"tags":["v1"]}"#;

fn manifest() -> String {
    let config = Descriptor::new(media_type::OCI_CONFIG, Digest::sha256(b"{}"), 2);
    serde_json::json!({"schemaVersion": 2, "config": config, "layers": []}).to_string()
}

/// Has one manifest, by its digest or as `v1`, takes blobs, and shows a challenge to who shows nothing, if it `asks`.
fn serves(asks: bool) -> impl Fn(&Asked) -> Said {
    move |asked| match (asked.method.as_str(), asked.path.rsplit('/').next().unwrap()) {
        _ if asks && asked.authorization().is_empty() => say(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
        ("GET", "list") => say(200, &[], TAGS),
        ("GET", _) => say(200, &[("content-type", media_type::OCI_MANIFEST)], manifest()),
        ("PUT", _) => say(201, &[], ""),
        _ => say(404, &[], ""),
    }
}

/// A folder of certificates with a `hosts.toml` for a registry.
fn with_hosts(dir: &Path, registry: &str, text: &str) -> ClientOptions {
    let own = dir.join("certs.d").join(registry);
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("hosts.toml"), text).unwrap();
    ClientOptions { certs_dirs: vec![PathBuf::from("/nonexistent"), dir.join("certs.d")], ..ClientOptions::default() }
}

#[tokio::test]
async fn mirrors_are_asked_for_what_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(manifest().as_bytes());
    let blobs_only = Fake::start(serves(true)).await;
    let empty = Fake::start(|_| error(404, "MANIFEST_UNKNOWN", "manifest unknown")).await;
    let home = Fake::start(serves(true)).await;
    let text = format!(
        "server = 'http://{}'\n[host.'http://{}/cache']\ncapabilities = ['pull']\n\
         [host.'http://{}/cache'.header]\nx-team = 'one'\nauthorization = 'Bearer own'\n\
         [host.'http://{}/v2/up']\noverride_path = true\ncapabilities = ['pull', 'resolve']\n",
        home.address, blobs_only.address, blobs_only.address, empty.address
    );
    let options = with_hosts(dir.path(), &format!("{}_", home.address.to_string().replace(':', "_")), &text);
    let app = repository(options, &format!("{}/app", home.address), Some(Credentials::new("ann", "secret")));
    // What a tag means the first may not say, and the second does not know.
    app.manifest("v1").await.unwrap();
    assert!(blobs_only.asked().is_empty());
    let asked = &empty.asked()[0];
    assert_eq!(
        (asked.path.as_str(), asked.query.as_str()),
        ("/v2/up/app/manifests/v1", &*format!("ns=127.0.0.1%3A{}", home.address.port()))
    );
    assert_eq!(home.asked().last().unwrap().authorization(), "Basic YW5uOnNlY3JldA==");
    // By digest it is asked, with its own header and nobody's password.
    let before = home.asked().len();
    app.manifest(digest.as_str()).await.unwrap();
    let asked = &blobs_only.asked()[0];
    assert_eq!(asked.path, format!("/cache/v2/app/manifests/{digest}"));
    assert_eq!((asked.header("x-team"), asked.authorization()), (Some("one"), "Bearer own"));
    assert_eq!(home.asked().len(), before);
    assert!(empty.asked().iter().all(|asked| asked.authorization().is_empty() && asked.header("x-team").is_none()));
    // What is written goes to who may be written to.
    app.push_manifest("v2", media_type::OCI_MANIFEST, manifest().as_bytes()).await.unwrap();
    assert_eq!(home.asked().last().unwrap().path, "/v2/app/manifests/v2");
}

#[tokio::test]
async fn a_registry_may_be_elsewhere_and_credentials_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Fake::start(serves(false)).await;
    // For all without a folder of their own; nobody looks for the name itself.
    let options = with_hosts(dir.path(), "_default", &format!("server = 'http://{}'", elsewhere.address));
    let app = repository(options, "registry.invalid/app", Some(Credentials::new("ann", "secret")));
    assert_eq!(app.tags().await.unwrap(), ["v1"]);
    let asked = elsewhere.asked();
    assert!(
        asked.iter().all(|asked| asked.query.ends_with("&ns=registry.invalid") && asked.authorization().is_empty())
    );
    let options = with_hosts(dir.path(), "_default", "capabilities = ['pull', 'resolve']");
    let refused =
        repository(options, "registry.invalid/app", None).push_manifest("v1", "x/y", b"{}").await.unwrap_err();
    assert!(refused.message().contains("may be pushed to, by its hosts.toml"), "{}", refused.message());
    let options = with_hosts(dir.path(), "_default", "\nnonsense");
    let refused = repository(options, "registry.invalid/app", None).tags().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Failed);
    let text = refused.message();
    assert!(text.contains("_default/hosts.toml` cannot be used: line 2: key with no value, expected `=`"), "{text}");
}

/// An authority, another, and certificates of the first for a server and a client; false without `openssl`.
fn certificates(dir: &Path) -> bool {
    let run = |line: &str| Command::new("openssl").args(line.split(' ')).current_dir(dir).output();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let sign = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san";
    for line in [
        format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"),
        format!("req -x509 {key} -keyout other.key -out other.crt -days 2 -subj /CN=other"),
        format!("req {key} -keyout server.key -out server.csr -subj /CN=server"),
        format!("x509 -req -in server.csr -out server.crt {sign}"),
        format!("req {key} -keyout client.key -out client.csr -subj /CN=client"),
        format!("x509 -req -in client.csr -out client.cert {sign}"),
    ] {
        match run(&line) {
            Err(_) => {
                println!("skipped: `openssl` is not installed");
                return false;
            }
            Ok(output) => assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
    true
}

fn acceptor(dir: &Path, asks: bool) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = vec![CertificateDer::from_pem_file(dir.join("server.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if asks {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

#[tokio::test]
async fn a_host_has_authorities_and_certificates_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        return;
    }
    let server = Fake::with(Some(acceptor(dir.path(), true)), serves(false)).await;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tags = async |settings: &str| {
        let text = format!("server = 'https://{}'\n{settings}", server.address);
        let options = with_hosts(dir.path(), "registry.invalid", &text);
        repository(options, "registry.invalid/app", None).tags().await.map_err(|error| error.message())
    };
    let client = format!("client = [['{}', '{}']]\n", path("client.cert"), path("client.key"));
    assert_eq!(tags(&format!("ca = '{}'\n{client}", path("ca.crt"))).await.unwrap(), ["v1"]);
    let untrusted = tags(&format!("ca = ['{}']\n{client}", path("other.crt"))).await.unwrap_err();
    assert!(untrusted.contains("x509: certificate signed by unknown authority"), "{untrusted}");
    assert_eq!(tags(&format!("skip_verify = true\n{client}")).await.unwrap(), ["v1"]);
    // Who shows nothing is not let in, whomever it trusts.
    let refused = tags(&format!("ca = '{}'\n", path("ca.crt"))).await.unwrap_err();
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");
    let missing = tags("ca = 'none.crt'\n").await.unwrap_err();
    assert!(missing.contains("none.crt"), "{missing}");
    assert!(server.asked().iter().all(|asked| asked.query.contains("ns=registry.invalid")));
}

/// A registry and its token service are two hosts, each with a certificate of its own.
#[tokio::test]
async fn a_token_service_has_authorities_and_certificates_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        return;
    }
    let service = Fake::with(Some(acceptor(dir.path(), true)), |_| say(200, &[], "{\"token\": \"good\"}")).await;
    let challenge = format!("Bearer realm=\"https://{}/token\",service=\"x\"", service.address);
    let registry = Fake::with(Some(acceptor(dir.path(), false)), move |asked| match asked.authorization() {
        "Bearer good" => say(200, &[], TAGS),
        _ => say(401, &[("www-authenticate", &challenge)], ""),
    })
    .await;
    let path = |name: &str| dir.path().join(name).display().to_string();
    with_hosts(dir.path(), &registry.address.to_string(), &format!("ca = '{}'\n", path("ca.crt")));
    let tags = async |settings: &str| {
        let options = with_hosts(dir.path(), &service.address.to_string(), settings);
        let app = repository(options, &format!("{}/app", registry.address), Some(Credentials::new("ann", "secret")));
        app.tags().await.map_err(|error| error.message())
    };
    let client = format!("client = [['{}', '{}']]\n", path("client.cert"), path("client.key"));
    assert_eq!(tags(&format!("ca = '{}'\n{client}", path("ca.crt"))).await.unwrap(), ["v1"]);
    let untrusted = tags(&format!("ca = '{}'\n{client}", path("other.crt"))).await.unwrap_err();
    assert!(untrusted.contains("x509: certificate signed by unknown authority"), "{untrusted}");
    let refused = tags(&format!("ca = '{}'\n", path("ca.crt"))).await.unwrap_err();
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");
    assert_eq!(service.asked().len(), 1);
}

/// What holds for one host does not hold for whom it redirects to.
#[tokio::test]
async fn trust_ends_with_the_host() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        return;
    }
    let store = Fake::with(Some(acceptor(dir.path(), false)), |_| say(200, &[], "content")).await;
    let to = format!("https://{}/x", store.address);
    let server = Fake::with(Some(acceptor(dir.path(), false)), move |_| say(307, &[("location", &to)], "")).await;
    // The store has a folder of its own, with another authority.
    let own = dir.path().join("certs.d").join(store.address.to_string());
    fs::create_dir_all(&own).unwrap();
    fs::copy(dir.path().join("other.crt"), own.join("ca.crt")).unwrap();
    let text = format!("server = 'https://{}'\nskip_verify = true", server.address);
    let options = with_hosts(dir.path(), "registry.invalid", &text);
    let blob = Descriptor::new("x/y", Digest::sha256(b"content"), 7);
    let refused = repository(options, "registry.invalid/app", None).blob_bytes(&blob, 7).await.unwrap_err();
    assert!(refused.message().contains("signed by unknown authority"), "{}", refused.message());
    assert!(store.asked().is_empty());
}

#[tokio::test]
async fn proxies_are_those_of_the_settings() {
    let proxy = Fake::start(|asked| match asked.header("proxy-authorization") {
        Some("Basic YTpi") => say(200, &[], TAGS),
        _ => say(407, &[], ""),
    })
    .await;
    let options = |no: &str| ClientOptions {
        insecure: vec!["registry.invalid:80".into()],
        proxies: ProxyOptions {
            http: Some(format!("http://a:b@{}", proxy.address)),
            // Nobody is there: whether the registry speaks TLS is found out by it.
            https: Some(String::new()),
            no_proxy: Some(no.into()),
        },
        ..ClientOptions::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let text = "server = 'http://registry.invalid'";
    let hosts =
        |no: &str| ClientOptions { certs_dirs: with_hosts(dir.path(), "_default", text).certs_dirs, ..options(no) };
    assert_eq!(repository(hosts("other.invalid"), "registry.invalid/app", None).tags().await.unwrap(), ["v1"]);
    assert_eq!(proxy.asked().len(), 1);
    assert_eq!(proxy.asked()[0].header("host"), Some("registry.invalid"));
    let direct = repository(hosts("registry.invalid"), "registry.invalid/app", None).tags().await.unwrap_err();
    assert_eq!((direct.kind(), proxy.asked().len()), (Kind::Unreachable, 1));
    let bad = ClientOptions {
        proxies: ProxyOptions { https: Some("socks5://u:secret@x".into()), ..ProxyOptions::default() },
        ..ClientOptions::default()
    };
    let refused = wharf_distribution::Client::new(bad).unwrap_err().message();
    assert!(refused.contains("`x`") && !refused.contains("secret"), "{refused}");
}
