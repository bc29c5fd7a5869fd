//! The API over real connections, with a real engine below: what clients of the real thing rely on, byte by byte.
//!
//! Everything is in a network namespace and a directory of the test's own.

mod containers;
mod images;
mod kit;
mod streams;
mod system;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let names =
        ["system", "containers", "wait", "attach", "exec", "websocket", "logs", "gone", "files", "images", "builds"];
    if words.iter().any(|word| word == "--list") {
        names.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: containers need root and busybox-static");
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| {
        let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    kit::with_server(|server| async move {
        for name in names.into_iter().filter(|name| wanted(name)) {
            let began = std::time::Instant::now();
            match name {
                "system" => system::answers(&server).await,
                "containers" => containers::life(&server).await,
                "wait" => containers::wait_answers_at_once(&server).await,
                "attach" => streams::attach(&server).await,
                "exec" => streams::exec(&server).await,
                "websocket" => streams::websocket(&server).await,
                "logs" => streams::logs(&server).await,
                "gone" => streams::clients_that_have_gone(&server).await,
                "files" => containers::files(&server).await,
                "images" => images::images(&server).await,
                _ => images::builds(&server).await,
            }
            println!("test {name} ... ok ({} ms)", began.elapsed().as_millis());
        }
    });
    ExitCode::SUCCESS
}
