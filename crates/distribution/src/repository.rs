//! One repository: what is asked of it, and what its refusals mean there.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use wharf_reference::{Digest, Reference};

use crate::address::Origin;
use crate::download::BlobStream;
use crate::endpoint::{Call, Endpoint};
use crate::error::{DistributionError, Kind, Result};
use crate::manifest::{Descriptor, MAX_MANIFEST, sniff};
use crate::media_type;

/// The header with which registries say what they gave.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// A manifest, byte for byte as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    pub bytes: Bytes,
    pub media_type: String,
    /// Verified, if it was asked for by its digest; otherwise computed.
    pub digest: Digest,
}

impl FetchedManifest {
    /// What the manifest says, checked.
    ///
    /// # Errors
    /// Those of [`crate::Manifest::parse`].
    pub fn parse(&self) -> Result<crate::Manifest> {
        crate::Manifest::parse(&self.bytes, &self.media_type)
    }
}

/// One repository of one registry, with the mirrors of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) reference: Reference,
    mirrors: Arc<[Arc<Endpoint>]>,
    home: Result<Arc<Endpoint>, Unusable>,
    givers: Arc<Mutex<Givers>>,
}

/// Who gave content, until it is known whether it was the right one. Mirrors only: who else is there after the registry?
#[derive(Debug, Default)]
struct Givers {
    gave: HashMap<Digest, Vec<Arc<Endpoint>>>,
    /// Those that gave other content than was asked for are not asked for it again.
    wrong: HashMap<Digest, Vec<Arc<Endpoint>>>,
}

/// Why a registry cannot be asked at all.
#[derive(Clone, Debug)]
pub(crate) enum Unusable {
    Domain(String),
    Hosts { path: String, reason: String },
}

impl From<Unusable> for DistributionError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Domain(domain) => Self::Address(domain),
            Unusable::Hosts { path, reason } => Self::Hosts { path, reason },
        }
    }
}

impl Repository {
    pub(crate) fn new(reference: Reference, mirrors: Arc<[Arc<Endpoint>]>, home: Arc<Endpoint>) -> Self {
        Self { reference, mirrors, home: Ok(home), givers: Arc::default() }
    }

    pub(crate) fn unusable(reference: Reference, why: Unusable) -> Self {
        Self { reference, mirrors: Arc::default(), home: Err(why), givers: Arc::default() }
    }

    /// The registry itself.
    pub(crate) fn home(&self) -> Result<&Arc<Endpoint>> {
        self.home.as_ref().map_err(|why| why.clone().into())
    }

    /// Where what is written goes.
    pub(crate) fn target(&self) -> Result<&Arc<Endpoint>> {
        let home = self.home()?;
        let target = self.mirrors.iter().chain([home]).find(|endpoint| endpoint.capabilities.push);
        target.ok_or_else(|| {
            let reason = format!("no host of {} may be pushed to, by its hosts.toml", self.reference.domain());
            DistributionError::Answer(reason)
        })
    }

    /// Where to read from, in order: content by its digest, or what a tag means.
    pub(crate) fn sources(&self, by_digest: bool) -> Result<Vec<Arc<Endpoint>>> {
        let home = self.home()?;
        let may = |endpoint: &&Arc<Endpoint>| {
            if by_digest { endpoint.capabilities.pull } else { endpoint.capabilities.resolve }
        };
        let mirrors = self.mirrors.iter().filter(|mirror| !mirror.is_down());
        let sources: Vec<_> = mirrors.chain([home]).filter(may).cloned().collect();
        if sources.is_empty() {
            let what = if by_digest { "content" } else { "tags" };
            let reason = format!("no host of {} gives {what}, by its hosts.toml", self.reference.domain());
            return Err(DistributionError::Answer(reason));
        }
        Ok(sources)
    }

    fn givers(&self) -> MutexGuard<'_, Givers> {
        self.givers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to read content from, in order, without those that gave other bytes for it.
    pub(crate) fn sources_of(&self, digest: &Digest) -> Result<Vec<Arc<Endpoint>>> {
        let mut sources = self.sources(true)?;
        let givers = self.givers();
        let wrong = givers.wrong.get(digest).map_or(&[][..], Vec::as_slice);
        sources.retain(|source| !wrong.iter().any(|other| Arc::ptr_eq(source, other)));
        if sources.is_empty() {
            let reason = format!("no other host of {} gives content, by its hosts.toml", self.reference.domain());
            return Err(DistributionError::Answer(reason));
        }
        Ok(sources)
    }

    /// Notes who gives content.
    pub(crate) fn note_giver(&self, digest: &Digest, source: &Arc<Endpoint>) {
        if self.home.as_ref().is_ok_and(|home| Arc::ptr_eq(home, source)) {
            return;
        }
        let mut givers = self.givers();
        let gave = givers.gave.entry(digest.clone()).or_default();
        if !gave.iter().any(|other| Arc::ptr_eq(source, other)) {
            gave.push(source.clone());
        }
    }

    /// What came for `digest` was not what its name says. The mirrors that have given of it since the last such word are
    /// not asked for it again; whether there were any, so that it is of use to ask once more.
    pub fn refuse(&self, digest: &Digest) -> bool {
        let mut givers = self.givers();
        let gave = givers.gave.remove(digest).unwrap_or_default();
        for mirror in &gave {
            tracing::warn!("the mirror {} gave other content than {digest}: another host is asked", mirror.name());
        }
        let any = !gave.is_empty();
        givers.wrong.entry(digest.clone()).or_default().extend(gave);
        any
    }

    /// The mirrors that gave other content for `digest`, for people; `None` when all did as they should.
    pub fn refused(&self, digest: &Digest) -> Option<String> {
        let givers = self.givers();
        let names: Vec<String> = givers.wrong.get(digest)?.iter().map(|mirror| mirror.name()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.reference.path())
    }

    /// What a token must be good for.
    pub(crate) fn scopes(&self, actions: &str) -> Vec<String> {
        vec![format!("repository:{}:{actions}", self.reference.path())]
    }

    /// Fetches a manifest by its tag or digest.
    ///
    /// # Errors
    /// `NotFound` and `Denied` with Docker's texts; `WrongDigest`; `Invalid` when it is too large or no manifest.
    pub async fn manifest(&self, tag_or_digest: &str) -> Result<FetchedManifest> {
        let wanted = self.checked(tag_or_digest)?;
        let sources = self.sources(wanted.is_some())?;
        let mut tried = sources.iter().peekable();
        let mut wrong = Vec::new();
        while let Some(source) = tried.next() {
            match self.manifest_from(source, tag_or_digest, wanted.as_ref()).await {
                Ok(manifest) => return Ok(manifest),
                // The last is the registry itself, and its error the one that counts.
                Err(error) if tried.peek().is_none() => {
                    let error = self.explain(error, tag_or_digest);
                    return Err(error.after_mirrors(tag_or_digest, &wrong.join(", ")));
                }
                Err(error) => {
                    source.note_failure(&error);
                    if error.kind() == Kind::WrongDigest {
                        tracing::warn!("the mirror {}: {}", source.name(), error.message());
                        wrong.push(source.name());
                    }
                }
            }
        }
        Err(DistributionError::Address(self.reference.domain().to_owned()))
    }

    async fn manifest_from(
        &self,
        source: &Endpoint,
        tag_or_digest: &str,
        wanted: Option<&Digest>,
    ) -> Result<FetchedManifest> {
        let reply = source.call(&self.manifest_call(Method::GET, tag_or_digest)).await?;
        if reply.status != StatusCode::OK {
            return Err(reply.refusal().await);
        }
        let promised = reply.header(CONTENT_DIGEST).and_then(|text| Digest::parse(text).ok());
        let media_type = reply.header(CONTENT_TYPE.as_str()).map(media_type::of_header).unwrap_or_default();
        let bytes = reply.bytes(MAX_MANIFEST).await?;
        for expected in wanted.iter().copied().chain(promised.as_ref()) {
            verify(&bytes, expected)?;
        }
        // A manifest with another digest than SHA-256 is known by that one.
        let digest = wanted.cloned().unwrap_or_else(|| Digest::sha256(&bytes));
        let media_type = match media_type.as_str() {
            "" | "application/json" | "application/octet-stream" | "text/plain" => {
                sniff(&bytes).ok_or_else(|| DistributionError::InvalidManifest("it is of no known form".into()))?
            }
            _ => media_type,
        };
        Ok(FetchedManifest { bytes, media_type, digest })
    }

    /// What the registry has under a tag or digest, without fetching it.
    ///
    /// # Errors
    /// Those of a request; that there is nothing is none.
    pub async fn manifest_exists(&self, tag_or_digest: &str) -> Result<Option<Descriptor>> {
        let wanted = self.checked(tag_or_digest)?;
        let reply = self.home()?.call(&self.manifest_call(Method::HEAD, tag_or_digest)).await?;
        match reply.status.as_u16() {
            200 => {}
            404 => return Ok(None),
            // Rare, but GET tells the same.
            405 => return self.manifest_by_get(tag_or_digest).await,
            _ => return Err(self.explain(reply.refusal().await, tag_or_digest)),
        }
        let promised = reply.header(CONTENT_DIGEST).and_then(|text| Digest::parse(text).ok());
        let size = reply.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let media_type = reply.header(CONTENT_TYPE.as_str()).map(media_type::of_header);
        match (wanted.or(promised), size, media_type) {
            (Some(digest), Some(size), Some(media_type)) => Ok(Some(Descriptor::new(media_type, digest, size))),
            _ => self.manifest_by_get(tag_or_digest).await,
        }
    }

    async fn manifest_by_get(&self, tag_or_digest: &str) -> Result<Option<Descriptor>> {
        match self.manifest_from(self.home()?, tag_or_digest, self.checked(tag_or_digest)?.as_ref()).await {
            Ok(found) => Ok(Some(Descriptor::new(found.media_type, found.digest, found.bytes.len() as u64))),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(self.explain(error, tag_or_digest)),
        }
    }

    fn manifest_call(&self, method: Method, tag_or_digest: &str) -> Call {
        let path = self.path(&format!("manifests/{tag_or_digest}"));
        let call = Call::new(method, path, self.scopes("pull"));
        // The list has no letters that a header could not have.
        let accept = HeaderValue::from_str(&media_type::MANIFESTS.join(", "));
        accept.map_or(call.clone(), |accept| call.with_header(ACCEPT, accept))
    }

    /// Begins to fetch a blob at `offset`. The stream counts bytes against the descriptor, but whoever stores them
    /// verifies the digest: they are hashed there anyway.
    ///
    /// # Errors
    /// `NotFound`, `Denied`; those of a request.
    pub async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<BlobStream> {
        self.blob_range(descriptor, offset..descriptor.size).await
    }

    /// As [`Self::blob`] for a range of its bytes, whether the registry knows ranges or not.
    ///
    /// # Errors
    /// Those of [`Self::blob`].
    pub async fn blob_range(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream> {
        let opened = BlobStream::open(self.clone(), descriptor.clone(), range).await;
        opened.map_err(|error| self.explain(error, descriptor.digest.as_str()))
    }

    /// Fetches a blob of at most `max` bytes, verified.
    ///
    /// # Errors
    /// As [`Self::blob`]; `WrongDigest` when no host gives the right one; `Invalid` when its descriptor says that it is larger.
    pub async fn blob_bytes(&self, descriptor: &Descriptor, max: u64) -> Result<Bytes> {
        if descriptor.size > max {
            let reason = format!("blob {} has {} bytes; at most {max} are read", descriptor.digest, descriptor.size);
            return Err(DistributionError::Answer(reason));
        }
        loop {
            let error = match self.whole(descriptor).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            if error.kind() != Kind::WrongDigest || !self.refuse(&descriptor.digest) {
                let mirrors = self.refused(&descriptor.digest).unwrap_or_default();
                return Err(error.after_mirrors(descriptor.digest.as_str(), &mirrors));
            }
        }
    }

    async fn whole(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let mut stream = self.blob(descriptor, 0).await?;
        let mut all = Vec::new();
        while let Some(chunk) = stream.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        verify(&all, &descriptor.digest)?;
        Ok(all.into())
    }

    /// Whether the registry has a blob in this repository.
    ///
    /// # Errors
    /// Those of a request.
    pub async fn blob_exists(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(&format!("blobs/{digest}"));
        // Asked before a push, so with the token of the push: one is enough.
        let target = self.target()?;
        let reply = target.call(&Call::new(Method::HEAD, path, self.scopes("pull,push"))).await?;
        let home = Origin::of(&reply.uri) == Some(target.origin().await?);
        match reply.status.as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            // An object store whose signature is not for HEAD: whoever uploads again does no harm.
            _ if !home => Ok(false),
            _ => Err(reply.refusal().await),
        }
    }

    /// A tag or digest that may stand in a path.
    pub(crate) fn checked(&self, tag_or_digest: &str) -> Result<Option<Digest>> {
        if tag_or_digest.contains(':') {
            let digest = Digest::parse(tag_or_digest);
            return digest.map(Some).map_err(|error| DistributionError::InvalidManifest(error.to_string()));
        }
        let valid = self.reference.with_tag(tag_or_digest);
        valid.map(|_| None).map_err(|error| DistributionError::InvalidManifest(error.to_string()))
    }

    /// Says what a refusal to read was about, as Docker does.
    pub(crate) fn explain(&self, error: DistributionError, tag_or_digest: &str) -> DistributionError {
        let DistributionError::Refused(mut refusal) = error else { return error };
        let name = self.reference.familiar_name();
        // Without a body, what there is no such thing of is known all the same.
        if refusal.code.is_empty() && refusal.status == 404 {
            let (code, message) = if tag_or_digest.is_empty() {
                ("NAME_UNKNOWN", "repository name not known to registry")
            } else {
                ("MANIFEST_UNKNOWN", "manifest unknown")
            };
            (refusal.code, refusal.message) = (code.into(), message.into());
        }
        refusal.context = match refusal.code.as_str() {
            "DENIED" => {
                Some(format!("pull access denied for {name}, repository does not exist or may require 'docker login'"))
            }
            "MANIFEST_UNKNOWN" | "NOT_FOUND" => {
                let mark = if tag_or_digest.contains(':') { '@' } else { ':' };
                Some(format!("manifest for {name}{mark}{tag_or_digest} not found"))
            }
            "NAME_UNKNOWN" => Some(format!("repository {name} not found")),
            _ => None,
        };
        DistributionError::Refused(refusal)
    }
}

/// Verifies content that is here whole.
fn verify(bytes: &[u8], expected: &Digest) -> Result<()> {
    let found = Digest::of(expected.algorithm(), bytes);
    if found == *expected {
        return Ok(());
    }
    Err(DistributionError::WrongDigest { expected: expected.clone(), found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientOptions};
    use crate::error::Refusal;

    fn repository(name: &str) -> Repository {
        let client = Client::new(ClientOptions::default()).unwrap();
        client.repository(&Reference::parse(name).unwrap(), None)
    }

    fn explained(name: &str, status: u16, code: &str, message: &str, what: &str) -> String {
        let (code, message) = (code.into(), message.into());
        let refusal = Refusal { status, code, message, context: None, retry_after: None };
        repository(name).explain(DistributionError::Refused(refusal), what).message()
    }

    #[tokio::test]
    async fn refusals_say_what_they_are_about() {
        assert_eq!(
            explained("debian", 404, "MANIFEST_UNKNOWN", "manifest unknown", "x"),
            "manifest for debian:x not found: manifest unknown: manifest unknown"
        );
        assert_eq!(
            explained("a/b", 401, "DENIED", "requested access to the resource is denied", "latest"),
            "pull access denied for a/b, repository does not exist or may require 'docker login': denied: requested \
             access to the resource is denied"
        );
        assert_eq!(
            explained("localhost:5000/x", 404, "", "received unexpected HTTP status: 404 Not Found", "1"),
            "manifest for localhost:5000/x:1 not found: manifest unknown: manifest unknown"
        );
        assert_eq!(
            explained("a/b", 401, "UNAUTHORIZED", "authentication required", "x"),
            "unauthorized: authentication required"
        );
    }

    #[tokio::test]
    async fn only_tags_and_digests_are_put_in_paths() {
        let repository = repository("debian");
        assert!(repository.checked("12-slim").unwrap().is_none());
        assert!(repository.checked(Digest::sha256(b"").as_str()).unwrap().is_some());
        for bad in ["", "../x", "a/b", "sha256:00", "a b", "a?b"] {
            assert!(repository.checked(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn both_algorithms_are_verified() {
        let sha512 = format!(
            "sha512:{}",
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd\
             47417a81a538327af927da3e"
        );
        let empty = Digest::parse(&sha512).unwrap();
        assert!(verify(b"", &empty).is_ok() && verify(b"x", &empty).is_err());
        assert!(verify(b"x", &Digest::sha256(b"x")).is_ok() && verify(b"y", &Digest::sha256(b"x")).is_err());
    }
}
