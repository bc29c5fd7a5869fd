//! A client of the Engine API: HTTP over a unix socket, TCP, TLS or ssh.
//!
//! - [`Address`]: where the engine listens, as `DOCKER_HOST` says it.
//! - [`Client`]: requests; connections are reused; the version is negotiated once.
//! - [`Response`]: status, headers and a body that is read as it comes.
//! - [`Hijacked`]: a connection that has become a two-way stream (attach, exec).
//! - [`Demultiplexer`]: standard output and error out of one stream.
//! - [`UserPlaces`]: where an ordinary user's engine has its things.
//! - [`JsonLines`]: the values of a progress stream.

mod address;
mod body;
mod client;
mod connect;
mod error;
mod hijack;
mod lines;
mod places;
mod query;
mod request;
mod resolve;
mod response;
mod ssh;
mod stdcopy;
mod tls;

pub use address::{Address, AddressError};
pub use body::{Body, BodySender};
pub use client::{Client, MAX_API_VERSION, MIN_API_VERSION, Ping};
pub use connect::Proxy;
pub use error::ClientError;
pub use hijack::Hijacked;
pub use hyper::{HeaderMap, Method, StatusCode};
pub use lines::JsonLines;
pub use places::{LONGEST_SOCKET_PATH, UserPlaces};
pub use request::Request;
pub use response::Response;
pub use stdcopy::{Demultiplexer, Frame, Source};
pub use tls::TlsOptions;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ClientError>;
