//! Weights and rates of block devices.

use serde_json::{Value, json};

use crate::values;

/// `--blkio-weight-device`: `path:weight`.
pub(crate) fn weight(text: &str) -> Result<Value, String> {
    let (path, weight) = split(text)?;
    let number = weight.parse::<u16>().map_err(|_| format!("invalid weight for device: {text}"))?;
    if number > 0 && !(10..=1000).contains(&number) {
        return Err(format!("invalid weight for device: {text}"));
    }
    Ok(json!({"Path": path, "Weight": number}))
}

/// `--device-read-bps` and `--device-write-bps`: `path:bytes`.
pub(crate) fn bytes(text: &str) -> Result<Value, String> {
    let (path, rate) = split(text)?;
    let rate = values::parse_bytes(rate).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a \
             positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(json!({"Path": path, "Rate": rate}))
}

/// `--device-read-iops` and `--device-write-iops`: `path:number`.
pub(crate) fn operations(text: &str) -> Result<Value, String> {
    let (path, rate) = split(text)?;
    let rate = rate.parse::<u64>().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive \
             integer"
        )
    })?;
    Ok(json!({"Path": path, "Rate": rate}))
}

fn split(text: &str) -> Result<(&str, &str), String> {
    let (path, value) =
        text.split_once(':').filter(|(path, _)| !path.is_empty()).ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

pub(crate) fn check_weight(text: &str) -> Result<(), String> {
    weight(text).map(|_| ())
}

pub(crate) fn check_bytes(text: &str) -> Result<(), String> {
    bytes(text).map(|_| ())
}

pub(crate) fn check_operations(text: &str) -> Result<(), String> {
    operations(text).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(weight("/dev/sda:100"), Ok(json!({"Path": "/dev/sda", "Weight": 100})));
        assert_eq!(bytes("/dev/sda:1mb"), Ok(json!({"Path": "/dev/sda", "Rate": 1_048_576})));
        assert_eq!(operations("/dev/sda:5"), Ok(json!({"Path": "/dev/sda", "Rate": 5})));
        assert_eq!(bytes("a").unwrap_err(), "bad format: a");
        assert_eq!(weight("sda:1").unwrap_err(), "bad format for device path: sda:1");
    }
}
