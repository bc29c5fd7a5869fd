//! A Dockerfile by chance is read and refused or taken, its variables are expanded, and it is checked; nothing else happens.
#![no_main]

#[path = "../../crates/dockerfile/tests/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = fuzzed::check(data);
});
