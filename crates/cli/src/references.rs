//! Image names, refused in Docker's words.

use wharf_reference::Reference;

use crate::failure::Outcome;

/// Reads a name.
pub(crate) fn parse(text: &str) -> Outcome<Reference> {
    Reference::parse(text).map_err(|error| refusal(text, &error.to_string()).into())
}

/// Docker names the repository with the `library/` that it puts before short names.
fn refusal(text: &str, words: &str) -> String {
    if !words.contains("must be lowercase") {
        return words.to_owned();
    }
    let is_domain = |part: &str| part == "localhost" || part.contains(['.', ':']) || part.contains(char::is_uppercase);
    let (domain, rest) = match text.split_once('/') {
        Some((domain, rest)) if is_domain(domain) => (domain, rest),
        _ => ("docker.io", text),
    };
    let name = rest.split(':').next().unwrap_or_default();
    if !name.contains(char::is_uppercase) {
        return "invalid reference format".to_owned();
    }
    let library =
        if matches!(domain, "docker.io" | "index.docker.io") && !rest.contains('/') { "library/" } else { "" };
    format!("invalid reference format: repository name ({library}{name}) must be lowercase")
}

/// Whether the text is a whole ID, which is no name.
pub(crate) fn is_id(text: &str) -> bool {
    text.starts_with("sha256:")
        || (text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)))
}
