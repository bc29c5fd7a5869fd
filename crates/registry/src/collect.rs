//! Collection: what nothing names any more is deleted. Safe beside a running registry.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::RwLock;
use wharf_reference::Digest;

use crate::error::ApiError;
use crate::repositories::{
    self, LINKS, LinkRow, MANIFESTS, ManifestRow, Repositories, TAGS, TagRow, split_link, split_manifest,
};

/// What is collected.
#[derive(Clone, Copy, Debug)]
pub struct Collect {
    /// Blobs that no manifest names are spared so long: their manifest may be on its way.
    pub older_than: Duration,
    /// Also manifests without a tag that no index names and that are not about a kept one.
    pub untagged: bool,
    /// Only count.
    pub dry_run: bool,
}

impl Default for Collect {
    fn default() -> Self {
        Self { older_than: Duration::from_secs(24 * 3600), untagged: false, dry_run: false }
    }
}

/// What was deleted, or would have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub manifests: u64,
    pub blobs: u64,
    pub bytes: u64,
}

/// Collects. Blocking; `uploads` is held for writing while blobs are deleted, so that none is on its way in.
pub(crate) fn collect(all: &Repositories, uploads: &RwLock<()>, what: Collect) -> Result<Collected, ApiError> {
    let mut collected = Collected::default();
    let plan = all.store().read(|tx| {
        let manifests = tx.list::<ManifestRow>(MANIFESTS)?;
        let tags = tx.list::<TagRow>(TAGS)?;
        let links = tx.list::<LinkRow>(LINKS)?;
        Ok::<_, ApiError>(plan(&manifests, &tags, &links, what))
    })?;
    collected.manifests = plan.manifests.len() as u64;
    let nothing = plan.manifests.is_empty() && plan.links.is_empty();
    if !what.dry_run && !nothing {
        all.store().write(|tx| {
            for key in &plan.manifests {
                let row: Option<ManifestRow> = tx.get(MANIFESTS, key)?;
                if let (Some(row), Some((name, digest))) = (row, split_manifest(key)) {
                    repositories::remove_manifest(tx, name, &digest, &row)?;
                }
            }
            for (key, used) in &plan.links {
                // Used again since it was looked at: a push has found it.
                if tx.get::<LinkRow>(LINKS, key)?.is_some_and(|row| row.used == *used) {
                    tx.delete(LINKS, key)?;
                }
            }
            repositories::remove_empty(tx)
        })?;
    }
    let _nobody_comes_in = uploads.blocking_write();
    // What has come since the plan was made counts too, but for an answer to "what if".
    let owned = if what.dry_run { plan.kept } else { all.store().read(repositories::owned)? };
    let blobs = all.store().blobs();
    for digest in blobs.list()?.into_iter().filter(|digest| !owned.contains(digest)) {
        collected.blobs += 1;
        collected.bytes += blobs.size(&digest).unwrap_or(0);
        if !what.dry_run {
            blobs.delete(&digest)?;
        }
    }
    Ok(collected)
}

/// What is to go.
#[derive(Debug, Default)]
struct Plan {
    manifests: Vec<String>,
    links: Vec<(String, Timestamp)>,
    /// Blobs that some repository keeps, as a blob or as a manifest.
    kept: HashSet<Digest>,
}

fn plan(
    manifests: &[(String, ManifestRow)],
    tags: &[(String, TagRow)],
    links: &[(String, LinkRow)],
    what: Collect,
) -> Plan {
    let now = Timestamp::now();
    let is_old = |time: Timestamp| {
        now.duration_since(time).unsigned_abs() >= what.older_than && (now >= time || what.older_than.is_zero())
    };
    let mut plan = Plan::default();
    let rows: HashMap<&str, &ManifestRow> = manifests.iter().map(|(key, row)| (key.as_str(), row)).collect();
    let kept = kept(manifests, tags, &rows, what, &is_old);
    let mut used: HashSet<(&str, &Digest)> = HashSet::new();
    for (key, row) in manifests {
        let Some((name, digest)) = split_manifest(key) else { continue };
        if kept.contains(key.as_str()) {
            used.extend(row.blobs.iter().map(|blob| (name, blob)));
            plan.kept.insert(digest);
        } else {
            plan.manifests.push(key.clone());
        }
    }
    for (key, row) in links {
        let Some((digest, name)) = split_link(key) else { continue };
        if used.contains(&(name, &digest)) || !is_old(row.used) {
            plan.kept.insert(digest);
        } else {
            plan.links.push((key.clone(), row.used));
        }
    }
    plan
}

/// The keys of manifests that stay: those with a tag, in an index that stays, about one that stays, and young ones.
fn kept<'a>(
    manifests: &'a [(String, ManifestRow)],
    tags: &[(String, TagRow)],
    rows: &HashMap<&'a str, &'a ManifestRow>,
    what: Collect,
    is_old: &dyn Fn(Timestamp) -> bool,
) -> HashSet<&'a str> {
    if !what.untagged {
        return rows.keys().copied().collect();
    }
    let tagged: HashSet<String> = tags
        .iter()
        .filter_map(|(key, row)| key.split_once(':').map(|(name, _)| format!("{name}@{}", row.digest)))
        .collect();
    let mut about: HashMap<String, Vec<&str>> = HashMap::new();
    for (key, row) in manifests {
        if let (Some((name, _)), Some(subject)) = (split_manifest(key), &row.subject) {
            about.entry(format!("{name}@{subject}")).or_default().push(key);
        }
    }
    let is_root = |key: &str, row: &ManifestRow| tagged.contains(key) || !is_old(row.pushed);
    let mut next: Vec<&str> =
        manifests.iter().filter(|(key, row)| is_root(key, row)).map(|(key, _)| key.as_str()).collect();
    let mut kept = HashSet::new();
    while let Some(key) = next.pop() {
        if !kept.insert(key) {
            continue;
        }
        next.extend(about.get(key).into_iter().flatten());
        let (Some(row), Some((name, _))) = (rows.get(key), split_manifest(key)) else { continue };
        let children = row.manifests.iter().map(|child| format!("{name}@{child}"));
        next.extend(children.filter_map(|child| rows.get_key_value(child.as_str()).map(|(key, _)| *key)));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(blobs: &[&Digest], manifests: &[&Digest], subject: Option<&Digest>) -> ManifestRow {
        let own = |digests: &[&Digest]| digests.iter().map(|digest| (*digest).clone()).collect();
        ManifestRow {
            media_type: "a/b".into(),
            size: 1,
            blobs: own(blobs),
            manifests: own(manifests),
            subject: subject.cloned(),
            pushed: Timestamp::now(),
        }
    }

    #[test]
    fn what_is_named_stays() {
        let [index, child, about, loose, named, unnamed] =
            [&b"index"[..], b"child", b"about", b"loose", b"named", b"unnamed"].map(Digest::sha256);
        let key = |digest: &Digest| format!("a@{digest}");
        let manifests = [
            (key(&index), manifest(&[], &[&child], None)),
            (key(&child), manifest(&[&named], &[], None)),
            (key(&about), manifest(&[], &[], Some(&child))),
            (key(&loose), manifest(&[&unnamed], &[], None)),
        ];
        let tags = [("a:x".to_owned(), TagRow { digest: index.clone() })];
        let link = |digest: &Digest, name: &str| (format!("{digest}@{name}"), LinkRow { used: Timestamp::now() });
        let links = [link(&named, "a"), link(&unnamed, "a"), link(&named, "b")];

        let now = Collect { older_than: Duration::ZERO, untagged: true, dry_run: false };
        let all = plan(&manifests, &tags, &links, now);
        assert_eq!(all.manifests, [key(&loose)]);
        // Another repository's manifest does not keep this one's link.
        assert_eq!(all.links.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&links[1].0, &links[2].0]);

        let tagged_or_not = plan(&manifests, &tags, &links, Collect { untagged: false, ..now });
        assert!(tagged_or_not.manifests.is_empty());
        assert_eq!(tagged_or_not.links.len(), 1);

        let young = plan(&manifests, &tags, &links, Collect { older_than: Duration::from_secs(60), ..now });
        assert!(young.manifests.is_empty() && young.links.is_empty());
    }
}
