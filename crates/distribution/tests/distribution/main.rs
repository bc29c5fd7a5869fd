//! The client at registries that are difficult on purpose.

mod content;
mod fake;
mod fuzzed;
mod hosts;
mod moments;
mod tokens;
mod ways;
