//! Names and digests of images, by the grammar of the distribution project and with Docker's short forms.
//!
//! - [`Digest`]: what content is, checked once and then trusted; by which [`Algorithm`].
//! - [`Hasher`]: makes a digest while bytes go by.
//! - [`Reference`]: where content is: a registry, a repository, a tag or a digest.

mod digest;
mod reference;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use reference::{DEFAULT_DOMAIN, DEFAULT_TAG, Reference, ReferenceError, is_id_prefix};
