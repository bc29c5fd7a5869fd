//! The list of a repository's tags, page by page.

use hyper::header::LINK;
use hyper::{Method, StatusCode};

use crate::address::{Origin, join};
use crate::answer::Reply;
use crate::endpoint::{Call, Endpoint, Target};
use crate::error::{DistributionError, Result};
use crate::repository::Repository;

/// Tags asked for at once, and at most.
const TAGS_PAGE: usize = 1000;
const MAX_TAGS_PAGE: u64 = 16 * 1024 * 1024;
const MAX_TAGS: usize = 1_000_000;

impl Repository {
    /// All tags, in the order of who gives them: the first mirror that can, else the registry.
    ///
    /// # Errors
    /// `NotFound`, `Denied`; those of a request.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let sources = self.sources(false)?;
        let mut tried = sources.iter().peekable();
        while let Some(source) = tried.next() {
            match self.tags_from(source).await {
                Err(error) if tried.peek().is_some() => source.note_failure(&error),
                // The last is the registry itself, and its error the one that counts.
                answer => return answer,
            }
        }
        Err(DistributionError::Address(self.reference.domain().to_owned()))
    }

    async fn tags_from(&self, source: &Endpoint) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut call = Call::new(Method::GET, self.path(&format!("tags/list?n={TAGS_PAGE}")), self.scopes("pull"));
        loop {
            let reply = source.call(&call).await?;
            if reply.status != StatusCode::OK {
                return Err(self.explain(reply.refusal().await, ""));
            }
            let next = next_page(&reply);
            let bytes = reply.bytes(MAX_TAGS_PAGE).await?;
            let page: Page =
                serde_json::from_slice(&bytes).map_err(|error| DistributionError::Answer(error.to_string()))?;
            let before = tags.len();
            tags.extend(page.tags.unwrap_or_default());
            match next {
                // A page without tags that is not the last would go on for ever.
                Some(next) if tags.len() > before && tags.len() < MAX_TAGS => call.target = Target::Uri(next),
                _ => return Ok(tags),
            }
        }
    }
}

/// The address in `Link: <…>; rel="next"` (RFC 8288), if it is at the same registry.
fn next_page(reply: &Reply) -> Option<hyper::Uri> {
    let link = reply.header(LINK.as_str())?;
    let (target, rest) = link.trim_start().strip_prefix('<')?.split_once('>')?;
    let next = rest.split(';').any(|part| part.trim().replace('"', "").eq_ignore_ascii_case("rel=next"));
    let target = next.then(|| join(&reply.uri, target)).flatten()?;
    // Behind a proxy a registry may not know its own scheme; its path is good.
    let path = target.path_and_query()?.as_str();
    let same = target.host() == reply.uri.host();
    same.then(|| Origin::of(&reply.uri)?.uri(path).ok()).flatten()
}
