//! Commands on images.

pub(super) mod archive;
pub(super) mod history;
pub(super) mod ls;
pub(super) mod pin;
pub(super) mod prune;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod rm;
pub(super) mod search;
pub(super) mod tag;
mod tree;
