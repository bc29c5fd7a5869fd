//! Network devices of the host's that a container has got and gives back when its program does not come to run.

use std::os::fd::{AsFd, OwnedFd};

use wharf_runtime::network_of;

use crate::global::Global;
use crate::state::Container;

/// The network namespace of a container that was created, kept while its first process comes to its end: with it
/// virtual devices would go. Nothing where nothing is lent.
#[derive(Debug)]
pub(crate) struct Lent(Option<OwnedFd>);

impl Lent {
    pub(crate) fn hold(container: &Container) -> Self {
        let lent = container.record.lent.is_some() && container.place.has_gate();
        let process = container.record.process.get().filter(|_| lent);
        let netns = process.and_then(|process| network_of(process.pid).ok().filter(|_| process.is_alive()));
        Self(netns)
    }

    /// What could not be given back is told.
    pub(crate) fn give_back(self, global: &Global, container: &Container) {
        if let (Some(netns), Some(lent)) = (self.0, &container.record.lent) {
            lent.give_back(netns.as_fd()).iter().for_each(|left| global.log.warning(left));
        }
    }
}
