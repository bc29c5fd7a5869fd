//! A client's connection: one that has ended its input may still wait for its answer.
//!
//! `printf 'GET /info HTTP/1.0\r\n\r\n' | nc -U wharf.sock` closes its half and reads on; a client that was killed has
//! closed both. HTTP's library sees the same end of the input in both: it would serve neither or, told otherwise, never
//! notice that somebody who waits for events has gone. So the end is kept from it while an answer is under way.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Sleep;

use crate::backlog::{ALL, Backlog, PATIENCE};
use crate::{plain_hijack, raw_target};

/// How often it is looked whether a client whose input has ended is still there.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 500 });
/// How often that is done where the connection does not tell: the answer may take so long then.
const LOOKS: u32 = 20;

/// What a client still sends when it has its answer is read up to here and so long: one whose connection is closed
/// while it writes sees a broken pipe and not the answer. Go's server does the same for as long, and for 256 KiB: an archive
/// that is refused by its name is larger.
const MAX_DROPPED: usize = 16 << 20;
const DROPPING: Duration = Duration::from_millis(500);

/// Read at once. HTTP's library has room for twice of what came last, up to some 400 KiB, and keeps it for as long as a
/// client stands still in the middle of a request.
const MAX_READ: usize = 32 << 10;

/// A connection, with what is known of its answers.
pub(crate) struct Connection<T> {
    io: T,
    answers: Answers,
    /// The input has ended.
    ended: Option<Ended>,
    /// The output has ended.
    closing: Option<Closing>,
    /// It comes from elsewhere, where a client that has gone looks for a minute like one that reads on.
    is_carried: bool,
    /// Nothing of it has been handed on yet.
    is_first: bool,
    /// What was read before it was handed on.
    held: Vec<u8>,
    /// A request that wants streams without saying so is under way.
    streams: bool,
    /// What of the head of its answer has not been written yet.
    head: Vec<u8>,
    /// When the client is to have read something, since it has stopped.
    standing: Option<Pin<Box<Sleep>>>,
}

struct Closing {
    end: Pin<Box<Sleep>>,
    dropped: usize,
}

struct Ended {
    next_look: Pin<Box<Sleep>>,
    looks: u32,
}

/// What of an answer may wait in memory for a client that reads slowly. HTTP's library would take some 400 KiB; what it
/// does not get, who makes the answer has not made yet.
const MAX_UNSENT: usize = 64 << 10;

/// Counts the answers that are under way, and what of them has not been sent.
#[derive(Clone, Debug)]
pub(crate) struct Answers(Arc<Counts>);

impl Default for Answers {
    fn default() -> Self {
        Self::within(&ALL)
    }
}

#[derive(Debug)]
struct Counts {
    /// What of all connections' answers has not been sent.
    all: &'static Backlog,
    under_way: AtomicUsize,
    /// Bytes, or somewhat less: heads and lengths are taken for contents when they have been written.
    unsent: AtomicUsize,
    /// Waits for room.
    waiting: Mutex<Option<Waker>>,
}

/// An answer that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Answers);

impl Drop for Counts {
    fn drop(&mut self) {
        self.all.take(*self.unsent.get_mut());
    }
}

impl Answers {
    /// Those of a connection whose bytes count among those of `all`.
    pub(crate) fn within(all: &'static Backlog) -> Self {
        Self(Arc::new(Counts {
            all,
            under_way: AtomicUsize::default(),
            unsent: AtomicUsize::default(),
            waiting: Mutex::default(),
        }))
    }

    pub(crate) fn begin(&self) -> UnderWay {
        if self.0.under_way.fetch_add(1, Ordering::AcqRel) == 0 {
            self.0.all.take(self.0.unsent.swap(0, Ordering::AcqRel));
        }
        UnderWay(self.clone())
    }

    fn are_under_way(&self) -> bool {
        self.0.under_way.load(Ordering::Acquire) > 0
    }

    /// Ready when the client has read so much that it may get more.
    ///
    /// `is_made`: what comes is in memory already, and takes none of the room that all have.
    pub(crate) fn poll_room(&self, context: &Context<'_>, is_made: bool) -> Poll<()> {
        if self.0.unsent.load(Ordering::Acquire) < MAX_UNSENT {
            return if is_made { Poll::Ready(()) } else { self.0.all.poll_room(context) };
        }
        // Both that ask for room and that write are polled by the one task that serves the connection.
        *self.waiting() = Some(context.waker().clone());
        Poll::Pending
    }

    pub(crate) fn given(&self, bytes: usize) {
        self.0.unsent.fetch_add(bytes, Ordering::AcqRel);
        self.0.all.add(bytes);
    }

    fn written(&self, done: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(bytes)) = done else { return };
        let less = |unsent: usize| Some(unsent.saturating_sub(*bytes));
        if let Ok(before) = self.0.unsent.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) {
            self.0.all.take(before.min(*bytes));
        }
        if let Some(waker) = self.waiting().take() {
            waker.wake();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<T> Connection<T> {
    pub(crate) fn new(io: T, answers: Answers) -> Self {
        Self {
            io,
            answers,
            ended: None,
            closing: None,
            is_carried: false,
            is_first: true,
            held: Vec::new(),
            streams: false,
            head: Vec::new(),
            standing: None,
        }
    }

    /// One that is carried over from another host's.
    pub(crate) fn carried(self, is_carried: bool) -> Self {
        Self { is_carried, ..self }
    }

    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncWrite + Unpin> Connection<T> {
    /// What came of a write. A client that has read nothing for so long that others wait for its room has lost it.
    fn wrote(&mut self, context: &mut Context<'_>, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.answers.written(&done);
        if done.is_ready() {
            self.standing = None;
            // It reads on: had it gone, its host would have said so.
            if let (Some(ended), Poll::Ready(Ok(1..))) = (&mut self.ended, &done) {
                ended.looks = 0;
            }
            return done;
        }
        let standing = self.standing.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        while standing.as_mut().poll(context).is_ready() {
            if self.answers.0.all.is_full() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            standing.as_mut().reset(tokio::time::Instant::now() + LOOK);
        }
        Poll::Pending
    }

    /// Ready when the head of an answer that was put otherwise has gone out.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.head.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(context, &self.head))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.head.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin + 'static> AsyncRead for Connection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended.is_none() {
            let room = buffer.remaining();
            while this.is_first {
                let mut bytes = [0; 4 << 10];
                let mut part = ReadBuf::new(&mut bytes);
                ready!(Pin::new(&mut this.io).poll_read(context, &mut part))?;
                let has_ended = part.filled().is_empty();
                this.held.extend_from_slice(part.filled());
                if has_ended || !plain_hijack::may_be(&this.held) {
                    this.is_first = false;
                    if let Some(all) = plain_hijack::upgraded(&this.held) {
                        this.streams = true;
                        this.held = all;
                    }
                    if let Some(all) = raw_target::encoded(&this.held) {
                        this.held = all;
                    }
                }
            }
            if !this.held.is_empty() {
                let count = this.held.len().min(room);
                buffer.put_slice(&this.held[..count]);
                this.held.drain(..count);
                return Poll::Ready(Ok(()));
            }
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room.min(MAX_READ)));
            ready!(Pin::new(&mut this.io).poll_read(context, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
            if count > 0 || room == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let ended = this.ended.get_or_insert_with(|| Ended { next_look: Box::pin(tokio::time::sleep(LOOK)), looks: 0 });
        loop {
            let waits = this.answers.are_under_way() && ended.looks < LOOKS;
            if !waits || is_closed(&this.io) == Some(true) {
                return Poll::Ready(Ok(()));
            }
            ready!(ended.next_look.as_mut().poll(context));
            // A socket that tells is asked for as long as the answer takes.
            ended.looks += u32::from(this.is_carried || is_closed(&this.io).is_none());
            ended.next_look.as_mut().reset(tokio::time::Instant::now() + LOOK);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.streams)
            && let Some(head) = plain_hijack::answer(bytes)
        {
            self.head = head;
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_head(context))?;
        let done = Pin::new(&mut self.io).poll_write(context, bytes);
        self.wrote(context, done)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_head(context))?;
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
        }
        if this.ended.is_some() {
            return Poll::Ready(Ok(()));
        }
        let closing =
            this.closing.get_or_insert_with(|| Closing { end: Box::pin(tokio::time::sleep(DROPPING)), dropped: 0 });
        let mut dropped = [0; 4 << 10];
        while closing.dropped < MAX_DROPPED && closing.end.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut dropped);
            match ready!(Pin::new(&mut this.io).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => closing.dropped += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.streams || !self.head.is_empty() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(context, first);
        }
        let done = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.wrote(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Whether the client has closed both directions; only unix sockets tell (unix(7), poll(2): `POLLHUP`).
fn is_closed(io: &dyn Any) -> Option<bool> {
    io.downcast_ref::<UnixStream>().map(has_hung_up)
}

pub(crate) fn has_hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be asked has not hung up; writing will tell.
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ends(connection: &mut Connection<impl AsyncRead + Unpin + 'static>) -> bool {
        let mut buffer = [0; 8];
        let read = tokio::time::timeout(Duration::from_millis(100), connection.read(&mut buffer));
        read.await.is_ok_and(|count| count.unwrap() == 0)
    }

    #[tokio::test]
    async fn the_end_of_the_input_waits_for_the_answer() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let answers = Answers::default();
        let mut connection = Connection::new(server, answers.clone());
        client.write_all(b"x").await.unwrap();
        client.shutdown().await.unwrap();
        let under_way = answers.begin();
        assert_eq!(connection.read_u8().await.unwrap(), b'x');
        assert!(!ends(&mut connection).await);
        drop(under_way);
        assert!(ends(&mut connection).await);
    }

    #[tokio::test]
    async fn a_client_that_has_gone_waits_for_nothing() {
        let (client, server) = UnixStream::pair().unwrap();
        let answers = Answers::default();
        let mut connection = Connection::new(server, answers.clone());
        let _under_way = answers.begin();
        drop(client);
        assert!(ends(&mut connection).await);
    }

    #[tokio::test]
    async fn a_client_that_still_writes_is_listened_to() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(server, Answers::default());
        let closing = tokio::spawn(async move { connection.shutdown().await });
        // The answer has ended; what is written is still taken.
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        client.write_all(&[0; 64 << 10]).await.unwrap();
        assert!(!closing.is_finished());
        drop(client);
        tokio::time::timeout(DROPPING / 2, closing).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn where_the_connection_does_not_tell_there_is_an_end_of_waiting() {
        async fn waits_and_ends(connection: Connection<impl AsyncRead + Unpin + 'static>) {
            let mut connection = connection;
            let _under_way = connection.answers.begin();
            assert!(!ends(&mut connection).await);
            let mut buffer = [0; 8];
            assert_eq!(connection.read(&mut buffer).await.unwrap(), 0);
        }
        let (client, server) = tokio::io::duplex(8);
        drop(client);
        waits_and_ends(Connection::new(server, Answers::default())).await;
        let (mut client, server) = UnixStream::pair().unwrap();
        client.shutdown().await.unwrap();
        waits_and_ends(Connection::new(server, Answers::default()).carried(true)).await;
    }

    #[tokio::test]
    async fn who_reads_on_is_there() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(server, Answers::default()).carried(true);
        let _under_way = connection.answers.begin();
        client.shutdown().await.unwrap();
        for _ in 0..2 * LOOKS / 10 {
            assert!(!ends(&mut connection).await);
            connection.write_all(b"x").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'x');
        }
    }

    /// What is read of `pieces`, which come one after the other.
    async fn read_of(pieces: &[&str]) -> String {
        let (mut client, server) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(server, Answers::default());
        let mut all = Vec::new();
        for piece in pieces {
            client.write_all(piece.as_bytes()).await.unwrap();
            let mut buffer = [0; 16];
            while let Ok(count) = tokio::time::timeout(Duration::from_millis(20), connection.read(&mut buffer)).await {
                all.extend_from_slice(&buffer[..count.unwrap()]);
            }
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn only_the_first_head_of_a_connection_is_looked_at() {
        let (head, end) = ("POST /exec/a/start HTTP/1.1\r\nHost: d\r\n", "\r\nbody");
        let asks = format!("{head}Connection: Upgrade\r\nUpgrade: tcp\r\n{end}");
        assert_eq!(read_of(&[head, end]).await, asks);
        assert_eq!(read_of(&["PO", &format!("{head}{end}")[2..]]).await, asks);
        // A body may say what it likes.
        let first = "PUT /containers/a/archive HTTP/1.1\r\nContent-Length: 50\r\n\r\n";
        assert_eq!(read_of(&[first, head, end]).await, format!("{first}{head}{end}"));
        let first = "POST /containers/create HTTP/1.1\r\nContent-Length: 50\r\n\r\n";
        assert_eq!(read_of(&[first, head, end]).await, format!("{first}{head}{end}"));
    }
}
