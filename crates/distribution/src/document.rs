//! Files of the Web, which a Dockerfile's `ADD` names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, LAST_MODIFIED};
use hyper::{Method, StatusCode, Uri};

use crate::address::{Address, Origin};
use crate::answer::Reply;
use crate::client::Client;
use crate::credentials::Credentials;
use crate::endpoint::{Call, Endpoint, Target, lost};
use crate::error::{DistributionError, Result};
use crate::transport::without_query;

/// No byte for so long: the connection is lost, whatever TCP believes.
const IDLE: Duration = Duration::from_secs(60);

/// A file on its way here.
pub struct Document {
    reply: Reply,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("uri", &without_query(&self.reply.uri)).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks for the file at `url` (http or https), without any credentials but those that are in it.
    ///
    /// # Errors
    /// `Address` for what is no such address; `Document` when the server does not have it; all of a request.
    pub async fn document(&self, url: &str) -> Result<Document> {
        self.document_as(url, None).await
    }

    /// As [`Self::document`]; the credentials are shown to the server itself, if it asks for them. Those of the address go first.
    ///
    /// # Errors
    /// As [`Self::document`].
    pub async fn document_as(&self, url: &str, credentials: Option<Credentials>) -> Result<Document> {
        let (url, own) = without_user(url);
        let (url, shows) = (url.as_str(), own.is_some());
        let credentials = own.or(credentials);
        let wrong = || DistributionError::Address(url.to_owned());
        // Only the server's business is sent: a fragment is the reader's (RFC 9110, section 4.2.5).
        let uri: Uri = url.split('#').next().unwrap_or_default().parse().map_err(|_| wrong())?;
        let origin = Origin::of(&uri).ok_or_else(wrong)?;
        let address = Address::parse(uri.authority().ok_or_else(wrong)?.as_str())?;
        let endpoint = Endpoint::new(self.shared(), address, Some(origin.tls), credentials);
        let endpoint = Arc::new(if shows { endpoint.showing_credentials()? } else { endpoint });
        let mut call = Call::new(Method::GET, String::new(), Vec::new());
        call.target = Target::Uri(uri);
        // The bytes themselves are wanted: they are what a cache compares.
        let call = call.with_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let reply = endpoint.call(&call).await.map_err(|error| match error {
            // It is no registry's address that was asked for.
            DistributionError::Unreachable { method, source, .. } => {
                let url = url.split(['?', '#']).next().unwrap_or_default().to_owned();
                DistributionError::Unreachable { method, url, source }
            }
            other => other,
        })?;
        if reply.status == StatusCode::OK {
            return Ok(Document { reply });
        }
        Err(DistributionError::Document { url: without_query(&reply.uri), status: reply.status.to_string() })
    }
}

/// An address without the user in it, and who that is (RFC 3986, section 3.2.1).
fn without_user(url: &str) -> (String, Option<Credentials>) {
    let none = || (url.to_owned(), None);
    let Some((scheme, rest)) = url.split_once("://") else { return none() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let Some((user, host)) = authority.rsplit_once('@') else { return none() };
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    (format!("{scheme}://{host}{path}"), Some(Credentials::new(plain(name), plain(password))))
}

impl Document {
    /// Whether what comes is compressed with gzip, and the file is not: some servers have it in no other form, whatever they
    /// are asked for (RFC 9110, section 8.4).
    pub fn is_gzip_encoded(&self) -> bool {
        // `x-gzip` is what servers of archives call the file itself; Go's client leaves that alone, too.
        let encoding = self.reply.header(CONTENT_ENCODING.as_str()).unwrap_or_default().trim();
        encoding.eq_ignore_ascii_case("gzip")
    }

    /// When it was changed last, in seconds since the epoch, if the server says so.
    pub fn modified(&self) -> Option<i64> {
        parse_date(self.reply.header(LAST_MODIFIED.as_str())?)
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// When the connection is lost, or ends before all that was promised has come.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let failure = match tokio::time::timeout(IDLE, self.reply.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    // Trailers.
                    Err(_) => continue,
                },
                Ok(Some(Err(error))) => error.to_string(),
                Err(_) => format!("nothing came for {} s", IDLE.as_secs()),
            };
            return Err(lost(&Method::GET, &self.reply.uri, failure));
        }
    }
}

/// `Wed, 21 Oct 2015 07:28:00 GMT` (RFC 9110, section 5.6.7).
fn parse_date(text: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_addresses_are_no_part_of_the_host() {
        let of = |url: &str| {
            let (url, user) = without_user(url);
            (url, user.map(|user| (user.username, user.password)))
        };
        assert_eq!(of("http://h/a@b"), ("http://h/a@b".into(), None));
        assert_eq!(of("https://u:p%40%3a@h:8/x"), ("https://h:8/x".into(), Some(("u".into(), "p@:".into()))));
        assert_eq!(of("https://token@h?q"), ("https://h?q".into(), Some(("token".into(), String::new()))));
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(parse_date("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(parse_date("yesterday"), None);
    }
}
