//! Paths as `docker cp` reads them: a slash or a dot at the end has a meaning.

/// A path without `.`, `..` and double slashes, by its letters alone.
pub(super) fn clean(path: &str) -> String {
    crate::options::volume::clean(path.as_ref())
}

/// The last part; `.` for a path that ends with `/.`.
pub(super) fn base(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return if path.is_empty() { ".".to_owned() } else { "/".to_owned() };
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed).to_owned()
}

/// Whether the path means the directory itself: it ends with `.`.
pub(super) fn means_directory(path: &str) -> bool {
    !has_trailing_slash(path) && base(path) == "."
}

pub(super) fn has_trailing_slash(path: &str) -> bool {
    path.ends_with('/')
}

/// Whether the path can only be a directory.
pub(super) fn asserts_directory(path: &str) -> bool {
    has_trailing_slash(path) || means_directory(path)
}

/// The cleaned path, with the slash or dot that the original had at its end.
pub(super) fn keep_trailing(mut cleaned: String, original: &str) -> String {
    if !means_directory(&cleaned) && means_directory(original) {
        if !has_trailing_slash(&cleaned) {
            cleaned.push('/');
        }
        cleaned.push('.');
    }
    if !has_trailing_slash(&cleaned) && has_trailing_slash(original) {
        cleaned.push('/');
    }
    cleaned
}

/// The directory of a path, and its last part.
pub(super) fn split(path: &str) -> (String, String) {
    let mut cleaned = clean(path);
    if means_directory(path) {
        cleaned.push_str("/.");
    }
    match cleaned.rsplit_once('/') {
        Some((_, "")) => ("/".to_owned(), "/".to_owned()),
        Some(("", base)) => ("/".to_owned(), base.to_owned()),
        Some((dir, base)) => (clean(dir), base.to_owned()),
        None => (".".to_owned(), cleaned),
    }
}

/// What a link led to, with the end that the link's path had; and the link's own name, when it differs.
pub(super) fn rebase(path: &str, resolved: &str) -> (String, Option<String>) {
    let mut resolved = resolved.to_owned();
    if means_directory(path) && !means_directory(&resolved) {
        resolved.push_str("/.");
    }
    if has_trailing_slash(path) && !has_trailing_slash(&resolved) {
        resolved.push('/');
    }
    let name = (base(path) != base(&resolved)).then(|| base(path));
    (resolved, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        for (path, dir, last) in [
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("/a/.", "/a", "."),
            ("/a", "/", "a"),
            ("/", "/", "/"),
            ("a", ".", "a"),
        ] {
            assert_eq!(split(path), (dir.to_owned(), last.to_owned()), "{path}");
        }
        assert_eq!(keep_trailing("/a".to_owned(), "a/."), "/a/.");
        assert_eq!(keep_trailing("/a".to_owned(), "a/"), "/a/");
        assert!(asserts_directory("/a/") && asserts_directory("/a/.") && !asserts_directory("/a"));
        assert_eq!(rebase("/l/", "/t/x"), ("/t/x/".to_owned(), Some("l".to_owned())));
    }
}
