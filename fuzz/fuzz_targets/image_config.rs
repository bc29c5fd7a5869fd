//! An image's configuration by chance is read and refused or taken; nothing else happens.
#![no_main]

#[path = "../../crates/image/tests/image/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = fuzzed::check(data);
});
