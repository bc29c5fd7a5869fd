//! Builds with real layers, mounts and containers, on busybox. Needs root.
//!
//! Without the usual harness: commands are run by a process that must be made while this one has one thread.

#[path = "build/bench.rs"]
mod bench;
#[path = "build/copies.rs"]
mod copies;
#[path = "build/dates.rs"]
mod dates;
#[path = "build/runs.rs"]
mod runs;
#[path = "build/stages.rs"]
mod stages;

use std::process::ExitCode;
use std::sync::Arc;

use bench::Bench;

type Test = (&'static str, fn(&Bench));

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let filter: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    let all: Vec<Test> = [stages::TESTS, dates::TESTS, copies::TESTS, runs::TESTS].concat();
    if words.iter().any(|word| word == "--list") {
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: builds need root");
        return ExitCode::SUCCESS;
    }
    let spawner = Arc::new(wharf_monitor::Spawner::start(None).expect("the spawner starts"));
    let mut failed = 0;
    for (name, test) in all {
        if !filter.is_empty() && !filter.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let spawner = Arc::clone(&spawner);
        let began = std::time::Instant::now();
        // Each with a data root of its own, so that nothing is cached that it did not make.
        let outcome = std::panic::catch_unwind(move || {
            let bench = Bench::new(spawner);
            test(&bench);
            bench.check_clean();
        });
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({} ms)", began.elapsed().as_millis());
        failed += usize::from(outcome.is_err());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
