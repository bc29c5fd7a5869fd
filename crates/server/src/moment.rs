//! Moments as users write them: `10m`, `2026-01-02`, `2026-01-02T15:04:05+02:00`, seconds since the epoch (moby's
//! `timestamp.GetTimestamp`).

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use wharf_dockerfile::duration;

use crate::http::ApiError;

/// The moment that a text means. A duration is so long ago; what has no time zone is of this host's.
///
/// # Errors
/// 400, in Go's words.
pub(crate) fn moment(text: &str) -> Result<Timestamp, ApiError> {
    moment_in(text, &TimeZone::system())
}

fn moment_in(text: &str, here: &TimeZone) -> Result<Timestamp, ApiError> {
    let out_of_range = || ApiError::bad(format!("failed to parse value as time or duration: {text:?}"));
    // "0" is the epoch.
    if let Some(ago) = duration::parse(text).filter(|_| text != "0") {
        return Timestamp::now().checked_sub(SignedDuration::from_nanos(ago)).map_err(|_| out_of_range());
    }
    match date(text, here) {
        Ok(time) => Ok(time),
        Err(why) if text.contains('-') => Err(ApiError::bad(why)),
        Err(_) => seconds(text).ok_or_else(out_of_range),
    }
}

/// What is left of a date's text.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    /// As Go writes the form that is expected.
    form: String,
}

impl<'a> Reader<'a> {
    /// `what` names it as Go's layouts do.
    fn fail<T>(&self, what: &str) -> Result<T, String> {
        let Self { text, rest, form } = self;
        Err(format!("parsing time {text:?} as {form:?}: cannot parse {rest:?} as {what:?}"))
    }

    fn number(&mut self, digits: usize, what: &str) -> Result<i16, String> {
        let found = self.rest.get(..digits).filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
        let Some(number) = found.and_then(|part| part.parse().ok()) else { return self.fail(what) };
        self.rest = &self.rest[digits..];
        Ok(number)
    }

    fn sign(&mut self, sign: &str) -> Result<(), String> {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => self.fail(sign),
        }
    }

    fn fraction(&mut self) -> i32 {
        let Some(rest) = self.rest.strip_prefix('.') else { return 0 };
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        self.rest = &rest[end..];
        let digits: String = rest[..end].chars().chain(std::iter::repeat('0')).take(9).collect();
        digits.parse().unwrap_or(0)
    }

    fn offset(&mut self) -> Result<Offset, String> {
        if let Some(rest) = self.rest.strip_prefix(['Z', 'z']) {
            self.rest = rest;
            return Ok(Offset::UTC);
        }
        let sign = match self.rest.bytes().next() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return self.fail("Z07:00"),
        };
        self.rest = &self.rest[1..];
        let hours = self.number(2, "Z07:00")?;
        self.sign(":")?;
        let minutes = self.number(2, "Z07:00")?;
        let seconds = sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60);
        Offset::from_seconds(seconds).or_else(|_| self.fail("Z07:00"))
    }
}

/// A date, with a time or without, as far as it goes.
fn date(text: &str, here: &TimeZone) -> Result<Timestamp, String> {
    let zoned = text.contains(['z', 'Z', '+']) || text.matches('-').count() == 3;
    let own = if zoned && !text.contains(['z', 'Z']) { 1 } else { 0 };
    let colons = text.matches(':').count().saturating_sub(own);
    let parts = match (text.contains('.'), text.contains('T')) {
        (true, _) => 3,
        (false, true) => colons.min(2) + 1,
        (false, false) => 0,
    };
    let mut form = ["2006-01-02", "2006-01-02T15", "2006-01-02T15:04", "2006-01-02T15:04:05"][parts].to_owned();
    if text.contains('.') {
        form.push_str(".999999999");
    }
    if zoned {
        form.push_str("Z07:00");
    }
    let mut reader = Reader { text, rest: text, form };
    let year = reader.number(4, "2006")?;
    reader.sign("-")?;
    let month = reader.number(2, "01")?;
    reader.sign("-")?;
    let day = reader.number(2, "02")?;
    let (mut clock, mut fraction) = ([0; 3], 0);
    for (at, (sign, what)) in [("T", "15"), (":", "04"), (":", "05")].into_iter().enumerate().take(parts) {
        reader.sign(sign)?;
        clock[at] = reader.number(2, what)?;
    }
    if parts == 3 {
        fraction = reader.fraction();
    }
    let offset = if zoned { Some(reader.offset()?) } else { None };
    if !reader.rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {:?}", reader.rest));
    }
    let beyond = |what: &str| format!("parsing time {text:?}: {what} out of range");
    let small = |number: i16| i8::try_from(number).unwrap_or(i8::MAX);
    if !(1..=12).contains(&month) {
        return Err(beyond("month"));
    }
    let date = Date::new(year, small(month), small(day)).map_err(|_| beyond("day"))?;
    for (number, most, what) in [(clock[0], 23, "hour"), (clock[1], 59, "minute"), (clock[2], 59, "second")] {
        if number > most {
            return Err(beyond(what));
        }
    }
    let [hour, minute, second] = clock.map(small);
    let time = Time::new(hour, minute, second, fraction).map_err(|_| beyond("second"))?;
    let zone = offset.map_or_else(|| here.clone(), Offset::to_time_zone);
    DateTime::from_parts(date, time).to_zoned(zone).map(|zoned| zoned.timestamp()).map_err(|_| beyond("year"))
}

fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(whole, nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        let here = TimeZone::fixed(Offset::from_seconds(2 * 3600).unwrap());
        moment_in(text, &here).map_or_else(|error| error.message, |time| time.to_string())
    }

    #[test]
    fn moments_in_all_forms() {
        for (text, wanted) in [
            ("1700000000.5", "2023-11-14T22:13:20.5Z"),
            ("0", "1970-01-01T00:00:00Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05.25z", "2026-01-02T03:04:05.25Z"),
            ("2026-01-02T03:04:05+05:30", "2026-01-01T21:34:05Z"),
            ("2026-01-02T03:04:05-05:00", "2026-01-02T08:04:05Z"),
            // Without a zone it is the host's.
            ("2026-01-02T03:04:05", "2026-01-02T01:04:05Z"),
            ("2026-01-02T03:04", "2026-01-02T01:04:00Z"),
            ("2026-01-02T03", "2026-01-02T01:00:00Z"),
            ("2026-01-02", "2026-01-01T22:00:00Z"),
            ("2026-01-02Z", "2026-01-02T00:00:00Z"),
            ("2026-01-02+01:00", "2026-01-01T23:00:00Z"),
            ("2026-01-02T15Z", "2026-01-02T15:00:00Z"),
            ("2026-01-02T15:04-01:00", "2026-01-02T16:04:00Z"),
        ] {
            assert_eq!(at(text), wanted, "{text}");
        }
        for (text, seconds) in [("1h30m", 5400), ("-1h", -3600), ("1.5m", 90), ("90s", 90), ("1h0.5m", 3630)] {
            let ago = Timestamp::now().as_second() - moment(text).unwrap().as_second();
            assert!((seconds - 1..=seconds + 2).contains(&ago), "{text}: {ago}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused_in_go_s_words() {
        for (text, wanted) in [
            ("soon", r#"failed to parse value as time or duration: "soon""#),
            ("", r#"failed to parse value as time or duration: """#),
            ("1x", r#"failed to parse value as time or duration: "1x""#),
            ("2020-13-01", r#"parsing time "2020-13-01": month out of range"#),
            ("2020-02-30", r#"parsing time "2020-02-30": day out of range"#),
            ("2020-02-03T24:00:00Z", r#"parsing time "2020-02-03T24:00:00Z": hour out of range"#),
            ("2020-1-01", r#"parsing time "2020-1-01" as "2006-01-02": cannot parse "1-01" as "01""#),
            ("-5", r#"parsing time "-5" as "2006-01-02": cannot parse "-5" as "2006""#),
            ("a-b", r#"parsing time "a-b" as "2006-01-02": cannot parse "a-b" as "2006""#),
            ("2020-01-01x", r#"parsing time "2020-01-01x": extra text: "x""#),
        ] {
            assert_eq!(at(text), wanted, "{text}");
        }
    }
}
