//! What is written: blobs, and the manifests that name them.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, StatusCode, Uri};
use tokio::sync::watch;
use wharf_reference::Digest;

use crate::address::{Origin, escape, join};
use crate::answer::Reply;
use crate::body::{FilePart, Payload};
use crate::endpoint::{Call, Endpoint, Target};
use crate::error::{ConnectError, DistributionError, Result};
use crate::manifest::MAX_MANIFEST;
use crate::repository::Repository;
use crate::retry::Retry;
use crate::transport::{go_name, unreachable, without_query};

/// No byte taken for so long, or no answer after the last: the connection is lost. Registries on object stores copy
/// a blob when its last byte has come.
const STALL: Duration = Duration::from_secs(300);
/// A whole upload has no bound but `STALL`.
const NO_BOUND: Duration = Duration::from_secs(7 * 24 * 3600);

/// An upload that the registry has begun.
struct Session {
    uri: Uri,
    /// Bytes that the registry has.
    offset: u64,
}

impl Repository {
    /// Makes the registry take a blob from another of its repositories, and tells whether it has. One that does
    /// not, or may not, is no failure: the blob is pushed then.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        let query = format!("blobs/uploads/?mount={}&from={}", escape(digest.as_str()), escape(from));
        let mut scopes = self.scopes("pull,push");
        scopes.push(format!("repository:{from}:pull"));
        let home = self.target()?;
        let reply = match home.call(&Call::new(Method::POST, self.path(&query), scopes)).await {
            Ok(reply) => reply,
            // A token service may refuse the other repository.
            Err(DistributionError::Refused(refusal)) if refusal.status < 429 => return Ok(false),
            Err(error) => return Err(error),
        };
        if reply.status == StatusCode::ACCEPTED {
            // An upload was begun instead, which nobody will end.
            let uri = session_uri(&home.origin().await?, &reply)?;
            self.cancel(home, uri).await;
        }
        Ok(reply.status == StatusCode::CREATED)
    }

    /// Pushes a blob of `size` bytes from `file`. `progress` hears how many bytes of it are on their way; the number
    /// falls when some must be sent again. An upload that is cut off goes on where the registry has it.
    ///
    /// # Errors
    /// `Denied`, `Unauthorized`; those of a request; when the file cannot be read or is shorter.
    pub async fn push_blob(
        &self,
        digest: &Digest,
        size: u64,
        file: tokio::fs::File,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<()> {
        let file = Arc::new(file.into_std().await);
        let length = file.metadata().map_err(DistributionError::Content)?.len();
        if length < size {
            return Err(DistributionError::Content(io::ErrorKind::UnexpectedEof.into()));
        }
        let home = self.target()?;
        let mut retry = Retry::default();
        let mut session = None;
        loop {
            let begun = match session.take() {
                Some(begun) => begun,
                None => self.begin(home).await?,
            };
            let (before, uri) = (begun.offset, begun.uri.clone());
            let error = match self.send(home, begun, digest, size, &file, &mut progress).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let status = match &error {
                DistributionError::Refused(refusal) => refusal.status,
                _ => 0,
            };
            let wait = match &error {
                // The session is gone, and a new one may do; or it had more than it said when it was asked, since
                // the end of the lost connection was still coming in.
                _ if matches!(status, 404 | 416) => retry.wait(None),
                // It was there a moment ago.
                DistributionError::Unreachable { .. } => retry.wait(None),
                _ => retry.after(&error),
            };
            let Some(wait) = wait else {
                self.cancel(home, uri).await;
                return Err(error);
            };
            tracing::debug!("the upload of {digest} goes on in {wait:?}: {}", error.message());
            tokio::time::sleep(wait).await;
            if status != 404 {
                session = self.status(home, uri, size).await;
            }
            let offset = session.as_ref().map_or(0, |session| session.offset);
            retry.progressed(offset.saturating_sub(before));
            progress(offset);
        }
    }

    async fn begin(&self, home: &Endpoint) -> Result<Session> {
        let call = Call::new(Method::POST, self.path("blobs/uploads/"), self.scopes("pull,push"));
        let reply = home.call(&call).await?;
        if reply.status != StatusCode::ACCEPTED {
            return Err(reply.refusal().await);
        }
        Ok(Session { uri: session_uri(&home.origin().await?, &reply)?, offset: 0 })
    }

    async fn send(
        &self,
        home: &Endpoint,
        session: Session,
        digest: &Digest,
        size: u64,
        file: &Arc<File>,
        progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<()> {
        let mut uri = session.uri;
        let mut start = session.offset;
        if start > 0 && start < size {
            // The rest, as a part; an upload of one piece needs no parts.
            let range = format!("{start}-{}", size - 1);
            let call = self.upload_call(Method::PATCH, uri).with_header(CONTENT_RANGE, header(range)?);
            let reply = stream(home, &call, file, start, size, progress).await?;
            if reply.status != StatusCode::ACCEPTED {
                return Err(reply.refusal().await);
            }
            uri = session_uri(&home.origin().await?, &reply)?;
            start = size;
        }
        let mark = if uri.query().is_some() { '&' } else { '?' };
        let last = format!("{uri}{mark}digest={}", escape(digest.as_str()));
        let last: Uri = last.parse().map_err(|_| DistributionError::Address(without_query(&uri)))?;
        let reply = stream(home, &self.upload_call(Method::PUT, last), file, start, size, progress).await?;
        if reply.status != StatusCode::CREATED {
            return Err(reply.refusal().await);
        }
        progress(size);
        Ok(())
    }

    /// How much of an upload the registry has; `None` when it is better begun again.
    async fn status(&self, home: &Endpoint, uri: Uri, size: u64) -> Option<Session> {
        let mut call = Call::new(Method::GET, String::new(), self.scopes("pull,push"));
        call.target = Target::Uri(uri);
        let reply = home.call(&call).await.ok().filter(|reply| reply.status == StatusCode::NO_CONTENT)?;
        // `0-LAST`; of nothing some say `0-0`, so that one byte is sent twice rather than left out.
        let last: u64 = reply.header("range")?.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
        let offset = if last == 0 { 0 } else { last + 1 };
        let uri = session_uri(&home.origin().await.ok()?, &reply).ok()?;
        // With one byte in it, it cannot be known whether it is there.
        (offset <= size && offset > 0).then_some(Session { uri, offset })
    }

    /// Tells the registry that nobody will end an upload. Registries forget those by themselves too.
    async fn cancel(&self, home: &Endpoint, uri: Uri) {
        let call = self.upload_call(Method::DELETE, uri);
        if let Err(error) = home.once(&call, || Bytes::new().into()).await {
            tracing::debug!("an upload was left to the registry to forget: {}", error.message());
        }
    }

    fn upload_call(&self, method: Method, uri: Uri) -> Call {
        let mut call = Call::new(method, String::new(), self.scopes("pull,push"));
        call.target = Target::Uri(uri);
        call.wait = NO_BOUND;
        call.with_header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
    }

    /// Puts a manifest under a tag or its digest. What it names must be there.
    ///
    /// # Errors
    /// `Denied`, `Invalid`; `WrongDigest` when the registry has understood something else.
    pub async fn push_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(DistributionError::InvalidManifest(format!("it is larger than {MAX_MANIFEST} bytes")));
        }
        let named = self.checked(reference)?;
        let algorithm = named.as_ref().map(Digest::algorithm).unwrap_or_default();
        let digest = Digest::of(algorithm, bytes);
        if let Some(expected) = named.filter(|named| *named != digest) {
            return Err(DistributionError::WrongDigest { expected, found: digest });
        }
        let path = self.path(&format!("manifests/{reference}"));
        let mut call = Call::new(Method::PUT, path, self.scopes("pull,push"));
        call = call.with_header(CONTENT_TYPE, header(media_type.to_owned())?);
        call.body = Bytes::copy_from_slice(bytes);
        let reply = self.target()?.call(&call).await?;
        if reply.status != StatusCode::CREATED {
            return Err(reply.refusal().await);
        }
        match reply.header("docker-content-digest").and_then(|text| Digest::parse(text).ok()) {
            Some(found) if found.algorithm() == algorithm && found != digest => {
                Err(DistributionError::WrongDigest { expected: digest, found })
            }
            _ => Ok(digest),
        }
    }
}

/// Sends a part of the file, and tells how far it is.
async fn stream(
    home: &Endpoint,
    call: &Call,
    file: &Arc<File>,
    start: u64,
    end: u64,
    progress: &mut (impl FnMut(u64) + Send),
) -> Result<Reply> {
    let (sender, mut sent) = watch::channel(start);
    let body = || Payload::File(FilePart::new(file.clone(), start, end, sender.clone()));
    let mut answer = pin!(home.once(call, body));
    loop {
        tokio::select! {
            reply = &mut answer => return reply,
            Ok(()) = sent.changed() => {
                let at = *sent.borrow_and_update();
                progress(at);
            }
            () = tokio::time::sleep(STALL) => {
                let uri = match &call.target {
                    Target::Uri(uri) => uri.clone(),
                    Target::Path(_) => Uri::default(),
                };
                return Err(unreachable(&call.method, &uri, ConnectError::Timeout));
            }
        }
    }
}

/// Where an upload goes on.
fn session_uri(home: &Origin, reply: &Reply) -> Result<Uri> {
    let none = || DistributionError::Answer("an upload without a location".into());
    let uri = reply.header(LOCATION.as_str()).and_then(|location| join(&reply.uri, location)).ok_or_else(none)?;
    let origin = Origin::of(&uri).ok_or_else(none)?;
    if home.tls && !origin.tls {
        // A registry behind a proxy that ends TLS does not know its own scheme.
        if origin.host == home.host {
            return home.uri(uri.path_and_query().map_or("/", |path| path.as_str()));
        }
        let reason = format!("an upload from https to plain http, to {origin}");
        return Err(DistributionError::Redirect {
            method: go_name(&reply.method),
            url: without_query(&reply.uri),
            reason,
        });
    }
    Ok(uri)
}

fn header(text: String) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| DistributionError::InvalidManifest("its type is no media type".into()))
}
