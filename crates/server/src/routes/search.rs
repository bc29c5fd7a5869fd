//! Searching a registry, by the protocol of Docker's first one: the only that has a search.

use serde_json::{Value, json};
use wharf_distribution::{Client, Credentials};
use wharf_engine::EngineError;

use super::{Call, Result};
use crate::auth;
use crate::filters::Filters;
use crate::http::{ApiError, ok};

const HUB: &str = "index.docker.io";
/// Docker's bounds on the number of results, and what is given without one.
const LIMITS: std::ops::RangeInclusive<i64> = 1..=100;
const LIMIT: i64 = 25;
/// More than this is no list of so few names.
const MAX_ANSWER: usize = 4 << 20;

pub(super) async fn search(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["is-automated", "is-official", "stars"])?;
    let limit = call.query.number("limit")?.unwrap_or(LIMIT);
    if !LIMITS.contains(&limit) {
        return Err(ApiError::bad(format!("limit {limit} is outside the range of [1, 100]")));
    }
    let bad = |key: &str, value: &str| ApiError::bad(format!("invalid filter '{key}={value}'"));
    let stars = filters.get("stars").unwrap_or_default().iter();
    let stars = stars.map(|text| text.parse::<i64>().map_err(|_| bad("stars", text)));
    // Of several the highest.
    let stars = stars.collect::<std::result::Result<Vec<_>, _>>()?.into_iter().max();
    let (official, automated) = (filters.flag("is-official")?, filters.flag("is-automated")?);
    let term = call.query.text("term");
    if let Some((scheme, _)) = term.split_once("://") {
        return Err(ApiError::bad(format!(
            "invalid repository name: repository name ({scheme}://…) should not have a scheme"
        )));
    }
    let (host, text) = split(&term);
    let options = call.api.engine.told();
    let insecure = is_loopback(host) || options.insecure_registries.iter().any(|name| name == host);
    let client = call.api.engine.registry();
    let credentials = auth::of(call.request.headers());
    let found = match ask(client, "https", host, text, limit, credentials.clone()).await {
        Err(_) if insecure => ask(client, "http", host, text, limit, credentials).await,
        found => found,
    };
    let results: Vec<Value> = found?
        .into_iter()
        .filter(|one| {
            official.is_none_or(|wanted| one["is_official"].as_bool() == Some(wanted))
                && automated.is_none_or(|wanted| one["is_automated"].as_bool() == Some(wanted))
                && stars.is_none_or(|least| one["star_count"].as_i64().unwrap_or(0) >= least)
        })
        .collect();
    Ok(ok(&results))
}

/// The registry that is asked, and for what: a term may begin with a host.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => match host {
            "docker.io" | "registry-1.docker.io" => (HUB, rest),
            other => (other, rest),
        },
        _ => (HUB, term.strip_prefix("library/").unwrap_or(term)),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn ask(
    client: &Client,
    scheme: &str,
    host: &str,
    text: &str,
    limit: i64,
    credentials: Option<Credentials>,
) -> std::result::Result<Vec<Value>, ApiError> {
    let query: String = text.bytes().map(escaped).collect();
    let url = format!("{scheme}://{host}/v1/search?q={query}&n={limit}");
    let mut document = client.document_as(&url, credentials).await.map_err(EngineError::from)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = document.chunk().await.map_err(EngineError::from)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_ANSWER {
            return Err(EngineError::system(format!("{host} answers a search with too much")).into());
        }
    }
    let answer: Value = serde_json::from_slice(&bytes)
        .map_err(|e| EngineError::system(format!("{host} answers a search with what is not understood: {e}")))?;
    let one = |found: &Value| {
        json!({
            "star_count": found["star_count"].as_i64().unwrap_or(0),
            "is_official": found["is_official"].as_bool().unwrap_or(false),
            "name": found["name"].as_str().unwrap_or_default(),
            "is_automated": found["is_automated"].as_bool().unwrap_or(false),
            "description": found["description"].as_str().unwrap_or_default(),
        })
    };
    Ok(answer["results"].as_array().map(|all| all.iter().map(one).collect()).unwrap_or_default())
}

fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_its_registry() {
        assert_eq!(split("redis"), (HUB, "redis"));
        assert_eq!(split("library/redis"), (HUB, "redis"));
        assert_eq!(split("some/redis"), (HUB, "some/redis"));
        assert_eq!(split("docker.io/redis"), (HUB, "redis"));
        assert_eq!(split("localhost:5000/a/b"), ("localhost:5000", "a/b"));
        assert!(is_loopback("127.0.0.1:5000") && is_loopback("localhost") && !is_loopback("example.org"));
    }
}
