//! `--log-driver` and `--log-opt`: which drivers there are, and what their options say.

use crate::error::{EngineError, Result};
use crate::log_remote;
use crate::spec::LogConfig;

/// Refuses a driver that is not there, and options that make no sense.
///
/// # Errors
/// `InvalidParameter` with Docker's words.
pub fn check(config: &LogConfig) -> Result<()> {
    match config.driver.as_str() {
        "json-file" | "local" | "none" => {}
        other if log_remote::is_remote(other) => log_remote::check(config)?,
        other => return Err(EngineError::invalid(format!("logger: no log driver named '{other}' is registered"))),
    }
    // What keeps nothing is not asked how.
    if config.driver == "none" {
        return Ok(());
    }
    limits(config).map(drop)?;
    let option = |key: &str| config.options.get(key).map(String::as_str);
    if option("max-buffer-size").is_some() && option("mode") != Some("non-blocking") {
        return Err(EngineError::invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"));
    }
    Ok(())
}

/// The driver of what is kept on this host: a copy, bounded, of what is sent to others.
pub(crate) fn kept(config: &LogConfig) -> &str {
    match config.driver.as_str() {
        other if !log_remote::is_remote(other) => other,
        _ if log_remote::is_cached(config) => "local",
        _ => "none",
    }
}

/// What is kept of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a file.
    pub(crate) size: Option<u64>,
    pub(crate) files: u32,
    /// All files but the last.
    pub(crate) compress: bool,
}

/// Size and number of log files.
pub(crate) fn limits(config: &LogConfig) -> Result<Limits> {
    let bad = |text: String| Err(EngineError::invalid(text));
    let mut size = None;
    let mut files = 1;
    let mut compress = false;
    let remote = log_remote::is_remote(&config.driver);
    for (key, value) in &config.options {
        let key = if remote { key.strip_prefix("cache-").unwrap_or_default() } else { key.as_str() };
        match key {
            "max-size" => {
                size = match parse_size(value)? {
                    0 => return bad("max-size must be a positive number".into()),
                    bytes => Some(bytes),
                };
            }
            "max-file" => {
                let number: i64 =
                    value.parse().map_err(|_| EngineError::invalid(format!("invalid max-file: '{value}'")))?;
                files = match u32::try_from(number) {
                    Ok(0) | Err(_) => return bad("max-file cannot be less than 1".into()),
                    Ok(files) => files,
                };
            }
            "mode" if matches!(value.as_str(), "blocking" | "non-blocking") => {}
            "mode" => return bad(format!("logger: logging mode not supported: {value}")),
            "compress" => match value.as_str() {
                "true" | "1" => compress = true,
                "false" | "0" => {}
                _ => return bad(format!("invalid compress: '{value}'")),
            },
            "max-buffer-size" => drop(parse_size(value).map_err(|error| {
                EngineError::invalid(format!("error parsing option max-buffer-size: {}", error.message))
            })?),
            "labels" | "labels-regex" | "env" | "env-regex" | "tag" => {}
            // What is not about the copy that is kept.
            _ if remote => {}
            other if config.driver == "local" => return bad(format!("unknown log opt '{other}' for log driver local")),
            other => return bad(format!("unknown log opt '{other}' for {} log driver", config.driver)),
        }
    }
    if compress && config.driver == "json-file" && (files == 1 || size.is_none()) {
        return bad("compress cannot be true when max-file is less than 2 or max-size is not set".into());
    }
    Ok(Limits { size, files, compress })
}

/// `10m`, `1.5g`: bytes, the units in thousands (go-units, `FromHumanSize`).
pub(crate) fn parse_size(text: &str) -> Result<u64> {
    let bad = || EngineError::invalid(format!("invalid size: '{text}'"));
    let lower = text.to_ascii_lowercase();
    let at = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, suffix) = lower.split_at(at);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let unit: f64 = match suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(suffix) {
        "" if suffix != "ib" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "p" => 1e15,
        _ => return Err(bad()),
    };
    if number.is_empty() || number.contains(|c: char| !c.is_ascii_digit() && c != '.') {
        return Err(bad());
    }
    let bytes = number.parse::<f64>().map_err(|_| bad())? * unit;
    // Beyond this whole numbers have no exact form.
    if bytes > 9e15 { Err(bad()) } else { Ok(bytes as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> LogConfig {
        LogConfig { driver: "json-file".into(), options: [(key.to_owned(), value.to_owned())].into() }
    }

    #[test]
    fn sizes_are_read_as_docker_does() {
        for (text, bytes) in
            [("10m", 10_000_000), ("1GB", 1_000_000_000), ("17", 17), ("1.5k", 1_500), ("2 kib", 2_000), ("7b", 7)]
        {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["ten", "-1", "-5m", "", "m", "99999999999999t", "1mm", "1 2", "ib", "+1", "1e3"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (key, value) in [
            ("max-size", "0"),
            ("max-size", "-1"),
            ("max-file", "0"),
            ("max-file", "-2"),
            ("max-file", "many"),
            ("mode", "fast"),
            ("compress", "true"),
            ("nosuch", "1"),
        ] {
            assert!(check(&with(key, value)).is_err(), "{key}={value}");
            let none = LogConfig { driver: "none".into(), ..with(key, value) };
            check(&none).unwrap();
        }
        let mut buffered = with("max-buffer-size", "1m");
        assert!(check(&buffered).unwrap_err().message.contains("only supported with 'mode=non-blocking'"));
        buffered.options.insert("mode".into(), "non-blocking".into());
        check(&buffered).unwrap();
        assert_eq!(limits(&with("max-file", "3")).unwrap(), Limits { size: None, files: 3, compress: false });
        let driver = LogConfig { driver: "bogus".into(), ..LogConfig::default() };
        assert_eq!(check(&driver).unwrap_err().message, "logger: no log driver named 'bogus' is registered");
    }
}
