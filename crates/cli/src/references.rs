//! Image names, refused in Docker's words.

use wharf_reference::Reference;

use crate::failure::Outcome;

/// Reads a name.
pub(crate) fn parse(text: &str) -> Outcome<Reference> {
    Reference::parse(text).map_err(|error| refusal(text, &error.to_string()).into())
}

/// Docker names the repository with the `library/` that it puts before short names.
fn refusal(text: &str, words: &str) -> String {
    let name = text.split([':', '@']).next().unwrap_or_default();
    if words.contains("must be lowercase") && !name.contains('/') {
        return format!("invalid reference format: repository name (library/{name}) must be lowercase");
    }
    words.to_owned()
}

/// Whether the text is a whole ID, which is no name.
pub(crate) fn is_id(text: &str) -> bool {
    text.starts_with("sha256:")
        || (text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)))
}
