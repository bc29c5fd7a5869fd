//! A build's client, as its steps ask it: no longer than the build is wanted, and once for each thing.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use wharf_dockerfile::{Mount, MountKind};
use wharf_image::registry::Credentials;

use super::{Session, lock};
use crate::agent::Agent;
use crate::asked::Client;
use crate::cancel::Cancel;
use crate::error::{BuildError, Result};

/// How often a build looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// A client, and what it has given. It is kept in memory, and as long as the build.
pub(crate) struct Answering {
    client: Arc<dyn Client>,
    cancel: Cancel,
    secrets: Mutex<BTreeMap<String, Option<Vec<u8>>>>,
    agents: Mutex<BTreeMap<String, Option<Agent>>>,
}

impl Answering {
    pub(crate) fn new(client: Arc<dyn Client>, cancel: Cancel) -> Self {
        Self { client, cancel, secrets: Mutex::default(), agents: Mutex::default() }
    }

    /// Secrets that it has given, by ID.
    pub(crate) fn given(&self) -> BTreeMap<String, Vec<u8>> {
        let all = lock(&self.secrets);
        all.iter().filter_map(|(id, secret)| Some((id.clone(), secret.clone()?))).collect()
    }

    /// Asks in a thread of its own: a client may be silent, and the build be cancelled meanwhile.
    fn ask<T: Send + 'static>(&self, question: impl FnOnce(&dyn Client) -> Result<T> + Send + 'static) -> Result<T> {
        let (sender, answer) = sync_channel(1);
        let client = Arc::clone(&self.client);
        let asking = thread::Builder::new().name("build-asks".into());
        let spawned = asking.spawn(move || drop(sender.send(question(&*client))));
        spawned.map_err(|e| BuildError::system("the client cannot be asked", &e))?;
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => self.cancel.check()?,
                Err(gone @ RecvTimeoutError::Disconnected) => {
                    return Err(BuildError::system("the question to the client has crashed", &gone));
                }
            }
        }
    }
}

impl Client for Answering {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        if let Some(known) = lock(&self.secrets).get(id) {
            return Ok(known.clone());
        }
        let own = id.to_owned();
        let secret = self.ask(move |client| client.secret(&own))?;
        lock(&self.secrets).insert(id.to_owned(), secret.clone());
        Ok(secret)
    }

    fn agent(&self, id: &str) -> Result<Option<Agent>> {
        if let Some(known) = lock(&self.agents).get(id) {
            return Ok(known.clone());
        }
        let own = id.to_owned();
        let agent = self.ask(move |client| client.agent(&own))?;
        lock(&self.agents).insert(id.to_owned(), agent.clone());
        Ok(agent)
    }

    fn credentials(&self, registry: &str) -> Result<Option<Credentials>> {
        let registry = registry.to_owned();
        self.ask(move |client| client.credentials(&registry))
    }
}

impl Session<'_> {
    /// Asks the client for the secrets and agents of a command before the step is claimed: while a client does not answer, others
    /// who make the same step would wait for it.
    pub(crate) fn ask_ahead(&self, mounts: &[Mount]) -> Result<()> {
        let Some(client) = &self.client else { return Ok(()) };
        for mount in mounts {
            match mount.kind {
                MountKind::Secret => {
                    let target = || mount.target.as_deref()?.rsplit('/').next();
                    let id = mount.source.as_deref().or(mount.id.as_deref()).or_else(target).unwrap_or_default();
                    if !self.options.secrets.contains_key(id) {
                        client.secret(id)?;
                    }
                }
                MountKind::Ssh => {
                    let id = mount.id.as_deref().unwrap_or("default");
                    if !self.options.agents.0.contains_key(id) {
                        client.agent(id)?;
                    }
                }
                MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::error::ErrorKind;

    /// Answers each question as often as it is told to.
    struct Patient {
        told: Mutex<Receiver<()>>,
        questions: AtomicUsize,
    }

    fn patient() -> (Arc<Patient>, Sender<()>) {
        let (tell, told) = channel();
        (Arc::new(Patient { told: Mutex::new(told), questions: AtomicUsize::new(0) }), tell)
    }

    impl Client for Patient {
        fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
            self.questions.fetch_add(1, Ordering::Relaxed);
            let _ = lock(&self.told).recv();
            Ok((id != "none").then(|| id.as_bytes().to_vec()))
        }

        fn agent(&self, _: &str) -> Result<Option<Agent>> {
            Ok(None)
        }

        fn credentials(&self, _: &str) -> Result<Option<Credentials>> {
            Ok(None)
        }
    }

    #[test]
    fn a_build_that_is_cancelled_does_not_wait_for_an_answer() {
        let (client, _tell) = patient();
        let cancel = Cancel::new().unwrap();
        let answering = Answering::new(client, cancel.clone());
        cancel.cancel();
        assert_eq!(answering.secret("a").unwrap_err().kind, ErrorKind::Cancelled);
        assert!(answering.given().is_empty());
    }

    #[test]
    fn what_was_answered_is_asked_for_once_and_known() {
        let (client, tell) = patient();
        let answering = Answering::new(Arc::clone(&client) as Arc<dyn Client>, Cancel::new().unwrap());
        tell.send(()).unwrap();
        tell.send(()).unwrap();
        for _ in 0..2 {
            assert_eq!(answering.secret("a").unwrap().as_deref(), Some(b"a".as_slice()));
            assert_eq!(answering.secret("none").unwrap(), None);
        }
        assert_eq!(client.questions.load(Ordering::Relaxed), 2);
        assert_eq!(answering.given(), BTreeMap::from([("a".to_owned(), b"a".to_vec())]));
    }
}
