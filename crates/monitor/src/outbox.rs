//! Bytes on their way to somebody who may read slowly.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::SendFlags;

/// What has been sent is kept in the buffer up to this size before the rest is moved to its front.
const SLACK: usize = 64 << 10;

/// A queue of bytes. An empty one owns no memory.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn took(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.clear();
        } else if self.start > SLACK && self.start > self.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Sends what a socket takes now. Answers with how much that was.
    ///
    /// # Errors
    /// When nobody will ever read it.
    pub(crate) fn send(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        self.pass_on(|rest| rustix::net::send(&socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
    }

    /// The same for an fd that does not block.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) fn write(&mut self, fd: impl AsFd) -> Result<usize, Errno> {
        self.pass_on(|rest| rustix::io::write(&fd, rest))
    }

    fn pass_on(&mut self, mut call: impl FnMut(&[u8]) -> Result<usize, Errno>) -> Result<usize, Errno> {
        let mut all = 0;
        while !self.is_empty() {
            match call(&self.bytes[self.start..]) {
                Ok(count) => {
                    self.took(count);
                    all += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(all)
    }
}

impl Extend<u8> for Outbox {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.bytes.extend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn all_arrives_in_order_however_slowly_it_is_read() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let want: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut outbox = Outbox::default();
        let mut got = Vec::new();
        for chunk in want.chunks(100_000) {
            outbox.push(chunk);
            outbox.send(&left).unwrap();
            let mut some = vec![0; 30_000];
            let count = right.read(&mut some).unwrap();
            got.extend_from_slice(&some[..count]);
        }
        while !outbox.is_empty() {
            let mut some = vec![0; 200_000];
            let count = right.read(&mut some).unwrap();
            got.extend_from_slice(&some[..count]);
            outbox.send(&left).unwrap();
        }
        drop(left);
        right.read_to_end(&mut got).unwrap();
        assert!(got == want);
        let (left, right) = UnixStream::pair().unwrap();
        drop(right);
        outbox.push(b"x");
        assert_eq!(outbox.send(&left), Err(Errno::PIPE));
    }
}
