//! The process on this kernel: each case starts one, and asks it from network namespaces of its own.
//!
//! Has its own `main`, since the process under test is this program, called by another name.

mod client;
mod fixture;
mod forwarding;
mod lives;
mod names;
mod pressure;
mod upstream;

use std::path::Path;
use std::process::ExitCode;

/// A named check; it panics when it fails.
type Case = (&'static str, fn());

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let called = words.next().unwrap_or_default();
    if Path::new(&called).file_name().is_some_and(|name| wharf_dns::ROLE.is_called(name)) {
        return wharf_dns::main();
    }
    if let [Some(word), Some(dir)] = [std::env::args_os().nth(1), std::env::args_os().nth(2)]
        && word == lives::DAEMON
    {
        return lives::daemon(Path::new(&dir));
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        println!("1 skipped: network namespaces need root, and busybox-static");
        return ExitCode::SUCCESS;
    }
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let all = [names::CASES, forwarding::CASES, lives::CASES, pressure::CASES].concat();
    let cases: Vec<Case> = all.into_iter().filter(|(name, _)| name.contains(&wanted)).collect();
    let mut failed = 0;
    for (name, case) in &cases {
        let passed = std::panic::catch_unwind(case).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("{} passed, {failed} failed", cases.len() - failed);
    ExitCode::from(u8::from(failed > 0))
}
