//! Commands on the engine as a whole.

pub(super) mod df;
pub(super) mod dial;
pub(super) mod events;
pub(super) mod fsck;
pub(super) mod info;
pub(super) mod prune;
pub(super) mod version;
