//! `--bandwidth`.

use serde_json::{Map, Value, json};

use crate::parse::commas;

/// The options of an endpoint that say the same.
const OPTION: &str = "dev.wharf.bandwidth.";

pub(crate) const HELP: &str =
    "What the container may send and receive in a second (e.g., up=10mbit,down=100mbit, or 10mbit for both)";

/// Refuses what is no bandwidth. Whether a value is one the engine says.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

/// Reads `up=10mbit,down=100mbit`, or one value for both.
fn parse(text: &str) -> Result<Vec<(&'static str, String)>, String> {
    if !text.contains(['=', ',']) && !text.trim().is_empty() {
        return Ok(vec![("up", text.trim().to_owned()), ("down", text.trim().to_owned())]);
    }
    let mut all: Vec<(&'static str, String)> = Vec::new();
    for field in commas(text) {
        let (key, value) = match field.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("up", value)) if !value.is_empty() => ("up", value),
            Some(("down", value)) if !value.is_empty() => ("down", value),
            _ => return Err(format!("invalid bandwidth `{field}`: write up=RATE,down=RATE or one RATE for both")),
        };
        if all.iter().any(|(other, _)| *other == key) {
            return Err(format!("invalid bandwidth `{text}`: `{key}` stands there twice"));
        }
        all.push((key, value.to_owned()));
    }
    Ok(all)
}

/// As options of an endpoint.
pub(crate) fn options(text: &str) -> Result<Vec<(String, String)>, String> {
    Ok(parse(text)?.into_iter().map(|(key, value)| (format!("{OPTION}{key}"), value)).collect())
}

/// As the body of an update has it.
pub(crate) fn update(text: &str) -> Result<Value, String> {
    let fields = parse(text)?.into_iter().map(|(key, value)| (if key == "up" { "Up" } else { "Down" }, value));
    Ok(Value::Object(fields.map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_for_both() {
        assert_eq!(update("1mbit").unwrap(), json!({"Up": "1mbit", "Down": "1mbit"}));
        assert_eq!(update("down=2gbit").unwrap(), json!({"Down": "2gbit"}));
        let both = [("dev.wharf.bandwidth.up", "1mbit"), ("dev.wharf.bandwidth.down", "unlimited")];
        assert_eq!(options("up=1mbit, down=unlimited").unwrap(), both.map(|(k, v)| (k.to_owned(), v.to_owned())));
        for bad in ["", "up", "up=", "in=1mbit", "up=1mbit,up=2mbit", "1mbit,2mbit"] {
            assert!(bad == "up" || parse(bad).unwrap_err().starts_with("invalid bandwidth"), "{bad}");
        }
    }
}
