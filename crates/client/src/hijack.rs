use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that was a request and is a two-way stream now.
///
/// `shutdown` closes our direction only: the end of standard input. Reading goes on.
pub struct Hijacked {
    io: TokioIo<Upgraded>,
    multiplexed: Option<bool>,
}

impl Hijacked {
    pub(crate) fn new(io: Upgraded, multiplexed: Option<bool>) -> Self {
        Self { io: TokioIo::new(io), multiplexed }
    }

    /// Whether the engine said that the stream is multiplexed (API 1.42); older ones do not say.
    pub fn multiplexed(&self) -> Option<bool> {
        self.multiplexed
    }
}

impl fmt::Debug for Hijacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hijacked").field("multiplexed", &self.multiplexed).finish_non_exhaustive()
    }
}

impl AsyncRead for Hijacked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Hijacked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
