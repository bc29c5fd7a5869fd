//! Configurations that nobody meant.

mod fuzzed;
