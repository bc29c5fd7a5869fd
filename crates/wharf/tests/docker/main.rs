//! The built binary as a daemon, driven by the real `docker` client where there is one, by our own where there is none.

mod architecture;
mod build;
mod clients;
mod copy;
mod disk;
mod events;
mod kills;
mod kit;
mod limits;
mod links;
mod logging;
mod names;
mod refuse;
mod registries;
mod run;
mod share;
mod ship;
mod state;
mod store;
mod survive;
mod terminal;
mod update;
mod volumes;
