//! What the registry has: repositories with their blobs, manifests and tags, as rows of the store. Blocking.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wharf_reference::Digest;
use wharf_store::{ReadTx, Store, Table, WriteTx};

use crate::error::{ApiError, Code};
use crate::manifest::{Understood, check_size};

type Result<T> = std::result::Result<T, ApiError>;

/// `NAME`: repositories that have, or had, a manifest.
const REPOSITORIES: Table = Table::new("registry.repositories");
/// `DIGEST@NAME`: the blobs that a repository may be asked for. Digests first, to see whether anybody has one.
pub(crate) const LINKS: Table = Table::new("registry.links");
/// `NAME@DIGEST`.
pub(crate) const MANIFESTS: Table = Table::new("registry.manifests");
/// `NAME:TAG`.
pub(crate) const TAGS: Table = Table::new("registry.tags");
/// `NAME@SUBJECT@DIGEST`: manifests that are about another, as the referrers API lists them.
const REFERRERS: Table = Table::new("registry.referrers");

/// A link that was used this long ago is marked as used again, so that collection leaves a push alone that has
/// found the blob there.
const REFRESH: i64 = 600;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RepositoryRow {
    created: Timestamp,
}

/// That a repository has a blob, and when somebody last said so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LinkRow {
    pub(crate) used: Timestamp,
}

/// A manifest of a repository. Its bytes are a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ManifestRow {
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) manifests: Vec<Digest>,
    pub(crate) subject: Option<Digest>,
    pub(crate) pushed: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TagRow {
    pub(crate) digest: Digest,
}

/// A descriptor in the answer of the referrers API.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
}

/// The rows of a registry.
#[derive(Clone, Debug)]
pub(crate) struct Repositories {
    store: Store,
}

impl Repositories {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Lets a repository have a blob that is in the store.
    pub(crate) fn link(&self, name: &str, digest: &Digest) -> Result<()> {
        self.store.write(|tx| put_link(tx, name, digest))
    }

    /// Whether the repository has the blob.
    pub(crate) fn is_linked(&self, name: &str, digest: &Digest) -> Result<bool> {
        self.store.read(|tx| Ok(tx.get::<LinkRow>(LINKS, &link_key(name, digest))?.is_some()))
    }

    /// As [`Self::is_linked`], for somebody who is going to rely on it.
    pub(crate) fn use_link(&self, name: &str, digest: &Digest) -> Result<bool> {
        let key = link_key(name, digest);
        let row: Option<LinkRow> = self.store.read(|tx| tx.get(LINKS, &key).map_err(ApiError::from))?;
        let Some(row) = row else { return Ok(false) };
        if Timestamp::now().duration_since(row.used).as_secs() < REFRESH {
            return Ok(true);
        }
        // After a crash it is only older than it was.
        self.store.write_soon(|tx| {
            let there = tx.get::<LinkRow>(LINKS, &key)?.is_some();
            if there {
                put_link(tx, name, digest)?;
            }
            Ok(there)
        })
    }

    /// Lets `name` have a blob that `from`, or any repository, has, and tells whether it does.
    pub(crate) fn mount(&self, name: &str, from: Option<&str>, digest: &Digest) -> Result<bool> {
        self.store.write(|tx| {
            let there = match from {
                Some(from) => tx.get::<LinkRow>(LINKS, &link_key(from, digest))?.is_some(),
                None => !tx.list_prefix::<LinkRow>(LINKS, &link_key("", digest))?.is_empty(),
            };
            if there {
                put_link(tx, name, digest)?;
            }
            Ok(there)
        })
    }

    /// Takes a blob away from a repository, and tells whether it had it.
    pub(crate) fn unlink(&self, name: &str, digest: &Digest) -> Result<bool> {
        self.store.write(|tx| Ok(tx.delete(LINKS, &link_key(name, digest))?))
    }

    /// Takes in a manifest whose bytes are a blob of the store, and sets tags on it. All that it names must be there.
    pub(crate) fn put_manifest(
        &self,
        name: &str,
        tags: &[String],
        digest: &Digest,
        understood: &Understood,
    ) -> Result<()> {
        let Understood { row, referrer, sizes } = understood;
        self.store.write(|tx| {
            for blob in &row.blobs {
                if tx.get::<LinkRow>(LINKS, &link_key(name, blob))?.is_none() {
                    return Err(ApiError::with_detail(Code::ManifestBlobUnknown, blob.as_str()));
                }
            }
            for manifest in &row.manifests {
                if tx.get::<ManifestRow>(MANIFESTS, &manifest_key(name, manifest))?.is_none() {
                    return Err(ApiError::with_detail(Code::ManifestBlobUnknown, manifest.as_str()));
                }
            }
            // The repository has all of them: what they are like is no secret.
            for (digest, said) in sizes {
                if let Some(found) = self.store.blobs().size(digest) {
                    check_size(digest, *said, found)?;
                }
            }
            if tx.get::<RepositoryRow>(REPOSITORIES, name)?.is_none() {
                tx.put(REPOSITORIES, name, &RepositoryRow { created: Timestamp::now() })?;
            }
            tx.put(MANIFESTS, &manifest_key(name, digest), row)?;
            for tag in tags {
                tx.put(TAGS, &tag_key(name, tag), &TagRow { digest: digest.clone() })?;
            }
            if let Some(subject) = &row.subject {
                tx.put(REFERRERS, &referrer_key(name, subject, digest), referrer)?;
            }
            Ok(())
        })
    }

    pub(crate) fn manifest(&self, name: &str, digest: &Digest) -> Result<Option<ManifestRow>> {
        self.store.read(|tx| Ok(tx.get(MANIFESTS, &manifest_key(name, digest))?))
    }

    /// The manifest under a tag.
    pub(crate) fn tagged(&self, name: &str, tag: &str) -> Result<Option<(Digest, ManifestRow)>> {
        self.store.read(|tx| {
            let Some(TagRow { digest }) = tx.get(TAGS, &tag_key(name, tag))? else { return Ok(None) };
            Ok(tx.get(MANIFESTS, &manifest_key(name, &digest))?.map(|row| (digest, row)))
        })
    }

    /// Deletes a tag, and tells whether there was one.
    pub(crate) fn delete_tag(&self, name: &str, tag: &str) -> Result<bool> {
        self.store.write(|tx| Ok(tx.delete(TAGS, &tag_key(name, tag))?))
    }

    /// Deletes a manifest with all tags on it, and tells whether there was one.
    pub(crate) fn delete_manifest(&self, name: &str, digest: &Digest) -> Result<bool> {
        // Only this registry changes the rows, and one change at a time: what is tagged is looked up before.
        self.store.write(|tx| {
            let Some(row) = tx.get::<ManifestRow>(MANIFESTS, &manifest_key(name, digest))? else { return Ok(false) };
            for (key, tag) in tx.list::<TagRow>(TAGS)? {
                if tag.digest == *digest && key.split_once(':').is_some_and(|(of, _)| of == name) {
                    tx.delete(TAGS, &key)?;
                }
            }
            remove_manifest(tx, name, digest, &row)?;
            Ok(true)
        })
    }

    /// The tags of a repository in order; `None` when there is no such repository.
    pub(crate) fn tags(&self, name: &str) -> Result<Option<Vec<String>>> {
        self.store.read(|tx| {
            if tx.get::<RepositoryRow>(REPOSITORIES, name)?.is_none() {
                return Ok(None);
            }
            let prefix = tag_key(name, "");
            let rows = tx.list_prefix::<TagRow>(TAGS, &prefix)?;
            Ok(Some(rows.into_iter().map(|(key, _)| key[prefix.len()..].to_owned()).collect()))
        })
    }

    /// All repositories in order.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        self.store.read(|tx| Ok(tx.list::<RepositoryRow>(REPOSITORIES)?.into_iter().map(|(name, _)| name).collect()))
    }

    /// The manifests that say to be about `subject`, by digest.
    pub(crate) fn referrers(&self, name: &str, subject: &Digest) -> Result<Vec<Referrer>> {
        self.store.read(|tx| {
            let prefix = format!("{name}@{subject}@");
            Ok(tx.list_prefix(REFERRERS, &prefix)?.into_iter().map(|(_, referrer)| referrer).collect())
        })
    }
}

/// Deletes a manifest's own rows.
pub(crate) fn remove_manifest(tx: &WriteTx, name: &str, digest: &Digest, row: &ManifestRow) -> Result<()> {
    if let Some(subject) = &row.subject {
        tx.delete(REFERRERS, &referrer_key(name, subject, digest))?;
    }
    tx.delete(MANIFESTS, &manifest_key(name, digest))?;
    Ok(())
}

/// Deletes the repositories that have no manifest.
pub(crate) fn remove_empty(tx: &WriteTx) -> Result<()> {
    let manifests = tx.list::<ManifestRow>(MANIFESTS)?;
    let used: std::collections::HashSet<&str> =
        manifests.iter().filter_map(|(key, _)| key.split_once('@').map(|(name, _)| name)).collect();
    for (name, _) in tx.list::<RepositoryRow>(REPOSITORIES)? {
        if !used.contains(name.as_str()) {
            tx.delete(REPOSITORIES, &name)?;
        }
    }
    Ok(())
}

/// Everything that a blob on the disk can be there for.
pub(crate) fn owned(tx: &ReadTx) -> Result<std::collections::HashSet<Digest>> {
    let links =
        tx.list::<LinkRow>(LINKS)?.into_iter().filter_map(|(key, _)| split_link(&key).map(|(digest, _)| digest));
    let manifests = tx.list::<ManifestRow>(MANIFESTS)?;
    let manifests = manifests.into_iter().filter_map(|(key, _)| split_manifest(&key).map(|(_, digest)| digest));
    Ok(links.chain(manifests).collect())
}

fn put_link(tx: &WriteTx, name: &str, digest: &Digest) -> Result<()> {
    Ok(tx.put(LINKS, &link_key(name, digest), &LinkRow { used: Timestamp::now() })?)
}

fn link_key(name: &str, digest: &Digest) -> String {
    format!("{digest}@{name}")
}

/// The digest and the repository of a link.
pub(crate) fn split_link(key: &str) -> Option<(Digest, &str)> {
    let (digest, name) = key.split_once('@')?;
    Some((Digest::parse(digest).ok()?, name))
}

fn manifest_key(name: &str, digest: &Digest) -> String {
    format!("{name}@{digest}")
}

/// The repository and the digest of a manifest.
pub(crate) fn split_manifest(key: &str) -> Option<(&str, Digest)> {
    let (name, digest) = key.split_once('@')?;
    Some((name, Digest::parse(digest).ok()?))
}

fn tag_key(name: &str, tag: &str) -> String {
    format!("{name}:{tag}")
}

fn referrer_key(name: &str, subject: &Digest, digest: &Digest) -> String {
    format!("{name}@{subject}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(blobs: Vec<Digest>, subject: Option<Digest>) -> ManifestRow {
        let media_type = "a/b".to_owned();
        ManifestRow { media_type, size: 1, blobs, manifests: Vec::new(), subject, pushed: Timestamp::now() }
    }

    fn referrer(digest: &Digest) -> Referrer {
        let annotations = BTreeMap::new();
        Referrer { media_type: "a/b".into(), digest: digest.clone(), size: 1, annotations, artifact_type: None }
    }

    fn understood(row: ManifestRow, referrer: Referrer) -> Understood {
        Understood { row, referrer, sizes: Vec::new() }
    }

    #[test]
    fn rows_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let all = Repositories::new(Store::open(dir.path()).unwrap());
        let [blob, one, two] = [&b"blob"[..], b"one", b"two"].map(Digest::sha256);
        let unknown =
            all.put_manifest("a", &[], &one, &understood(row(vec![blob.clone()], None), referrer(&one))).unwrap_err();
        assert_eq!(unknown.code(), Code::ManifestBlobUnknown);
        assert!(all.names().unwrap().is_empty() && all.tags("a").unwrap().is_none());

        all.link("a", &blob).unwrap();
        assert!(all.is_linked("a", &blob).unwrap() && !all.is_linked("a/b", &blob).unwrap());
        assert!(!all.mount("c", Some("b"), &blob).unwrap() && all.mount("c", Some("a"), &blob).unwrap());
        assert!(all.mount("d", None, &blob).unwrap() && !all.mount("d", None, &one).unwrap());
        all.put_manifest("a", &["x".into()], &one, &understood(row(vec![blob.clone()], None), referrer(&one))).unwrap();
        all.put_manifest("a", &["y".into()], &two, &understood(row(vec![], Some(one.clone())), referrer(&two)))
            .unwrap();
        all.put_manifest("a/b", &["x".into()], &one, &understood(row(vec![], None), referrer(&one))).unwrap();
        assert_eq!(all.tags("a").unwrap().unwrap(), ["x", "y"]);
        assert_eq!(all.names().unwrap(), ["a", "a/b"]);
        assert_eq!(all.referrers("a", &one).unwrap().len(), 1);

        assert!(all.delete_manifest("a", &two).unwrap() && !all.delete_manifest("a", &two).unwrap());
        assert!(all.referrers("a", &one).unwrap().is_empty());
        assert_eq!(all.tags("a").unwrap().unwrap(), ["x"]);
        assert!(all.delete_manifest("a", &one).unwrap());
        assert!(all.tagged("a", "x").unwrap().is_none() && all.tagged("a/b", "x").unwrap().is_some());
    }
}
