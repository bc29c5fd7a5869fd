//! `GET /containers/json`: which containers, and what each is called.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use wharf_engine::Engine;
use wharf_engine::record::{Container, Status};
use wharf_image::ImageRecord;
use wharf_reference::Digest;

use super::{Call, Result, blocking};
use crate::filters::{Filters, Patterns};
use crate::http::{ApiError, ok};
use crate::render::container::summary;

const FILTERS: &[&str] = &[
    "id",
    "name",
    "label",
    "label!",
    "annotation",
    "exited",
    "status",
    "ancestor",
    "before",
    "since",
    "volume",
    "network",
    "publish",
    "expose",
    "isolation",
    "health",
    "is-task",
];
const STATES: &[&str] = &["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTH: &[&str] = &["none", "starting", "healthy", "unhealthy"];

pub(super) async fn list(call: Call) -> Result {
    let engine = &call.api.engine;
    let limit = call.query.number::<i64>("limit")?.filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
    let filters = Filters::of(&call.query, FILTERS)?;
    // Who asks for a state wants to see those in it.
    let all = call.query.flag("all") || limit.is_some() || filters.get("status").is_some();
    let choice = Choice::new(filters, engine).await?;
    let every = engine.list();
    let links = link_names(&every);
    let of = |id: &str| links.get(id).map_or(&[][..], Vec::as_slice);
    let shown: Vec<_> = every
        .iter()
        .filter(|c| (all || c.state.status.is_active()) && choice.fits(c, of(&c.id)))
        .take(limit.unwrap_or(usize::MAX))
        .collect();

    let images = engine.images().clone();
    let names: BTreeSet<(&String, &Digest)> = shown.iter().map(|c| (&c.config.image, &c.image)).collect();
    let names: Vec<(String, Digest)> = names.into_iter().map(|(name, id)| (name.clone(), id.clone())).collect();
    // For whichever platform.
    let known: Vec<(String, Digest)> =
        blocking(move || Ok(names.into_iter().filter(|(name, id)| images.means(name, id)).collect())).await?;
    let known: BTreeSet<(&String, &Digest)> = known.iter().map(|(name, id)| (name, id)).collect();
    let now = Timestamp::now();
    let mut answer = Vec::with_capacity(shown.len());
    for container in &shown {
        let size = if call.query.flag("size") { sizes(engine, container).await } else { None };
        // The name may mean another image by now, or none.
        let image = match known.contains(&(&container.config.image, &container.image)) {
            true => container.config.image.as_str(),
            false => container.image.as_str(),
        };
        answer.push(summary(container, of(&container.id), image, now, size, call.version));
    }
    Ok(ok(&answer))
}

/// The names that containers have by others' links: `/web/db`.
fn link_names(all: &[Arc<Container>]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for parent in all {
        for link in &parent.links {
            names.entry(link.to.clone()).or_default().push(format!("/{}/{}", parent.name, link.alias));
        }
    }
    names
}

/// Bytes that a container has written, and of all its files.
pub(super) async fn sizes(engine: &Engine, container: &Container) -> Option<(u64, u64)> {
    let written = engine.size_rw(&container.id).await.ok()?;
    let (layers, ids) = (engine.images().layers().clone(), container.layers.clone());
    let layers = blocking(move || {
        let size = |id: &Digest| layers.get(id).ok().flatten().map_or(0, |layer| layer.size);
        Ok(ids.iter().map(size).sum::<u64>())
    });
    Some((written, written + layers.await.ok()?))
}

/// The filters of a request, checked and with what they name looked up.
#[derive(Debug, Default)]
struct Choice {
    filters: Filters,
    id: Option<Patterns>,
    name: Option<Patterns>,
    /// When the container of `before` and of `since` was made.
    before: Option<String>,
    since: Option<String>,
    /// The images of `ancestor`, and those of containers that were made from them.
    ancestors: Option<BTreeSet<Digest>>,
    is_task: Option<bool>,
}

impl Choice {
    async fn new(filters: Filters, engine: &Engine) -> std::result::Result<Self, ApiError> {
        let values = |key: &str| filters.get(key).unwrap_or_default();
        for (key, known) in [("status", STATES), ("health", HEALTH)] {
            if let Some(bad) = values(key).iter().find(|value| !known.contains(&value.as_str())) {
                let what = if key == "status" { "state" } else { key };
                return Err(ApiError::bad(format!(
                    "invalid filter '{key}={bad}': invalid value for {what} ({bad}): must be one of {}",
                    known.join(", ")
                )));
            }
        }
        if let Some(bad) = values("exited").iter().find(|value| value.parse::<i64>().is_err()) {
            return Err(ApiError::bad(format!(
                "invalid filter 'exited={bad}': strconv.Atoi: parsing {bad:?}: invalid syntax"
            )));
        }
        for key in ["publish", "expose"] {
            if let Some(bad) = values(key).iter().find(|value| ports(value).is_none()) {
                return Err(ApiError::bad(format!("invalid filter '{key}={bad}'")));
            }
        }
        let made = |key: &str| {
            values(key).last().map(|name| engine.inspect(name).map(|other| other.created.clone())).transpose()
        };
        let (before, since) = (made("before")?, made("since")?);
        let ancestors = match filters.get("ancestor") {
            None => None,
            Some(names) => {
                let (images, names) = (engine.images().clone(), names.to_vec());
                let used: BTreeSet<Digest> = engine.list().iter().map(|c| c.image.clone()).collect();
                let found = blocking(move || {
                    // What is no image has no containers.
                    let above: Vec<ImageRecord> = names.iter().filter_map(|name| images.resolve(name).ok()).collect();
                    let below = |id: &Digest| {
                        let image = images.resolve(id.as_str());
                        image.is_ok_and(|image| above.iter().any(|above| descends(&image, above)))
                    };
                    Ok(used.into_iter().filter(below).collect())
                });
                Some(found.await?)
            }
        };
        Ok(Self {
            id: Some(filters.patterns("id")),
            name: Some(filters.patterns("name")),
            before,
            since,
            ancestors,
            is_task: filters.flag("is-task")?,
            filters,
        })
    }

    /// `links`: further names of the container.
    fn fits(&self, c: &Container, links: &[String]) -> bool {
        let filters = &self.filters;
        let health = c.state.health_status();
        // As the list shows them: on the host, and in the container; what does not run has none.
        let runs = c.state.status.is_active();
        let bindings = c.ports.iter().filter(|_| runs).flat_map(|(port, bindings)| {
            let protocol = port.split_once('/').map_or("tcp", |(_, protocol)| protocol);
            bindings.iter().flatten().map(move |binding| format!("{}/{protocol}", binding.host_port))
        });
        let published: Vec<String> = bindings.collect();
        let exposed = c.config.exposed_ports.iter().flat_map(|all| all.keys()).chain(c.ports.keys());
        let exposed: Vec<String> = exposed.filter(|_| runs).cloned().collect();
        let has_port = |wanted: &str, have: &[String]| {
            ports(wanted).is_some_and(|wanted| have.iter().any(|port| inside(port, &wanted)))
        };
        self.id.as_ref().is_none_or(|id| id.fit(&c.id))
            && self.name.as_ref().is_none_or(|name| {
                name.fit(&c.name) || name.fit(&format!("/{}", c.name)) || links.iter().any(|link| name.fit(link))
            })
            && self.before.as_ref().is_none_or(|before| c.created < *before)
            && self.since.as_ref().is_none_or(|since| c.created > *since)
            && self.ancestors.as_ref().is_none_or(|images| images.contains(&c.image))
            && self.is_task != Some(true)
            && filters.any("status", |status| c.state.status.as_str() == status)
            && filters.any("exited", |code| c.state.status == Status::Exited && code.parse() == Ok(c.state.exit_code))
            && filters.any("health", |wanted| health == wanted)
            && filters.any("volume", |v| c.mounts.iter().any(|m| m.name == v || m.source == v || m.destination == v))
            && filters.any("network", |n| {
                c.networks.iter().any(|(name, e)| name == n || (!n.is_empty() && e.network_id.starts_with(n)))
            })
            && filters.any("publish", |wanted| has_port(wanted, &published))
            && filters.any("expose", |wanted| has_port(wanted, &exposed))
            && filters.labels(c.config.labels.as_ref())
            && filters.annotations(c.host.annotations.as_ref())
    }
}

/// Whether an image is another, or has been made from it: it has its layers, and its history.
fn descends(image: &ImageRecord, above: &ImageRecord) -> bool {
    let steps = |image: &ImageRecord| -> Vec<Option<String>> {
        image.config.history.iter().map(|step| step.created_by.clone()).collect()
    };
    image.id == above.id
        || (!above.diff_ids.is_empty()
            && image.diff_ids.starts_with(&above.diff_ids)
            && steps(image).len() > steps(above).len()
            && steps(image).starts_with(&steps(above)))
}

/// `80`, `53/udp`, `3000-3010/tcp`: first, last and protocol.
fn ports(text: &str) -> Option<(u16, u16, &str)> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && ["tcp", "udp", "sctp"].contains(&protocol)).then_some((first, last, protocol))
}

fn inside(port: &str, (first, last, protocol): &(u16, u16, &str)) -> bool {
    ports(port).is_some_and(|(have, _, own)| (*first..=*last).contains(&have) && own == *protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Query;
    use crate::render::container::sample;

    fn fits(text: &str) -> bool {
        let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
        let filters = Filters::of(&Query::parse(&format!("filters={encoded}")), FILTERS).unwrap();
        let choice = Choice {
            id: Some(filters.patterns("id")),
            name: Some(filters.patterns("name")),
            is_task: filters.flag("is-task").unwrap(),
            filters,
            ..Choice::default()
        };
        choice.fits(&sample(), &[])
    }

    #[test]
    fn each_filter_chooses() {
        for (text, wanted) in [
            (r#"{"name":["^/web$"]}"#, true),
            (r#"{"name":["^w"]}"#, true),
            (r#"{"name":["other","we"]}"#, true),
            (r#"{"name":["^b$"]}"#, false),
            (r#"{"id":["4fa6e0f0c678"]}"#, true),
            (r#"{"id":["abc"]}"#, false),
            (r#"{"status":["running","paused"]}"#, true),
            (r#"{"status":["exited"]}"#, false),
            (r#"{"exited":["0"]}"#, false),
            (r#"{"health":["none"]}"#, true),
            (r#"{"health":["healthy"]}"#, false),
            (r#"{"volume":["v"]}"#, true),
            (r#"{"volume":["/d"]}"#, true),
            (r#"{"volume":["w"]}"#, false),
            (r#"{"network":["own"]}"#, true),
            (r#"{"network":["ab"]}"#, true),
            (r#"{"network":["none"]}"#, false),
            (r#"{"publish":["8080"]}"#, true),
            (r#"{"publish":["8070-8090/tcp"]}"#, true),
            (r#"{"publish":["80"]}"#, false),
            (r#"{"publish":["8080/udp"]}"#, false),
            (r#"{"expose":["53/udp"]}"#, true),
            (r#"{"expose":["53"]}"#, false),
            (r#"{"is-task":["false"]}"#, true),
            (r#"{"is-task":["true"]}"#, false),
            (r#"{"label":["x"]}"#, false),
            (r#"{"label!":["x"]}"#, true),
            (r#"{"name":["web"],"status":["exited"]}"#, false),
        ] {
            assert_eq!(fits(text), wanted, "{text}");
        }
    }

    #[test]
    fn descendants_have_an_image_s_layers_and_history() {
        let image = |layers: &[&str], steps: &[&str]| {
            let step =
                |text: &&str| wharf_image::HistoryEntry { created_by: Some((*text).into()), ..Default::default() };
            ImageRecord {
                id: Digest::sha256(format!("{layers:?}{steps:?}").as_bytes()),
                config: wharf_image::ImageConfig {
                    history: steps.iter().map(step).collect(),
                    ..wharf_image::ImageConfig::default()
                },
                diff_ids: layers.iter().map(|layer| Digest::sha256(layer.as_bytes())).collect(),
                size: 0,
                tags: Vec::new(),
                repo_digests: Vec::new(),
                created: String::new(),
                tagged: None,
                parent: None,
                pinned: false,
                used: 0,
            }
        };
        let base = image(&["base"], &["ADD"]);
        let labelled = image(&["base"], &["ADD", "LABEL a"]);
        let grown = image(&["base", "top"], &["ADD", "LABEL a", "RUN x"]);
        for (below, above, wanted) in [
            (&base, &base, true),
            (&labelled, &base, true),
            (&grown, &labelled, true),
            (&base, &labelled, false),
            (&image(&["base"], &["ADD", "LABEL b"]), &labelled, false),
            (&image(&["top"], &["ADD", "LABEL a"]), &base, false),
        ] {
            assert_eq!(descends(below, above), wanted, "{:?} {:?}", below.config.history, above.config.history);
        }
    }
}
