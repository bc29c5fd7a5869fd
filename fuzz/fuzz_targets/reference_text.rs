//! A name or a digest by chance is read and refused or taken; nothing else happens.
#![no_main]

#[path = "../../crates/reference/tests/reference/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = fuzzed::check(data);
});
