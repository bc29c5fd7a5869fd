//! `filters`: JSON in two forms, `{"key": ["value"]}` and the older `{"key": {"value": true}}`.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::http::ApiError;
use crate::moment::moment;
use crate::query::Query;

/// Values by key. Values of one key are alternatives, keys must all fit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    all: BTreeMap<String, Vec<String>>,
}

/// Docker's way with names and IDs: a value is the text itself, or a regular expression that is found in it. What is
/// no expression fits nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Patterns {
    all: Vec<(String, Option<Regex>)>,
}

/// Bytes of a compiled expression: those of requests are small.
const MAX_PATTERN: usize = 256 << 10;

impl Patterns {
    /// Whether one of them fits, or there is none.
    pub(crate) fn fit(&self, text: &str) -> bool {
        self.all.is_empty()
            || self.all.iter().any(|(plain, regex)| plain == text || regex.as_ref().is_some_and(|r| r.is_match(text)))
    }
}

impl Filters {
    /// Reads them, and refuses a key that is not in `known`.
    pub(crate) fn of(query: &Query, known: &[&str]) -> Result<Self, ApiError> {
        let filters = Self::all_of(query)?;
        match filters.all.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(ApiError::bad(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }

    /// Reads them, whatever their keys are.
    pub(crate) fn all_of(query: &Query) -> Result<Self, ApiError> {
        let value: Value = query.json("filters")?;
        let mut all = BTreeMap::new();
        let bad = || ApiError::bad("invalid filters: give {\"key\": [\"value\"]}");
        let object = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(object) => object,
            _ => return Err(bad()),
        };
        for (key, values) in object {
            let values: Vec<String> = match values {
                Value::Array(list) => {
                    list.into_iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(bad)).collect::<Result<_, _>>()?
                }
                Value::Object(set) if set.values().all(Value::is_boolean) => {
                    set.into_iter().filter(|(_, on)| on.as_bool() == Some(true)).map(|(value, _)| value).collect()
                }
                Value::Null => Vec::new(),
                _ => return Err(bad()),
            };
            all.insert(key, values);
        }
        Ok(Self { all })
    }

    /// As if the request had this value, too.
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        self.all.entry(key.to_owned()).or_default().push(value.to_owned());
    }

    pub(crate) fn get(&self, key: &str) -> Option<&[String]> {
        self.all.get(key).map(Vec::as_slice).filter(|values| !values.is_empty())
    }

    /// Whether one of the key's values fits, or none was asked for.
    pub(crate) fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.get(key).is_none_or(|values| values.iter().any(|value| fits(value)))
    }

    /// The key's values as patterns.
    pub(crate) fn patterns(&self, key: &str) -> Patterns {
        let compile = |text: &String| (text.clone(), RegexBuilder::new(text).size_limit(MAX_PATTERN).build().ok());
        Patterns { all: self.get(key).into_iter().flatten().map(compile).collect() }
    }

    /// Whether all of the key's values fit.
    pub(crate) fn every(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.get(key).is_none_or(|values| values.iter().all(|value| fits(value)))
    }

    /// `label` and `label!`: `key` or `key=value`, all of them.
    pub(crate) fn labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.every("label", |text| has(labels, text)) && self.every("label!", |text| !has(labels, text))
    }

    /// `annotation`, as [`labels`](Self::labels).
    pub(crate) fn annotations(&self, annotations: Option<&BTreeMap<String, String>>) -> bool {
        self.every("annotation", |text| has(annotations, text))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        let Some(values) = self.get(key) else { return Ok(None) };
        let any = |words: &[&str]| values.iter().any(|value| words.contains(&value.as_str()));
        // What is neither counts for nothing beside one that is: the client adds its own to the user's.
        match (any(&["1", "true", "True", "TRUE", "t"]), any(&["0", "false", "False", "FALSE", "f"])) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            // All of its values, as Go writes a list.
            _ => Err(ApiError::bad(format!("invalid filter '{key}=[{}]'", values.join(" ")))),
        }
    }

    /// `until`: a moment, or how long ago.
    pub(crate) fn until(&self) -> Result<Option<jiff::Timestamp>, ApiError> {
        match self.get("until") {
            None | Some([]) => Ok(None),
            Some([text]) => moment(text).map(Some),
            Some(_) => Err(ApiError::bad("more than one until filter specified")),
        }
    }

    /// The earliest of several `until`, as lists of images take them.
    pub(crate) fn earliest_until(&self) -> Result<Option<jiff::Timestamp>, ApiError> {
        let moments: Vec<_> =
            self.get("until").into_iter().flatten().map(|text| moment(text)).collect::<Result<_, _>>()?;
        Ok(moments.into_iter().min())
    }
}

fn has(pairs: Option<&BTreeMap<String, String>>, text: &str) -> bool {
    match text.split_once('=') {
        Some((key, value)) => pairs.and_then(|all| all.get(key)).is_some_and(|own| own == value),
        None => pairs.is_some_and(|all| all.contains_key(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(text: &str) -> Result<Filters, ApiError> {
        let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
        Filters::of(&Query::parse(&format!("filters={encoded}")), &["label", "name", "label!", "annotation"])
    }

    #[test]
    fn both_forms_are_read() {
        for text in [r#"{"name":["a","b"]}"#, r#"{"name":{"a":true,"b":true,"c":false}}"#] {
            let filters = filters(text).unwrap();
            assert!(filters.any("name", |n| n == "b") && !filters.any("name", |n| n == "c"), "{text}");
        }
        assert!(filters(r#"{"nonsense":["x"]}"#).is_err() && filters("[]").is_err());
    }

    #[test]
    fn patterns_are_texts_or_expressions() {
        let names = |text: &str| filters(&format!(r#"{{"name":["{text}"]}}"#)).unwrap().patterns("name");
        assert!(names("web").fit("web_1") && names("^web$").fit("web") && names("b|c").fit("abc"));
        assert!(!names("^web$").fit("web_1") && names("a[").fit("a[") && !names("a[").fit("a"));
        assert!(Filters::default().patterns("name").fit("x"));
    }

    #[test]
    fn labels_must_all_fit() {
        let own: BTreeMap<String, String> = [("a".to_owned(), "1".to_owned())].into();
        assert!(filters(r#"{"label":["a","a=1"]}"#).unwrap().labels(Some(&own)));
        assert!(!filters(r#"{"label":["a","b"]}"#).unwrap().labels(Some(&own)));
        assert!(!filters(r#"{"label!":["a"]}"#).unwrap().labels(Some(&own)));
        assert!(filters(r#"{"annotation":["a","a=1"]}"#).unwrap().annotations(Some(&own)));
        assert!(!filters(r#"{"annotation":["a=2"]}"#).unwrap().annotations(Some(&own)));
        assert!(!filters(r#"{"annotation":["a"]}"#).unwrap().annotations(None));
    }
}
