//! `GET /images/json`: which images, and by which names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wharf_engine::{Engine, EngineError};
use wharf_image::{ImageSummary, Images};
use wharf_reference::{Digest, Reference};

use super::{Call, Result, blocking};
use crate::filters::Filters;
use crate::http::{ApiError, ok};
use crate::render::disk::{Sharing, Sizes};
use crate::render::image as render;
use crate::render::manifests;

const FILTERS: &[&str] = &["dangling", "label", "label!", "before", "since", "reference", "until", "pinned"];

pub(super) async fn list(call: Call) -> Result {
    let mut filters = Filters::of(&call.query, FILTERS)?;
    if let Some(name) = call.query.get("filter").filter(|_| call.version < (1, 41)) {
        filters.add("reference", name);
    }
    let (all, shared, version) = (call.query.flag("all"), call.query.flag("shared-size"), call.version);
    let listed = call.query.flag("manifests") && version >= (1, 47);
    let engine = call.api.engine;
    // Docker counts containers since then.
    let count = |image: &ImageSummary| match version >= (1, 51) {
        true => i64::try_from(engine.users(&image.id).len()).unwrap_or(0),
        false => -1,
    };
    let own = engine.clone();
    let (shown, shared, manifests) = blocking(move || {
        let images = own.images().summaries()?;
        let sharing = if shared { Some(shared_sizes(&own, &images)?) } else { None };
        let shown = choose(images, &filters, all, own.images())?;
        let manifests = shown.iter().filter(|_| listed).map(|image| manifests_of(&own, image));
        let manifests = manifests.collect::<std::result::Result<Vec<_>, EngineError>>()?;
        Ok((shown, sharing, manifests))
    })
    .await?;
    let mut lines = Vec::with_capacity(shown.len());
    for (at, image) in shown.iter().enumerate() {
        let shared = shared.as_ref().and_then(|sizes| sizes.get(&image.id)).and_then(|n| i64::try_from(*n).ok());
        let mut line = render::summary(image, count(image), shared.unwrap_or(-1), version);
        if let Some((descriptor, list)) = manifests.get(at) {
            line["Manifests"] = list.clone();
            // Together they are as large as each is, with its content: a list of images is no smaller than one of them.
            let content = list.as_array().into_iter().flatten().filter_map(|one| one["Size"]["Content"].as_u64());
            line["Size"] = (image.size + content.sum::<u64>()).into();
            if let Some(descriptor) = descriptor {
                line["Descriptor"] = descriptor.clone();
            }
        }
        lines.push(line);
    }
    Ok(ok(&lines))
}

/// What an image is in its registry, and its manifests.
fn manifests_of(engine: &Engine, image: &ImageSummary) -> std::result::Result<(Option<Value>, Value), EngineError> {
    let index = match image.indexes.first() {
        Some(digest) => engine.images().index_by_digest(digest)?,
        None => None,
    };
    let descriptor = manifests::descriptor(engine.images(), &image.id, index.as_ref())?;
    Ok((descriptor, manifests::list(engine, &image.id, index.as_ref())?))
}

/// Bytes of each image that another has, too.
fn shared_sizes(engine: &Engine, images: &[ImageSummary]) -> std::result::Result<BTreeMap<Digest, u64>, ApiError> {
    let layers = engine.images().layers().list().map_err(EngineError::from)?;
    let sizes: Sizes = layers.into_iter().map(|layer| (layer.diff_id, layer.size)).collect();
    let sharing = Sharing::new(images, &sizes);
    Ok(images.iter().map(|image| (image.id.clone(), sharing.shared(image))).collect())
}

/// The images that the filters want, with the names that they want.
fn choose(
    images: Vec<ImageSummary>,
    filters: &Filters,
    all: bool,
    store: &Images,
) -> std::result::Result<Vec<ImageSummary>, ApiError> {
    let (dangling, pinned, until) = (filters.flag("dangling")?, filters.flag("pinned")?, filters.earliest_until()?);
    // All of them count.
    let created = |key: &str| -> std::result::Result<Vec<jiff::Timestamp>, ApiError> {
        let names = filters.get(key).into_iter().flatten();
        names.map(|name| Ok(store.resolve(name)?.created_at())).collect()
    };
    let (before, since) = (created("before")?.into_iter().min(), created("since")?.into_iter().max());
    // Those for other platforms are shown with the one that their name leads to.
    let (parts, images): (Vec<ImageSummary>, Vec<ImageSummary>) = images.into_iter().partition(|image| image.part);
    let parents: BTreeSet<Digest> = images.iter().filter_map(|image| image.parent.clone()).collect();
    let mut shown = Vec::new();
    for mut image in images {
        let nameless = image.tags.is_empty();
        // Steps of a build, which a named image stands on.
        let intermediate = nameless && image.repo_digests.is_empty() && parents.contains(&image.id);
        let at: Option<jiff::Timestamp> = image.created.parse().ok();
        let wanted = (all || !intermediate)
            && dangling.is_none_or(|wanted| wanted == nameless)
            && pinned.is_none_or(|wanted| wanted == image.pinned)
            && until.is_none_or(|until| at.is_some_and(|at| at < until))
            && before.is_none_or(|before| image.created_at() < before)
            && since.is_none_or(|since| image.created_at() > since)
            && filters.labels(image.labels.as_ref());
        if !wanted {
            continue;
        }
        // Names that a pattern does not fit are left out; an image that has none of them, too.
        if let Some(patterns) = filters.get("reference") {
            image.tags.retain(|tag| patterns.iter().any(|pattern| fits(tag, pattern)));
            image.repo_digests.retain(|name| patterns.iter().any(|pattern| fits(name, pattern)));
            if image.tags.is_empty() && image.repo_digests.is_empty() {
                continue;
            }
        }
        let together = |part: &&ImageSummary| part.indexes.iter().any(|index| image.indexes.contains(index));
        image.size += parts.iter().filter(together).map(|part| part.size).sum::<u64>();
        shown.push(image);
    }
    Ok(shown)
}

/// A pattern with `*` and `?` against a name, with or without its tag.
fn fits(name: &str, pattern: &str) -> bool {
    let bare = match Reference::parse(name) {
        Ok(reference) => reference.familiar_name(),
        Err(_) => name.to_owned(),
    };
    let full = match Reference::parse(pattern) {
        Ok(reference) => reference.familiar(),
        Err(_) => pattern.to_owned(),
    };
    [pattern, &full].iter().any(|pattern| glob(name, pattern) || glob(&bare, pattern))
}

/// `*` and `?` as Go's `path.Match`: neither goes over a slash. Only the last star is taken back, so that no pattern
/// takes long.
fn glob(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut wanted) = (0, 0);
    // Where the last star is, and how far what it stands for reaches.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(wanted) {
            Some('*') => {
                star = Some((wanted, at));
                wanted += 1;
            }
            Some(&c) if c == text[at] || (c == '?' && text[at] != '/') => {
                at += 1;
                wanted += 1;
            }
            _ => match star {
                Some((place, reached)) if text[reached] != '/' => {
                    star = Some((place, reached + 1));
                    (at, wanted) = (reached + 1, place + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[wanted..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (name, pattern, wanted) in [
            ("debian:bookworm", "debian", true),
            ("debian:bookworm", "deb*", true),
            ("debian:bookworm", "*:book*", true),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/*", true),
            ("debian:bookworm", "ubuntu", false),
            ("a/b:1", "*", false),
            ("a/b:1", "*/*", true),
            ("debian:12", "d?bian", true),
            ("debian:12", "d?bian:1?", true),
            ("debian:12", "debian:1", false),
            (&"a".repeat(120), &format!("{}b", "*a".repeat(60)), false),
        ] {
            assert_eq!(fits(name, pattern), wanted, "{name} {pattern}");
        }
    }
}
