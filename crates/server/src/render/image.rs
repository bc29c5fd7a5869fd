//! Images, as `inspect`, `images` and `history` show them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use wharf_image::{HistoryItem, ImageRecord, ImageSummary, Removed};

/// The time that the API shows for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `GET /images/{name}/json`.
pub(crate) fn inspect(image: &ImageRecord, version: (u32, u32)) -> Value {
    let history = image.config.history.last();
    let mut all = json!({
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.repo_digests,
        "Parent": parent(image.parent.as_ref()),
        "Comment": history.and_then(|h| h.comment.clone()).unwrap_or_default(),
        "Created": image.created,
        "DockerVersion": "",
        "Author": image.config.author.clone().unwrap_or_default(),
        "Config": config(image, version),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": { "Name": "overlay2", "Data": null },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids },
        "Metadata": { "LastTagTime": image.tagged.as_deref().unwrap_or(NEVER) },
    });
    if let Some(variant) = &image.config.variant {
        all["Variant"] = variant.as_str().into();
    }
    if image.pinned {
        all["Pinned"] = true.into();
    }
    if version < (1, 45) {
        // Of a commit.
        let more = |key: &str| image.config.more.get(key).cloned();
        all["Container"] = more("container").unwrap_or_else(|| "".into());
        all["ContainerConfig"] =
            more("container_config").unwrap_or_else(|| json!(wharf_engine::spec::Config::default()));
    }
    if version < (1, 44) {
        all["VirtualSize"] = image.size.into();
    }
    all
}

/// The configuration; what it does not say is there with its empty value, and up to API 1.49 also what images never say.
fn config(image: &ImageRecord, version: (u32, u32)) -> Value {
    let mut all = Map::new();
    if version < (1, 50) {
        for key in ["Hostname", "Domainname", "Image"] {
            all.insert(key.into(), "".into());
        }
        for key in ["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"] {
            all.insert(key.into(), false.into());
        }
    }
    if version < (1, 52) {
        for key in ["User", "WorkingDir"] {
            all.insert(key.into(), "".into());
        }
        for key in ["Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"] {
            all.insert(key.into(), Value::Null);
        }
    }
    if let Ok(Value::Object(own)) = serde_json::to_value(&image.config.config) {
        all.extend(own);
    }
    all.into()
}

fn parent(id: Option<&wharf_reference::Digest>) -> String {
    id.map_or(String::new(), ToString::to_string)
}

/// One line of `GET /images/json`. What was not counted is -1.
pub(crate) fn summary(image: &ImageSummary, containers: i64, shared: i64, version: (u32, u32)) -> Value {
    // Older clients want the words, of what has neither.
    let is_nameless = image.tags.is_empty() && image.repo_digests.is_empty() && version < (1, 43);
    let names = |list: &[String], none: &str| if is_nameless { json!([none]) } else { json!(list) };
    let mut all = json!({
        "Id": image.id,
        "ParentId": parent(image.parent.as_ref()),
        "RepoTags": names(&image.tags, "<none>:<none>"),
        "RepoDigests": names(&image.repo_digests, "<none>@<none>"),
        "Created": seconds(&image.created),
        "Size": image.size,
        "SharedSize": shared,
        "Labels": image.labels,
        "Containers": containers,
    });
    if image.pinned {
        all["Pinned"] = true.into();
    }
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

/// An image for tests.
#[cfg(test)]
pub(crate) fn sample() -> ImageRecord {
    let digest = |text: &str| wharf_reference::Digest::sha256(text.as_bytes());
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": { "Env": ["A=1"], "Cmd": ["sh"] }, "rootfs": { "type": "layers", "diff_ids": [digest("layer")] },
        "history": [{ "comment": "made" }],
    });
    ImageRecord {
        id: digest("id"),
        config: serde_json::from_value(config).unwrap(),
        diff_ids: vec![digest("layer")],
        size: 1000,
        tags: vec!["debian:12".into()],
        repo_digests: Vec::new(),
        created: "2026-01-02T03:04:05Z".into(),
        tagged: None,
        parent: None,
        pinned: false,
        used: 0,
    }
}

/// The same in short.
#[cfg(test)]
pub(crate) fn sample_summary() -> ImageSummary {
    let ImageRecord { id, diff_ids, size, tags, repo_digests, created, parent, pinned, used, .. } = sample();
    ImageSummary {
        id,
        diff_ids,
        size,
        tags,
        repo_digests,
        created,
        labels: None,
        parent,
        pinned,
        used,
        indexes: Vec::new(),
        part: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inspect_follows_the_version() {
        let new = inspect(&sample(), (1, 51));
        assert_eq!((&new["Config"]["Env"], &new["Comment"]), (&json!(["A=1"]), &json!("made")));
        assert!(new["Config"]["Labels"].is_null() && new["Config"].get("Hostname").is_none());
        assert!(new.get("VirtualSize").is_none() && new.get("Container").is_none());
        let old = inspect(&sample(), (1, 40));
        assert_eq!(
            (&old["VirtualSize"], &old["Config"]["Tty"], &old["Container"]),
            (&json!(1000), &json!(false), &json!(""))
        );
        assert!(inspect(&sample(), (1, 52))["Config"].get("Labels").is_none());
    }

    #[test]
    fn images_without_a_name() {
        let nameless = ImageSummary { tags: Vec::new(), ..sample_summary() };
        assert_eq!(summary(&nameless, -1, -1, (1, 51))["RepoTags"], json!([]));
        let old = summary(&nameless, -1, -1, (1, 42));
        assert_eq!((&old["RepoTags"], &old["RepoDigests"]), (&json!(["<none>:<none>"]), &json!(["<none>@<none>"])));
        assert_eq!(old["Created"], 1_767_323_045);
    }
}
