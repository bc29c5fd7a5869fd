//! Paths (OCI distribution-spec, "Endpoints"). Names of repositories have slashes in them, so that they are read from
//! the end.

use wharf_reference::{Digest, Reference};

use crate::error::{ApiError, Code};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Version,
    Catalog,
    Blob { name: String, digest: Digest },
    Uploads { name: String },
    Upload { name: String, id: String },
    Manifest { name: String, reference: Named },
    Tags { name: String },
    Referrers { name: String, digest: Digest },
}

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Tag(String),
    Digest(Digest),
}

/// Any domain does: only the rest is looked at, and the shorter it is the longer a name may be.
const ANY_DOMAIN: &str = "a.b";

impl Route {
    /// Reads a path; `None` when the API has no such.
    ///
    /// # Errors
    /// `NAME_INVALID`, `DIGEST_INVALID`, `TAG_INVALID`.
    pub(crate) fn parse(path: &str) -> Result<Option<Self>, ApiError> {
        let Some(path) = unescape(path) else { return Ok(None) };
        let Some(rest) = path.strip_prefix("/v2") else { return Ok(None) };
        let rest = match rest {
            "" | "/" => return Ok(Some(Self::Version)),
            "/_catalog" => return Ok(Some(Self::Catalog)),
            _ => match rest.strip_prefix('/') {
                Some(rest) => rest,
                None => return Ok(None),
            },
        };
        let segments: Vec<&str> = rest.split('/').collect();
        Ok(Some(match segments[..] {
            [ref name @ .., "blobs", "uploads"] | [ref name @ .., "blobs", "uploads", ""] => {
                Self::Uploads { name: checked(name)? }
            }
            [ref name @ .., "blobs", "uploads", id] => Self::Upload { name: checked(name)?, id: id.to_owned() },
            [ref name @ .., "blobs", digest] => Self::Blob { name: checked(name)?, digest: parse_digest(digest)? },
            [ref name @ .., "manifests", reference] => {
                Self::Manifest { name: checked(name)?, reference: Named::parse(reference)? }
            }
            [ref name @ .., "tags", "list"] => Self::Tags { name: checked(name)? },
            [ref name @ .., "referrers", digest] => {
                Self::Referrers { name: checked(name)?, digest: parse_digest(digest)? }
            }
            _ => return Ok(None),
        }))
    }
}

impl Named {
    fn parse(text: &str) -> Result<Self, ApiError> {
        if text.contains(':') {
            return parse_digest(text).map(Self::Digest);
        }
        parse_tag(text).map(Self::Tag)
    }
}

pub(crate) fn parse_tag(text: &str) -> Result<String, ApiError> {
    let valid = Reference::parse(ANY_DOMAIN).and_then(|any| any.with_tag(text)).is_ok();
    if valid { Ok(text.to_owned()) } else { Err(Code::TagInvalid.into()) }
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest, ApiError> {
    Digest::parse(text).map_err(|error| ApiError::with_detail(Code::DigestInvalid, error.to_string()))
}

fn checked(segments: &[&str]) -> Result<String, ApiError> {
    let name = segments.join("/");
    if is_name(&name) { Ok(name) } else { Err(Code::NameInvalid.into()) }
}

/// Whether it is the name of a repository.
pub(crate) fn is_name(name: &str) -> bool {
    let parsed = Reference::parse(&format!("{ANY_DOMAIN}/{name}"));
    parsed.is_ok_and(|reference| reference.path() == name && reference.tag().is_none() && reference.digest().is_none())
}

/// Undoes percent escapes; `None` when they are none, or hide what is no text of a path.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        plain.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(plain).ok().filter(|text| !text.chars().any(char::is_control))
}

/// The parameters of a query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(&name.replace('+', " "))?, unescape(&value.replace('+', " "))?))
        });
        // No request needs more.
        Self { pairs: pairs.take(64).collect() }
    }

    /// The first of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All of that name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// A value for a query (RFC 3986, section 2.3).
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Option<Route> {
        Route::parse(path).unwrap()
    }

    fn code(path: &str) -> Code {
        Route::parse(path).unwrap_err().code()
    }

    #[test]
    fn paths_are_read_from_the_end() {
        let digest = Digest::sha256(b"");
        let name = "a/blobs/uploads/manifests".to_owned();
        assert_eq!(route("/v2/"), Some(Route::Version));
        assert_eq!(route("/v2"), Some(Route::Version));
        assert_eq!(route("/v2/_catalog"), Some(Route::Catalog));
        assert_eq!(route(&format!("/v2/{name}/blobs/uploads/")), Some(Route::Uploads { name: name.clone() }));
        let upload = Route::Upload { name: name.clone(), id: "x".into() };
        assert_eq!(route(&format!("/v2/{name}/blobs/uploads/x")), Some(upload));
        let blob = Route::Blob { name: name.clone(), digest: digest.clone() };
        assert_eq!(route(&format!("/v2/{name}/blobs/{digest}")), Some(blob.clone()));
        assert_eq!(route(&format!("/v2/{name}/blobs/{}", digest.as_str().replace(':', "%3A"))), Some(blob));
        let manifest = Route::Manifest { name: name.clone(), reference: Named::Tag("v1".into()) };
        assert_eq!(route(&format!("/v2/{name}/manifests/v1")), Some(manifest));
        assert_eq!(route("/v2/a/tags/list"), Some(Route::Tags { name: "a".into() }));
        assert_eq!(route(&format!("/v2/a/referrers/{digest}")), Some(Route::Referrers { name: "a".into(), digest }));
    }

    #[test]
    fn other_paths_are_none() {
        for path in ["/", "/v1/", "/v2/a", "/v2x/a/tags/list", "/v2/a/tags", "/v2/%", "/v2/%zz", "/v2/%ff", ""] {
            assert_eq!(route(path), None, "{path}");
        }
    }

    #[test]
    fn names_tags_and_digests_are_checked() {
        for name in ["A", "a/../b", "..", "", "a%2f..", "a:b", "a@b", "-a", "a/", "a%00", &"a".repeat(300)] {
            let refused = Route::parse(&format!("/v2/{name}/manifests/x"));
            assert!(!matches!(refused, Ok(Some(_))), "{name:?}");
        }
        assert_eq!(code("/v2/a/manifests/-x"), Code::TagInvalid);
        assert_eq!(code("/v2/a/blobs/sha256:00"), Code::DigestInvalid);
        assert_eq!(code("/v2/a/blobs/x"), Code::DigestInvalid);
        assert_eq!(code("/v2/A/tags/list"), Code::NameInvalid);
        assert!(is_name(&"a".repeat(250)) && is_name("library/debian") && is_name("a__b/c.d-e"));
    }

    #[test]
    fn queries_are_parsed() {
        let query = Query::parse(Some("n=5&last=a%2Fb&x&n=6&y=%zz"));
        assert_eq!((query.get("n"), query.get("last"), query.get("x")), (Some("5"), Some("a/b"), Some("")));
        assert_eq!(query.get("y"), None);
        assert_eq!(query.all("n"), ["5", "6"]);
        assert_eq!(escape("a/b:c"), "a%2Fb%3Ac");
    }
}
