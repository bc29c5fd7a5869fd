//! The options of `run` and `create`: what the flags say, turned into what the API takes.
//!
//! Each file reads one kind of value; [`request`] puts them together.

pub(crate) mod bandwidth;
pub(crate) mod blkio;
pub(crate) mod checks;
pub(crate) mod device;
pub(crate) mod env;
pub(crate) mod gpus;
pub(crate) mod health;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod publish;
pub(crate) mod request;
pub(crate) mod secret;
pub(crate) mod security;
pub(crate) mod ulimit;
pub(crate) mod volume;
