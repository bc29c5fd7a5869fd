//! A client of registries.
