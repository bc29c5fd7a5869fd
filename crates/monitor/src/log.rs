//! What becomes of a container's output beside its clients: a file, a receiver somewhere else, or both.

use std::time::Duration;

use jiff::Timestamp;
use wharf_logs::{LogOptions, Remote, Stream, Writer};
use wharf_report::chain;

use crate::error::{LaunchError, Result};
use crate::launch::LogConfig;
use crate::ready::{Interest, Source};

/// How long a receiver may take, after the container's end, to take what is on its way.
const LAST_LINES: Duration = Duration::from_secs(3);

/// A container's log.
#[derive(Debug)]
pub(crate) struct Log {
    file: Writer,
    remote: Option<Remote>,
}

impl Log {
    /// Opens the file, and connects.
    ///
    /// # Errors
    /// With Docker's words where a receiver is needed and not there.
    pub(crate) fn open(config: &LogConfig) -> Result<Self> {
        let fail = |error: wharf_logs::LogError| LaunchError::Failed { message: chain(&error), code: 125 };
        let driver = config.driver.parse().map_err(fail)?;
        let options =
            LogOptions { driver, max_size: config.max_size, max_files: config.max_files, compress: config.compress };
        let remote = config.remote.clone().map(Remote::open).transpose().map_err(|error| {
            let message = format!("failed to initialize logging driver: {}", chain(&error));
            LaunchError::Failed { message, code: 125 }
        })?;
        let file = Writer::open(&config.path, options).map_err(fail)?.with_attributes(&config.attributes);
        Ok(Self { file, remote })
    }

    /// Takes what was read from a stream.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let time = Timestamp::now();
        // A full disk costs lines, which the file counts, and nothing else.
        let _ = self.file.write(stream, bytes, time);
        if let Some(remote) = &mut self.remote {
            remote.write(stream, bytes, time);
        }
    }

    /// Both streams have ended.
    pub(crate) fn end(&mut self) {
        let time = Timestamp::now();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let _ = self.file.end(stream, time);
            if let Some(remote) = &mut self.remote {
                remote.end(stream, time);
            }
        }
    }

    /// Writes what is collected to the file.
    pub(crate) fn flush(&mut self) {
        let _ = self.file.flush();
    }

    /// Lines that did not get where they were to go, and never will.
    pub(crate) fn lost(&self) -> u64 {
        self.file.lost() + self.remote.as_ref().map_or(0, Remote::lost)
    }

    /// Whether it goes to somebody else, too.
    pub(crate) fn is_sent(&self) -> bool {
        self.remote.is_some()
    }

    /// Whether the container should write no more for now.
    pub(crate) fn is_full(&self) -> bool {
        self.remote.as_ref().is_some_and(Remote::is_full)
    }

    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        let Some(remote) = &self.remote else { return };
        let (fd, due) = remote.interest();
        if let Some((fd, flags)) = fd {
            interest.add_borrowed(fd, flags, Source::Log);
        }
        interest.until(due);
    }

    /// The receiver's connection has something to do, or may have by now.
    pub(crate) fn ready(&mut self) {
        if let Some(remote) = &mut self.remote {
            remote.ready();
        }
    }

    /// The container has ended for good: closes the file, which is the next run's. What is on its way to somebody else is sent by
    /// what comes back.
    pub(crate) fn close(self) -> impl FnOnce() {
        let Self { file, remote } = self;
        drop(file);
        move || {
            if let Some(remote) = remote {
                remote.finish(LAST_LINES);
            }
        }
    }
}
