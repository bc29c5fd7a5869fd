//! Links followed by their words, where what a path means may not be there yet.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Links that are followed before it is a circle.
const MAX_LINKS: u32 = 255;

/// Where `path` leads from `/` when all links are followed inside the root, as far as they are there: an absolute path
/// without `.`, `..` and links. `read_link` says what the link at an absolute path holds, and `None` where there is none.
///
/// What comes of it is a name to compare or to show. To open it is to resolve it again, with [`crate::RootDir`].
pub fn follow(path: impl AsRef<Path>, mut read_link: impl FnMut(&Path) -> Option<OsString>) -> PathBuf {
    let parts = |path: &Path| -> Vec<OsString> { path.iter().rev().map(OsStr::to_owned).collect() };
    let mut left = parts(path.as_ref());
    let (mut here, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        if part == "." || part == "/" {
            continue;
        }
        here.push(&part);
        if links < MAX_LINKS
            && let Some(target) = read_link(&here)
        {
            links += 1;
            let target = PathBuf::from(target);
            if target.is_absolute() {
                here = PathBuf::from("/");
            } else {
                here.pop();
            }
            left.extend(parts(&target));
        }
    }
    here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside() {
        let links = [("/one", "/d"), ("/two", "one/../../d"), ("/three", "gone/x"), ("/four", "four"), ("/d/up", "..")];
        let read =
            |path: &Path| links.iter().find(|(name, _)| path == Path::new(name)).map(|(_, to)| OsString::from(to));
        for (from, to) in [
            ("one/x", "/d/x"),
            ("/two", "/d"),
            ("three", "/gone/x"),
            ("d", "/d"),
            ("four", "/four"),
            ("d/up/one/./x", "/d/x"),
            ("../../one", "/d"),
            ("", "/"),
        ] {
            assert_eq!(follow(from, read), Path::new(to), "{from}");
        }
    }
}
