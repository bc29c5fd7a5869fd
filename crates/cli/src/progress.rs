//! Progress streams: bars on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;
use wharf_client::Response;

use crate::failure::{Failure, Outcome};
use crate::json::{int, text};
use crate::{terminal, units};

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    Stderr,
    /// Only errors count.
    Nowhere,
}

/// Shows a progress stream until its end; what the engine says beside it goes to `aux`.
///
/// # Errors
///
/// The operation failed: the stream ends with an error.
pub(crate) async fn show(response: Response, target: Target, mut aux: impl FnMut(&Value)) -> Outcome {
    let mut screen = Screen::new(target);
    response
        .for_each_json(|message| {
            if let Some(value) = message.get("aux") {
                aux(value);
                return Ok(());
            }
            screen.message(&message)
        })
        .await
}

/// The lines that can still be changed.
#[derive(Debug)]
pub(crate) struct Screen {
    target: Target,
    is_terminal: bool,
    /// The IDs of the lines at the bottom, from the top down.
    ids: Vec<String>,
    /// An error's code is the exit code.
    codes: bool,
}

impl Screen {
    pub(crate) fn new(target: Target) -> Self {
        let is_terminal = match target {
            Target::Stdout => io::stdout().is_terminal(),
            Target::Stderr => io::stderr().is_terminal(),
            Target::Nowhere => false,
        };
        Self { target, is_terminal, ids: Vec::new(), codes: false }
    }

    /// Ends the program with the code that an error carries: a build's command failed with it.
    pub(crate) fn with_codes(mut self) -> Self {
        self.codes = true;
        self
    }

    /// Lines, also on a terminal.
    pub(crate) fn plain(mut self) -> Self {
        self.is_terminal = false;
        self
    }

    /// Shows one message of the stream.
    pub(crate) fn message(&mut self, message: &Value) -> Outcome {
        if let Some(mut failure) = error_of(message) {
            let code = u8::try_from(int(&message["errorDetail"]["code"])).unwrap_or(1);
            if self.codes && code != 0 {
                failure.code = code;
            }
            return Err(failure);
        }
        let rendered = self.render(message);
        let written = match self.target {
            Target::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(rendered.as_bytes()).and_then(|()| out.flush())
            }
            Target::Stderr => io::stderr().write_all(rendered.as_bytes()),
            Target::Nowhere => Ok(()),
        };
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::code(1),
            _ => Failure::new(wharf_report::os(&error)),
        })
    }

    fn render(&mut self, message: &Value) -> String {
        let id = text(&message["id"]);
        let progress = message.get("progressDetail").filter(|value| value.is_object());
        let mut up = 0;
        let mut rendered = String::new();
        if !id.is_empty() && progress.is_some() {
            let line = match self.ids.iter().position(|known| known == id) {
                Some(line) => line,
                None => {
                    self.ids.push(id.to_owned());
                    if self.is_terminal {
                        rendered.push('\n');
                    }
                    self.ids.len() - 1
                }
            };
            up = self.ids.len() - line;
            if self.is_terminal {
                rendered.push_str(&format!("\x1b[{up}A"));
            }
        } else {
            // Something else was written below: lines above are out of reach.
            self.ids.clear();
        }
        rendered.push_str(&self.line(message, id, progress));
        if !id.is_empty() && self.is_terminal && up > 0 {
            rendered.push_str(&format!("\x1b[{up}B"));
        }
        rendered
    }

    fn line(&self, message: &Value, id: &str, progress: Option<&Value>) -> String {
        let (stream, status) = (text(&message["stream"]), text(&message["status"]));
        let bar = progress.map(|progress| bar(progress, self.is_terminal)).unwrap_or_default();
        let mut line = String::new();
        if self.is_terminal && stream.is_empty() && progress.is_some() {
            line.push_str("\x1b[2K\r");
        } else if !bar.is_empty() {
            return String::new();
        }
        if !id.is_empty() {
            line.push_str(&format!("{id}: "));
        }
        if self.is_terminal && progress.is_some() {
            line.push_str(&format!("{status} {bar}\r"));
        } else if !stream.is_empty() {
            line.push_str(stream);
        } else {
            line.push_str(status);
            line.push('\n');
        }
        line
    }
}

/// The error that a message carries.
pub(crate) fn error_of(message: &Value) -> Option<Failure> {
    let detail = &message["errorDetail"];
    let words = match text(&detail["message"]) {
        "" => text(&message["error"]),
        words => words,
    };
    if words.is_empty() && detail.is_null() {
        return None;
    }
    Some(match int(&detail["code"]) {
        401 => Failure::new("authentication is required"),
        _ => Failure::new(words),
    })
}

const BAR: usize = 50;

/// `[=====>     ]  1.2MB/3.4MB`; empty when nothing is known.
fn bar(progress: &Value, is_terminal: bool) -> String {
    let (current, total) = (int(&progress["current"]), int(&progress["total"]));
    let unit = text(&progress["units"]);
    let size = |value: i64| units::human_size(value as f64);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    if total <= 0 {
        return if unit.is_empty() { format!("{:>8}", size(current)) } else { format!("{current} {unit}") };
    }
    let done = ((current as f64 / total as f64 * 100.0) as usize / 2).min(BAR);
    let wide = !is_terminal || terminal::size().1 > 110;
    let drawn = if wide { format!("[{}>{}] ", "=".repeat(done), " ".repeat(BAR - done)) } else { String::new() };
    let numbers = match (unit, current > total) {
        _ if progress["hidecounts"].as_bool() == Some(true) => String::new(),
        ("", false) => format!("{:>8}/{}", size(current), size(total)),
        ("", true) => format!("{:>8}", size(current)),
        (unit, false) => format!("{current}/{total} {unit}"),
        (unit, true) => format!("{current} {unit}"),
    };
    drawn + &numbers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(messages: &[Value]) -> String {
        let mut screen = Screen { target: Target::Nowhere, is_terminal: false, ids: Vec::new(), codes: false };
        messages.iter().map(|message| screen.render(message)).collect()
    }

    #[test]
    fn plain_lines() {
        let shown = plain(&[
            json!({"status": "Pulling from library/x", "id": "latest"}),
            json!({"status": "Pulling fs layer", "progressDetail": {}, "id": "abc"}),
            json!({"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "id": "abc"}),
            json!({"status": "Pull complete", "progressDetail": {}, "id": "abc"}),
            json!({"stream": "Step 1/2\n"}),
        ]);
        assert_eq!(shown, "latest: Pulling from library/x\nabc: Pulling fs layer\nabc: Pull complete\nStep 1/2\n");
    }

    #[test]
    fn bars() {
        let half = bar(&json!({"current": 500_000, "total": 1_000_000}), false);
        assert_eq!(half, format!("[{}>{}]    500kB/1MB", "=".repeat(25), " ".repeat(25)));
        assert_eq!(bar(&json!({"current": 1000}), false), "     1kB");
        assert_eq!(bar(&json!({}), false), "");
    }

    #[test]
    fn changed_lines_on_a_terminal() {
        let mut screen = Screen { target: Target::Nowhere, is_terminal: true, ids: Vec::new(), codes: false };
        assert_eq!(
            screen.render(&json!({"status": "A", "id": "x", "progressDetail": {}})),
            "\n\x1b[1A\x1b[2K\rx: A \r\x1b[1B"
        );
        assert_eq!(
            screen.render(&json!({"status": "B", "id": "y", "progressDetail": {}})),
            "\n\x1b[1A\x1b[2K\ry: B \r\x1b[1B"
        );
        assert_eq!(
            screen.render(&json!({"status": "C", "id": "x", "progressDetail": {}})),
            "\x1b[2A\x1b[2K\rx: C \r\x1b[2B"
        );
    }

    #[test]
    fn errors() {
        let failure = error_of(&json!({"errorDetail": {"message": "no such thing"}, "error": "no such thing"}));
        assert_eq!(failure, Some(Failure::new("no such thing")));
        assert_eq!(error_of(&json!({"status": "x"})), None);
    }
}
