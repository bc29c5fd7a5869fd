//! Where messages go: standard error, or the file of `--log`, which engines read.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

use crate::failure::{Failure, Result};

/// The log of one command.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

impl Log {
    pub(crate) fn open(path: Option<&Path>, json: bool, debug: bool) -> Result<Self> {
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(|error| Failure::file("open", path, &error))
        };
        Ok(Self { file: path.map(open).transpose()?, json, debug })
    }

    /// What ended the command. Beside the log's file it is told to who typed the command.
    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            eprintln!("{message}");
        }
    }

    pub(crate) fn warning(&self, message: &str) {
        self.write("warning", message);
    }

    /// Whether [`Self::debug`] writes anything.
    pub(crate) const fn debugs(&self) -> bool {
        self.debug
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let line = line(level, message, &now(), self.json);
        // A log that cannot be written must not keep a container from its end.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As logrus writes it, which runc uses.
fn line(level: &str, message: &str, time: &str, json: bool) -> String {
    if json {
        format!("{}\n", serde_json::json!({ "level": level, "msg": message, "time": time }))
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_those_that_engines_read() {
        let text = line("error", "exec: \"x\"", "2026-01-01T00:00:00Z", false);
        assert_eq!(text, "time=\"2026-01-01T00:00:00Z\" level=error msg=\"exec: \\\"x\\\"\"\n");
        let text = line("error", "exec: \"x\"", "T", true);
        assert_eq!(text, "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\"\",\"time\":\"T\"}\n");
    }

    #[test]
    fn a_file_takes_the_messages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::open(Some(&path), true, false).unwrap();
        log.warning("one");
        log.debug("none");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with(r#"{"level":"warning","msg":"one""#), "{text}");
        assert_eq!(text.lines().count(), 1);
        assert!(Log::open(Some(Path::new("/no/such/place")), true, false).is_err());
    }
}
