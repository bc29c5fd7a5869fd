//! Bytes as an archive of images, or as choices of what is in one, are loaded whole or refused without a trace.
#![no_main]

#[path = "../../crates/image/tests/image/fuzzed_archive.rs"]
mod fuzzed_archive;

thread_local! {
    static ROOT: fuzzed_archive::Root = fuzzed_archive::Root::new();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = ROOT.with(|root| root.check(data));
});
