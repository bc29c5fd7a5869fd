//! Manifests, by tag and by digest.

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use serde_json::json;
use wharf_reference::Digest;

use crate::answer::{self, Answer, CONTENT_DIGEST, SUBJECT, TAG};
use crate::app::{App, Ask, Result};
use crate::blobs::has_tag;
use crate::error::{ApiError, Code};
use crate::manifest::{self, MAX_MANIFEST};
use crate::route::{Named, parse_tag};

/// `GET` and `HEAD` of `/v2/NAME/manifests/REFERENCE`.
pub(crate) async fn get(app: &App, ask: &Ask, name: String, reference: Named) -> Result<Answer> {
    let is_head = ask.is_head();
    let wanted = ask.header(&IF_NONE_MATCH).map(str::to_owned);
    let find = move |rows: &crate::repositories::Repositories| {
        let found = match &reference {
            Named::Tag(tag) => rows.tagged(&name, tag)?,
            Named::Digest(digest) => rows.manifest(&name, digest)?.map(|row| (digest.clone(), row)),
        };
        let (digest, row) = found.ok_or_else(|| unknown(&name, &reference))?;
        let same = wanted.is_some_and(|tags| has_tag(&tags, &format!("\"{digest}\"")));
        let bytes =
            if same || is_head { Vec::new() } else { rows.store().blobs().read(&digest, MAX_MANIFEST as u64)? };
        Ok((digest, row, bytes, same))
    };
    let (digest, row, bytes, same) = app.rows(find).await?;
    let mut found = if same {
        answer::empty(StatusCode::NOT_MODIFIED)
    } else {
        let mut found = answer::bytes(StatusCode::OK, &row.media_type, bytes);
        answer::set(&mut found, hyper::header::CONTENT_LENGTH, &row.size.to_string());
        found
    };
    answer::set(&mut found, CONTENT_DIGEST, digest.as_str());
    answer::set(&mut found, ETAG, &format!("\"{digest}\""));
    Ok(found)
}

/// `PUT` of `/v2/NAME/manifests/REFERENCE`; by digest with as many `tag=TAG` as shall name it, too.
pub(crate) async fn put(app: &App, ask: Ask, name: String, reference: Named) -> Result<Answer> {
    let content_type = ask.header(&CONTENT_TYPE).map(str::to_owned);
    let by_digest = matches!(reference, Named::Digest(_));
    let tags = match &reference {
        Named::Tag(tag) => vec![tag.clone()],
        Named::Digest(_) => ask.query.all("tag").into_iter().map(parse_tag).collect::<Result<_>>()?,
    };
    let bytes = ask.body.whole(MAX_MANIFEST).await?.ok_or_else(|| ApiError::new(Code::TooLarge))?;
    let digest = match reference {
        Named::Tag(_) => Digest::sha256(&bytes),
        Named::Digest(expected) => {
            let digest = Digest::of(expected.algorithm(), &bytes);
            if expected != digest {
                return Err(ApiError::with_detail(Code::DigestInvalid, format!("the content has digest {digest}")));
            }
            digest
        }
    };
    let understood = manifest::read(&bytes, content_type.as_deref(), &digest)?;
    let subject = understood.row.subject.clone();
    let location = format!("/v2/{name}/manifests/{digest}");
    let guard = app.incoming.clone().read_owned().await;
    let (put, named) = (digest.clone(), tags.join(", "));
    let done = app.rows(move |rows| {
        let _not_collected = guard;
        rows.store().blobs().put_as(put.algorithm(), &bytes)?;
        rows.put_manifest(&name, &tags, &put, &understood)
    });
    done.await?;
    let mut done = answer::empty(StatusCode::CREATED);
    answer::set(&mut done, LOCATION, &location);
    answer::set(&mut done, CONTENT_DIGEST, digest.as_str());
    if let Some(subject) = subject {
        answer::set(&mut done, SUBJECT, subject.as_str());
    }
    if by_digest && !named.is_empty() {
        answer::set(&mut done, TAG, &named);
    }
    Ok(done)
}

/// `DELETE` of `/v2/NAME/manifests/REFERENCE`: a tag alone, or a manifest with all its tags.
pub(crate) async fn delete(app: &App, name: String, reference: Named) -> Result<Answer> {
    let delete = move |rows: &crate::repositories::Repositories| {
        let there = match &reference {
            Named::Tag(tag) => rows.delete_tag(&name, tag)?,
            Named::Digest(digest) => rows.delete_manifest(&name, digest)?,
        };
        if there { Ok(()) } else { Err(unknown(&name, &reference)) }
    };
    app.rows(delete).await?;
    Ok(answer::empty(StatusCode::ACCEPTED))
}

fn unknown(name: &str, reference: &Named) -> ApiError {
    let detail = match reference {
        Named::Tag(tag) => json!({"Tag": tag}),
        Named::Digest(digest) => json!({"Name": name, "Revision": digest.as_str()}),
    };
    ApiError::with_detail(Code::ManifestUnknown, detail)
}
