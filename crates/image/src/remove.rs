//! Removing names and images (the rules of moby's `image_delete.go`, and its words).

use std::sync::atomic::Ordering;

use wharf_reference::{Digest, Reference};
use wharf_store::WriteTx;

use crate::images::Images;
use crate::index::{INDEXES, IndexRow, leave, manifest_left, part, unpoint};
use crate::passing::is_passing;
use crate::rows::{IMAGES, LEFT, NAMES, Row, familiar, is_digest, key, named_manifest, repository};
use crate::summary::ImageSummary;
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

/// Whoever has it, is alone with what images there are and what they are called.
type Gate<'a> = std::sync::MutexGuard<'a, ()>;

/// Containers that use an image, with whether each runs.
type Users<'a> = &'a dyn Fn(&Digest) -> Vec<(String, bool)>;

/// What keeps an image.
struct Obstacle {
    /// No force removes it.
    hard: bool,
    /// A container uses it.
    used: bool,
    why: String,
}

impl Images {
    /// Removes a name, and with the last one the image; or an image by its ID with all its names.
    ///
    /// The files of its layers go with [`Self::collect`].
    ///
    /// # Errors
    /// `NotFound`; `Conflict` with Docker's words when a container or a child uses it, or it has several names.
    pub fn remove(&self, text: &str, options: Remove, in_use: Users<'_>) -> Result<Vec<Removed>> {
        let gate = self.gate();
        self.remove_now(&gate, text, options, in_use)
    }

    /// Removes an image that has no name, and leaves one that has.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub fn remove_unnamed(&self, id: &Digest, in_use: Users<'_>) -> Result<Vec<Removed>> {
        let gate = self.gate();
        let row = self.row(id)?;
        if !row.names.is_empty() || !row.indexes.is_empty() {
            return Ok(Vec::new());
        }
        self.remove_now(&gate, id.as_str(), Remove { force: false, prune: true }, in_use)
    }

    fn remove_now(&self, gate: &Gate<'_>, text: &str, options: Remove, in_use: Users<'_>) -> Result<Vec<Removed>> {
        let id = self.find(text)?;
        let row = self.row(&id)?;
        // Its other platforms have no names of their own.
        let siblings = self.siblings(&row, &id)?;
        let names = row.names;
        let mut removed = Vec::new();
        if let Some(name) = self.name_of(text)?.filter(|name| is_passing(name)) {
            // The image was there before it, or whoever has made it takes it away. Nobody was told of the name.
            self.untag(&[name], &mut removed)?;
            return Ok(Vec::new());
        }
        // A name may look like the beginning of an ID.
        if is_prefix_of(text, &id) && self.name_of(text)?.is_none() {
            if is_single(&names) {
                // Its only name does not keep it from being removed by its ID.
                if let Some(obstacle) = self.obstacle(&id, &Row::default(), options.force, in_use)? {
                    return Err(obstacle.conflict(&id));
                }
                self.untag(&names, &mut removed)?;
            }
            self.delete(gate, &id, options, false, in_use, &mut removed)?;
            self.delete_left(gate, &siblings, options, in_use, &mut removed)?;
            return Ok(removed);
        }
        let user = |id| match in_use(id).first() {
            Some((container, _)) => Some(format!("container {}", short(container))),
            None => self.is_kept(id).then(|| "a container that is being made".to_owned()),
        };
        let user = [&id].into_iter().chain(&siblings).find_map(|id| Some((id, user(id)?)));
        if let (true, false, Some((id, container))) = (is_single(&names), options.force, user) {
            // It would be left without a name, which nobody wants by accident.
            return Err(ImageError::Conflict(format!(
                "conflict: unable to remove repository reference {text:?} (must force) - {container} is using its \
                 referenced image {}",
                id.short()
            )));
        }
        let own = key(&Reference::parse(text)?);
        let mut going = vec![own.clone()];
        let same = |name: &&String| repository(name) == repository(&own) && **name != own;
        let mut family = names.clone();
        for sibling in &siblings {
            // A push of one platform gives it a digest of its own.
            family.extend(self.row(sibling)?.names);
        }
        if !is_digest(&own) && !family.iter().filter(same).any(|name| !is_digest(name)) {
            // The digests of a repository go with its last tag.
            going.extend(family.iter().filter(same).cloned());
        }
        self.untag(&going, &mut removed)?;
        if names.iter().all(|name| going.contains(name)) {
            self.delete(gate, &id, options, true, in_use, &mut removed)?;
        }
        self.delete_left(gate, &siblings, options, in_use, &mut removed)?;
        Ok(removed)
    }

    /// Removes an image's platforms and leaves the others of its index.
    ///
    /// # Errors
    /// `NotFound`, also when it has no such platform; `Conflict` when a container uses that, which a force overcomes if it
    /// does not run. Then nothing has been removed.
    pub fn remove_platforms(
        &self,
        text: &str,
        platforms: &[String],
        options: Remove,
        in_use: Users<'_>,
    ) -> Result<Vec<Removed>> {
        let gate = self.gate();
        let ids = platforms.iter().map(|platform| Ok(self.resolve_for(text, Some(platform))?.id));
        let ids: Vec<Digest> = ids.collect::<Result<_>>()?;
        let Some((digest, row)) = self.index_row(text)? else {
            return self.remove_now(&gate, text, options, in_use);
        };
        if row.members.iter().all(|member| ids.contains(&member.image)) {
            return self.remove_now(&gate, text, options, in_use);
        }
        for id in &ids {
            if let Some(obstacle) = self.obstacle(id, &Row::default(), options.force, in_use)? {
                return Err(obstacle.conflict(id));
            }
        }
        let mut removed = Vec::new();
        let own = self.name_of(text)?.unwrap_or_default();
        let by_digest = |name: &String| is_digest(name) && repository(name) == repository(&own);
        self.store().write(|tx| {
            for id in &ids {
                part(tx, &digest, id)?;
                let row: Row = tx.get(IMAGES, id.as_str())?.unwrap_or_default();
                if row.tags().any(|name| repository(name) == repository(&own)) {
                    continue;
                }
                // What pushes have named it beside that.
                row.names.iter().filter(|name| by_digest(name)).try_for_each(|name| unpoint(tx, name))?;
                for index in &row.indexes {
                    let pushed: Option<IndexRow> = tx.get(INDEXES, index.as_str())?;
                    if pushed.is_some_and(|index| index.names.iter().all(by_digest)) {
                        part(tx, index, id)?;
                    }
                }
            }
            Ok::<_, ImageError>(())
        })?;
        self.delete_left(&gate, &ids, options, in_use, &mut removed)?;
        Ok(removed)
    }

    /// Deletes those of the images that neither a name nor an index leads to any more, unless something keeps them.
    fn delete_left(
        &self,
        gate: &Gate<'_>,
        ids: &[Digest],
        options: Remove,
        in_use: Users<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        for id in ids {
            let left = |row: &Row| row.names.is_empty() && row.indexes.is_empty() && !row.pinned;
            if self.row(id).is_ok_and(|row| left(&row)) {
                self.delete(gate, id, options, true, in_use, removed)?;
            }
        }
        Ok(())
    }

    fn untag(&self, names: &[String], removed: &mut Vec<Removed>) -> Result<()> {
        self.store().write(|tx| names.iter().try_for_each(|name| unpoint(tx, name)))?;
        removed.extend(names.iter().map(|name| Removed::Untagged(familiar(name))));
        Ok(())
    }

    /// What keeps an image with this row. Force overcomes all but a running container and a child.
    fn obstacle(&self, id: &Digest, row: &Row, force: bool, in_use: Users<'_>) -> Result<Option<Obstacle>> {
        if self.has_children(id)? {
            let why = "image has dependent child images".into();
            return Ok(Some(Obstacle { hard: true, used: false, why }));
        }
        let users = in_use(id);
        if let Some((container, _)) = users.iter().find(|(_, running)| *running) {
            let why = format!("image is being used by running container {}", short(container));
            return Ok(Some(Obstacle { hard: true, used: true, why }));
        }
        if force {
            return Ok(None);
        }
        if !row.names.is_empty() {
            let why = "image is referenced in multiple repositories".into();
            return Ok(Some(Obstacle { hard: false, used: false, why }));
        }
        let why = match users.first() {
            Some((container, _)) => format!("image is being used by stopped container {}", short(container)),
            None if self.is_kept(id) => "image is being used by a container that is being made".into(),
            None => return Ok(None),
        };
        Ok(Some(Obstacle { hard: false, used: true, why }))
    }

    fn has_children(&self, id: &Digest) -> Result<bool> {
        Ok(self.rows()?.iter().any(|(_, row)| row.parent.as_ref() == Some(id)))
    }

    /// Deletes an image with its names, and with `prune` its parents that nothing else needs. `quiet`: what keeps it
    /// is no failure, if that is a name, a child or a container.
    fn delete(
        &self,
        _gate: &Gate<'_>,
        id: &Digest,
        options: Remove,
        quiet: bool,
        in_use: Users<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let (mut id, mut force, mut quiet) = (id.clone(), options.force, quiet);
        loop {
            let row = self.row(&id)?;
            if let Some(obstacle) = self.obstacle(&id, &row, force, in_use)? {
                let dangling = row.names.is_empty() && !self.has_children(&id)?;
                if quiet && (!dangling || obstacle.used) {
                    return Ok(());
                }
                return Err(obstacle.conflict(&id));
            }
            let row = self.store().write(|tx| forget(tx, &id))?;
            // After the row: a blob that nobody names is collected, one that is named and not there is damage.
            for blob in row.manifest.iter().map(|manifest| &manifest.digest).chain([&id]) {
                let size = self.store().blobs().size(blob).unwrap_or(0);
                if self.store().blobs().delete(blob)? {
                    self.freed().fetch_add(size, Ordering::AcqRel);
                }
            }
            removed.extend(row.names.iter().map(|name| Removed::Untagged(familiar(name))));
            removed.push(Removed::Deleted(id.to_string()));
            match row.parent.filter(|parent| options.prune && self.row(parent).is_ok_and(|row| !row.pinned)) {
                Some(parent) => (id, force, quiet) = (parent, false, true),
                None => return Ok(()),
            }
        }
    }

    /// Removes images that no container uses, nobody has pinned and `choose` wants removed: those without a tag, or all.
    /// Of several platforms under a name each is asked about. Answers with what has gone; the bytes are freed, and
    /// counted, by the next [`Self::collect`], with all that failed pulls have left.
    ///
    /// # Errors
    /// When the store fails.
    pub fn prune(
        &self,
        dangling_only: bool,
        in_use: &dyn Fn(&Digest) -> bool,
        choose: &dyn Fn(&ImageSummary) -> bool,
    ) -> Result<Vec<Removed>> {
        self.prune_and_tell(dangling_only, in_use, choose, &|_| ())
    }

    /// As [`Self::prune`]; `told` hears of each name and image when it has gone.
    ///
    /// # Errors
    /// When the store fails.
    pub fn prune_and_tell(
        &self,
        dangling_only: bool,
        in_use: &dyn Fn(&Digest) -> bool,
        choose: &dyn Fn(&ImageSummary) -> bool,
        told: &dyn Fn(&Removed),
    ) -> Result<Vec<Removed>> {
        let mut removed: Vec<Removed> = Vec::new();
        let users = |id: &Digest| if in_use(id) { vec![(String::new(), false)] } else { Vec::new() };
        let in_use = |id: &Digest| in_use(id) || self.is_kept(id);
        for image in self.summaries()? {
            // Nobody gives it a name or makes a container of it between the look and the removal.
            let gate = self.gate();
            // It may have gone as another's parent.
            let Ok(row) = self.row(&image.id) else { continue };
            let part = self.names_as_part(&row)?;
            let tagged = part.as_ref().unwrap_or(&row.names).iter().any(|name| !is_digest(name));
            if row.pinned || (dangling_only && tagged) || in_use(&image.id) || !choose(&image) {
                continue;
            }
            // What has no name and a child is a step on the way to that.
            if row.names.is_empty() && self.has_children(&image.id)? {
                continue;
            }
            // All platforms of an image stay with one that somebody needs. Else each is asked for by itself, and the names
            // stay with those that nobody wants removed.
            let kept = |id: &Digest| in_use(id) || self.row(id).is_ok_and(|row| row.pinned);
            if self.siblings(&row, &image.id)?.iter().any(kept) {
                continue;
            }
            let before = removed.len();
            let row = self.store().write(|tx| withdraw(tx, &image.id))?;
            self.untag(&row.names, &mut removed)?;
            self.delete(&gate, &image.id, Remove { force: false, prune: true }, true, &users, &mut removed)?;
            removed[before..].iter().for_each(told);
        }
        self.spare_nothing();
        Ok(removed)
    }

    /// The next [`Self::collect`] spares nothing for its age.
    pub fn spare_nothing(&self) {
        self.pruned().store(true, Ordering::Release);
    }
}

impl Obstacle {
    fn conflict(&self, id: &Digest) -> ImageError {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        ImageError::Conflict(format!("conflict: unable to delete {} ({force}) - {}", id.short(), self.why))
    }
}

/// Takes an image from its indexes, whose names lead to their next image then, and answers with its row as it is after.
pub(crate) fn withdraw(tx: &WriteTx, id: &Digest) -> Result<Row> {
    let row = |tx: &WriteTx| -> Result<Row> {
        tx.get(IMAGES, id.as_str())?.ok_or_else(|| ImageError::NotFound(id.to_string()))
    };
    row(tx)?.indexes.iter().try_for_each(|index| part(tx, index, id))?;
    row(tx)
}

/// The row and its names go; its layers may be nobody's now.
pub(crate) fn forget(tx: &WriteTx, id: &Digest) -> Result<Row> {
    let row: Row = tx.get(IMAGES, id.as_str())?.ok_or_else(|| ImageError::NotFound(id.to_string()))?;
    tx.delete(IMAGES, id.as_str())?;
    for name in &row.names {
        leave(tx, name)?;
        tx.delete(NAMES, name)?;
        named_manifest(name).iter().try_for_each(|digest| manifest_left(tx, digest))?;
    }
    // Those whose names lead to another image.
    row.indexes.iter().try_for_each(|index| part(tx, index, id))?;
    for diff_id in &row.diff_ids {
        tx.put(LEFT, diff_id.as_str(), &())?;
    }
    Ok(row)
}

/// Whether all names are of one repository, and at most one of them is a tag. No name at all is not.
fn is_single(names: &[String]) -> bool {
    let tags = names.iter().filter(|name| !is_digest(name)).count();
    let first = names.first().map(|name| repository(name));
    first.is_some() && tags <= 1 && names.iter().all(|name| Some(repository(name)) == first)
}

/// Whether a text is the beginning of an ID, with or without its algorithm.
fn is_prefix_of(text: &str, id: &Digest) -> bool {
    id.hex().starts_with(text) || (text.contains(':') && id.as_str().starts_with(text))
}

/// Twelve digits of a container's ID.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tag_and_the_digests_of_its_repository_are_one_name() {
        let single = |names: &[&str]| is_single(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert!(single(&["d/a:1"]) && single(&["d/a@sha256:x"]) && single(&["d/a:1", "d/a@sha256:x"]));
        assert!(single(&["d/a@sha256:x", "d/a@sha256:y"]));
        assert!(!single(&[]) && !single(&["d/a:1", "d/a:2"]) && !single(&["d/a:1", "d/b@sha256:x"]));
    }
}
