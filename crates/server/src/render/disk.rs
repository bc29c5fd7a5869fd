//! What takes room on the disk: layers that several images have count once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wharf_build::CacheRecord;
use wharf_image::ImageSummary;
use wharf_reference::Digest;

/// Bytes of each layer, by its diff ID.
pub(crate) type Sizes = BTreeMap<Digest, u64>;

/// How the layers of images overlap.
#[derive(Debug)]
pub(crate) struct Sharing<'a> {
    sizes: &'a Sizes,
    /// How many images have each layer.
    users: BTreeMap<&'a Digest, usize>,
}

impl<'a> Sharing<'a> {
    pub(crate) fn new(images: &'a [ImageSummary], sizes: &'a Sizes) -> Self {
        let mut users = BTreeMap::new();
        for image in images {
            // An image may have the same layer twice.
            for layer in image.diff_ids.iter().collect::<BTreeSet<_>>() {
                *users.entry(layer).or_default() += 1;
            }
        }
        Self { sizes, users }
    }

    /// Bytes of an image that other images have, too.
    pub(crate) fn shared(&self, image: &ImageSummary) -> u64 {
        let layers: BTreeSet<&Digest> = image.diff_ids.iter().collect();
        let shared = layers.into_iter().filter(|layer| self.users.get(layer).is_some_and(|count| *count > 1));
        shared.filter_map(|layer| self.sizes.get(layer)).sum()
    }

    /// Bytes of all images together.
    pub(crate) fn total(&self) -> u64 {
        self.users.keys().filter_map(|layer| self.sizes.get(*layer)).sum()
    }

    /// Whether an image has the layer.
    pub(crate) fn has(&self, layer: &Digest) -> bool {
        self.users.contains_key(layer)
    }
}

/// A step that a build remembers, as `system df -v` lists it.
pub(crate) fn build_cache(id: &str, record: &CacheRecord, sharing: &Sharing<'_>) -> Value {
    let time = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
    json!({
        "ID": id,
        "Type": CacheRecord::kind(id),
        "Description": record.description,
        "InUse": false,
        "Shared": record.layer.as_ref().is_some_and(|layer| sharing.has(layer)),
        "Size": record.size,
        "CreatedAt": time(record.created),
        "LastUsedAt": time(record.last_used),
        "UsageCount": record.uses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::image::sample_summary;

    #[test]
    fn shared_layers_count_once() {
        let layer = |name: &str| Digest::sha256(name.as_bytes());
        let image =
            |layers: &[&str]| ImageSummary { diff_ids: layers.iter().map(|l| layer(l)).collect(), ..sample_summary() };
        let images = [image(&["base", "a"]), image(&["base", "b", "b"])];
        let sizes: Sizes = [("base", 100), ("a", 10), ("b", 1), ("cache", 1000)].map(|(l, n)| (layer(l), n)).into();
        let sharing = Sharing::new(&images, &sizes);
        assert_eq!((sharing.shared(&images[0]), sharing.shared(&images[1]), sharing.total()), (100, 100, 111));
        let record = |of: &str| CacheRecord {
            layer: Some(layer(of)),
            size: 7,
            description: "RUN x".into(),
            created: 0,
            nanoseconds: 0,
            date: None,
            last_used: 0,
            uses: 2,
            secrets: Vec::new(),
            again: None,
        };
        assert_eq!(build_cache("k", &record("base"), &sharing)["Shared"], true);
        let own = build_cache("k", &record("cache"), &sharing);
        assert_eq!((&own["Shared"], &own["CreatedAt"]), (&json!(false), &json!("1970-01-01T00:00:00Z")));
    }
}
