//! `Are you sure?`

use std::io::{BufRead as _, Write as _};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// Asks on standard output and waits for the answer; a signal that would end us is a no.
async fn ask(warning: &str, question: &str) -> Outcome<bool> {
    let mut text = String::new();
    if !warning.is_empty() {
        text.push_str(warning);
        text.push('\n');
    }
    text.push_str(&format!("{question} [y/N] "));
    let say = |text: &str| {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    say(&text)?;
    let (sender, answer) = tokio::sync::oneshot::channel();
    // Nobody waits for it in the end: it may wait for a line that never comes.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let _ = sender.send(read.map(|_| line));
    });
    tokio::select! {
        answer = answer => match answer {
            Ok(line) => Ok(line?.trim().eq_ignore_ascii_case("y")),
            Err(_) => Ok(false),
        },
        _ = interrupt.recv() => say("\n").map(|()| false).map_err(Into::into),
        _ = terminate.recv() => Ok(false),
    }
}

/// Asks before something is pruned; a no ends the command as Docker ends it.
pub(crate) async fn prune(warning: &str, force: bool) -> Outcome {
    if force || ask(warning, "Are you sure you want to continue?").await? {
        return Ok(());
    }
    Err(Failure::code(0))
}
