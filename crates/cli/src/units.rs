//! Sizes and times for people, as Docker's go-units words them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use unicode_width::UnicodeWidthChar;

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// `1.234MB`: four digits that matter, powers of 1000.
pub(crate) fn human_size(size: f64) -> String {
    human_size_with(size, 4)
}

/// The same with another number of digits.
pub(crate) fn human_size_with(size: f64, digits: usize) -> String {
    scaled(size, 1000.0, &DECIMAL, digits)
}

/// `1.234MiB`: powers of 1024.
pub(crate) fn binary_size(size: f64) -> String {
    scaled(size, 1024.0, &BINARY, 4)
}

fn scaled(mut size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", general(size, digits), units[unit])
}

/// `%.Ng`.
pub(crate) fn general(value: f64, digits: usize) -> String {
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
    };
    if value != 0.0 && (exponent < -4 || exponent >= digits as i32) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(digits as i32 - 1 - exponent).unwrap_or(0);
    trim(&format!("{value:.decimals$}"))
}

/// `About a minute`, `5 days`.
pub(crate) fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds as f64 / 3600.0 + 0.5) as i64);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long ago, for people.
pub(crate) fn ago(seconds: i64) -> String {
    format!("{} ago", human_duration(now() - seconds))
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_second()
}

/// A moment in local time as Go prints it: `2006-01-02 15:04:05 -0700 MST`.
pub(crate) fn local_time(seconds: i64) -> String {
    let Ok(moment) = Timestamp::from_second(seconds) else { return String::new() };
    moment.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// A moment in local time, as RFC 3339.
pub(crate) fn local_rfc3339(moment: Timestamp) -> String {
    let zoned: Zoned = moment.to_zoned(TimeZone::system());
    let offset = zoned.offset();
    let text = if offset.is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}{text}", zoned.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// The same with nine digits of the second.
pub(crate) fn local_rfc3339_nanos(moment: Timestamp) -> String {
    let zoned: Zoned = moment.to_zoned(TimeZone::system());
    let zone = if zoned.offset().is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    format!("{}.{:09}{zone}", zoned.strftime("%Y-%m-%dT%H:%M:%S"), zoned.subsec_nanosecond())
}

/// A moment of the API as Go prints it: `2006-01-02 15:04:05.999999999 -0700 MST`, in the zone that it is written in.
pub(crate) fn go_time(text: &str) -> String {
    let Ok(moment) = text.parse::<Timestamp>() else {
        return if text.is_empty() { "0001-01-01 00:00:00 +0000 UTC".to_owned() } else { text.to_owned() };
    };
    let zoned = if text.ends_with('Z') { moment.to_zoned(TimeZone::UTC) } else { moment.to_zoned(TimeZone::system()) };
    let nanos = zoned.subsec_nanosecond();
    let fraction = if nanos == 0 { String::new() } else { format!(".{nanos:09}").trim_end_matches('0').to_owned() };
    format!("{}{fraction} {}", zoned.strftime("%Y-%m-%d %H:%M:%S"), zoned.strftime("%z %Z"))
}

/// As much as fits into so many columns of a terminal, with `…` in the last when something was cut.
pub(crate) fn ellipsis(text: &str, length: usize) -> String {
    // Docker counts a column for what has none.
    let width = |c: char| c.width().unwrap_or(1).max(1);
    if text.chars().map(width).sum::<usize>() <= length {
        return text.to_owned();
    }
    let mut left = length.saturating_sub(1);
    let mut cut = String::new();
    for c in text.chars() {
        match left.checked_sub(width(c)) {
            Some(rest) => left = rest,
            None => break,
        }
        cut.push(c);
    }
    if length > 0 {
        cut.push('…');
    }
    cut
}

/// The 12 digits of an ID that are shown.
pub(crate) fn short_id(id: &str) -> &str {
    let id = id.split_once(':').map_or(id, |(_, digits)| digits);
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (size, text) in [(0.0, "0B"), (999.0, "999B"), (1000.0, "1kB"), (4_263_890.0, "4.264MB"), (5e9, "5GB")] {
            assert_eq!(human_size(size), text);
        }
        assert_eq!(human_size_with(4_263_890.0, 3), "4.26MB");
        assert_eq!(human_size_with(999_999.0, 3), "1e+03kB");
        assert_eq!(binary_size(25_279_078_400.0), "23.54GiB");
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 100, "3 months"),
            (86_400 * 1000, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }

    #[test]
    fn cuts() {
        assert_eq!(ellipsis("hello", 5), "hello");
        assert_eq!(ellipsis("hello!", 5), "hell…");
        assert_eq!(ellipsis("日本語のコマンド", 8), "日本語…");
        assert_eq!(ellipsis("日本語のコマンド", 7), "日本語…");
        assert_eq!(ellipsis("ünï", 3), "ünï");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
