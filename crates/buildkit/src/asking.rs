//! The client of a build, as the builder asks it: for contents of files, secrets, credentials and agents.

use std::io::{Cursor, Read};
use std::ops::Range;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use wharf_build::{Agent, Answers, BuildError, Client};
use wharf_image::registry::Credentials;

use crate::filesync::{Directory, Wanted};
use crate::grpc::{Code, Status};
use crate::proto::session::{ById, CredentialsRequest, CredentialsResponse, SecretResponse};
use crate::proto::{Empty, Piece};
use crate::session::Session;

const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// As BuildKit bounds them.
const MAX_SECRET: usize = 500 << 10;
/// Docker Hub, as clients' helpers know it.
const HUB: &str = "registry-1.docker.io";

/// A directory until nothing more is wanted of it.
type Shared = Arc<tokio::sync::Mutex<Option<Directory>>>;

/// Directories of the client that were listed, by the numbers of their listings.
#[derive(Debug)]
pub(crate) struct Files {
    handle: Handle,
    /// Each is asked by one at a time; what has no directory came otherwise.
    directories: Mutex<Vec<Option<Shared>>>,
    /// How all of the context is listed.
    whole: Option<(Session, Wanted)>,
}

impl Files {
    pub(crate) fn new(directories: Vec<Option<Directory>>, whole: Option<(Session, Wanted)>) -> Self {
        let directories = directories.into_iter().map(|directory| directory.map(shared)).collect();
        Self { handle: Handle::current(), directories: Mutex::new(directories), whole }
    }

    /// How all of the context is listed.
    pub(crate) fn whole(&self) -> Option<(Session, Wanted)> {
        self.whole.clone()
    }

    /// Says that nothing more is wanted of any.
    pub(crate) async fn end(&self) {
        let all = std::mem::take(&mut *self.directories.lock().unwrap_or_else(PoisonError::into_inner));
        for directory in all.into_iter().flatten() {
            if let Some(directory) = directory.lock().await.take() {
                directory.end().await;
            }
        }
    }
}

fn shared(directory: Directory) -> Shared {
    Arc::new(tokio::sync::Mutex::new(Some(directory)))
}

pub(crate) fn failed(status: &Status) -> BuildError {
    match status.is(Code::Unavailable) || status.is(Code::Cancelled) {
        true => BuildError::cancelled(),
        false => BuildError::invalid(status.message().to_owned()),
    }
}

impl Answers for Files {
    fn ask(
        &self,
        listing: usize,
        wanted: &[Range<u32>],
        read: &mut dyn FnMut(&mut dyn Read) -> wharf_build::Result<()>,
    ) -> wharf_build::Result<()> {
        let directory = {
            let all = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(listing).cloned().flatten().ok_or_else(BuildError::cancelled)?
        };
        let mut directory = directory.blocking_lock();
        let directory = directory.as_mut().ok_or_else(BuildError::cancelled)?;
        read(&mut directory.contents(&self.handle, wanted))
    }

    fn ask_whole(&self, number: usize) -> wharf_build::Result<Box<dyn Read + Send>> {
        let (session, wanted) = self.whole.as_ref().ok_or_else(BuildError::cancelled)?;
        let listing = async {
            tokio::select! {
                listed = Directory::list(session, wanted, false) => listed,
                () = session.over() => Err(Status::unavailable("the client has gone")),
            }
        };
        let listed = self.handle.block_on(listing);
        let mut directory = listed.map_err(|status| failed(&status))?;
        let bytes = directory.listed();
        let mut all = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() <= number {
            all.resize_with(number + 1, || None);
        }
        all[number] = Some(shared(directory));
        Ok(Box::new(Cursor::new(bytes)))
    }
}

/// What a session serves beside files.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) handle: Handle,
    pub(crate) session: Session,
}

impl Asking {
    /// What the client answers; nothing when it does not serve this or has no such thing.
    fn ask<A: prost::Message + Default>(
        &self,
        method: &str,
        question: &impl prost::Message,
    ) -> wharf_build::Result<Option<A>> {
        if !self.session.serves(method) {
            return Ok(None);
        }
        let asked = self.session.callee.unary(method, question);
        match self.handle.block_on(self.session.answered(method, asked)) {
            Ok(answer) => Ok(Some(answer)),
            Err(status) if status.is(Code::NotFound) || status.is(Code::Unimplemented) => Ok(None),
            Err(status) => Err(failed(&status)),
        }
    }
}

impl Client for Asking {
    fn secret(&self, id: &str) -> wharf_build::Result<Option<Vec<u8>>> {
        let answer: Option<SecretResponse> = self.ask(SECRET, &ById { id: id.to_owned() })?;
        let secret = answer.map(|answer| answer.data);
        if secret.as_ref().is_some_and(|secret| secret.len() > MAX_SECRET) {
            return Err(BuildError::invalid(format!("secret {id} has more than {MAX_SECRET} bytes")));
        }
        Ok(secret)
    }

    fn agent(&self, id: &str) -> wharf_build::Result<Option<Agent>> {
        if !self.session.serves(FORWARD_AGENT) {
            return Ok(None);
        }
        let question = ById { id: id.to_owned() };
        let check = self.session.callee.unary::<Empty>(CHECK_AGENT, &question);
        match self.handle.block_on(self.session.answered(CHECK_AGENT, check)) {
            Ok(_) => {}
            // The client's own word is that it has none; its silence is no word.
            Err(status) if status.is(Code::ResourceExhausted) || status.is(Code::Unavailable) => {
                return Err(failed(&status));
            }
            Err(_) => return Ok(None),
        }
        let (session, id) = (self.session.clone(), id.to_owned());
        Ok(Some(Arc::new(move || {
            let (session, id) = (session.clone(), id.clone());
            Box::pin(async move { forward(&session, &id) })
        })))
    }

    fn credentials(&self, registry: &str) -> wharf_build::Result<Option<Credentials>> {
        let host = if registry == "docker.io" { HUB } else { registry };
        // Who cannot say is nobody: many images are anybody's.
        let asked = self.ask::<CredentialsResponse>(CREDENTIALS, &CredentialsRequest { host: host.to_owned() });
        let Ok(Some(answer)) = asked else { return Ok(None) };
        let mut credentials = Credentials::new(answer.username, answer.secret);
        // Without a user the secret is a token that stands for one.
        if credentials.username.is_empty() && !credentials.password.is_empty() {
            credentials.identity_token = Some(std::mem::take(&mut credentials.password));
        }
        Ok(Some(credentials).filter(|credentials| !credentials.is_empty()))
    }
}

/// A connection to the client's agent.
fn forward(session: &Session, id: &str) -> std::io::Result<UnixStream> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let (mut from, mut to) = UnixStream::from_std(theirs)?.into_split();
    let metadata = [("buildkit.ssh.id".to_owned(), id.to_owned())];
    let called = session.callee.both(FORWARD_AGENT, &metadata);
    let (sender, mut answers) = called.map_err(|status| std::io::Error::other(status.message().to_owned()))?;
    tokio::spawn(async move {
        let asking = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                if !sender.send(&Piece { data: Bytes::copy_from_slice(&buffer[..count]) }).await {
                    break;
                }
            }
        };
        let answering = async {
            while let Ok(Some(piece)) = answers.next::<Piece>().await {
                if to.write_all(&piece.data).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = asking => {}
            () = answering => {}
        }
    });
    UnixStream::from_std(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that serves agents and secrets, and answers nothing.
    async fn silent() -> (Session, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        (Session::over_connection(ours, &[SECRET, CHECK_AGENT, FORWARD_AGENT]).await, theirs)
    }

    #[tokio::test]
    async fn a_client_that_is_silent_is_not_waited_for_for_ever() {
        let (session, _theirs) = silent().await;
        let question = ById { id: "x".into() };
        let asked = session.callee.unary::<SecretResponse>(SECRET, &question);
        let answered = session.answered_within(std::time::Duration::from_millis(1), SECRET, asked);
        let status = answered.await.unwrap_err();
        assert!(status.message().contains("has not answered GetSecret"), "{}", status.message());
        let error = failed(&status);
        assert!(error.message.contains("is it stopped?"), "{error:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_client_that_goes_ends_what_it_was_asked() {
        let (session, theirs) = silent().await;
        let asking = Asking { handle: Handle::current(), session };
        let asked = tokio::task::spawn_blocking(move || asking.secret("x"));
        drop(theirs);
        assert!(asked.await.unwrap().is_err());
    }
}
