//! What an image has in it, however it was looked at.

use std::collections::BTreeMap;

/// A name in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The type in `st_mode`, and permissions.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    pub(crate) links: u32,
    pub(crate) device: (u32, u32),
    /// Of a file or link; a directory's has no meaning.
    pub(crate) size: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Content of a file, target of a link.
    pub(crate) content: Vec<u8>,
    /// The first of the names of the same file.
    pub(crate) first: Vec<u8>,
}

/// By paths without a slash at their begin; the root is empty.
pub(crate) type Tree = BTreeMap<Vec<u8>, Seen>;

pub(crate) const FILE: u32 = 0o10_0000;
pub(crate) const DIRECTORY: u32 = 0o4_0000;
pub(crate) const SYMLINK: u32 = 0o12_0000;
pub(crate) const TYPE: u32 = 0o17_0000;

/// A path below another.
pub(crate) fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

/// Fails with the first difference, which is shown without the contents.
pub(crate) fn assert_same(what: &str, seen: &Tree, expected: &Tree) {
    for (path, wanted) in expected {
        let shown = String::from_utf8_lossy(path);
        let Some(seen) = seen.get(path) else { panic!("{what}: `{shown}` is missing") };
        let (content, wanted_content) = (&seen.content, &wanted.content);
        let first_difference = content.iter().zip(wanted_content).position(|(a, b)| a != b);
        assert!(content == wanted_content, "{what}: `{shown}` differs from byte {first_difference:?}");
        let bare = |seen: &Seen| Seen { content: Vec::new(), ..seen.clone() };
        assert_eq!(bare(seen), bare(wanted), "{what}: `{shown}`");
    }
    if let Some(path) = seen.keys().find(|path| !expected.contains_key(*path)) {
        panic!("{what}: `{}` should not be there", String::from_utf8_lossy(path));
    }
}
