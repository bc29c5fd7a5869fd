//! Paths that are resolved inside a directory and never leave it.
