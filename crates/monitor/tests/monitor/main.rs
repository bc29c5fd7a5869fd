//! Monitors on this kernel: each case launches containers and talks to their monitors.
//!
//! Has its own `main`, since the prepared process must be forked while there is one thread.

mod clocks;
mod containers;
mod endings;
mod execs;
mod fixture;
mod health;
mod init;
mod streams;
mod surroundings;

use std::path::Path;

use fixture::Fixture;

/// A named check; it panics when it fails.
type Case = (&'static str, fn(&Fixture));

fn main() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("1 skipped: containers need root and busybox-static");
        return;
    }
    let fixture = Fixture::new();
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let all = [
        containers::CASES,
        streams::CASES,
        execs::CASES,
        health::CASES,
        init::CASES,
        surroundings::CASES,
        clocks::CASES,
        endings::CASES,
    ]
    .concat();
    let cases: Vec<Case> = all.into_iter().filter(|(name, _)| name.contains(&wanted)).collect();
    let mut failed = 0;
    for (name, case) in &cases {
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&fixture))).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    let left = fixture.close();
    println!("{} passed, {failed} failed", cases.len() - failed);
    assert!(left.is_empty(), "left behind: {left:?}");
    if failed > 0 {
        std::process::exit(1);
    }
}
