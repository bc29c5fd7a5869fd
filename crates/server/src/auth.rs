//! `X-Registry-Auth` and, of builds, `X-Registry-Config`: credentials in base64url JSON, padded or not.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, GeneralPurpose as Alphabet};
use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use wharf_distribution::Credentials;

use crate::http::typed;
use crate::lenient::lenient;

/// What clients send, in a header or as the body of `POST /auth`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuthConfig {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
    pub(crate) serveraddress: String,
}

impl AuthConfig {
    /// `None` when there is nothing in it: the request is anonymous then.
    pub(crate) fn credentials(self) -> Option<Credentials> {
        let (mut username, mut password) = (self.username, self.password);
        if username.is_empty()
            && let Some((name, secret)) =
                decode(&self.auth).and_then(|b| String::from_utf8(b).ok()).as_deref().and_then(|t| t.split_once(':'))
        {
            (username, password) = (name.to_owned(), secret.to_owned());
        }
        let token = |text: String| Some(text).filter(|text| !text.is_empty());
        let mut credentials = Credentials::new(username, password);
        credentials.identity_token = token(self.identitytoken);
        credentials.registry_token = token(self.registrytoken);
        Some(credentials).filter(|credentials| !credentials.is_empty())
    }
}

/// The credentials of a request.
pub(crate) fn of(headers: &HeaderMap) -> Option<Credentials> {
    let header = headers.get("x-registry-auth")?;
    // Docker takes what it cannot read for nothing, and there are clients that write something. As Go reads it, `null` is
    // nothing, and what bollard sends for all that it does not have.
    let value = serde_json::from_slice(&decode(header.to_str().ok()?)?).ok()?;
    let config: Option<AuthConfig> = typed(lenient(value), "registry.AuthConfig").ok()?;
    config.and_then(AuthConfig::credentials)
}

/// The credentials of a build, by registry. What cannot be read is none, as with Docker.
pub(crate) fn of_build(headers: &HeaderMap) -> BTreeMap<String, Credentials> {
    let text = headers.get("x-registry-config").and_then(|header| header.to_str().ok()).unwrap_or_default();
    let json = decode(text).and_then(|bytes| serde_json::from_slice::<BTreeMap<String, Value>>(&bytes).ok());
    let read = |(name, value): (String, Value)| {
        let config: Option<AuthConfig> = typed(lenient(value), "registry.AuthConfig").ok()?;
        Some((name, config?.credentials()?))
    };
    json.unwrap_or_default().into_iter().filter_map(read).collect()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let url: Alphabet = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
    let standard: Alphabet = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    url.decode(text).or_else(|_| standard.decode(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_has_those_of_many_registries() {
        let json = r#"{"a.example": {"username": "ann", "password": "p", "auth": null}, "b.example": {}, "c": 7}"#;
        let mut headers = HeaderMap::new();
        assert!(of_build(&headers).is_empty());
        headers.insert("x-registry-config", base64::engine::general_purpose::URL_SAFE.encode(json).parse().unwrap());
        let all = of_build(&headers);
        assert_eq!((all.len(), all["a.example"].username.as_str()), (1, "ann"));
        headers.insert("x-registry-config", "%%".parse().unwrap());
        assert!(of_build(&headers).is_empty());
    }

    #[test]
    fn credentials_are_read_padded_or_not() {
        let json = br#"{"username":"ann","password":"p?>","serveraddress":"r"}"#;
        for text in [
            base64::engine::general_purpose::URL_SAFE.encode(json),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json),
            base64::engine::general_purpose::STANDARD.encode(json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-registry-auth", text.parse().unwrap());
            let credentials = of(&headers).unwrap();
            assert_eq!((credentials.username.as_str(), credentials.password.as_str()), ("ann", "p?>"));
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", "e30=".parse().unwrap());
        assert!(of(&headers).is_none());
        let nulls = br#"{"username":"ann","password":"p","email":null,"auth":null,"Identitytoken":null}"#;
        let nulls = base64::engine::general_purpose::STANDARD.encode(nulls);
        headers.insert("x-registry-auth", nulls.parse().unwrap());
        assert_eq!(of(&headers).unwrap().username, "ann");
        for bad in ["%%%", "WzFd", "eyJ1c2VybmFtZSI6MX0="] {
            headers.insert("x-registry-auth", bad.parse().unwrap());
            assert!(of(&headers).is_none(), "{bad}");
        }
        headers.insert("x-registry-auth", "bnVsbA==".parse().unwrap());
        assert!(of(&headers).is_none());
    }
}
