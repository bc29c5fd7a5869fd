//! After a start of the host: what restart policies want to run is started, each after those that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::{Engine, may_fail_again};
use crate::record::{Container, Status};
use crate::slot::Slot;

impl Engine {
    /// Starts what its restart policy wants to run and does not. What is linked to another of them, or shares its
    /// namespaces, waits for that one's start, whatever comes of it.
    pub fn start_wanted(&self) {
        let all = self.inner.slots.all().into_iter().filter(|slot| is_wanted(&slot.record()));
        let wanted: BTreeMap<String, Arc<Slot>> = all.map(|slot| (slot.id.clone(), slot)).collect();
        let needs = wanted.iter().map(|(id, slot)| (id.clone(), self.needed_by(&slot.record()))).collect();
        // Whose sender has gone has been started.
        let turns = wanted.keys().map(|id| (id.clone(), watch::channel(())));
        let (mut senders, receivers): (BTreeMap<_, _>, BTreeMap<_, _>) =
            turns.map(|(id, (sender, receiver))| ((id.clone(), sender), (id, receiver))).unzip();
        for (id, first) in without_circles(&needs) {
            let (Some(slot), Some(turn)) = (wanted.get(&id).cloned(), senders.remove(&id)) else { continue };
            let first: Vec<_> = first.iter().filter_map(|other| receivers.get(other).cloned()).collect();
            let engine = self.clone();
            tokio::spawn(async move {
                for mut other in first {
                    while other.changed().await.is_ok() {}
                }
                if let Err(error) = engine.start(&slot.id).await {
                    tracing::warn!("cannot start container {}: {error}", slot.id);
                }
                drop(turn);
            });
        }
    }

    /// The containers that have to run before one can be started, by ID.
    fn needed_by(&self, record: &Container) -> BTreeSet<String> {
        let host = &record.host;
        let modes = [&host.network_mode, &host.ipc_mode, &host.pid_mode];
        // It may be a name still, where the other came to be later.
        let shared = modes.into_iter().filter_map(|mode| self.inspect(mode.strip_prefix("container:")?).ok());
        let shared = shared.map(|other| other.id.clone());
        record.links.iter().map(|link| link.to.clone()).chain(shared).collect()
    }
}

fn is_wanted(record: &Container) -> bool {
    let by_policy = match record.host.restart_policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !record.stopped_by_user,
        "on-failure" => !record.stopped_by_user && may_fail_again(record),
        _ => false,
    };
    by_policy && record.state.status == Status::Exited
}

/// What each of `needs` has to wait for: no two wait for each other, as names that came to be later would have it.
fn without_circles(needs: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let mut first: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for id in needs.keys() {
        // Depth first: what is above on the way down is not waited for.
        let mut way = vec![(id, false)];
        let mut above: BTreeSet<&String> = BTreeSet::new();
        while let Some((id, done)) = way.pop() {
            if done {
                above.remove(id);
                continue;
            }
            let Some(own) = needs.get(id).filter(|_| !first.contains_key(id)) else { continue };
            above.insert(id);
            way.push((id, true));
            let own: BTreeSet<&String> = own.iter().filter(|other| !above.contains(other)).collect();
            way.extend(own.iter().map(|other| (*other, false)));
            first.insert(id.clone(), own.into_iter().cloned().collect());
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(text: &str) -> BTreeMap<String, BTreeSet<String>> {
        let one = |line: &str| {
            let (id, others) = line.split_once(':').unwrap();
            (id.to_owned(), others.split(',').filter(|other| !other.is_empty()).map(str::to_owned).collect())
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn circles_are_cut_and_nothing_else_is() {
        assert_eq!(without_circles(&sets("a:b,c b:c c: d:a")), sets("a:b,c b:c c: d:a"));
        assert_eq!(without_circles(&sets("a:b b:c c:a")), sets("a:b b:c c:"));
        assert_eq!(without_circles(&sets("a:a")), sets("a:"));
        // Two ways to one, and a circle behind: somebody begins.
        let cut = without_circles(&sets("a:b,c b:d c:d d:b"));
        assert_eq!(cut, sets("a:b,c b: c:d d:b"));
    }
}
