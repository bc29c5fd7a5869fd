//! Lines on standard error. That nobody reads them is no reason to fail.

use std::fmt;
use std::io::Write as _;

/// Writes one line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    // At once, so that lines of many threads do not mix.
    let _ = std::io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}

/// Writes what goes wrong or on, with the registry's name before it.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    line(format_args!("registry: {text}"));
}
