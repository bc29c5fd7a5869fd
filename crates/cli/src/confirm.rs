//! `Are you sure?`

use std::io::{BufRead as _, Write as _};

use crate::failure::{Failure, Outcome};

/// Asks on standard output and reads the answer.
pub(crate) fn ask(warning: &str, question: &str) -> Outcome<bool> {
    let mut out = std::io::stdout().lock();
    let mut text = String::new();
    if !warning.is_empty() {
        text.push_str(warning);
        text.push('\n');
    }
    text.push_str(&format!("{question} [y/N] "));
    out.write_all(text.as_bytes()).and_then(|()| out.flush())?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().eq_ignore_ascii_case("y"))
}

/// Asks before something is pruned; a no ends the command as Docker ends it.
pub(crate) fn prune(warning: &str, force: bool) -> Outcome {
    if force || ask(warning, "Are you sure you want to continue?")? {
        return Ok(());
    }
    Err(Failure::code(0))
}
