//! Followers of logs, told when there is more: by one watcher and one thread for all of them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;
use wharf_logs::{Watched, Watcher};

use crate::slot::lock;

/// The watcher, while somebody follows.
#[derive(Debug, Default)]
pub(crate) struct LogWatch(Mutex<Weak<Shared>>);

#[derive(Debug)]
struct Shared {
    watcher: Arc<Watcher>,
    /// Also held while a directory begins or ends to be watched: it has one number, whoever asks.
    told: Mutex<HashMap<Watched, watch::Sender<()>>>,
}

/// One follower.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
    watched: Watched,
    changes: Option<watch::Receiver<()>>,
}

impl LogWatch {
    /// Begins to watch a log. What happens to it from now on is told.
    ///
    /// # Errors
    /// The message; where the kernel gives no more watches.
    pub(crate) fn follow(&self, log: &Path) -> std::io::Result<Follower> {
        let mut own = lock(&self.0);
        let shared = match own.upgrade() {
            Some(shared) => shared,
            None => {
                let shared = Shared::new()?;
                *own = Arc::downgrade(&shared);
                shared
            }
        };
        drop(own);
        let (watched, changes) = {
            let mut told = lock(&shared.told);
            let watched = shared.watcher.add(log).map_err(std::io::Error::other)?;
            (watched, told.entry(watched).or_default().subscribe())
        };
        Ok(Follower { shared, watched, changes: Some(changes) })
    }
}

impl Shared {
    fn new() -> std::io::Result<Arc<Self>> {
        let watcher = Arc::new(Watcher::new()?);
        let shared = Arc::new(Self { watcher: Arc::clone(&watcher), told: Mutex::default() });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new().name("log-watch".into()).spawn(move || tell(&watcher, &weak))?;
        Ok(shared)
    }
}

/// Tells followers until the last one has gone.
fn tell(watcher: &Watcher, shared: &Weak<Shared>) {
    let told = || -> std::io::Result<bool> {
        if !watcher.wait()? {
            return Ok(false);
        }
        let Some(shared) = shared.upgrade() else { return Ok(false) };
        let told = lock(&shared.told);
        watcher.take(|watched| match watched {
            Some(watched) => told.get(&watched).into_iter().for_each(|sender| sender.send_modify(|()| {})),
            None => told.values().for_each(|sender| sender.send_modify(|()| {})),
        })?;
        Ok(true)
    };
    loop {
        match told() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::error!("nobody is told any more of logs that grow: {error}"),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watcher.end();
    }
}

impl Follower {
    /// Waits until something has happened that was not told yet.
    pub(crate) async fn changed(&mut self) {
        let told = match &mut self.changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !told {
            // Cannot be: the sender goes with the last follower.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut told = lock(&self.shared.told);
        self.changes = None;
        if told.get(&self.watched).is_some_and(|sender| sender.receiver_count() == 0) {
            told.remove(&self.watched);
            self.shared.watcher.remove(self.watched);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn told(follower: &mut Follower) {
        tokio::time::timeout(Duration::from_secs(20), follower.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn more_followers_than_the_kernel_has_instances_are_told() {
        let dirs: Vec<_> = (0..300).map(|_| tempfile::tempdir().unwrap()).collect();
        let watch = LogWatch::default();
        let mut followers: Vec<_> = dirs.iter().map(|dir| watch.follow(&dir.path().join("log")).unwrap()).collect();
        let mut second = watch.follow(&dirs[7].path().join("log")).unwrap();
        std::fs::write(dirs[7].path().join("log"), "x").unwrap();
        told(&mut followers[7]).await;
        told(&mut second).await;
        // The first one of two goes: the other is told all the same.
        drop(followers.remove(7));
        std::fs::write(dirs[7].path().join("log"), "xy").unwrap();
        told(&mut second).await;
        let shared = Arc::downgrade(&second.shared);
        drop((followers, second));
        // It may be telling just now.
        while shared.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        // And all anew.
        let mut last = watch.follow(&dirs[0].path().join("log")).unwrap();
        std::fs::write(dirs[0].path().join("log"), "x").unwrap();
        told(&mut last).await;
    }
}
