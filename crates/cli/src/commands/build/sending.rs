//! A context on its way to the builder.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use wharf_client::Body;

use super::context::Context;
use super::listing::{Listing, Wanted};
use super::parts::{Parts, Pieces, in_pieces};
use crate::failure::Outcome;
use crate::tar::PackError;
use crate::units;

/// A context that is on its way.
#[derive(Debug)]
pub(super) struct Sending {
    task: JoinHandle<Result<(), PackError>>,
    wanted: mpsc::Sender<Wanted>,
}

impl Sending {
    /// The engine asks for contents of what was listed.
    pub(super) fn ask(&self, wanted: Wanted) {
        // Where nobody hears it, the sending has failed, and says so in the end.
        let _ = self.wanted.send(wanted);
    }

    /// What went wrong on our side; that the engine wanted no more is not wrong.
    pub(super) async fn finish(self) -> Outcome {
        drop(self.wanted);
        match self.task.await {
            Ok(Err(PackError::Write(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Ok(Err(PackError::Read { path, source, .. })) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(format!("error checking context: no permission to read from '{}'", path.display()).into())
            }
            Ok(Err(error)) => Err(error.to_string().into()),
            Ok(Ok(())) => Ok(()),
            Err(error) => Err(error.to_string().into()),
        }
    }
}

const BUFFER: usize = 256 * 1024;

/// Packs the context while it is sent, and what belongs to it.
pub(super) fn send(context: Context, parts: Option<Parts>, compress: bool, quiet: bool) -> (Body, Sending) {
    let (sender, body) = Body::channel();
    let (wanted, asked) = mpsc::channel();
    let task = tokio::task::spawn_blocking(move || {
        let counted = Counted::new(sender.clone().blocking(), quiet);
        let written = if let Some(parts) = parts {
            with_parts(context, parts, compress, &asked, counted)
        } else if compress {
            let gzip = flate2::write::GzEncoder::new(counted, flate2::Compression::default());
            let written = context.write(BufWriter::with_capacity(BUFFER, gzip));
            written.and_then(|buffer| Ok(inner(buffer)?.finish()?)).map(|mut counted| counted.done())
        } else {
            let written = context.write(BufWriter::with_capacity(BUFFER, counted));
            written.and_then(|buffer| Ok(inner(buffer)?)).map(|mut counted| counted.done())
        };
        if let Err(error) = &written {
            // The part must not be taken for the whole.
            let broken = io::Error::other(error.to_string());
            tokio::runtime::Handle::current().block_on(sender.fail(broken));
        }
        written
    });
    (body, Sending { task, wanted })
}

/// Sends the parts, and then what is asked for until there is nobody who could ask.
fn with_parts<W: Write>(
    context: Context,
    parts: Parts,
    compress: bool,
    asked: &mpsc::Receiver<Wanted>,
    counted: Counted<W>,
) -> Result<(), PackError> {
    let mut output = BufWriter::with_capacity(BUFFER, counted);
    let mut listings = parts.write(&context, compress, &mut output)?;
    output.flush()?;
    output.get_mut().done();
    if listings.iter().all(Option::is_none) {
        return Ok(());
    }
    while let Ok(wanted) = asked.recv() {
        if wanted.is_whole() && wanted.listing == listings.len() {
            let mut whole = context.listing(true)?;
            in_pieces(&whole.as_mut().map(Listing::take_bytes).unwrap_or_default(), &mut output)?;
            listings.push(whole);
            output.flush()?;
            output.get_mut().done();
            continue;
        }
        let listing = listings.get(wanted.listing).and_then(Option::as_ref);
        let listing = listing.ok_or_else(|| io::Error::other("the engine asks for what was not listed"))?;
        let mut pieces = Pieces::new(&mut output);
        listing.write_contents(&wanted.entries, &mut pieces)?;
        pieces.finish()?;
        output.flush()?;
        output.get_mut().done();
    }
    Ok(())
}

fn inner<W: Write>(buffer: BufWriter<W>) -> io::Result<W> {
    buffer.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Says how much has been sent: now and then on a terminal, at the end elsewhere.
#[derive(Debug)]
struct Counted<W> {
    output: W,
    count: u64,
    shown: Instant,
    quiet: bool,
    is_terminal: bool,
}

const INTERVAL: Duration = Duration::from_millis(100);

impl<W: Write> Counted<W> {
    fn new(output: W, quiet: bool) -> Self {
        Self { output, count: 0, shown: Instant::now(), quiet, is_terminal: io::stdout().is_terminal() }
    }

    fn show(&self, end: &str) {
        if !self.quiet {
            let size = units::human_size(self.count as f64);
            let mut stdout = io::stdout().lock();
            let _ = write!(stdout, "Sending build context to Docker daemon {size:>8}\r{end}");
            let _ = stdout.flush();
        }
    }

    /// What comes later is counted anew.
    fn done(&mut self) {
        self.show("\r\n");
        self.count = 0;
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.count += written as u64;
        if self.is_terminal && self.shown.elapsed() > INTERVAL {
            self.shown = Instant::now();
            self.show("");
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
