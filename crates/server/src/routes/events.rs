//! `GET /events`: what has happened, and what happens from now on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::ACCEPT;
use jiff::Timestamp;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use wharf_engine::event::Event;

use super::{Call, Result};
use crate::filters::Filters;
use crate::http::ApiError;
use crate::moment::moment;
use crate::pulled::pulled;
use crate::render;
/// Each event after a record separator (RFC 7464).
const JSON_SEQ: &str = "application/json-seq";

/// Which events a client wants.
#[derive(Debug, Default)]
struct Choice {
    filters: Filters,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

pub(super) fn events(call: &Call) -> Result {
    let choice = Choice {
        // As moby, which looks for those it knows.
        filters: Filters::all_of(&call.query)?,
        since: call.query.get("since").map(moment).transpose()?,
        until: call.query.get("until").map(moment).transpose()?,
    };
    if let (Some(since), Some(until)) = (choice.since, choice.until)
        && since > until
    {
        let (since, until) = (call.query.text("since"), call.query.text("until"));
        return Err(ApiError::bad(format!("`since` time ({since}) cannot be after `until` time ({until})")));
    }
    let events = call.api.engine.events();
    // Past events only for those who say from when on.
    let (past, live) = match (choice.since, choice.until) {
        (None, None) => (Vec::new(), events.subscribe()),
        _ => events.subscribe_with_past(),
    };
    let version = call.version;
    let kind = media_type(call.request.headers(), version);
    let mark = if kind == JSON_SEQ { "\x1e" } else { "" };
    Ok(pulled(kind, Follower { choice, past: past.into_iter(), live, version, mark }, Follower::next))
}

/// A client that listens. There may be thousands, and some of them slow: so each has its place among the events, which
/// all share, and a line is made when there is room for it on the way to the client.
struct Follower {
    choice: Choice,
    past: std::vec::IntoIter<Arc<Event>>,
    live: Receiver<Arc<Event>>,
    version: (u32, u32),
    mark: &'static str,
}

impl Follower {
    /// The next line that the client wants, and the follower for the one after it.
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let event = match self.past.find(|event| self.choice.fits(event)) {
            Some(event) => event,
            None => {
                self.past = Vec::new().into_iter();
                self.next_live().await?
            }
        };
        let line = format!("{}{}\n", self.mark, render::event::event(&event, self.version));
        Some((Bytes::from(line), self))
    }

    async fn next_live(&mut self) -> Option<Arc<Event>> {
        let until = self.choice.until;
        let end = async {
            match until {
                Some(until) => tokio::time::sleep(left(until)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                biased;
                event = self.live.recv() => event,
                () = &mut end => return None,
            };
            match event {
                Ok(event) if self.choice.fits(&event) => return Some(event),
                // A client that is too slow misses some, as with Docker.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// The form that a client asks for, the first that is known here. Before API 1.52 there was one.
fn media_type(headers: &HeaderMap, version: (u32, u32)) -> &'static str {
    let asked = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let known = |text: &str| {
        let name = text.split(';').next().unwrap_or_default().trim();
        let since = |kind, since| (name.eq_ignore_ascii_case(kind) && version >= since).then_some(kind);
        since("application/json", (1, 24))
            .or_else(|| since("application/x-ndjson", (1, 52)))
            .or_else(|| since(JSON_SEQ, (1, 52)))
            .or_else(|| since("application/jsonl", (1, 53)))
    };
    asked.split(',').find_map(known).unwrap_or("application/json")
}

fn left(until: Timestamp) -> Duration {
    until.duration_since(Timestamp::now()).try_into().unwrap_or_default()
}

impl Choice {
    fn fits(&self, event: &Event) -> bool {
        let at = i128::from(event.time_nano);
        let filters = &self.filters;
        let name = event.actor.attributes.get("name").map_or("", String::as_str);
        // The ID, or the name, or the beginning of either.
        let named =
            |kind: &str, text: &str| event.kind == kind && (event.actor.id.starts_with(text) || name.starts_with(text));
        // `exec_start: ls` is an `exec_start`.
        let action = event.action.split(':').next().unwrap_or_default();
        self.since.is_none_or(|since| at >= since.as_nanosecond())
            && self.until.is_none_or(|until| at <= until.as_nanosecond())
            && filters.any("type", |kind| event.kind == kind)
            && filters.any("event", |wanted| action == wanted || event.action == wanted)
            && filters.any("container", |text| named("container", text))
            && filters.any("network", |text| named("network", text))
            && filters.any("volume", |text| named("volume", text))
            && filters.any("plugin", |text| named("plugin", text))
            && filters.any("daemon", |text| named("daemon", text))
            && filters.any("image", |text| of_image(event, text))
            && filters.any("scope", |scope| event.scope == scope)
            && ["node", "service", "secret", "config"].iter().all(|kind| filters.any(kind, |text| named(kind, text)))
            && filters.labels(Some(&event.actor.attributes))
    }
}

/// An image's own events, and those of its containers; with its tag or without.
fn of_image(event: &Event, text: &str) -> bool {
    let bare = |name: &str| match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare.to_owned(),
        _ => name.to_owned(),
    };
    let name = match event.kind.as_str() {
        "image" => event.actor.attributes.get("name"),
        _ => event.actor.attributes.get("image"),
    };
    let by_name = name.is_some_and(|name| name == text || bare(name) == text);
    by_name || (event.kind == "image" && (event.actor.id == text || bare(&event.actor.id) == text))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wharf_engine::event::Actor;

    use super::*;
    use crate::query::Query;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes: BTreeMap<_, _> = attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Event {
            kind: kind.into(),
            action: action.into(),
            actor: Actor { id: id.into(), attributes },
            scope: "local".into(),
            time: 100,
            time_nano: 100_000_000_000,
        }
    }

    fn choice(text: &str) -> Choice {
        let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
        let filters = Filters::all_of(&Query::parse(&format!("filters={encoded}"))).unwrap();
        Choice { filters, ..Choice::default() }
    }

    #[test]
    fn filters_choose() {
        let started = event("container", "start", "abcdef", &[("image", "debian:12"), ("name", "web"), ("k", "v")]);
        let exec = event("container", "exec_start: ls -l", "abcdef", &[]);
        for (text, wanted) in [
            (r#"{"type":["container"]}"#, true),
            (r#"{"type":["image"]}"#, false),
            (r#"{"event":["start","die"]}"#, true),
            (r#"{"event":["die"]}"#, false),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["x"]}"#, false),
            (r#"{"image":["debian"]}"#, true),
            (r#"{"image":["debian:12"]}"#, true),
            (r#"{"image":["deb"]}"#, false),
            (r#"{"label":["k=v"]}"#, true),
            (r#"{"label":["k=w"]}"#, false),
            (r#"{"network":["x"]}"#, false),
            ("{}", true),
        ] {
            assert_eq!(choice(text).fits(&started), wanted, "{text}");
        }
        assert!(choice(r#"{"event":["exec_start"]}"#).fits(&exec));
    }

    #[test]
    fn clients_choose_the_form() {
        for (accept, version, kind) in [
            (None, (1, 54), "application/json"),
            (Some("*/*"), (1, 54), "application/json"),
            (Some("application/json-seq"), (1, 52), "application/json-seq"),
            (Some("application/json-seq"), (1, 51), "application/json"),
            (Some("application/jsonl, application/x-ndjson;q=0.9"), (1, 54), "application/jsonl"),
            (Some("application/jsonl, application/x-ndjson;q=0.9"), (1, 52), "application/x-ndjson"),
        ] {
            let mut headers = HeaderMap::new();
            accept.map(|text| headers.insert(ACCEPT, text.parse().unwrap()));
            assert_eq!(media_type(&headers, version), kind, "{accept:?} {version:?}");
        }
    }

    #[test]
    fn times_are_inclusive() {
        let one = event("image", "pull", "x", &[]);
        let at = |since: i64, until: i64| {
            let time = |second| Some(Timestamp::from_second(second).unwrap());
            Choice { since: time(since), until: time(until), ..Choice::default() }.fits(&one)
        };
        assert!(at(100, 100) && at(99, 101));
        assert!(!at(101, 102) && !at(98, 99));
    }
}
