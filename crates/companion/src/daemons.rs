//! The daemons that are connected, seen from the process.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::{Closed, Control};
use crate::poll::{Interest, Poller, Token};
use crate::role::Role;
use crate::wire::{Reply, Request, Word};

/// Where daemons connect, and those that have.
#[derive(Debug)]
pub struct Daemons {
    role: &'static Role,
    listener: UnixListener,
    controls: HashMap<u64, Control>,
}

/// What a daemon has asked for.
#[derive(Debug)]
pub enum Asked<R> {
    /// Nothing more for now.
    Nothing,
    /// The end of the process.
    Quit,
    /// Something of the task's, with the fds that came with it; it is owed an [`answer`](Daemons::answer).
    Own(R, Vec<OwnedFd>),
}

impl Daemons {
    /// `token` is the listener's.
    ///
    /// # Errors
    /// At limits.
    pub fn new<T: Token>(
        role: &'static Role,
        listener: UnixListener,
        poller: &Poller<T>,
        token: T,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        poller.add(&listener, token, Interest::Read)?;
        Ok(Self { role, listener, controls: HashMap::new() })
    }

    /// Whether none is connected.
    pub fn is_empty(&self) -> bool {
        self.controls.is_empty()
    }

    /// Waits for connections in another way from now on.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn listen<T: Token>(&self, poller: &Poller<T>, token: T, interest: Interest) -> rustix::io::Result<()> {
        poller.change(&self.listener, token, interest)
    }

    /// Takes a daemon's connection, which is `number` from now on, and `token` its token.
    ///
    /// # Errors
    /// When there is no fd for it: it would be offered again at once, for ever.
    pub fn welcome<T: Token>(&mut self, poller: &Poller<T>, number: u64, token: T) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => Ok(()),
                    _ => Err(error),
                };
            }
        };
        let nonblocking = stream.set_nonblocking(true);
        let control = Control::new(stream);
        if nonblocking.is_ok() && poller.add(&control, token, Interest::Read).is_ok() {
            self.controls.insert(number, control);
        }
        Ok(())
    }

    /// What a daemon asks for next, if it has come whole. Who it is, it is told here.
    pub fn hear<R: DeserializeOwned>(&mut self, number: u64) -> Asked<R> {
        loop {
            let Some(control) = self.controls.get_mut(&number) else { return Asked::Nothing };
            let message = match control.flush().and_then(|()| control.receive()) {
                Ok(Some(message)) => message,
                Ok(None) => return Asked::Nothing,
                Err(Closed) => {
                    self.controls.remove(&number);
                    return Asked::Nothing;
                }
            };
            let (bytes, fds) = message;
            let mut reply = Reply::<()>::default();
            match serde_json::from_slice(&bytes) {
                Ok(Request::Own(request)) => return Asked::Own(request, fds),
                Ok(Request::Word(Word::Hello)) => {
                    reply.version = Some(self.role.version.into());
                    reply.pid = Some(rustix::process::getpid().as_raw_nonzero().get());
                    self.say(number, &reply);
                }
                Ok(Request::Word(Word::Quit)) => {
                    self.say(number, &reply);
                    return Asked::Quit;
                }
                Err(error) => {
                    reply.error = Some(format!("the request is not understood: {error}"));
                    self.say(number, &reply);
                }
            }
        }
    }

    /// Answers what was heard, or says why it cannot be done.
    pub fn answer<A: Serialize + Default>(&mut self, number: u64, answer: Result<A, String>) {
        let reply = match answer {
            Ok(own) => Reply { own, ..Reply::default() },
            Err(error) => Reply { error: Some(error), ..Reply::default() },
        };
        self.say(number, &reply);
    }

    fn say<A: Serialize>(&mut self, number: u64, reply: &Reply<A>) {
        if self.controls.get_mut(&number).is_some_and(|control| control.send(reply).is_err()) {
            self.controls.remove(&number);
        }
    }

    /// Waits for more of a daemon that has been heard, and for room for what it has not read yet.
    pub fn wait_for<T: Token>(&mut self, poller: &Poller<T>, number: u64, token: T) {
        if let Some(control) = self.controls.get(&number)
            && poller.change(control, token, control.interest()).is_err()
        {
            self.controls.remove(&number);
        }
    }
}
