//! Named contexts that come as OCI layouts: images that are here as long as the build is.
//!
//! Such an image has a name that nobody else gives, chosen by who sends it. A file in the build's directory says which, so
//! that what a killed process has left goes at the next start.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use wharf_image::{Images, Remove};

use crate::error::{BuildError, Result};
use crate::scratch;
use crate::sources::image_error;

/// What these names begin with.
const PREFIX: &str = "localhost/wharf-build-context-";
const NOTE: &str = "layout-";

/// An image that goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Layout {
    images: Images,
    name: String,
    note: PathBuf,
}

impl Drop for Layout {
    fn drop(&mut self) {
        forget(&self.images, &self.name, &self.note);
    }
}

/// Takes in an archive of a layout whose one image has this name; `dir` is the build's.
///
/// # Errors
/// For a name that is no such one, and an archive that is hostile, damaged, or has the image under another name.
pub(crate) fn load(images: &Images, name: &str, input: impl Read, dir: &Path) -> Result<Layout> {
    let digits =
        name.strip_prefix(PREFIX).filter(|rest| rest.len() >= 16 && rest.bytes().all(|b| b.is_ascii_hexdigit()));
    let digits = digits.ok_or_else(|| BuildError::invalid(format!("{name:?} is no name of a context's image")))?;
    let note = dir.join(format!("{NOTE}{digits}"));
    fs::write(&note, "").map_err(|e| BuildError::system("a context cannot be noted", &e))?;
    let layout = Layout { images: images.clone(), name: name.to_owned(), note };
    let lines = images.load(input, &[], &|_| {}).map_err(|e| image_error("the context's layout cannot be used", &e))?;
    let expected = format!("Loaded image: {name}");
    if !lines.iter().any(|line| line.trim().trim_end_matches(":latest") == expected) {
        return Err(BuildError::invalid("the context's layout has no image of the name that it came with"));
    }
    Ok(layout)
}

fn forget(images: &Images, name: &str, note: &Path) {
    let options = Remove { force: false, prune: false };
    match images.remove(name, options, &|_| Vec::new()) {
        Err(error) if error.kind() != wharf_image::ErrorKind::NotFound => {
            tracing::warn!("the image of a build's context stays: {name}: {error}");
        }
        _ => drop(fs::remove_file(note)),
    }
}

/// Removes what builds of a process that was killed have left.
pub(crate) fn sweep(images: &Images, builds: &Path) {
    for note in scratch::list(builds).iter().flat_map(|dir| if dir.is_dir() { scratch::list(dir) } else { Vec::new() })
    {
        let name = note.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(digits) = name.strip_prefix(NOTE) {
            forget(images, &format!("{PREFIX}{digits}"), &note);
        }
    }
}
