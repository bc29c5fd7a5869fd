//! Blobs on their way in.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use wharf_reference::{Algorithm, Digest};

use crate::answer::{self, Answer, CONTENT_DIGEST, UPLOAD_ID};
use crate::app::{App, Ask, Result};
use crate::error::{ApiError, Code};
use crate::range;
use crate::route::{is_name, parse_digest};
use crate::sessions::Session;

/// `POST /v2/NAME/blobs/uploads/`: begins an upload, takes a blob at once, or lets it be another repository's.
pub(crate) async fn begin(app: &App, ask: Ask, name: String) -> Result<Answer> {
    if let Some(digest) = ask.query.get("mount") {
        let digest = parse_digest(digest)?;
        let from = ask.query.get("from").unwrap_or_default().to_owned();
        if !from.is_empty() && !is_name(&from) {
            return Err(Code::NameInvalid.into());
        }
        let (to, mounted) = (name.clone(), digest.clone());
        // Whoever may push here may read everywhere: without a name, any repository that has it will do.
        let mount = move |rows: &crate::repositories::Repositories| {
            rows.mount(&to, Some(from.as_str()).filter(|from| !from.is_empty()), &mounted)
        };
        if app.rows(mount).await? {
            return Ok(created(&name, &digest));
        }
    } else if let Some(digest) = ask.query.get("digest") {
        let digest = parse_digest(digest)?;
        let session = create(app, &name, digest.algorithm()).await?;
        return match session.append(ask.body, None).await {
            Ok(()) => end(app, &session, name, digest).await,
            Err(error) => {
                app.sessions.forget(&session.id);
                Err(error)
            }
        };
    }
    let session = create(app, &name, algorithm(&ask)?).await?;
    Ok(in_progress(StatusCode::ACCEPTED, &name, &session))
}

/// What the client says that the digest will be of.
fn algorithm(ask: &Ask) -> Result<Algorithm> {
    let Some(name) = ask.query.get("digest-algorithm") else { return Ok(Algorithm::default()) };
    let known = || format!("sha256 and sha512 are supported, not {}", name.chars().take(64).collect::<String>());
    Algorithm::of(name).ok_or_else(|| ApiError::with_detail(Code::DigestInvalid, known()))
}

async fn create(app: &App, name: &str, algorithm: Algorithm) -> Result<Arc<Session>> {
    let (sessions, name) = (app.sessions.clone(), name.to_owned());
    tokio::task::spawn_blocking(move || sessions.create(&name, algorithm)).await?
}

async fn find(app: &App, name: &str, id: &str) -> Result<Arc<Session>> {
    let (sessions, name, id) = (app.sessions.clone(), name.to_owned(), id.to_owned());
    tokio::task::spawn_blocking(move || sessions.get(&name, &id)).await?
}

/// `GET /v2/NAME/blobs/uploads/ID`: how far it is.
pub(crate) async fn status(app: &App, name: String, id: String) -> Result<Answer> {
    let session = find(app, &name, &id).await?;
    Ok(in_progress(StatusCode::NO_CONTENT, &name, &session))
}

/// `PATCH /v2/NAME/blobs/uploads/ID`: more of it.
pub(crate) async fn append(app: &App, ask: Ask, name: String, id: String) -> Result<Answer> {
    let session = find(app, &name, &id).await?;
    let start = announced_start(&ask)?;
    match session.append(ask.body, start).await {
        Ok(()) => Ok(in_progress(StatusCode::ACCEPTED, &name, &session)),
        Err(error) => Ok(refused(&error, &name, &session)),
    }
}

/// `PUT /v2/NAME/blobs/uploads/ID?digest=DIGEST`: the last of it, if anything is left, and its name.
pub(crate) async fn finish(app: &App, ask: Ask, name: String, id: String) -> Result<Answer> {
    let session = find(app, &name, &id).await?;
    let digest =
        ask.query.get("digest").ok_or_else(|| ApiError::with_detail(Code::DigestInvalid, "digest is missing"))?;
    let digest = parse_digest(digest)?;
    let start = announced_start(&ask)?;
    if let Err(error) = session.append(ask.body, start).await {
        return Ok(refused(&error, &name, &session));
    }
    end(app, &session, name, digest).await
}

/// `DELETE /v2/NAME/blobs/uploads/ID`.
pub(crate) async fn cancel(app: &App, name: String, id: String) -> Result<Answer> {
    let session = find(app, &name, &id).await?;
    app.sessions.forget(&session.id);
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Makes the upload a blob of the repository.
async fn end(app: &App, session: &Arc<Session>, name: String, digest: Digest) -> Result<Answer> {
    let (app, session) = (app.clone(), session.clone());
    // Both or none, though the client may be gone by now.
    let done = tokio::spawn(async move {
        let _not_collected = app.incoming.read().await;
        app.sessions.finish(&session, &digest).await?;
        let (to, blob) = (name.clone(), digest.clone());
        app.rows(move |rows| rows.link(&to, &blob)).await?;
        Ok(created(&name, &digest))
    });
    done.await?
}

/// Where a part says that it begins; its length must be what it says, too.
fn announced_start(ask: &Ask) -> Result<Option<u64>> {
    let Some(text) = ask.header(&CONTENT_RANGE) else { return Ok(None) };
    let (start, length) = range::content_range(text).ok_or_else(|| ApiError::new(Code::RangeInvalid))?;
    let sent: Option<u64> = ask.header(&CONTENT_LENGTH).and_then(|text| text.parse().ok());
    match sent {
        Some(sent) if sent != length => Err(Code::SizeInvalid.into()),
        _ => Ok(Some(start)),
    }
}

fn created(name: &str, digest: &Digest) -> Answer {
    let mut done = answer::empty(StatusCode::CREATED);
    answer::set(&mut done, LOCATION, &format!("/v2/{name}/blobs/{digest}"));
    answer::set(&mut done, CONTENT_DIGEST, digest.as_str());
    done
}

fn in_progress(status: StatusCode, name: &str, session: &Session) -> Answer {
    let mut answer = answer::empty(status);
    describe(&mut answer, name, session);
    answer
}

/// A refused part: the client learns how to go on.
fn refused(error: &ApiError, name: &str, session: &Session) -> Answer {
    let mut answer = answer::refusal(error);
    if error.code() == Code::RangeInvalid {
        describe(&mut answer, name, session);
    }
    answer
}

fn describe(answer: &mut Answer, name: &str, session: &Session) {
    answer::set(answer, LOCATION, &format!("/v2/{name}/blobs/uploads/{}", session.id));
    answer::set(answer, UPLOAD_ID, &session.id);
    // Of nothing there is no last byte; the distribution project says 0-0, and clients count on it.
    answer::set(answer, RANGE, &format!("0-{}", session.offset().saturating_sub(1)));
}
