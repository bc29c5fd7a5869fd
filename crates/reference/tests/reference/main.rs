//! Names that nobody meant.

mod fuzzed;
