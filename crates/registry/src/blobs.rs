//! Blobs, as repositories have them.

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use wharf_reference::Digest;

use crate::answer::{self, Answer, CONTENT_DIGEST};
use crate::app::{App, Ask, Result};
use crate::error::{ApiError, Code};
use crate::range::{self, Part};

/// `GET` and `HEAD` of `/v2/NAME/blobs/DIGEST`.
pub(crate) async fn get(app: &App, ask: &Ask, name: String, digest: Digest) -> Result<Answer> {
    // Who asks whether it is there is going to push something that needs it.
    let (is_head, wanted) = (ask.is_head(), digest.clone());
    let linked = move |rows: &crate::repositories::Repositories| {
        let linked = if is_head { rows.use_link(&name, &wanted)? } else { rows.is_linked(&name, &wanted)? };
        if !linked {
            return Err(unknown(&wanted));
        }
        let file = rows.store().blobs().reader(&wanted)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    };
    let (file, size) = app.rows(linked).await?;
    let etag = format!("\"{digest}\"");
    if ask.header(&IF_NONE_MATCH).is_some_and(|tags| has_tag(tags, &etag)) {
        return Ok(described(answer::empty(StatusCode::NOT_MODIFIED), &digest));
    }
    let range = ask.header(&RANGE).filter(|_| ask.header(&IF_RANGE).is_none_or(|tag| tag.trim() == etag));
    let range = if is_head { Part::Whole } else { range::part(range, size) };
    let found = match range {
        Part::Whole if is_head => {
            let mut found = answer::bytes(StatusCode::OK, "application/octet-stream", "");
            answer::set(&mut found, CONTENT_LENGTH, &size.to_string());
            found
        }
        Part::Whole => answer::file(StatusCode::OK, file, 0, size),
        Part::Some(start, end) => {
            let mut found = answer::file(StatusCode::PARTIAL_CONTENT, file, start, end);
            answer::set(&mut found, CONTENT_RANGE, &format!("bytes {start}-{}/{size}", end - 1));
            found
        }
        Part::None => {
            let mut found = answer::refusal(&Code::RangeInvalid.into());
            answer::set(&mut found, CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(found);
        }
    };
    Ok(described(found, &digest))
}

fn described(mut found: Answer, digest: &Digest) -> Answer {
    answer::set(&mut found, CONTENT_DIGEST, digest.as_str());
    answer::set(&mut found, ETAG, &format!("\"{digest}\""));
    answer::set(&mut found, ACCEPT_RANGES, "bytes");
    // Under this name it is the same for ever.
    answer::set(&mut found, CACHE_CONTROL, "max-age=31536000");
    found
}

/// Whether an `If-None-Match` has the tag (RFC 9110, section 13.1.2).
pub(crate) fn has_tag(header: &str, tag: &str) -> bool {
    header.split(',').any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
    })
}

/// `DELETE` of `/v2/NAME/blobs/DIGEST`. Other repositories keep it; the last link gone, it is collected.
pub(crate) async fn delete(app: &App, name: String, digest: Digest) -> Result<Answer> {
    let wanted = digest.clone();
    if !app.rows(move |rows| rows.unlink(&name, &wanted)).await? {
        return Err(unknown(&digest));
    }
    Ok(answer::empty(StatusCode::ACCEPTED))
}

fn unknown(digest: &Digest) -> ApiError {
    ApiError::with_detail(Code::BlobUnknown, digest.as_str())
}
