//! A seccomp profile by chance is refused, or its filter decides what its rules say.
#![no_main]

#[path = "../../crates/seccomp/tests/seccomp/fuzzed.rs"]
mod fuzzed;
#[path = "../../crates/seccomp/tests/seccomp/interpretation.rs"]
mod interpretation;
#[path = "../../crates/seccomp/tests/seccomp/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "../../crates/seccomp/tests/seccomp/random.rs"]
mod random;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::check(data));
