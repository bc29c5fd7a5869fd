//! Engine records in the API's words. Pure.

pub(crate) mod container;
pub(crate) mod disk;
pub(crate) mod event;
pub(crate) mod image;
pub(crate) mod manifests;
pub(crate) mod network;
pub(crate) mod system;
pub(crate) mod words;
