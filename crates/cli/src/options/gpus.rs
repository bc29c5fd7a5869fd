//! `--gpus`.

use serde_json::{Value, json};

use super::env;
use crate::parse::commas;

/// Refuses what is no request for GPUs.
pub(crate) fn check(text: &str) -> Result<(), String> {
    parse(text).map(|_| ())
}

/// Reads `all`, a number, or `device=…,capabilities=…` into the API's `DeviceRequest`.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let (mut driver, mut count, mut devices, mut capabilities) = (String::new(), None, None, None);
    let mut options = json!({});
    let mut seen: Vec<String> = Vec::new();
    if text.is_empty() {
        // What Go's reader of such lists finds in it.
        return Err("EOF".to_owned());
    }
    for field in commas(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value)),
            None => (field.clone(), None),
        };
        if seen.contains(&key) {
            return Err(format!("gpu request key '{key}' can be specified only once"));
        }
        seen.push(key.clone());
        match (key.as_str(), value) {
            (number, None) => {
                seen.push("count".to_owned());
                count = Some(parse_count(number)?);
            }
            ("driver", Some(value)) => value.clone_into(&mut driver),
            ("count", Some(value)) => count = Some(parse_count(value)?),
            ("device", Some(value)) => devices = Some(value.split(',').map(str::to_owned).collect::<Vec<_>>()),
            ("capabilities", Some(value)) => {
                let list: Vec<&str> = value.split(',').chain(["gpu"]).collect();
                capabilities = Some(json!([list]));
            }
            ("options", Some(value)) => options = Value::Object(env::map(&commas(value))),
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    let count = count.unwrap_or(i64::from(devices.is_none()));
    Ok(json!({
        "Driver": driver,
        "Count": count,
        "DeviceIDs": devices,
        "Capabilities": capabilities.unwrap_or_else(|| json!([["gpu"]])),
        "Options": options,
    }))
}

fn parse_count(text: &str) -> Result<i64, String> {
    if text == "all" {
        return Ok(-1);
    }
    text.parse()
        .map_err(|_| format!(r#"invalid count ({text}): value must be either "all" or an integer: invalid syntax"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(parse("all").unwrap()["Count"], -1);
        assert_eq!(parse("2").unwrap()["Count"], 2);
        let device = parse("\"device=0,1\",capabilities=compute").unwrap();
        assert_eq!(device["DeviceIDs"], json!(["0", "1"]));
        assert_eq!(device["Capabilities"], json!([["compute", "gpu"]]));
        assert!(parse("x").is_err());
        assert_eq!(parse("").unwrap_err(), "EOF");
    }
}
