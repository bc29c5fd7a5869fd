use std::pin::Pin;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;

use crate::{Body, Client, Hijacked, Response, Result};

/// A request that is being put together; [`Request::send`] sends it.
#[derive(Debug)]
pub struct Request<'a> {
    client: &'a Client,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Body,
    pub(crate) versioned: bool,
}

impl<'a> Request<'a> {
    pub(crate) fn new(client: &'a Client, method: Method, path: &str) -> Self {
        let path = path.to_owned();
        Self { client, method, path, query: Vec::new(), headers: Vec::new(), body: Body::Empty, versioned: true }
    }

    /// Without the version before the path (`/_ping`).
    #[must_use]
    pub fn unversioned(mut self) -> Self {
        self.versioned = false;
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: impl ToString) -> Self {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds a parameter when there is a value.
    #[must_use]
    pub fn query_some(self, key: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    /// Adds `key=1` when `on`.
    #[must_use]
    pub fn query_if(self, on: bool, key: &str) -> Self {
        if on { self.query(key, "1") } else { self }
    }

    /// Adds a header field; one whose value may not stand in a header is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Gives the request a JSON body.
    ///
    /// # Errors
    ///
    /// The value cannot be JSON.
    pub fn json(mut self, value: &impl Serialize) -> Result<Self> {
        self.body = Body::Full(Bytes::from(serde_json::to_vec(value)?));
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        Ok(self)
    }

    /// Gives the request a body of a type.
    #[must_use]
    pub fn body(mut self, content_type: &'static str, body: Body) -> Self {
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static(content_type)));
        self.body = body;
        self
    }

    /// Sends the request and waits for the answer's head.
    ///
    /// # Errors
    ///
    /// Nobody answers, the connection broke, or the answer is an error.
    pub fn send(self) -> Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>> {
        // Boxed here, or it would be compiled once more with each of its many callers.
        Box::pin(async move { self.client.send(self).await })
    }

    /// Sends the request and takes the connection over.
    ///
    /// # Errors
    ///
    /// As [`Request::send`]; also when the engine does not hand the connection over.
    pub fn hijack(self) -> Pin<Box<dyn Future<Output = Result<Hijacked>> + Send + 'a>> {
        Box::pin(async move { self.client.hijack(self).await })
    }
}
