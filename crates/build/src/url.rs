//! Sources of ADD that are URLs.

use percent_encoding::percent_decode_str;

pub(crate) fn is_url(source: &str) -> bool {
    let lower = source.get(..8).unwrap_or(source).to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// An address without who may fetch from it.
pub(crate) fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    format!("{scheme}://{place}{path}")
}

/// The last part of a URL's path, as the name of its file.
pub(crate) fn url_name(url: &str) -> Option<String> {
    let path = url.split(['#', '?']).next()?.split_once("://")?.1.split_once('/')?.1;
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    let decoded = percent_decode_str(name).decode_utf8().ok().filter(|name| !name.contains(['/', '\0']));
    let name = decoded.map_or_else(|| name.to_owned(), Into::into);
    Some(name).filter(|name| !matches!(name.as_str(), "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_shown() {
        assert_eq!(without_user("https://me:secret@host/x.git#main"), "https://host/x.git#main");
        assert_eq!(without_user("https://u:p@h?q"), "https://h?q");
        assert_eq!(without_user("https://host/a@b"), "https://host/a@b");
        assert_eq!(without_user("git@host:x"), "git@host:x");
    }

    #[test]
    fn names_are_the_last_part_of_the_path() {
        assert_eq!(url_name("http://h/a/b.tar?x=/y#z").as_deref(), Some("b.tar"));
        assert_eq!(url_name("http://h/a%20b").as_deref(), Some("a b"));
        assert_eq!(url_name("http://h/a%2fb%2").as_deref(), Some("a%2fb%2"));
        assert_eq!((url_name("http://h/a/b/").as_deref(), url_name("http://h//")), (Some("b"), None));
        assert_eq!((url_name("http://h/x/%2e%2e"), url_name("http://h/..%2fx").as_deref()), (None, Some("..%2fx")));
        assert_eq!((url_name("http://h/"), url_name("http://h")), (None, None));
    }
}
