//! Values of log options.

use wharf_logs::remote::{Compression, SyslogFormat};

use crate::error::{EngineError, Result};
use crate::log_options::parse_size;
use crate::spec::LogConfig;

/// Bytes that may wait where nobody has said how many.
const BUFFER: u64 = 1 << 20;
/// RFC 5424, section 6.2.1, in the order of their numbers.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "",
    "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
pub(super) fn syslog_format(config: &LogConfig) -> Result<SyslogFormat> {
    Ok(match option(config, "syslog-format") {
        None => SyslogFormat::Unix,
        Some("rfc3164") => SyslogFormat::Rfc3164,
        Some("rfc5424") => SyslogFormat::Rfc5424,
        Some("rfc5424micro") => SyslogFormat::Rfc5424Micro,
        Some(_) => return Err(EngineError::invalid("Invalid syslog format")),
    })
}

pub(super) fn facility(name: Option<&str>) -> Result<u8> {
    let Some(name) = name else { return Ok(3 << 3) };
    let named = FACILITIES.iter().position(|known| *known == name);
    let number = named.or_else(|| name.parse().ok()).filter(|number| *number < FACILITIES.len());
    number
        .and_then(|number| u8::try_from(number << 3).ok())
        .ok_or_else(|| EngineError::invalid("invalid syslog facility"))
}

pub(super) fn compression(config: &LogConfig, stream: bool) -> Result<(Compression, Option<u32>)> {
    let unknown = |key: &str, value: &str| {
        EngineError::invalid(format!("unknown value {value:?} for log opt {key:?} for gelf log driver"))
    };
    let (kind, level) = (option(config, "gelf-compression-type"), option(config, "gelf-compression-level"));
    if stream && (kind.is_some() || level.is_some()) {
        return Err(EngineError::invalid("compression is only supported on UDP"));
    }
    for key in ["gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"] {
        match option(config, key) {
            Some(_) if !stream => return Err(EngineError::invalid(format!("{key} is only valid for TCP"))),
            Some(value) if value.parse::<u32>().is_err() => return Err(unknown(key, value)),
            _ => {}
        }
    }
    let kind = match kind {
        None | Some("gzip") => Compression::Gzip,
        Some("zlib") => Compression::Zlib,
        Some("none") => Compression::None,
        Some(other) => return Err(unknown("gelf-compression-type", other)),
    };
    let level = match level.map(|text| (text, text.parse::<i32>())) {
        None | Some((_, Ok(-1))) => None,
        Some((_, Ok(level @ 0..=9))) => Some(level.unsigned_abs()),
        Some((text, _)) => return Err(unknown("gelf-compression-level", text)),
    };
    Ok((kind, level))
}

/// Bytes that may wait.
pub(super) fn buffer(config: &LogConfig) -> Result<u64> {
    let key = if config.driver == "fluentd" { "fluentd-buffer-limit" } else { "max-buffer-size" };
    let given = option(config, "max-buffer-size").or_else(|| option(config, key));
    given.map_or(Ok(BUFFER), parse_size).map(|bytes| bytes.max(1))
}

/// Milliseconds between two attempts to connect.
pub(super) fn retry(config: &LogConfig) -> Result<u64> {
    for key in ["fluentd-async-reconnect-interval", "fluentd-write-timeout", "fluentd-read-timeout"] {
        duration(config, key)?;
    }
    let seconds = option(config, "gelf-tcp-reconnect-delay").and_then(|text| text.parse::<u64>().ok());
    let wait = duration(config, "fluentd-retry-wait")?;
    Ok(wait.or(seconds.map(|seconds| seconds.saturating_mul(1000))).unwrap_or(1000).max(1))
}

/// Attempts to connect after which what waits is lost.
pub(super) fn attempts(config: &LogConfig) -> Result<Option<u32>> {
    let Some((key, text)) =
        ["fluentd-max-retries", "gelf-tcp-max-reconnect"].into_iter().find_map(|key| Some((key, option(config, key)?)))
    else {
        return Ok(None);
    };
    // More than anybody lives to see is for ever.
    let number: u64 = text.parse().map_err(|_| EngineError::invalid(format!("invalid {key}: '{text}'")))?;
    Ok(u32::try_from(number).ok().filter(|number| *number != u32::MAX))
}

pub(super) fn duration(config: &LogConfig, key: &str) -> Result<Option<u64>> {
    let Some(text) = option(config, key) else { return Ok(None) };
    let bad = |_| EngineError::invalid(format!("invalid {key}: '{text}' is no duration, as 500ms or 1s"));
    let parsed: jiff::SignedDuration = text.parse().map_err(bad)?;
    Ok(Some(u64::try_from(parsed.as_millis()).unwrap_or(0)))
}

pub(super) fn flag(config: &LogConfig, key: &str) -> Result<bool> {
    match option(config, key) {
        None => Ok(false),
        // Go's `strconv.ParseBool`.
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(EngineError::invalid(format!("invalid {key}: '{other}' is neither true nor false"))),
    }
}

pub(super) fn option<'a>(config: &'a LogConfig, key: &str) -> Option<&'a str> {
    config.options.get(key).map(String::as_str).filter(|text| !text.is_empty())
}
