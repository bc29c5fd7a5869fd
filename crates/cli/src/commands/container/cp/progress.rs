//! How much has been copied, on a terminal.

use std::io::{self, IsTerminal as _, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::units;

const INTERVAL: Duration = Duration::from_millis(75);

/// Counts bytes, and shows the count as it grows.
#[derive(Debug)]
pub(super) struct Progress {
    count: Arc<AtomicU64>,
    quiet: bool,
    shown: Option<JoinHandle<()>>,
}

impl Progress {
    pub(super) fn start(header: &'static str, quiet: bool) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let shown = (!quiet && io::stderr().is_terminal()).then(|| {
            let count = count.clone();
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(INTERVAL);
                let mut last = None;
                loop {
                    ticks.tick().await;
                    let now = count.load(Ordering::Relaxed);
                    if last != Some(now) {
                        last = Some(now);
                        let _ = write!(io::stderr(), "\r\x1b[2K{header}{}", size(now));
                    }
                }
            })
        });
        Self { count, quiet, shown }
    }

    pub(super) fn count<R: Read>(&self, inner: R) -> impl Read + use<R> {
        Counting { inner, count: self.count.clone() }
    }

    pub(super) fn count_writes<W: Write>(&self, inner: W) -> impl Write + use<W> {
        Counting { inner, count: self.count.clone() }
    }

    /// Says what was copied. `content`: the bytes of the files, where they are known; the archive around them is larger.
    pub(super) fn finish(self, content: Option<i64>, target: &str) {
        if let Some(shown) = &self.shown {
            shown.abort();
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
        if self.quiet {
            return;
        }
        let moved = self.count.load(Ordering::Relaxed);
        let content = content.and_then(|content| u64::try_from(content).ok()).unwrap_or(moved);
        let _ = match content == moved {
            true => writeln!(io::stderr(), "Successfully copied {} to {target}", size(moved)),
            false => {
                writeln!(
                    io::stderr(),
                    "Successfully copied {} (transferred {}) to {target}",
                    size(content),
                    size(moved)
                )
            }
        };
    }
}

fn size(bytes: u64) -> String {
    units::human_size_with(bytes as f64, 3)
}

struct Counting<T> {
    inner: T,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
