//! `--filter key=value`, as the API takes it.

use serde_json::{Map, Value, json};

/// Refuses what is no filter.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') {
        return Ok(());
    }
    Err("bad format of filter (expected name=value)".to_owned())
}

/// A set of filters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters(Map<String, Value>);

impl Filters {
    /// The filters that were given on the command line.
    pub(crate) fn of(given: &[String]) -> Self {
        let mut filters = Self::default();
        for text in given {
            if let Some((key, value)) = text.split_once('=') {
                filters.add(key.trim().to_lowercase().as_str(), value.trim());
            }
        }
        filters
    }

    /// Adds one.
    pub(crate) fn add(&mut self, key: &str, value: &str) {
        let values = self.0.entry(key).or_insert_with(|| json!({}));
        if let Some(values) = values.as_object_mut() {
            values.insert(value.to_owned(), Value::Bool(true));
        }
    }

    /// Whether there is one of the kind.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values of one kind.
    pub(crate) fn get(&self, key: &str) -> Vec<&str> {
        let values = self.0.get(key).and_then(Value::as_object);
        values.map(|values| values.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// The `filters` parameter; none when there are no filters.
    pub(crate) fn parameter(&self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let mut sorted: Vec<_> = self.0.clone().into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        Some(Value::Object(sorted.into_iter().collect()).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let filters = Filters::of(&["Label=a=b".to_owned(), "label=c".to_owned(), "name=x".to_owned()]);
        assert_eq!(filters.parameter().as_deref(), Some(r#"{"label":{"a=b":true,"c":true},"name":{"x":true}}"#));
        assert_eq!(Filters::default().parameter(), None);
        assert!(check("nonsense").is_err());
    }
}
