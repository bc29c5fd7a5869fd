//! How failures read: in one line, and in the words that users of Docker know.
//!
//! Docker is written in Go, whose library has its own words for the system's errors. Scripts look for them: `no space
//! left on device`, where C's library begins with a capital, and Rust's ends with a number.

use std::error::Error;
use std::io;
use std::path::Path;

/// What Rust writes after the words of a system's error: `(os error 28)`.
const NUMBER: &str = " (os error ";

/// An error and its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some tell their cause themselves.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    words(line)
}

/// `no such file or directory` and the like.
pub fn os(error: &io::Error) -> String {
    words(error.to_string())
}

/// `open /x: no such file or directory`.
pub fn path(call: &str, path: &Path, error: &io::Error) -> String {
    format!("{call} {}: {}", path.display(), os(error))
}

/// A message in which the system's errors are in Go's words.
pub fn words(mut line: String) -> String {
    while let Some((start, number, end)) = numbered(&line) {
        let ours = io::Error::from_raw_os_error(number).to_string();
        let begin = start.saturating_sub(ours.len() - (end - start));
        if line.get(begin..end) == Some(ours.as_str()) {
            line.replace_range(begin..=begin, &line[begin..=begin].to_lowercase());
        }
        line.replace_range(start..end, "");
    }
    line
}

/// Where a number stands, and which.
fn numbered(line: &str) -> Option<(usize, i32, usize)> {
    let mut from = 0;
    while let Some(found) = line[from..].find(NUMBER) {
        let start = from + found;
        let digits = start + NUMBER.len();
        let close = digits + line[digits..].find(')')?;
        if let Ok(number) = line[digits..close].parse() {
            return Some((start, number, close + 1));
        }
        from = digits;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Above(io::Error);

    impl std::fmt::Display for Above {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cannot write `/x`")
        }
    }

    impl Error for Above {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn systems_errors_read_as_go_tells_them() {
        assert_eq!(chain(&Above(io::Error::from_raw_os_error(28))), "cannot write `/x`: no space left on device");
        assert_eq!(
            path("open", Path::new("/x"), &io::Error::from_raw_os_error(2)),
            "open /x: no such file or directory"
        );
        let told =
            io::Error::other(format!("é: {}, {}", io::Error::from_raw_os_error(13), io::Error::from_raw_os_error(5)));
        assert_eq!(os(&told), "é: permission denied, input/output error");
    }

    #[test]
    fn what_only_looks_like_one_stays() {
        for text in ["a (os error x) b", "a (os error 2", "é"] {
            assert_eq!(os(&io::Error::other(text)), text);
        }
        assert_eq!(os(&io::Error::other(" (os error 2)")), "");
        assert_eq!(os(&io::Error::other("Permission (os error 2)!")), "Permission!");
    }
}
