//! A client of OCI registries (OCI distribution-spec 1.1, and Docker's registry API that it came from).
//!
//! - [`Client`]: connections, credentials' tokens and settings, for as long as the process lives.
//! - [`Repository`]: one repository of one registry: manifests, blobs, tags; reads and writes.
//! - [`BlobStream`]: a blob on its way here; goes on by itself when the connection is lost.
//! - [`Document`]: a file of the Web, over the same connections.
//! - [`Descriptor`], [`Manifest`], [`Platform`], [`media_type`]: what registries speak about.
//! - [`DistributionError`]: what went wrong, with the texts that Docker's users know.

mod address;
mod answer;
mod body;
mod challenge;
mod client;
mod connector;
mod credentials;
mod dns;
mod document;
mod download;
mod endpoint;
mod error;
mod hosts;
mod manifest;
pub mod media_type;
mod platform;
mod proxy;
mod realm;
mod repository;
mod retry;
mod tags;
mod tls;
mod token;
mod transport;
mod upload;

pub use client::{Client, ClientOptions};
pub use credentials::Credentials;
pub use dns::Resolver;
pub use document::Document;
pub use download::BlobStream;
pub use error::{ConnectError, DistributionError, Kind, Refusal, Result};
pub use manifest::{Descriptor, ImageManifest, Index, MAX_LAYERS, MAX_MANIFEST, MAX_MANIFESTS, Manifest, distinct};
pub use platform::{Platform, PlatformError};
pub use proxy::{HttpProxy, ProxyOptions, proxy_of_environment};
pub use repository::{FetchedManifest, Repository};
