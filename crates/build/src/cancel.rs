//! A build that nobody waits for any more must end, whatever it is doing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{BuildError, Result};

/// Tells all parts of a build that it is over. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    flag: AtomicBool,
    /// Becomes readable, for whoever waits in poll(2).
    event: OwnedFd,
}

impl Cancel {
    pub(crate) fn new() -> Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| BuildError::system("the build cannot be started", &e))?;
        Ok(Self { inner: Arc::new(Inner { flag: AtomicBool::new(false), event }) })
    }

    pub(crate) fn cancel(&self) {
        self.inner.flag.store(true, Ordering::Release);
        // It can fail only when it is readable already.
        let _ = rustix::io::write(&self.inner.event, &1u64.to_ne_bytes());
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.inner.flag.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(BuildError::cancelled()) } else { Ok(()) }
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.event.as_fd()
    }
}

/// Cancels when it is dropped: the future of a build that is thrown away takes its work with it.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(pub(crate) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A reader, or a writer, that fails once the build is over.
#[derive(Debug)]
pub(crate) struct Cancellable<R> {
    pub(crate) inner: R,
    pub(crate) cancel: Cancel,
}

impl<S> Cancellable<S> {
    fn check(&self) -> std::io::Result<()> {
        if self.cancel.is_cancelled() { Err(std::io::Error::other("the build was cancelled")) } else { Ok(()) }
    }
}

impl<R: std::io::Read> std::io::Read for Cancellable<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.check()?;
        self.inner.read(bytes)
    }
}

impl<W: std::io::Write> std::io::Write for Cancellable<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
