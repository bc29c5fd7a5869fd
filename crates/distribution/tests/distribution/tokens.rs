//! Tokens: asked for when wanted, kept, renewed, and shown to nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use wharf_distribution::{Client, ClientOptions, Credentials, Descriptor, Kind};
use wharf_reference::{Digest, Reference};

use crate::fake::{Asked, Fake, error, say};

const TAGS: &str = r#"{"name":"app","tags":["v1"]}"#;
/// ann:secret.
const ANN: &str = "Basic YW5uOnNlY3JldA==";

fn ann() -> Credentials {
    Credentials::new("ann", "secret")
}

/// A registry that wants the token that `good` tells, and a service that gives what `grant` makes of a request.
async fn registry(
    good: impl Fn() -> String + Send + Sync + 'static,
    grant: impl Fn(&Asked) -> crate::fake::Said + Send + Sync + 'static,
) -> (Fake, Fake) {
    let service = Fake::start(grant).await;
    let realm = service.url("/token?fixed=1");
    let registry = Fake::start(move |asked| {
        if asked.authorization() == format!("Bearer {}", good()) {
            return match asked.path.as_str() {
                "/v2/" => say(200, &[], "{}"),
                _ => say(200, &[], TAGS),
            };
        }
        let challenge = format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:app:pull\"");
        let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
        say(401, &[("www-authenticate", &challenge)], body.to_string())
    })
    .await;
    (registry, service)
}

#[tokio::test]
async fn a_token_is_asked_for_once() {
    let (registry, service) =
        registry(|| "good".into(), |_| say(200, &[], json!({"token": "good", "expires_in": 300}).to_string())).await;
    let app = registry.app(None);
    for _ in 0..3 {
        assert_eq!(app.tags().await.unwrap(), ["v1"]);
    }
    let asked = service.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].query, "fixed=1&service=the%20registry&scope=repository%3Aapp%3Apull");
    assert_eq!((asked[0].method.as_str(), asked[0].authorization()), ("GET", ""));
    // One refused request, and three that were not.
    assert_eq!(registry.asked().len(), 4);
}

#[tokio::test]
async fn credentials_go_to_the_service_alone() {
    let (registry, service) =
        registry(|| "good".into(), |_| say(200, &[], json!({"access_token": "good"}).to_string())).await;
    registry.app(Some(ann())).tags().await.unwrap();
    assert_eq!(service.asked()[0].authorization(), ANN);
    assert!(service.asked()[0].query.ends_with("&account=ann"));
    assert!(registry.asked().iter().all(|asked| !asked.authorization().starts_with("Basic")));
}

#[tokio::test]
async fn two_users_have_two_tokens() {
    let (registry, service) = registry(
        || "of ann".into(),
        |asked| {
            let token = if asked.authorization() == ANN { "of ann" } else { "of nobody" };
            say(200, &[], json!({"token": token}).to_string())
        },
    )
    .await;
    let client = Client::new(ClientOptions::default()).unwrap();
    let name = Reference::parse(&format!("{}/app", registry.address)).unwrap();
    client.repository(&name, Some(ann())).tags().await.unwrap();
    assert_eq!(client.repository(&name, None).tags().await.unwrap_err().kind(), Kind::Unauthorized);
    assert_eq!(client.repository(&name, Some(ann())).tags().await.unwrap(), ["v1"]);
    assert_eq!(service.asked().iter().filter(|asked| asked.authorization() == ANN).count(), 1);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced() {
    let number = Arc::new(AtomicU32::new(1));
    let (now, given) = (number.clone(), number.clone());
    let (registry, service) = registry(
        move || now.load(Ordering::SeqCst).to_string(),
        move |_| say(200, &[], json!({"token": given.load(Ordering::SeqCst).to_string()}).to_string()),
    )
    .await;
    let app = registry.app(None);
    app.tags().await.unwrap();
    number.store(2, Ordering::SeqCst);
    app.tags().await.unwrap();
    assert_eq!(service.asked().len(), 2);
}

#[tokio::test]
async fn a_service_may_refuse() {
    let (registry, _) =
        registry(|| "good".into(), |_| say(401, &[], r#"{"details":"incorrect username or password"}"#)).await;
    let refused = registry.app(Some(ann())).tags().await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.message().as_str()),
        (Kind::Unauthorized, "unauthorized: incorrect username or password")
    );
    let client = Client::new(ClientOptions::default()).unwrap();
    let login = client.login(&registry.address.to_string(), &ann()).await.unwrap_err();
    assert_eq!(login.message(), "unauthorized: incorrect username or password");
}

#[tokio::test]
async fn a_token_that_is_not_enough_is_a_denial() {
    let service = Fake::start(|_| say(200, &[], json!({"token": "weak"}).to_string())).await;
    let realm = service.url("/token");
    let registry = Fake::start(move |asked| {
        let why = if asked.authorization().is_empty() { "" } else { ",error=\"insufficient_scope\"" };
        say(401, &[("www-authenticate", &format!("Bearer realm=\"{realm}\"{why}"))], "")
    })
    .await;
    let refused = registry.app(None).manifest("v1").await.unwrap_err();
    let text = format!(
        "pull access denied for {}/app, repository does not exist or may require 'docker login': denied: requested \
         access to the resource is denied",
        registry.address
    );
    assert_eq!((refused.kind(), refused.message()), (Kind::Denied, text));
}

#[tokio::test]
async fn a_login_gives_an_identity_token_and_later_requests_use_it() {
    let (registry, service) = registry(
        || "good".into(),
        |asked| {
            say(200, &[], json!({"token": "good", "refresh_token": format!("refresh {}", asked.method)}).to_string())
        },
    )
    .await;
    let client = Client::new(ClientOptions::default()).unwrap();
    let token = client.login(&format!("http://{}/", registry.address), &ann()).await.unwrap();
    assert_eq!(token, "refresh GET");
    assert!(service.asked().last().unwrap().query.contains("offline_token=true"));

    let identity = Credentials { username: "<token>".into(), identity_token: Some(token), ..Credentials::default() };
    registry.app(Some(identity)).tags().await.unwrap();
    let asked = service.asked().pop().unwrap();
    assert_eq!((asked.method.as_str(), asked.authorization()), ("POST", ""));
    assert_eq!(
        asked.body,
        "grant_type=refresh_token&service=the%20registry&client_id=docker&scope=repository%3Aapp%3Apull&\
         refresh_token=refresh%20GET"
    );
}

#[tokio::test]
async fn basic_credentials_are_shown_when_asked_for() {
    let registry = Fake::start(|asked| match asked.authorization() {
        ANN => say(200, &[], TAGS),
        _ => say(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
    })
    .await;
    let app = registry.app(Some(ann()));
    for _ in 0..2 {
        app.tags().await.unwrap();
    }
    let shown: Vec<String> = registry.asked().iter().map(|asked| asked.authorization().to_owned()).collect();
    assert_eq!(shown, ["", ANN, ANN]);
    let anonymous = registry.app(None).tags().await.unwrap_err();
    assert_eq!(
        (anonymous.kind(), anonymous.message().as_str()),
        (Kind::Unauthorized, "unauthorized: authentication required")
    );
    let wrong = registry.app(Some(Credentials::new("ann", "other"))).tags().await.unwrap_err();
    assert_eq!(wrong.kind(), Kind::Unauthorized);
}

#[tokio::test]
async fn a_registry_token_is_shown_as_it_is() {
    let registry = Fake::start(|_| say(200, &[], TAGS)).await;
    let own = Credentials { registry_token: Some("own".into()), ..Credentials::default() };
    registry.app(Some(own)).tags().await.unwrap();
    assert_eq!(registry.asked()[0].authorization(), "Bearer own");
}

#[tokio::test]
async fn where_a_registry_redirects_nothing_is_shown() {
    let store = Fake::start(|asked| match asked.header("range") {
        None => say(200, &[], "content"),
        Some(_) => say(206, &[("content-range", "bytes 3-6/7")], "tent"),
    })
    .await;
    // It tries to be asked for credentials, too.
    let greedy = Fake::start(|_| say(401, &[("www-authenticate", "Basic realm=\"x\"")], "")).await;
    let (to, greedy_to) = (store.url("/signed?secret=1"), greedy.url("/"));
    let registry = Fake::start(move |asked| match (asked.authorization(), asked.path.contains("greedy")) {
        ("", _) => say(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
        (_, true) => say(302, &[("location", &greedy_to)], ""),
        _ => say(307, &[("location", &to)], ""),
    })
    .await;
    let app = registry.app(Some(ann()));
    let descriptor = Descriptor::new("x/y", Digest::sha256(b"content"), 7);
    assert_eq!(app.blob_bytes(&descriptor, 100).await.unwrap(), "content");
    assert_eq!(app.blob(&descriptor, 3).await.unwrap().chunk().await.unwrap().unwrap(), "tent");
    assert_eq!(store.asked().len(), 2);
    assert!(store.asked().iter().all(|asked| asked.authorization().is_empty()), "{:?}", store.asked());
    assert_eq!(app.manifest("greedy").await.unwrap_err().kind(), Kind::Unauthorized);
    assert_eq!(greedy.asked().len(), 1);
    assert_eq!(greedy.asked()[0].authorization(), "");
}

#[tokio::test]
async fn credentials_do_not_go_in_the_clear_to_others() {
    // To another host by plain HTTP; this one is only another port of the same, so it is given as a name.
    let registry =
        Fake::start(|_| say(401, &[("www-authenticate", "Bearer realm=\"http://auth.invalid/token\"")], "")).await;
    let refused = registry.app(Some(ann())).tags().await.unwrap_err();
    assert!(refused.message().contains("in the clear"), "{}", refused.message());
}

#[tokio::test]
async fn a_denied_push_is_told_as_it_is() {
    let registry = Fake::start(|_| error(403, "DENIED", "requested access to the resource is denied")).await;
    let refused = registry.app(None).push_manifest("v1", "x/y", b"{}").await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.message().as_str()),
        (Kind::Denied, "denied: requested access to the resource is denied")
    );
}
