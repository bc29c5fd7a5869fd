//! D-Bus (D-Bus Specification 0.41), as far as a few calls of other daemons need it. Blocking, one thread.
//!
//! - [`Connection`]: to a bus, or to a service that listens itself. [`Method`], [`Body`]: what is called. [`Message`],
//!   [`Refusal`]: what is answered.

mod connection;
mod wire;

pub use connection::{Connection, Refusal, address, system_bus};
pub use wire::{Body, Message, Method, Property};
