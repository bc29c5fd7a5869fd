//! System errors in the words that Go has for them.

use std::io;
use std::path::Path;

/// `no such file or directory` and the like: the system's words, in lower case and without the number.
pub(crate) fn io(error: &io::Error) -> String {
    if error.raw_os_error().is_none() {
        return error.to_string();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// `open /x: no such file or directory`.
pub(crate) fn path(call: &str, path: &Path, error: &io::Error) -> String {
    format!("{call} {}: {}", path.display(), io(error))
}
