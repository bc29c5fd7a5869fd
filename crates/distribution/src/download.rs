//! Blobs on their way here.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use hyper::{Method, StatusCode, Uri};

use crate::address::Origin;
use crate::answer::Reply;
use crate::endpoint::{Call, Endpoint, Target, lost};
use crate::error::{DistributionError, Kind, Result};
use crate::manifest::Descriptor;
use crate::media_type;
use crate::repository::Repository;
use crate::retry::Retry;

/// No byte for so long: the connection is lost, whatever TCP believes.
const IDLE: Duration = Duration::from_secs(60);

/// A blob, or a range of it, on its way here. When the connection is lost it is asked for again, from where it was.
pub struct BlobStream {
    repository: Repository,
    descriptor: Descriptor,
    position: u64,
    /// Where the range ends.
    end: u64,
    body: Option<Incoming>,
    /// Whether the body is the range that was asked for, and not the whole.
    ranged: bool,
    /// Bytes that a registry without ranges sends once more.
    skip: u64,
    retry: Retry,
    /// Where the bytes come from, for messages.
    uri: Option<Uri>,
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("digest", &self.descriptor.digest)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl BlobStream {
    pub(crate) async fn open(repository: Repository, descriptor: Descriptor, range: Range<u64>) -> Result<Self> {
        let end = range.end.min(descriptor.size);
        let position = range.start;
        let retry = Retry::at_most(repository.home()?.shared.download_attempts);
        let mut stream =
            Self { repository, descriptor, position, end, body: None, ranged: false, skip: 0, retry, uri: None };
        if stream.position < stream.end {
            stream.connect().await?;
        }
        Ok(stream)
    }

    /// Bytes of the whole blob.
    pub fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// Whether the registry gives the range that was asked for, and so would give others beside it.
    pub fn is_ranged(&self) -> bool {
        self.ranged
    }

    /// Goes on to the blob's end, behind the range that was asked for.
    pub fn to_the_end(&mut self) {
        if self.ranged && self.end < self.descriptor.size {
            // What was promised ends with the range.
            self.body = None;
        }
        self.end = self.descriptor.size;
    }

    /// Where in the blob the next chunk begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes; `None` after the last, all of which have come then.
    ///
    /// # Errors
    /// When the connection is lost and does not come back, or the blob is not as long as promised.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.position >= self.end {
                return self.nothing_follows().await;
            }
            let Some(body) = &mut self.body else {
                self.connect().await?;
                continue;
            };
            let failure = match tokio::time::timeout(IDLE, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => match self.take(data)? {
                        Some(data) => return Ok(Some(data)),
                        None => continue,
                    },
                    // Trailers.
                    Err(_) => continue,
                },
                Ok(Some(Err(error))) => error.to_string(),
                Ok(None) => "unexpected EOF".into(),
                Err(_) => format!("nothing came for {} s", IDLE.as_secs()),
            };
            self.body = None;
            let error = lost(&Method::GET, self.uri.as_ref().unwrap_or(&Uri::default()), failure);
            self.pause(error).await?;
        }
    }

    /// Counts what came, and cuts off what is here already.
    fn take(&mut self, mut data: Bytes) -> Result<Option<Bytes>> {
        let again = self.skip.min(data.len() as u64);
        self.skip -= again;
        // Not more than the length of what is in memory.
        let mut data = data.split_off(usize::try_from(again).unwrap_or(data.len()));
        if data.is_empty() {
            return Ok(None);
        }
        let mut end = self.position + data.len() as u64;
        if end > self.end {
            if self.ranged || self.end == self.descriptor.size {
                return Err(self.wrong_size(end));
            }
            // The whole comes, of which the rest is not wanted.
            data.truncate(usize::try_from(self.end - self.position).unwrap_or(0));
            end = self.end;
        }
        self.position = end;
        self.retry.progressed(data.len() as u64);
        Ok(Some(data))
    }

    /// All is here: nothing may follow, but the rest of a whole of which a range was wanted.
    async fn nothing_follows(&mut self) -> Result<Option<Bytes>> {
        if let Some(mut body) = self.body.take()
            && (self.ranged || self.end == self.descriptor.size)
            && !body.is_end_stream()
            && let Ok(Some(Ok(frame))) = tokio::time::timeout(IDLE, body.frame()).await
            && frame.data_ref().is_some_and(|data| !data.is_empty())
        {
            return Err(self.wrong_size(self.end + 1));
        }
        Ok(None)
    }

    fn wrong_size(&self, found: u64) -> DistributionError {
        DistributionError::WrongSize { digest: self.descriptor.digest.clone(), expected: self.descriptor.size, found }
    }

    /// Waits before the next attempt, or gives up.
    async fn pause(&mut self, error: DistributionError) -> Result<()> {
        // A registry that was there, and is not, may be coming back.
        let wait = match &error {
            DistributionError::Unreachable { .. } if self.uri.is_some() => self.retry.wait(None),
            _ => self.retry.after(&error),
        };
        let Some(wait) = wait else { return Err(error) };
        tracing::debug!(
            "blob {} goes on at {} in {wait:?}: {}",
            self.descriptor.digest,
            self.position,
            error.message()
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn connect(&mut self) -> Result<()> {
        loop {
            match self.attempt().await {
                Ok(()) => return Ok(()),
                Err(error) => self.pause(error).await?,
            }
        }
    }

    /// Asks mirrors, the registry, and for layers that registries do not keep, those who do.
    async fn attempt(&mut self) -> Result<()> {
        let sources = self.repository.sources_of(&self.descriptor.digest)?;
        let mut failure = None;
        for source in &sources {
            let path = self.repository.path(&format!("blobs/{}", self.descriptor.digest));
            match self.ask(source, Target::Path(path)).await {
                Ok(()) => {
                    self.repository.note_giver(&self.descriptor.digest, source);
                    return Ok(());
                }
                Err(error) => {
                    source.note_failure(&error);
                    failure = Some(error);
                }
            }
        }
        let missing = failure.as_ref().is_some_and(|error| error.kind() == Kind::NotFound);
        if missing && media_type::is_foreign_layer(&self.descriptor.media_type) {
            let home: Arc<Endpoint> = self.repository.home()?.clone();
            let origin = home.origin().await?;
            for url in self.descriptor.urls.clone() {
                let elsewhere: Option<Uri> = url.parse().ok();
                // Not to the registry with its credentials by another way, and not without TLS.
                let allowed = |uri: &Uri| Origin::of(uri).is_some_and(|to| to != origin && to.tls);
                let Some(uri) = elsewhere.filter(allowed) else { continue };
                match self.ask(&home, Target::Uri(uri)).await {
                    Ok(()) => return Ok(()),
                    Err(error) => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or_else(|| DistributionError::Answer("there is no registry to ask".into())))
    }

    async fn ask(&mut self, source: &Endpoint, target: Target) -> Result<()> {
        let mut call = Call::new(Method::GET, String::new(), self.repository.scopes("pull"));
        call.target = target;
        // The bytes themselves are wanted: a proxy that packs them on the way changes their number.
        call = call.with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if self.position > 0 || self.end < self.descriptor.size {
            let last = if self.end < self.descriptor.size { (self.end - 1).to_string() } else { String::new() };
            let range = HeaderValue::try_from(format!("bytes={}-{last}", self.position));
            call = call.with_header(RANGE, range.map_err(|_| DistributionError::Answer("no range".into()))?);
        }
        let reply = source.once(&call, || Bytes::new().into()).await?;
        match reply.status {
            StatusCode::OK => {
                if let Some(length) = content_length(&reply).filter(|length| *length != self.descriptor.size) {
                    return Err(self.wrong_size(length));
                }
                (self.skip, self.ranged) = (self.position, false);
            }
            StatusCode::PARTIAL_CONTENT => {
                let range = reply.header(CONTENT_RANGE.as_str()).and_then(parse_content_range);
                let (start, total) =
                    range.ok_or_else(|| DistributionError::Answer("a part without its range".into()))?;
                if start != self.position {
                    return Err(DistributionError::Answer(format!("a part from {start}, not {}", self.position)));
                }
                if let Some(total) = total.filter(|total| *total != self.descriptor.size) {
                    return Err(self.wrong_size(total));
                }
                (self.skip, self.ranged) = (0, true);
            }
            _ => return Err(reply.refusal().await),
        }
        self.uri = Some(reply.uri);
        self.body = Some(reply.body);
        Ok(())
    }
}

fn content_length(reply: &Reply) -> Option<u64> {
    reply.header(CONTENT_LENGTH.as_str())?.parse().ok()
}

/// `bytes START-END/TOTAL`, where the total may be `*` (RFC 9110, section 14.4).
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _end) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "bytes 5-9", "items 0-1/2", "bytes x-1/2"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
