//! What is at a path of an index, whose links are followed inside of it.

use std::ffi::OsString;
use std::path::{Component, Path};

use super::{Index, IndexFile};
use crate::error::Result;
use crate::resolve::resolve;
use crate::tree::{Found, Kind};

impl Index {
    /// The entry at a path that has no links in it.
    pub(super) fn node(&self, path: &Path) -> Option<usize> {
        let mut at = 0;
        for part in path.components() {
            at = *self.nodes[at].children.get(part.as_os_str())?;
        }
        Some(at)
    }

    /// The entry at a path; none where a link or a way up has to be followed. Step by step that would take the second power of
    /// the depth.
    fn straight(&self, path: &Path, last: bool) -> Option<Option<usize>> {
        let (mut at, mut parts) = (0, path.components());
        let is_link = |at: usize| self.nodes[at].attributes.kind == Kind::Symlink;
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else { return None };
            match self.nodes[at].children.get(name) {
                Some(next) => at = *next,
                None if is_link(at) => return None,
                None => return parts.all(|part| matches!(part, Component::Normal(_))).then_some(None),
            }
        }
        (!last || !is_link(at)).then_some(Some(at))
    }

    pub(super) fn followed(&self, path: &Path, last: bool) -> Option<usize> {
        if let Some(found) = self.straight(path, last) {
            return found;
        }
        let link = |path: &Path| {
            let node = self.node(path).map(|at| &self.nodes[at]);
            Ok(node.filter(|node| node.attributes.kind == Kind::Symlink).map(|node| node.link.clone()))
        };
        // Links that go round in circles lead to nothing, as in a directory of the host.
        let node = |path: &Path, last: &Path| self.node(&resolve(path, &link).ok()?.join(last));
        if last {
            return node(path, Path::new(""));
        }
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else { return Some(0) };
        node(above, Path::new(name))
    }

    /// What is at `path`; with `follow`, what it leads to.
    pub(crate) fn look(&self, path: &Path, follow: bool) -> Result<Option<Found>> {
        Ok(self.followed(path, follow).map(|at| self.found(at)))
    }

    fn found(&self, at: usize) -> Found {
        let node = &self.nodes[at];
        let content = node.content.map(|body| (body, &self.bodies[body]));
        let mut attributes = node.attributes.clone();
        // As most archives have it, which tell no parts of seconds.
        attributes.mtime = (self.latest.map_or(attributes.mtime.0, |latest| attributes.mtime.0.min(latest)), 0);
        if let Some(place) = content.and_then(|(_, body)| body.place.get()).filter(|place| !place.xattrs.is_empty()) {
            attributes.xattrs.clone_from(&place.xattrs);
        }
        Found {
            attributes,
            size: content.map_or(0, |(_, content)| content.size),
            device: node.device,
            // An empty one is the same as any other.
            inode: content.filter(|(_, c)| c.several && c.size > 0).map(|(number, _)| (0, number as u64)),
            link: node.link.clone(),
            body: node.content,
        }
    }

    /// What is in a directory, by name, sorted; nothing in anything else.
    pub(crate) fn children(&self, path: &Path) -> Result<Vec<(OsString, Found)>> {
        let Some(node) = self.followed(path, true).map(|at| &self.nodes[at]) else { return Ok(Vec::new()) };
        Ok(node.children.iter().map(|(name, at)| (name.clone(), self.found(*at))).collect())
    }

    /// When what is at `path` was really changed last.
    pub(crate) fn real_time(&self, path: &Path) -> Option<(i64, u32)> {
        if self.checked_out.is_some() {
            return self.checked_out;
        }
        let at = self.followed(path, false)?;
        Some(self.nodes[at].attributes.mtime)
    }

    /// Names in a directory, sorted; none in anything else.
    pub(crate) fn names(&self, path: &Path) -> Result<Vec<OsString>> {
        let node = self.followed(path, true).map(|at| &self.nodes[at]);
        Ok(node.map(|node| node.children.keys().cloned().collect()).unwrap_or_default())
    }

    /// The content of the regular file that `path` leads to.
    pub(crate) fn open(&self, path: &Path) -> Result<IndexFile<'_>> {
        let (size, place) = self.content(path)?;
        Ok(IndexFile { file: &self.contents, at: place.offset, left: size })
    }
}
