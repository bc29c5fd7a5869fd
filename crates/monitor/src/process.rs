//! The monitor itself.
