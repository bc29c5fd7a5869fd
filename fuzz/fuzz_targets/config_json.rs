//! A bundle's configuration by chance is read and refused or taken; nothing else happens.
#![no_main]

#[path = "../../crates/oci/tests/config/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::check(data));
