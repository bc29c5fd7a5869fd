//! Following links inside a root that is not, or not only, a directory of the host.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::error::{BuildError, Result};

/// As the kernel bounds it (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// The path without links that `path` means, all of it followed inside the root. It need not exist. `link` tells where
/// an entry leads if it is a link.
///
/// # Errors
/// When links go round in circles, and those of `link`.
pub(crate) fn resolve(path: &Path, link: &dyn Fn(&Path) -> Result<Option<OsString>>) -> Result<PathBuf> {
    let mut todo: VecDeque<OsString> = parts(path).collect();
    let mut real = PathBuf::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&name);
        let Some(target) = link(&next)? else {
            real = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            let message = format!("too many levels of symbolic links in /{}", path.display());
            return Err(BuildError::invalid(message));
        }
        let target = PathBuf::from(target);
        if target.is_absolute() {
            real = PathBuf::new();
        }
        for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(part);
        }
    }
    Ok(real)
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}
