//! An image that bytes as operations make reads back as the model of them.
#![no_main]

#[path = "../../crates/erofs/tests/images/fuzzed.rs"]
mod fuzzed;
#[path = "../../crates/erofs/tests/images/model.rs"]
mod model;
#[allow(dead_code)]
#[path = "../../crates/erofs/tests/images/operations.rs"]
mod operations;
#[path = "../../crates/erofs/tests/images/reading.rs"]
mod reading;
#[path = "../../crates/erofs/tests/images/seen.rs"]
mod seen;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::check(data));
