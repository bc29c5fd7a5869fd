//! The built binary as a daemon, driven by the real `docker` client where there is one, by our own where there is none.

mod build;
mod copy;
mod disk;
mod events;
mod kit;
mod links;
mod run;
mod ship;
mod survive;
mod volumes;
