//! Image references (distribution/reference): `[domain/]path[:tag][@digest]`.

use std::fmt;

use crate::digest::{Digest, DigestError};

/// The registry of a name that names none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag of a name that has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// Where official images live on the default registry.
const OFFICIAL: &str = "library/";
/// The default registry's old name.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Bound of distribution/reference on domain and path together.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// Why a text is no reference. The texts are those that Docker's users know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error("invalid reference format: repository name must not be longer than {MAX_NAME} characters")]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    IsId(String),
    #[error("invalid reference format")]
    Digest(#[from] DigestError),
}

/// A name that has been checked and made whole: `debian` is `docker.io/library/debian`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses what a user wrote.
    ///
    /// # Errors
    /// With Docker's texts, when it is not of the grammar.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_full_id(text) {
            return Err(ReferenceError::IsId(text.into()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(rest);
        let (path, tag) = match remainder.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) && !path.is_empty() {
            return Err(ReferenceError::Uppercase(path.into()));
        }
        if !is_path(path) || !is_domain(domain) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Format);
        }
        let (domain, path) = normal(domain, path);
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// The registry, with its port: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in the registry: `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The whole name without tag and digest: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: `debian`, `localhost:5000/a/b`.
    pub fn familiar_name(&self) -> String {
        if self.domain == DEFAULT_DOMAIN {
            // `library/a/b` is no official image: only one component is shortened.
            let short = match self.path.strip_prefix(OFFICIAL) {
                Some(short) if !short.contains('/') => short,
                _ => &self.path,
            };
            // One of Docker Hub's that looks like another registry's is not to be taken for it.
            if split_domain(short).1 == short {
                return short.to_owned();
            }
        }
        self.name()
    }

    /// The familiar name with tag and digest.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// This name, with the tag `latest` if it has neither tag nor digest.
    #[must_use]
    pub fn tag_or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.into());
        }
        self
    }

    /// The same repository at `tag`, without a digest.
    ///
    /// # Errors
    /// When `tag` is none.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Self { tag: Some(tag.into()), digest: None, ..self.clone() })
    }

    /// The same repository at `digest`, without a tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.name()))
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Whether `text` can be the beginning of an ID: 1 to 64 lower case hex digits.
pub fn is_id_prefix(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_full_id(text: &str) -> bool {
    text.len() == 64 && is_id_prefix(text)
}

/// Splits off the registry: the first component is one if it has a dot, a colon or an upper case letter,
/// or is `localhost`; otherwise it is the beginning of a path on the default registry.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

fn normal(domain: &str, path: &str) -> (String, String) {
    let domain = if domain == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.into(), format!("{OFFICIAL}{path}"));
    }
    (domain.into(), path.into())
}

/// `path-component ['/' path-component]*`.
fn is_path(path: &str) -> bool {
    path.split('/').all(is_component)
}

/// Alphanumerics joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        let separator = match rest {
            [] => return true,
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            [b'-', ..] => rest.iter().take_while(|b| **b == b'-').count(),
            _ => return false,
        };
        rest = &rest[separator..];
    }
}

/// A host name, an IPv4 address or a bracketed IPv6 address, with an optional port.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => return address.parse::<std::net::Ipv6Addr>().is_ok(),
        Some((address, rest)) => {
            return address.parse::<std::net::Ipv6Addr>().is_ok() && rest.strip_prefix(':').is_some_and(is_port);
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    port.is_none_or(is_port) && host.split('.').all(is_label)
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_label(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = text.bytes();
    text.len() <= MAX_TAG && bytes.next().is_some_and(word) && bytes.all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> String {
        Reference::parse(text).unwrap().to_string()
    }

    #[test]
    fn short_names_are_made_whole() {
        assert_eq!(whole("debian"), "docker.io/library/debian");
        assert_eq!(whole("debian:12"), "docker.io/library/debian:12");
        assert_eq!(whole("me/app"), "docker.io/me/app");
        assert_eq!(whole("index.docker.io/debian"), "docker.io/library/debian");
        assert_eq!(whole("localhost/app"), "localhost/app");
        assert_eq!(whole("localhost:5000/a/b:c"), "localhost:5000/a/b:c");
        assert_eq!(whole("[::1]:5000/a"), "[::1]:5000/a");
        assert_eq!(whole("host.example/a__b/c-d---e.f"), "host.example/a__b/c-d---e.f");
    }

    #[test]
    fn familiar_names_are_what_people_wrote() {
        let unlike = "docker.io/ghcr.io/app:x";
        for name in ["debian:12", "me/app:x", "localhost:5000/a/b:c", "library/a/b:t", unlike] {
            assert_eq!(Reference::parse(name).unwrap().familiar(), name);
        }
    }

    #[test]
    fn tags_and_digests_replace_each_other() {
        let digest = Digest::sha256(b"x");
        let debian = Reference::parse("debian").unwrap();
        assert_eq!(debian.clone().tag_or_latest().tag(), Some("latest"));
        let pinned = debian.with_digest(digest.clone());
        assert_eq!(pinned.clone().tag_or_latest().tag(), None);
        assert_eq!(pinned.familiar(), format!("debian@{digest}"));
        assert_eq!(pinned.with_tag("12").unwrap().familiar(), "debian:12");
    }

    #[test]
    fn what_is_outside_of_the_grammar_is_refused() {
        let long = "a".repeat(256);
        let id = "a".repeat(64);
        for bad in [
            "",
            ":",
            "a:",
            "a:b:c",
            "/a",
            "a/",
            "a//b",
            "a..b",
            "a_-b",
            "-a",
            "a-",
            "a___b",
            "Debian",
            "a/../b",
            "a b",
            "a:-x",
            "a@sha256:00",
            "host:port/a",
            "host:/a",
            "[::g]/a",
            "a\n",
            "http://host/a",
            &long,
            &id,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn upper_case_says_so() {
        assert_eq!(
            Reference::parse("Debian").unwrap_err().to_string(),
            "invalid reference format: repository name (Debian) must be lowercase"
        );
    }
}
