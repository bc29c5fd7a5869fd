//! A name for an image that comes in two parameters: `repo` and `tag` (moby, `httputils.RepoTagReference`).

use wharf_engine::Engine;
use wharf_reference::Reference;

use crate::http::ApiError;

/// The name that both make: a tag of its own counts more than one in the repository's. `None` where no repository is
/// said.
///
/// # Errors
/// 400 for what cannot be a name, or has a digest, which nobody can give to an image.
pub(crate) fn named(repository: &str, tag: &str) -> Result<Option<Reference>, ApiError> {
    if repository.is_empty() {
        return Ok(None);
    }
    let reference = Engine::parse_reference(repository)?;
    if reference.digest().is_some() {
        return Err(ApiError::bad("cannot import digest reference"));
    }
    if tag.is_empty() {
        return Ok(Some(reference.tag_or_latest()));
    }
    reference.with_tag(tag).map(Some).map_err(|_| ApiError::bad("invalid tag format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_of_its_own_takes_the_place_of_one_in_the_name() {
        let name = |repository: &str, tag: &str| named(repository, tag).map(|name| name.map(|name| name.familiar()));
        assert_eq!(name("", "b").unwrap(), None);
        assert_eq!(name("q", "").unwrap().as_deref(), Some("q:latest"));
        assert_eq!(name("q:a", "").unwrap().as_deref(), Some("q:a"));
        assert_eq!(name("q:a", "b").unwrap().as_deref(), Some("q:b"));
        assert_eq!(name("host:5000/q", "b").unwrap().as_deref(), Some("host:5000/q:b"));
        assert_eq!(name("q", "b c").unwrap_err().message, "invalid tag format");
        // An ID, which it could never be told from.
        let id = "0".repeat(64);
        assert!(name(&id, "b").unwrap_err().message.contains("64-byte hexadecimal"));
        assert_eq!(name(&format!("q@sha256:{id}"), "b").unwrap_err().message, "cannot import digest reference");
    }
}
