//! Our client at our registry, and at the distribution project's.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use wharf_distribution::{
    Client, ClientOptions, Credentials, Descriptor, DistributionError, Kind, Manifest, Repository, media_type,
};
use wharf_reference::{Digest, Reference};
use wharf_registry::Options;

use crate::support::{Server, docker_registry, program};

fn repository(options: ClientOptions, name: &str, auth: Option<Credentials>) -> Repository {
    Client::new(options).unwrap().repository(&Reference::parse(name).unwrap(), auth)
}

fn at(address: SocketAddr, path: &str) -> Repository {
    repository(ClientOptions::default(), &format!("{address}/{path}"), None)
}

fn temporary(bytes: &[u8]) -> tokio::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    tokio::fs::File::from_std(file)
}

async fn push(repository: &Repository, media_type: &str, bytes: &[u8]) -> Result<Descriptor, DistributionError> {
    let digest = Digest::sha256(bytes);
    let mut most = 0;
    let size = bytes.len() as u64;
    repository.push_blob(&digest, size, temporary(bytes), |sent| most = most.max(sent)).await?;
    assert_eq!(most, size);
    Ok(Descriptor::new(media_type, digest, size))
}

async fn everything(address: SocketAddr) {
    let (one, two) = (at(address, "team/one"), at(address, "team/two"));
    let layer: Vec<u8> = (0..2_000_000u32).map(|n| (n % 253) as u8).collect();
    let of_layer = push(&one, media_type::OCI_LAYER, &layer).await.unwrap();
    let of_config = push(&one, media_type::OCI_CONFIG, b"{}").await.unwrap();
    assert!(one.blob_exists(&of_layer.digest).await.unwrap() && !two.blob_exists(&of_layer.digest).await.unwrap());
    assert!(two.mount_blob(&of_layer.digest, "team/one").await.unwrap());
    assert!(!two.mount_blob(&Digest::sha256(b"none"), "team/one").await.unwrap());
    assert!(two.blob_exists(&of_layer.digest).await.unwrap());
    push(&two, media_type::OCI_CONFIG, b"").await.unwrap();

    let image = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": of_config, "layers": [of_layer],
    });
    let bytes = image.to_string().into_bytes();
    assert_eq!(one.manifest_exists("v1").await.unwrap(), None);
    let digest = one.push_manifest("v1", media_type::OCI_MANIFEST, &bytes).await.unwrap();
    let known = one.manifest_exists("v1").await.unwrap().unwrap();
    assert_eq!(known, Descriptor::new(media_type::OCI_MANIFEST, digest.clone(), bytes.len() as u64));
    for name in ["v1", digest.as_str()] {
        let found = one.manifest(name).await.unwrap();
        assert_eq!((found.bytes.as_ref(), &found.digest), (bytes.as_slice(), &digest));
        assert!(matches!(found.parse().unwrap(), Manifest::Image(image) if image.layers == [of_layer.clone()]));
    }
    assert_eq!(one.tags().await.unwrap(), ["v1"]);

    assert!(one.blob_bytes(&of_layer, 10_000_000).await.unwrap() == layer);
    assert_eq!(one.blob_bytes(&of_layer, 1000).await.unwrap_err().kind(), Kind::Invalid);
    let mut rest = one.blob(&of_layer, 1_999_990).await.unwrap();
    assert_eq!(rest.chunk().await.unwrap().unwrap(), layer[1_999_990..]);
    assert_eq!(rest.chunk().await.unwrap(), None);
    let short = Descriptor { size: of_layer.size - 1, ..of_layer.clone() };
    assert_eq!(one.blob_bytes(&short, 10_000_000).await.unwrap_err().kind(), Kind::WrongDigest);

    let missing = one.manifest("none").await.unwrap_err();
    let text = format!("manifest for {address}/team/one:none not found: manifest unknown: manifest unknown");
    assert_eq!((missing.kind(), missing.message()), (Kind::NotFound, text));
    let missing = one.blob(&Descriptor::new("x/y", Digest::sha256(b"none"), 4), 0).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let lost = json!({"schemaVersion": 2, "config": Descriptor::new("x/y", Digest::sha256(b"none"), 4), "layers": []});
    let refused = one.push_manifest("v2", media_type::OCI_MANIFEST, lost.to_string().as_bytes()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    assert!(refused.message().starts_with("manifest blob unknown: "), "{refused}");
    // Content that is not what it is said to be.
    let wrong = one.push_blob(&Digest::sha256(b"other"), 4, temporary(b"this"), |_| {}).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::Invalid, "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_does_everything_here() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    everything(server.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_does_everything_there() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_process, address)) = docker_registry(dir.path()) else { return };
    everything(address).await;
}

/// Makes a certificate authority and a certificate of it for this machine; false without `openssl`.
fn certificates(dir: &Path) -> bool {
    let Some(openssl) = program("openssl") else { return false };
    let run = |line: &str| {
        let output = Command::new(&openssl).args(line.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    run(&format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"));
    run(&format!("req -x509 {key} -keyout other.key -out other.crt -days 2 -subj /CN=other"));
    run(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    run("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile san");
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_passwords_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        return;
    }
    let htpasswd = dir.path().join("htpasswd");
    std::fs::write(&htpasswd, format!("ann:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let server = Server::with(Options {
        data_root: dir.path().join("root"),
        tls: Some((dir.path().join("server.crt"), dir.path().join("server.key"))),
        htpasswd: Some(htpasswd),
        ..Options::default()
    });
    let authority = format!("localhost:{}", server.address.port());
    let certs_dir = dir.path().join("certs.d");
    let own = certs_dir.join(&authority);
    std::fs::create_dir_all(&own).unwrap();
    let options = || ClientOptions { certs_dirs: vec![certs_dir.clone()], ..ClientOptions::default() };
    let name = format!("{authority}/app");
    let ann = || Some(Credentials::new("ann", "secret"));

    // A given authority is asked, though the registry is on this machine.
    std::fs::copy(dir.path().join("other.crt"), own.join("ca.crt")).unwrap();
    let refused = repository(options(), &name, ann()).tags().await.unwrap_err();
    let text = format!(
        "Get \"https://{authority}/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    assert_eq!((refused.kind(), refused.message()), (Kind::Unreachable, text));
    std::fs::copy(dir.path().join("ca.crt"), own.join("ca.crt")).unwrap();
    let trusted = repository(options(), &name, ann());
    push(&trusted, "x/y", b"content").await.unwrap();
    // Without one it need not be trusted, but TLS it is.
    let unverified = repository(ClientOptions::default(), &name, ann());
    assert!(unverified.blob_exists(&Digest::sha256(b"content")).await.unwrap());

    let client = Client::new(options()).unwrap();
    assert_eq!(client.login(&authority, &ann().unwrap()).await.unwrap(), "");
    let wrong = client.login(&authority, &Credentials::new("ann", "other")).await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::Unauthorized);
    assert_eq!(
        wrong.message(),
        format!(
            "login attempt to https://{authority}/v2/ failed with status: 401 Unauthorized: unauthorized: \
             authentication required"
        )
    );
    let anonymous = repository(options(), &name, None).manifest("x").await.unwrap_err();
    assert_eq!(anonymous.message(), "unauthorized: authentication required");
    // Someone without TLS learns nothing.
    std::fs::remove_file(own.join("ca.crt")).unwrap();
    let key_without_certificate = own.join("client.key");
    std::fs::write(&key_without_certificate, "x").unwrap();
    let broken = repository(options(), &name, ann()).tags().await.unwrap_err();
    assert!(broken.message().contains("client.key"), "{}", broken.message());
}

/// Hands on connections, and cuts the first ones off after so many bytes of an upload or a download.
async fn cutter(target: SocketAddr, cuts: Vec<(u64, u64)>) -> SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut cuts = cuts.into_iter();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (up, down) = cuts.next().unwrap_or((u64::MAX, u64::MAX));
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                let ((near_in, mut near_out), (far_in, mut far_out)) = (near.split(), far.split());
                let (mut near_in, mut far_in) = (near_in.take(up), far_in.take(down));
                // The first that ends is the end of both.
                let upwards = tokio::select! {
                    _ = copy(&mut near_in, &mut far_out) => true,
                    _ = copy(&mut far_in, &mut near_out) => false,
                };
                // A busy registry is given the time to take what did arrive before its client comes back.
                if upwards && far_out.shutdown().await.is_ok() {
                    let mut nobody = tokio::io::sink();
                    let rest = copy(&mut far_in, &mut nobody);
                    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), rest).await;
                }
            });
        }
    });
    address
}

async fn cut_off(target: SocketAddr, goes_on: bool) {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 239) as u8).collect();
    // One connection asks for TLS and gets none; the others are lost with what was on the way.
    let none = (u64::MAX, u64::MAX);
    let uploads = cutter(target, vec![none, (700_000, u64::MAX), (1_000_000, u64::MAX), none]).await;
    let mut seen = Vec::new();
    let (digest, size) = (Digest::sha256(&bytes), bytes.len() as u64);
    let repository = at(uploads, "app");
    repository.push_blob(&digest, size, temporary(&bytes), |sent| seen.push(sent)).await.unwrap();
    // It went on where the registry was, not at the beginning.
    let falls: Vec<u64> = seen.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[1]).collect();
    assert!(falls.iter().all(|to| (*to > 0) == goes_on), "{falls:?}");
    // Where it goes on, the registry may have had all that was counted as sent.
    assert!(goes_on || !falls.is_empty(), "it began again without saying so");

    let downloads = cutter(target, vec![none, (u64::MAX, 700_000), (u64::MAX, 100), (u64::MAX, 1_000_000)]).await;
    let descriptor = Descriptor::new("x/y", digest, size);
    let found = at(downloads, "app").blob_bytes(&descriptor, size).await.unwrap();
    assert!(found == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_off_goes_on_here() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    cut_off(server.address, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_off_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_process, address)) = docker_registry(dir.path()) else { return };
    // It drops uploads that were cut off; the client begins them again.
    cut_off(address, false).await;
}
