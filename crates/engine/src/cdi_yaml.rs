//! YAML as `serde_json` has values. Aliases count with all that they stand for, so that a few lines are no end of memory.

use std::collections::HashMap;

use serde_json::{Map, Value};
use yaml_rust2::parser::{Event, MarkedEventReceiver, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};
use yaml_rust2::yaml::Yaml;

/// More values has no file that somebody has written.
const MAX_VALUES: usize = 100_000;

/// Reads one document.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut builder = Builder::default();
    Parser::new_from_str(text).load(&mut builder, false).map_err(|error| error.to_string())?;
    match builder.wrong {
        Some(why) => Err(why),
        None => Ok(builder.root.unwrap_or_default()),
    }
}

/// A list or a map that is not at its end.
enum Open {
    List(Vec<Value>),
    /// With the key whose value comes.
    Map(Map<String, Value>, Option<String>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(Open, usize)>,
    anchors: HashMap<usize, Value>,
    values: usize,
    root: Option<Value>,
    wrong: Option<String>,
}

impl Builder {
    fn add(&mut self, value: Value, anchor: usize) {
        self.values += count(&value);
        if self.values > MAX_VALUES {
            self.wrong = Some(format!("it has more than {MAX_VALUES} values"));
            return;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some((Open::List(all), _)) => all.push(value),
            Some((Open::Map(all, key), _)) => match key.take() {
                Some(key) => drop(all.insert(key, value)),
                None => {
                    *key = Some(match value {
                        Value::String(text) => text,
                        other => other.to_string(),
                    });
                }
            },
        }
    }
}

/// A value that is closed has been counted by its parts.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(all) => 1 + all.iter().map(count).sum::<usize>(),
        Value::Object(all) => 1 + all.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

/// What a plain word is; with a zero in front a number is octal, as for the library that others read these files with.
fn plain(text: &str) -> Value {
    if text.len() > 1 && text.starts_with('0') && text.chars().all(|c| c.is_digit(8)) {
        return i64::from_str_radix(text, 8).map_or_else(|_| text.into(), Value::from);
    }
    match Yaml::from_str(text) {
        Yaml::Integer(number) => number.into(),
        Yaml::Boolean(value) => value.into(),
        Yaml::Null => Value::Null,
        Yaml::Real(text) => text.parse::<f64>().map_or_else(|_| text.clone().into(), Value::from),
        _ => text.into(),
    }
}

impl MarkedEventReceiver for Builder {
    fn on_event(&mut self, event: Event, mark: Marker) {
        if self.wrong.is_some() {
            return;
        }
        match event {
            Event::Scalar(text, TScalarStyle::Plain, anchor, None) => self.add(plain(&text), anchor),
            Event::Scalar(text, _, anchor, _) => self.add(Value::String(text), anchor),
            Event::SequenceStart(anchor, _) => self.open.push((Open::List(Vec::new()), anchor)),
            Event::MappingStart(anchor, _) => self.open.push((Open::Map(Map::new(), None), anchor)),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((open, anchor)) = self.open.pop() {
                    let value = match open {
                        Open::List(all) => Value::Array(all),
                        Open::Map(all, _) => Value::Object(all),
                    };
                    self.values = self.values.saturating_sub(count(&value) - 1);
                    self.add(value, anchor);
                }
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(value) => self.add(value, 0),
                None => self.wrong = Some(format!("line {}: an alias of what is not there", mark.line())),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_as_others_read_it() {
        let text = "---\ncdiVersion: 0.6.0\nlist:\n  - &x {mode: 0660, on: true, none: ~}\n  - *x\ntext: \"07\"\n";
        let one = json!({ "mode": 0o660, "on": true, "none": null });
        assert_eq!(parse(text).unwrap(), json!({ "cdiVersion": "0.6.0", "list": [one, one], "text": "07" }));
        assert_eq!(parse("").unwrap(), Value::Null);
        assert!(parse("a: [").is_err() && parse("a: *b").is_err());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for at in 1..9 {
            let list = vec![format!("*a{}", at - 1); 10].join(", ");
            bomb.push_str(&format!("a{at}: &a{at} [{list}]\n"));
        }
        assert!(parse(&bomb).unwrap_err().contains("more than"));
    }
}
