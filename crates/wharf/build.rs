//! Puts the code that runs for a container side by side in a release (ARCHITECTURE.md, "Numbers").

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=text-order.ld");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let own = var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{own}/text-order.ld");
    }
}
