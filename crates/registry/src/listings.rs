//! Lists: repositories, tags, and what is about a manifest.

use hyper::StatusCode;
use hyper::header::LINK;
use serde_json::json;
use wharf_reference::Digest;

use crate::answer::{self, Answer, FILTERS};
use crate::app::{App, Ask, Result};
use crate::error::{ApiError, Code};
use crate::repositories::Referrer;
use crate::route::escape;

/// Repositories in an answer when no number is asked for, and at most (the distribution project's CVE-2023-2253 was
/// a number without a bound).
const CATALOG_PAGE: usize = 100;
const CATALOG_MAX: usize = 1000;
/// Bytes of descriptors in an answer of the referrers API, which must be within the size of a manifest.
const REFERRERS_PAGE: usize = 3 * 1024 * 1024;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `GET /v2/_catalog`.
pub(crate) async fn catalog(app: &App, ask: &Ask) -> Result<Answer> {
    let count = number(ask)?.unwrap_or(CATALOG_PAGE).min(CATALOG_MAX);
    let names = app.rows(|rows| rows.names()).await?;
    let (page, more) = page(names, ask.query.get("last"), Some(count));
    let mut found = answer::json(StatusCode::OK, &json!({"repositories": page}))?;
    if let (true, Some(last)) = (more, page.last()) {
        link(&mut found, &format!("/v2/_catalog?last={}&n={count}", escape(last)));
    }
    Ok(found)
}

/// `GET /v2/NAME/tags/list`.
pub(crate) async fn tags(app: &App, ask: &Ask, name: String) -> Result<Answer> {
    let count = number(ask)?;
    let of = name.clone();
    let tags = app.rows(move |rows| rows.tags(&of)).await?;
    let tags = tags.ok_or_else(|| ApiError::with_detail(Code::NameUnknown, json!({"name": name.clone()})))?;
    let (page, more) = page(tags, ask.query.get("last"), count);
    let mut found = answer::json(StatusCode::OK, &json!({"name": name, "tags": page}))?;
    if let (true, Some(last), Some(count)) = (more, page.last(), count) {
        link(&mut found, &format!("/v2/{name}/tags/list?last={}&n={count}", escape(last)));
    }
    Ok(found)
}

/// `GET /v2/NAME/referrers/DIGEST`. What nothing is about has an empty list, though it may not be here at all.
pub(crate) async fn referrers(app: &App, ask: &Ask, name: String, digest: Digest) -> Result<Answer> {
    let (of, subject) = (name.clone(), digest.clone());
    let all = app.rows(move |rows| rows.referrers(&of, &subject)).await?;
    let wanted = ask.query.get("artifactType").filter(|wanted| !wanted.is_empty());
    let last = ask.query.get("last");
    let mut size = 0;
    let mut page: Vec<Referrer> = Vec::new();
    let mut more = false;
    let fits = |referrer: &Referrer| wanted.is_none() || referrer.artifact_type.as_deref() == wanted;
    // They are in the order of their digests.
    for referrer in all.into_iter().filter(fits).filter(|r| last.is_none_or(|last| r.digest.as_str() > last)) {
        size += serde_json::to_vec(&referrer).map_or(0, |text| text.len());
        if size > REFERRERS_PAGE && !page.is_empty() {
            more = true;
            break;
        }
        page.push(referrer);
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page});
    let mut found = answer::bytes(StatusCode::OK, OCI_INDEX, index.to_string());
    if wanted.is_some() {
        answer::set(&mut found, FILTERS, "artifactType");
    }
    if let (true, Some(last)) = (more, page.last()) {
        let filter = wanted.map(|wanted| format!("artifactType={}&", escape(wanted))).unwrap_or_default();
        link(&mut found, &format!("/v2/{name}/referrers/{digest}?{filter}last={}", escape(last.digest.as_str())));
    }
    Ok(found)
}

/// The parameter `n`.
fn number(ask: &Ask) -> Result<Option<usize>> {
    let Some(text) = ask.query.get("n").filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(count) => Ok(Some(count)),
        Err(_) => Err(ApiError::with_detail(Code::PaginationInvalid, json!({"n": text}))),
    }
}

/// At most `count` entries after `last`, and whether there are more.
fn page(mut all: Vec<String>, last: Option<&str>, count: Option<usize>) -> (Vec<String>, bool) {
    if let Some(last) = last {
        all.retain(|entry| entry.as_str() > last);
    }
    let count = count.unwrap_or(all.len());
    let more = all.len() > count;
    all.truncate(count);
    (all, more)
}

fn link(answer: &mut Answer, target: &str) {
    answer::set(answer, LINK, &format!("<{target}>; rel=\"next\""));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let all = || ["a", "b", "c"].map(String::from).to_vec();
        assert_eq!(page(all(), None, None), (all(), false));
        assert_eq!(page(all(), None, Some(2)), (all()[..2].to_vec(), true));
        assert_eq!(page(all(), Some("b"), Some(2)), (all()[2..].to_vec(), false));
        assert_eq!(page(all(), Some("bb"), Some(1)), (all()[2..].to_vec(), false));
        assert_eq!(page(all(), None, Some(0)), (vec![], true));
    }
}
