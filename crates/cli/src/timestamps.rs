//! Moments as users write them: `42m` ago, a date, RFC 3339, seconds since 1970.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::{units, values};

/// The moment as the API takes it: seconds since 1970, with nanoseconds where they are known.
///
/// # Errors
///
/// The text is no moment.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    if text != "0"
        && let Ok(ago) = values::parse_duration(text)
    {
        return Ok((units::now() - ago.div_euclid(1_000_000_000)).to_string());
    }
    if let Some(moment) = rfc3339(text) {
        return Ok(format!("{}.{:09}", moment.as_second(), moment.subsec_nanosecond()));
    }
    let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if number(seconds) && number(fraction) {
        return Ok(text.to_owned());
    }
    Err(format!("failed to parse value as time or duration: {text:?}"))
}

/// RFC 3339, also cut short (`2013-01-02`, `2013-01-02T13:23`); local time when no zone is given.
fn rfc3339(text: &str) -> Option<Timestamp> {
    if text.matches('-').count() < 2 {
        return None;
    }
    let (date, time) = text.split_once('T').unwrap_or((text, ""));
    let (date, time, zone) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => (date, &time[..at], Some(&time[at..])),
        // A date can have a zone of its own: `2013-01-02Z`.
        None => match date.get(10..).filter(|zone| !zone.is_empty()) {
            Some(zone) => (&date[..10], time, Some(zone)),
            None => (date, time, None),
        },
    };
    let full = match time.matches(':').count() {
        _ if time.is_empty() => "00:00:00".to_owned(),
        0 => format!("{time}:00:00"),
        1 => format!("{time}:00"),
        _ => time.to_owned(),
    };
    match zone {
        Some(zone) => format!("{date}T{full}{zone}").parse().ok(),
        None => {
            let civil: DateTime = format!("{date}T{full}").parse().ok()?;
            Some(civil.to_zoned(TimeZone::system()).ok()?.timestamp())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (text, parsed) in [
            ("2013-01-02T13:23:37Z", "1357133017.000000000"),
            ("2013-01-02T13:23:37.5Z", "1357133017.500000000"),
            ("2013-01-02T13:23:37+01:00", "1357129417.000000000"),
            ("2013-01-02T13:23Z", "1357132980.000000000"),
            ("2013-01-02Z", "1357084800.000000000"),
            ("1357133017", "1357133017"),
            ("1357133017.5", "1357133017.5"),
            ("0", "0"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(parsed), "{text}");
        }
        let ago: i64 = parse("10m").unwrap().parse().unwrap();
        assert!((units::now() - 600 - ago).abs() <= 1);
        assert_eq!(parse("x").unwrap_err(), r#"failed to parse value as time or duration: "x""#);
    }
}
