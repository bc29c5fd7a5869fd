//! Removing names, images, and the layers that nobody needs any more (the rules of moby's `image_delete.go`).

use wharf_reference::{Digest, Reference};
use wharf_store::WriteTx;

use crate::images::{DIGESTS, GARBAGE, IMAGES, ImageRecord, Images, Row, TAGS};
use crate::names::tag_key;
use crate::{ImageError, Result};

/// How an image is removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remove {
    /// Also when it has several names or a stopped container uses it.
    pub force: bool,
    /// With its parents that have no name and no other child.
    pub prune: bool,
}

/// What has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name.
    Untagged(String),
    /// An image, by its ID.
    Deleted(String),
}

/// Containers that use an image, with whether each runs.
type Users<'a> = &'a dyn Fn(&Digest) -> Vec<(String, bool)>;

impl Images {
    /// Removes a name, and with the last one the image; or an image by its ID with all its names.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` with Docker's words when a container uses it, or it has several names.
    pub fn remove(&self, text: &str, options: Remove, in_use: Users<'_>) -> Result<Vec<Removed>> {
        let image = self.resolve(text)?;
        let mut removed = Vec::new();
        let users = in_use(&image.id);
        let named = Reference::parse(text).ok().filter(|r| self.by_name(r).ok().flatten().as_ref() == Some(&image.id));
        if let Some(reference) = named {
            self.remove_name(&image, &reference, options, &users, &mut removed)?;
        } else {
            self.check_id(&image, options, &users)?;
            for name in image.tags.iter().chain(&image.repo_digests) {
                removed.push(Removed::Untagged(name.clone()));
            }
            self.untag_all(&image)?;
        }
        let left = self.get(&image.id)?;
        if left.tags.is_empty() && left.repo_digests.is_empty() && users.is_empty() {
            self.delete(&left, options.prune, in_use, &mut removed)?;
        }
        Ok(removed)
    }

    fn remove_name(
        &self,
        image: &ImageRecord,
        reference: &Reference,
        options: Remove,
        users: &[(String, bool)],
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let key = match reference.digest() {
            Some(digest) => format!("{}@{digest}", reference.name()),
            None => tag_key(reference),
        };
        let shown = if reference.digest().is_some() {
            reference.familiar()
        } else {
            reference.clone().tag_or_latest().familiar()
        };
        let others = image.tags.iter().filter(|tag| **tag != shown).count();
        if let (0, false, Some((container, _))) = (others, options.force, users.first()) {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to remove repository reference \"{shown}\" (must force) - container {} is using its \
                 referenced image {}",
                short(container),
                image.id.short()
            )));
        }
        // The digests of a repository go with its last tag.
        let same_repository =
            |name: &String| Reference::parse(name).is_ok_and(|other| other.name() == reference.name());
        let last = reference.digest().is_none() && !image.tags.iter().any(|tag| *tag != shown && same_repository(tag));
        let digests: Vec<&String> =
            if last { image.repo_digests.iter().filter(|name| same_repository(name)).collect() } else { Vec::new() };
        self.store().write(|tx| {
            tx.delete(if reference.digest().is_some() { DIGESTS } else { TAGS }, &key)?;
            for name in &digests {
                tx.delete(DIGESTS, &digest_key(name))?;
            }
            Ok::<_, ImageError>(())
        })?;
        removed.push(Removed::Untagged(shown));
        removed.extend(digests.into_iter().map(|name| Removed::Untagged(name.clone())));
        Ok(())
    }

    fn check_id(&self, image: &ImageRecord, options: Remove, users: &[(String, bool)]) -> Result<()> {
        let short_id = image.id.short();
        if let Some((container, _)) = users.iter().find(|(_, running)| *running) {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to delete {short_id} (cannot be forced) - image is being used by running container {}",
                short(container)
            )));
        }
        if options.force {
            return Ok(());
        }
        let mut repositories: Vec<String> =
            image.tags.iter().filter_map(|tag| Reference::parse(tag).ok()).map(|r| r.name()).collect();
        repositories.sort();
        repositories.dedup();
        if repositories.len() > 1 {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to delete {short_id} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        if let Some((container, _)) = users.first() {
            return Err(ImageError::Conflict(format!(
                "conflict: unable to delete {short_id} (must be forced) - image is being used by stopped container {}",
                short(container)
            )));
        }
        Ok(())
    }

    fn untag_all(&self, image: &ImageRecord) -> Result<()> {
        self.store().write(|tx| {
            for tag in &image.tags {
                tx.delete(TAGS, &tag_key(&Reference::parse(tag)?))?;
            }
            for name in &image.repo_digests {
                tx.delete(DIGESTS, &digest_key(name))?;
            }
            Ok(())
        })
    }

    /// Deletes an image without names, and its parents of the same kind.
    fn delete(&self, image: &ImageRecord, prune: bool, in_use: Users<'_>, removed: &mut Vec<Removed>) -> Result<()> {
        let row = self.row(&image.id)?;
        self.store().write(|tx| forget(tx, &image.id, &row))?;
        // After the row: a blob that nobody names is swept, one that is named and not there would be damage.
        self.store().blobs().delete(&image.id)?;
        if let Some(manifest) = &row.manifest {
            self.store().blobs().delete(&manifest.digest)?;
        }
        removed.push(Removed::Deleted(image.id.to_string()));
        let Some(parent) = row.parent.filter(|_| prune) else { return Ok(()) };
        let Ok(parent) = self.get(&parent) else { return Ok(()) };
        let wanted = !parent.tags.is_empty()
            || !parent.repo_digests.is_empty()
            || !in_use(&parent.id).is_empty()
            || self.list()?.iter().any(|other| other.parent.as_ref() == Some(&parent.id));
        if wanted { Ok(()) } else { self.delete(&parent, prune, in_use, removed) }
    }

    /// Removes images that no container uses: those without a name, or all. Answers with what has gone; the bytes
    /// are freed by [`Self::collect`].
    ///
    /// # Errors
    /// When the store fails.
    pub fn prune(
        &self,
        dangling_only: bool,
        in_use: &dyn Fn(&Digest) -> bool,
        choose: &dyn Fn(&ImageRecord) -> bool,
    ) -> Result<(Vec<Removed>, u64)> {
        let mut removed = Vec::new();
        let users = |id: &Digest| if in_use(id) { vec![(String::new(), false)] } else { Vec::new() };
        for image in self.list()? {
            let dangling = image.tags.is_empty();
            if (dangling_only && !dangling) || in_use(&image.id) || !choose(&image) || self.get(&image.id).is_err() {
                continue;
            }
            for name in image.tags.iter().chain(&image.repo_digests) {
                removed.push(Removed::Untagged(name.clone()));
            }
            self.untag_all(&image)?;
            self.delete(&image, true, &users, &mut removed)?;
        }
        Ok((removed, 0))
    }

    /// Removes the layers that removed images have left and that neither another image nor `pinned` (the layers of
    /// containers and of a build's cache) needs. Answers with the bytes that are free again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn collect(&self, pinned: &[Digest]) -> Result<u64> {
        let _gate = self.gate();
        let unused = self.store().write(|tx| {
            let candidates: Vec<(String, ())> = tx.list(GARBAGE)?;
            if candidates.is_empty() {
                return Ok::<_, ImageError>(Vec::new());
            }
            let rows: Vec<(String, Row)> = tx.list(IMAGES)?;
            let needed = |diff_id: &Digest| {
                pinned.contains(diff_id) || rows.iter().any(|(_, row)| row.diff_ids.contains(diff_id))
            };
            Ok(candidates.iter().filter_map(|(key, ())| Digest::parse(key).ok()).filter(|id| !needed(id)).collect())
        })?;
        let mut freed = 0;
        for diff_id in unused {
            if let Some(layer) = self.layers().get(&diff_id)? {
                freed += layer.size;
                self.layers().remove(&diff_id)?;
                for blob in layer.blobs {
                    freed += self.store().blobs().size(&blob.digest).unwrap_or(0);
                    self.store().blobs().delete(&blob.digest)?;
                }
            }
            self.store().write(|tx| tx.delete(GARBAGE, diff_id.as_str()))?;
        }
        Ok(freed)
    }
}

/// The row goes; its layers may be nobody's now.
fn forget(tx: &WriteTx, id: &Digest, row: &Row) -> Result<()> {
    tx.delete(IMAGES, id.as_str())?;
    for diff_id in &row.diff_ids {
        tx.put(GARBAGE, diff_id.as_str(), &())?;
    }
    Ok(())
}

/// The key of a name as users see it.
fn digest_key(familiar: &str) -> String {
    match Reference::parse(familiar) {
        Ok(reference) => match reference.digest() {
            Some(digest) => format!("{}@{digest}", reference.name()),
            None => familiar.into(),
        },
        Err(_) => familiar.into(),
    }
}

/// Twelve digits of a container's ID.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
