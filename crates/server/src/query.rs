//! Parameters of a request's address.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::go_json::syntax_error;
use crate::http::ApiError;

/// Parameters by name; the first of a name counts, as with Go's `FormValue`; all of them are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    all: BTreeMap<String, Vec<String>>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(decode(key)).or_default().push(decode(value));
        }
        Self { all }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.all.get(key).and_then(|values| values.first()).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default().to_owned()
    }

    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.all.get(key).cloned().unwrap_or_default()
    }

    /// Docker's rule: everything but these is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        match self.all.get(key).and_then(|values| values.first()) {
            None => default,
            Some(text) => !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none"),
        }
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.get(key)
            .map(|text| {
                text.parse().map_err(|_| ApiError::bad(format!("invalid value \"{text}\" for parameter {key}")))
            })
            .transpose()
    }

    /// A parameter that is JSON.
    pub(crate) fn json<T: DeserializeOwned + Default>(&self, key: &str) -> Result<T, ApiError> {
        self.json_called(key, &format!("invalid parameter {key}"))
    }

    /// The same; errors begin with `what`, and go on in the words of Go's decoder where it would have some.
    pub(crate) fn json_called<T: DeserializeOwned + Default>(&self, key: &str, what: &str) -> Result<T, ApiError> {
        let Some(text) = self.get(key).filter(|text| *text != "null") else { return Ok(T::default()) };
        serde_json::from_str(text).map_err(|error| {
            let words = match error.classify() {
                serde_json::error::Category::Data => error.to_string(),
                _ => syntax_error(text.as_bytes()),
            };
            ApiError::bad(format!("{what}: {words}"))
        })
    }
}

/// Percent-encoding and `+` (application/x-www-form-urlencoded).
fn decode(text: &str) -> String {
    decode_bytes(text, true)
}

/// Percent-encoding in a path, where `+` is itself.
pub(crate) fn decode_path(text: &str) -> String {
    decode_bytes(text, false)
}

fn decode_bytes(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let pair = bytes.get(at + 1).copied().and_then(hex).zip(bytes.get(at + 2).copied().and_then(hex));
        match (bytes[at], pair) {
            (b'%', Some((high, low))) => {
                out.push(high << 4 | low);
                at += 3;
                continue;
            }
            (b'+', _) if plus => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("a=1&a=2&b=x%20y+z&t=1&t=2&flag=0&on=1&empty=");
        assert_eq!((query.get("a"), query.get("b"), query.get("empty")), (Some("1"), Some("x y z"), None));
        assert_eq!(query.all("t"), ["1", "2"]);
        assert!(query.flag("on") && !query.flag("flag") && !query.flag("none"));
        assert_eq!(decode_path("a%2Fb+c%"), "a/b+c%");
    }
}
