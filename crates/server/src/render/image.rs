//! Images, as `inspect`, `images` and `history` show them.

use jiff::Timestamp;
use serde_json::{Value, json};
use wharf_image::{HistoryItem, ImageRecord, Removed};

/// `GET /images/{name}/json`.
pub(crate) fn inspect(image: &ImageRecord, version: (u32, u32)) -> Value {
    let history = image.config.history.last();
    let mut all = json!({
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent.as_ref().map_or(String::new(), ToString::to_string),
        "Comment": history.and_then(|h| h.comment.clone()).unwrap_or_default(),
        "Created": image.created,
        "DockerVersion": "",
        "Author": image.config.author.clone().unwrap_or_default(),
        "Config": image.config.config,
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": { "Name": "overlay2", "Data": {} },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids },
        "Metadata": { "LastTagTime": image.tagged.as_deref().unwrap_or("0001-01-01T00:00:00Z") },
    });
    if let Some(variant) = &image.config.variant {
        all["Variant"] = variant.as_str().into();
    }
    if version < (1, 44) {
        all["VirtualSize"] = image.size.into();
    }
    all
}

/// One line of `GET /images/json`.
pub(crate) fn summary(image: &ImageRecord, containers: i64, version: (u32, u32)) -> Value {
    let none = |list: &[String], what: &str| match (list.is_empty(), version < (1, 43)) {
        // Older clients want the words.
        (true, true) => json!([what]),
        _ => json!(list),
    };
    let mut all = json!({
        "Id": image.id,
        "ParentId": image.parent.as_ref().map_or(String::new(), ToString::to_string),
        "RepoTags": none(&image.tags, "<none>:<none>"),
        "RepoDigests": none(&image.repo_digests, "<none>@<none>"),
        "Created": seconds(&image.created),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.config.labels,
        "Containers": containers,
    });
    if version < (1, 44) {
        all["VirtualSize"] = image.size.into();
    }
    all
}

/// `GET /images/{name}/history`.
pub(crate) fn history(items: &[HistoryItem]) -> Value {
    let item = |item: &HistoryItem| {
        json!({
            "Id": item.id.as_deref().unwrap_or("<missing>"),
            "Created": item.created.as_deref().map_or(0, seconds),
            "CreatedBy": item.created_by,
            "Tags": if item.tags.is_empty() { Value::Null } else { json!(item.tags) },
            "Size": item.size,
            "Comment": item.comment,
        })
    };
    items.iter().map(item).collect()
}

/// What has gone.
pub(crate) fn removed(all: &[Removed]) -> Value {
    let one = |removed: &Removed| match removed {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    };
    all.iter().map(one).collect()
}

fn seconds(text: &str) -> i64 {
    text.parse::<Timestamp>().map_or(0, Timestamp::as_second)
}
