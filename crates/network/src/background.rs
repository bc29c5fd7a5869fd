//! What is done ahead of time and behind it, by one thread: network namespaces that are ready before somebody asks,
//! links that must be gone before their addresses are given again, and a look every second whether our rules are
//! still there.
//!
//! Making a namespace takes a millisecond, removing a link twenty (the kernel waits until no processor can still see
//! it). Neither belongs between a command and its answer.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use wharf_netlink::namespace;
use wharf_netlink::route::{Batch, Connection};

use crate::{NetworkError, Result, sysctl};

/// Namespaces that are kept ready: as many as containers are started at once. Each takes about 100 KB of the kernel's.
const READY: usize = 4;
/// With fewer than these, more are made at once. Otherwise the makers wait until nobody has asked for a while: who has
/// just got one is starting a container, and two at work in the kernel's network hold each other up.
const FEW: usize = 2;
const QUIET: Duration = Duration::from_millis(10);
/// How often it is looked whether a link has gone.
const LOOK: Duration = Duration::from_millis(25);
/// How often it is looked whether all is as it should be. Asked, as to be told would make every change of the rules
/// dearer than this.
const WATCH: Duration = Duration::from_secs(1);
/// How long a link may take to go with its namespace before it is removed.
const PATIENCE: Duration = Duration::from_millis(500);

/// The link of a container that has ended. It goes when the kernel takes the container's namespace apart; until then
/// something may still answer for its address.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) network: String,
    pub(crate) container: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) host_interface: String,
    pub(crate) since: Instant,
}

/// A network namespace that nobody has used yet, with its loopback up. Held by its file descriptor and a socket in it only; it
/// has no name on the host.
#[derive(Debug)]
pub struct Namespace {
    netns: OwnedFd,
    /// Opened when it was made, as only a thread that is there can open one.
    pub(crate) inside: Connection,
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

impl From<Namespace> for OwnedFd {
    fn from(namespace: Namespace) -> Self {
        namespace.netns
    }
}

/// What is done every second.
type Watch = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Work {
    ready: Vec<Namespace>,
    leaving: Vec<Leaving>,
    watch: Option<Watch>,
    /// Whether namespaces are to be made at all: after a failure, only when somebody has asked again.
    filling: bool,
    /// When somebody asked for one.
    asked: Option<Instant>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    work: Mutex<Work>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread. It works in the network namespace of the thread that started it, and ends when this is dropped.
pub(crate) struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("thread", &self.thread).finish_non_exhaustive()
    }
}

impl Background {
    pub(crate) fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().filling = true;
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("networks".into()).spawn(move || run(&own));
        let thread = thread.map_err(NetworkError::host("start a thread"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A namespace that is ready, or else a new one.
    pub(crate) fn namespace(&self) -> Result<Namespace> {
        let ready = {
            let mut work = self.shared.lock();
            work.filling = true;
            work.asked = Some(Instant::now());
            work.ready.pop()
        };
        self.shared.wake.notify_one();
        ready.map_or_else(make, Ok)
    }

    /// Does `watch` every second.
    pub(crate) fn watch(&self, watch: Watch) {
        self.shared.lock().watch = Some(watch);
        self.shared.wake.notify_one();
    }

    /// Sees to it that a link goes.
    pub(crate) fn leave(&self, leaving: impl IntoIterator<Item = Leaving>) {
        self.shared.lock().leaving.extend(leaving);
        self.shared.wake.notify_one();
    }

    /// Addresses of a network that something may still answer for, with the containers that had them.
    pub(crate) fn leaving(&self, network: &str) -> Vec<Leaving> {
        self.shared.lock().leaving.iter().filter(|leaving| leaving.network == network).cloned().collect()
    }

    /// Removes a link that is leaving now, because its address is wanted.
    pub(crate) fn hurry(&self, leaving: &Leaving) -> Result<()> {
        remove(&[&leaving.host_interface])?;
        self.shared.lock().leaving.retain(|other| other.host_interface != leaving.host_interface);
        Ok(())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // What is watched may have had the last hold on us; then this is the thread itself.
            if thread.thread().id() != std::thread::current().id() {
                // A panic there has been reported.
                let _ = thread.join();
            }
        }
    }
}

fn run(shared: &Shared) {
    let mut watched = Instant::now();
    let mut work = shared.lock();
    while !work.stop {
        let wanted = work.filling && work.ready.len() < READY;
        let is_quiet = work.asked.is_none_or(|asked| asked.elapsed() >= QUIET);
        if wanted && (is_quiet || work.ready.len() < FEW) {
            drop(work);
            let made = make();
            work = shared.lock();
            match made {
                Ok(made) => work.ready.push(made),
                Err(error) => {
                    tracing::debug!(?error, "no network namespace could be made ahead of time");
                    work.filling = false;
                }
            }
            continue;
        }
        let pause = match (wanted, work.leaving.is_empty()) {
            (true, _) => QUIET,
            (false, false) => LOOK,
            (false, true) => WATCH,
        };
        work = shared.wake.wait_timeout(work, pause).unwrap_or_else(PoisonError::into_inner).0;
        if !work.leaving.is_empty() {
            let leaving = work.leaving.clone();
            drop(work);
            let gone = reap(&leaving);
            work = shared.lock();
            work.leaving.retain(|left| !gone.contains(&left.host_interface));
        }
        if watched.elapsed() >= WATCH {
            watched = Instant::now();
            // Taken out, so that nothing is locked while it runs.
            if let Some(watch) = work.watch.take() {
                drop(work);
                watch();
                work = shared.lock();
                work.watch = Some(watch);
            }
        }
    }
}

/// Names of the links that have gone, some of them by our doing.
fn reap(leaving: &[Leaving]) -> Vec<String> {
    let looked = Connection::open().map_err(NetworkError::from).and_then(|route| {
        let mut gone = Vec::new();
        for left in leaving {
            let is_late = left.since.elapsed() > PATIENCE;
            if is_late {
                remove(&[&left.host_interface])?;
            }
            if is_late || route.link(&left.host_interface)?.is_none() {
                gone.push(left.host_interface.clone());
            }
        }
        Ok(gone)
    });
    looked.unwrap_or_else(|error| {
        tracing::warn!(?error, "links of containers that have ended are left");
        Vec::new()
    })
}

/// Removes links; one that is not there is what was wanted.
pub(crate) fn remove(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let route = Connection::open()?;
    for name in names {
        let mut batch = Batch::new();
        batch.delete_link(name);
        match route.apply(batch) {
            Err(error) if error.errno != Errno::NODEV => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// A namespace with its loopback up, and without IPv6 on what is put into it: a link that configures itself would only
/// delay and surprise. Who gets an IPv6 address has it turned on, and believes no router all the same.
fn make() -> Result<Namespace> {
    let (netns, inside) = namespace::create(|| {
        for (name, value) in [("disable_ipv6", "1"), ("accept_ra", "0")] {
            if let Err(error) = sysctl::ensure(&format!("ipv6/conf/default/{name}"), value) {
                // A kernel without IPv6 has none to turn off.
                tracing::debug!(?error, "IPv6 is not turned off in a container");
            }
        }
        let mut batch = Batch::new();
        // The loopback is the first link of every namespace.
        batch.set_up(1);
        let inside = Connection::open()?;
        inside.apply(batch)?;
        Ok(inside)
    })?;
    Ok(Namespace { netns, inside })
}
