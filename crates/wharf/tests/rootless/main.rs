//! The engine of an ordinary user: the built binary as that user's daemon, in namespaces of its own.

mod kit;
mod network;
mod refuse;
mod run;
mod survive;
