//! What is told of health probes: moby tells of each as of an exec (`daemon/health.go`).

use crate::engine::Engine;
use crate::names;
use crate::record::Container;
use crate::start::health;
use wharf_monitor::Probe;

/// What a probe that took too long is killed with, as a shell says it.
const KILLED: i32 = 137;
/// A program that cannot be run, as a shell says it.
const NOT_RUN: i32 = 126;

impl Engine {
    /// Tells those who listen of a probe that has ended, if it was a program. It is not kept: probes without
    /// end would push out all else that is.
    pub(crate) fn tell_probe(&self, record: &Container, probe: &Probe) {
        if self.events().listeners() == 0 {
            return;
        }
        let (Some(config), Ok(id)) = (health(record), names::random_id()) else { return };
        if wharf_monitor::check_probe(&config.test) == Ok(true) {
            return;
        }
        let words = words(&config.test);
        let code = match probe.exit_code {
            code if code >= 0 => code,
            _ if probe.output.starts_with("Health check exceeded timeout") => KILLED,
            _ => NOT_RUN,
        }
        .to_string();
        self.tell_now(record, &format!("exec_create: {words}"), &[("execID", &id)]);
        self.tell_now(record, &format!("exec_start: {words}"), &[("execID", &id)]);
        self.tell_now(record, "exec_die", &[("execID", &id), ("exitCode", &code)]);
    }
}

/// The program and its arguments, as an exec's are told.
fn words(test: &[String]) -> String {
    match test {
        [kind, program, rest @ ..] if kind == "CMD" => format!("{program} {}", rest.join(" ")),
        [kind, rest @ ..] if kind == "CMD-SHELL" => format!("/bin/sh -c {}", rest.join(" ")),
        other => other.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_told_as_execs() {
        let words = |test: &[&str]| words(&test.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["CMD-SHELL", "test -e /x"]), "/bin/sh -c test -e /x");
        assert_eq!(words(&["CMD", "cat", "/x"]), "cat /x");
        assert_eq!(words(&["CMD", "true"]), "true ");
    }
}
