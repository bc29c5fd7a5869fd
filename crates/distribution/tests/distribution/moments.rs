//! Bad moments: registries that are busy, gone, or lost in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wharf_distribution::{ClientOptions, Descriptor, DistributionError, Kind};
use wharf_reference::Digest;

use crate::fake::{Fake, error, repository, say};

const TAGS: &str = r#"{"tags":["v1"]}"#;

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let count = AtomicU32::new(0);
    let registry = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => say(503, &[], ""),
        1 => say(429, &[("retry-after", "1")], ""),
        _ => say(200, &[], TAGS),
    })
    .await;
    let began = Instant::now();
    assert_eq!(registry.app(None).tags().await.unwrap(), ["v1"]);
    assert!(began.elapsed() >= Duration::from_millis(1250), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_blob_is_asked_for_as_often_as_was_said() {
    for attempts in [1, 3] {
        let registry = Fake::start(|_| say(503, &[], "")).await;
        let options = ClientOptions { download_attempts: Some(attempts), ..ClientOptions::default() };
        let app = repository(options, &format!("{}/app", registry.address), None);
        let blob = Descriptor::new("x/y", Digest::sha256(b"content"), 7);
        app.blob(&blob, 0).await.unwrap_err();
        assert_eq!(registry.asked().len(), attempts as usize);
    }
}

#[tokio::test]
async fn nobody_waits_for_hours() {
    let limit = "You have reached your pull rate limit.";
    let registry = Fake::start(move |_| {
        let mut said = error(429, "TOOMANYREQUESTS", limit);
        said.headers_mut().insert("retry-after", "21600".parse().unwrap());
        said
    })
    .await;
    let began = Instant::now();
    let refused = registry.app(None).manifest("v1").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!((refused.kind(), refused.message()), (Kind::TooManyRequests, format!("toomanyrequests: {limit}")));
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let began = Instant::now();
    let gone = repository(ClientOptions::default(), &format!("{address}/app"), None).tags().await.unwrap_err();
    let text = format!("Get \"http://{address}/v2/\": dial tcp {address}: connect: connection refused");
    assert_eq!((gone.kind(), gone.message()), (Kind::Unreachable, text));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_registry_that_must_speak_tls_and_does_not_is_not_spoken_to() {
    // By a name that is no loopback name, though it is this machine: it is looked up, and refused before TLS.
    let registry = Fake::start(|_| say(200, &[], TAGS)).await;
    let own = local_address();
    let Some(own) = own else { return };
    let listener = TcpListener::bind((own, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = registry.address;
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let name = format!("{address}/app");
    let refused = repository(ClientOptions::default(), &name, None).tags().await.unwrap_err();
    let text = format!("Get \"https://{address}/v2/\": http: server gave HTTP response to HTTPS client");
    assert_eq!(refused.message(), text);
    assert!(registry.asked().is_empty());
    let listed = ClientOptions { insecure: vec![address.to_string()], ..ClientOptions::default() };
    assert_eq!(repository(listed, &name, None).tags().await.unwrap(), ["v1"]);
    let network = ClientOptions { insecure: vec![format!("{own}/32")], ..ClientOptions::default() };
    assert_eq!(repository(network, &name, None).tags().await.unwrap(), ["v1"]);
}

/// An address of this machine that is not its loopback's, if it has one.
fn local_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Sends parts of `content` on connections one after another: `parts` are where each begins, how much it sends, and
/// whether it says that it is a part.
async fn interrupted(
    content: &'static [u8],
    parts: Vec<(usize, usize, bool)>,
) -> (std::net::SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let served = count.clone();
    tokio::spawn(async move {
        let mut parts = parts.into_iter();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            if !request.starts_with(b"GET") {
                // TLS, which is not spoken here.
                continue;
            }
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let Some((start, count, partial)) = parts.next() else { return };
            served.fetch_add(1, Ordering::SeqCst);
            let total = content.len();
            let head = if partial {
                assert!(request.to_ascii_lowercase().contains(&format!("range: bytes={start}-\r\n")), "{request}");
                let last = total - 1;
                format!(
                    "206 Partial Content\r\nContent-Range: bytes {start}-{last}/{total}\r\nContent-Length: {}",
                    total - start
                )
            } else {
                format!("200 OK\r\nContent-Length: {total}")
            };
            stream.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).await.unwrap();
            stream.write_all(&content[start..start + count]).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_blob_goes_on_where_it_was() {
    let content = b"0123456789";
    let parts = vec![(0, 3, false), (3, 0, true), (3, 4, true), (7, 3, true)];
    let (address, count) = interrupted(content, parts).await;
    let app = repository(ClientOptions::default(), &format!("{address}/app"), None);
    let descriptor = Descriptor::new("x/y", Digest::sha256(content), 10);
    assert_eq!(app.blob_bytes(&descriptor, 10).await.unwrap(), content.as_slice());
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_it_again() {
    let content = b"0123456789";
    let (address, _) = interrupted(content, vec![(0, 3, false), (0, 6, false), (0, 10, false)]).await;
    let app = repository(ClientOptions::default(), &format!("{address}/app"), None);
    let descriptor = Descriptor::new("x/y", Digest::sha256(content), 10);
    assert_eq!(app.blob_bytes(&descriptor, 10).await.unwrap(), content.as_slice());
}

#[tokio::test]
async fn an_end_comes_all_the_same() {
    let content = b"0123456789";
    let (address, _) = interrupted(content, vec![(0, 3, false)]).await;
    let app = repository(ClientOptions::default(), &format!("{address}/app"), None);
    let mut stream = app.blob(&Descriptor::new("x/y", Digest::sha256(content), 10), 0).await.unwrap();
    assert_eq!(stream.chunk().await.unwrap().unwrap(), content[..3]);
    assert_eq!(stream.position(), 3);
    let lost = stream.chunk().await.unwrap_err();
    assert!(matches!(lost, DistributionError::Unreachable { .. }), "{lost:?}");
}
